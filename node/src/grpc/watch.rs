//! The service `Watch`.
//!
//! Each stream has a task that reads from a [`Watch`] and hands over to the connection. If the
//! reader does not take what is there, the task gives up after a while and leaves a last word, which
//! the reader finds behind what is already on its way. So a reader that stops reading costs the node
//! one response and a stream's window, and for a bounded time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use holdfast_machine::{Event, Fault, changesources, masters, objects, state, stm};
use holdfast_proto::v1;
use holdfast_proto::v1::watch_server::Watch as Service;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};

use super::status::WatchEnded;
use super::{Calls, namespace};
use crate::node::Node;
use crate::runtime;
use crate::watch::{Step, Watch};

/// Watches on one connection at most.
const WATCHES_PER_CONNECTION_MAX: usize = 1024;
/// How long a reader may leave a response lying before it is cut off.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// How long a stream is idle before it says how far it has come, unless the reader says.
const PROGRESS_DEFAULT: Duration = Duration::from_secs(5);
/// The shortest such time, in milliseconds.
const PROGRESS_MS_MIN: u32 = 100;
/// For how long a node that hears of no leader goes on as if it knew all there is.
const OUT_OF_TOUCH_MAX: Duration = Duration::from_secs(3);
/// Filters of one watch at most.
const FILTERS_MAX: usize = 64;

/// The service, with what it counts.
#[derive(Clone)]
pub(super) struct Watches {
    calls: Calls,
    /// How many watches each connection has.
    open: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

impl Watches {
    pub(super) fn new(calls: Calls) -> Watches {
        Watches { calls, open: Arc::default() }
    }

    fn admit(&self, connection: SocketAddr) -> Result<Admitted, usize> {
        let mut open = self.open.lock().expect("no code panics while it holds this lock");
        let count = open.entry(connection).or_default();
        if *count >= WATCHES_PER_CONNECTION_MAX {
            return Err(*count);
        }
        *count += 1;
        Ok(Admitted { open: Arc::clone(&self.open), connection })
    }
}

/// A watch's place among those of its connection, until it is dropped.
struct Admitted {
    open: Arc<Mutex<HashMap<SocketAddr, usize>>>,
    connection: SocketAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.open.lock().expect("no code panics while it holds this lock");
        if let Some(count) = open.get_mut(&self.connection) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.connection);
            }
        }
    }
}

#[tonic::async_trait]
impl Service for Watches {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Responses>, Status> {
        let connection = request.extensions().get::<TcpConnectInfo>();
        let connection = connection.and_then(TcpConnectInfo::remote_addr);
        let (metadata, _, request) = request.into_parts();
        let node = &self.calls.0;
        let filter = Filter::read(request.namespace, request.filters)
            .map_err(|message| node.bad_request(message))?;
        let progress = match request.progress_ms {
            0 => PROGRESS_DEFAULT,
            ms if ms < PROGRESS_MS_MIN => {
                let message = format!("progress_ms is {ms}, and at least {PROGRESS_MS_MIN}");
                return Err(node.bad_request(message));
            }
            ms => Duration::from_millis(ms.into()),
        };
        if !node.is_in_touch(OUT_OF_TOUCH_MAX) {
            return Err(node.watch_ended(WatchEnded::OutOfTouch));
        }
        let admitted = connection.map(|connection| self.admit(connection)).transpose();
        let admitted = admitted.map_err(|actual| {
            node.watch_ended(WatchEnded::TooMany { actual, allowed: WATCHES_PER_CONNECTION_MAX })
        })?;
        let cursor = match request.from_revision {
            0 => self.calls.read(&metadata, None).await?.header().revision,
            from => from - 1,
        };
        // Before the first response: then whoever asks can tell at once, and ask another node.
        node.applied
            .changes_behind(cursor, 0)
            .map_err(|oldest| node.watch_ended(WatchEnded::Compacted { oldest }))?;
        let (responses, taken) = mpsc::channel(1);
        let (last_word, ending) = oneshot::channel();
        let feed = Feed { node: Arc::clone(node), filter, progress, responses };
        runtime::spawn(async move {
            let watch = Watch::new(&feed.node.applied, cursor);
            let ended = feed.run(watch).await;
            let _admitted = admitted;
            if let Some(ended) = ended {
                // Gone with its stream: nobody is there to read it.
                let _ = last_word.send(feed.node.watch_ended(ended));
            }
        });
        Ok(Response::new(Responses { taken, ending: Some(ending) }))
    }
}

/// What one stream is fed from.
struct Feed {
    node: Arc<Node>,
    filter: Filter,
    progress: Duration,
    responses: mpsc::Sender<v1::WatchResponse>,
}

impl Feed {
    /// Runs until the stream ends; says why, if it was not the reader that ended it.
    async fn run(&self, mut watch: Watch) -> Option<WatchEnded> {
        let mut sent = watch.cursor();
        // The first one says where the stream begins.
        let mut events = Vec::new();
        loop {
            let through = watch.cursor();
            let response = v1::WatchResponse { header: Some(self.node.header(through)), events };
            let deadline = runtime::now() + UNREAD_MAX;
            match runtime::until(deadline, self.responses.send(response)).await {
                Some(Ok(())) => sent = through,
                Some(Err(_)) => return None,
                None => return Some(WatchEnded::SlowReader { last: sent }),
            }
            events = match self.gather(&mut watch).await? {
                Ok(events) => events,
                Err(ended) => return Some(ended),
            };
        }
    }

    /// The next events that pass; none when it is time for a sign of progress. None if the reader
    /// has gone.
    async fn gather(&self, watch: &mut Watch) -> Option<Result<Vec<v1::WatchEvent>, WatchEnded>> {
        let begin = runtime::now();
        loop {
            let idle = self.progress.saturating_sub(begin.elapsed());
            let step = tokio::select! {
                step = watch.next(idle) => step,
                () = self.responses.closed() => return None,
            };
            let run = match step {
                Step::Idle if !self.node.is_in_touch(OUT_OF_TOUCH_MAX) => {
                    return Some(Err(WatchEnded::OutOfTouch));
                }
                Step::Idle => return Some(Ok(Vec::new())),
                Step::Compacted { oldest } => {
                    return Some(Err(WatchEnded::Compacted { oldest }));
                }
                Step::Stopping => return Some(Err(WatchEnded::Stopping)),
                Step::Changes(run) => run,
            };
            let mut passed = Vec::new();
            for revision in &run.revisions {
                let events = match revision.events() {
                    Ok(events) => events,
                    Err(fault) => return Some(Err(self.damaged(&fault))),
                };
                let events = events.iter().filter(|event| self.filter.passes(event));
                passed.extend(events.map(|event| to_wire(revision.number, event)));
            }
            if !passed.is_empty() {
                return Some(Ok(passed));
            }
        }
    }

    fn damaged(&self, fault: &Fault) -> WatchEnded {
        self.node.stop_for(format!("read a change: {fault}"));
        WatchEnded::Stopping
    }
}

/// A stream's responses, and behind them the last word of its feed.
pub(super) struct Responses {
    taken: mpsc::Receiver<v1::WatchResponse>,
    ending: Option<oneshot::Receiver<Status>>,
}

impl Stream for Responses {
    type Item = Result<v1::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.taken.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(response)) => return Poll::Ready(Some(Ok(response))),
            Poll::Ready(None) => {}
        }
        let Some(ending) = self.ending.as_mut() else { return Poll::Ready(None) };
        let last_word = std::task::ready!(Pin::new(ending).poll(context));
        self.ending = None;
        Poll::Ready(last_word.ok().map(Err))
    }
}

/// Which events a watch is about.
struct Filter {
    namespace: String,
    any: Vec<v1::watch_filter::What>,
}

impl Filter {
    fn read(namespace_: String, filters: Vec<v1::WatchFilter>) -> Result<Filter, String> {
        if filters.len() > FILTERS_MAX {
            return Err(format!("{} filters, and at most {FILTERS_MAX}", filters.len()));
        }
        let missing = || "filters: one of them says nothing".to_owned();
        let any = filters.into_iter().map(|filter| filter.what.ok_or_else(missing));
        Ok(Filter { namespace: namespace(namespace_), any: any.collect::<Result<_, _>>()? })
    }

    fn passes(&self, event: &Event) -> bool {
        use v1::watch_filter::What;
        let is = |wanted: i64, id: i64| wanted == 0 || wanted == id;
        let passes = |what: &What| match (what, event) {
            (What::State(filter), Event::State(event)) => {
                let (object, name) = match event {
                    state::Event::ObjectCreated { object, .. } => (*object, ""),
                    state::Event::Put { object, name, .. }
                    | state::Event::Deleted { object, name, .. }
                    | state::Event::CreatorChanged { object, name, .. } => (*object, name.as_str()),
                };
                is(filter.object_id, object) && name.starts_with(&filter.name_prefix)
            }
            (What::Masters(filter), Event::Master(event)) => is(filter.master_id, event.id),
            (What::Changesources(filter), Event::ChangeSource(event)) => {
                is(filter.changesource_id, event.id)
            }
            (What::StoredObjects(filter), Event::StoredObject(event)) => {
                let (objects::Event::Saved { id, .. } | objects::Event::Removed { id, .. }) = event;
                filter.object_id == 0 || filter.object_id == *id
            }
            (What::Variables(filter), Event::Variable(event)) => {
                event.key.starts_with(&filter.key_prefix)
            }
            (
                What::State(_)
                | What::Masters(_)
                | What::Changesources(_)
                | What::StoredObjects(_)
                | What::Variables(_),
                _,
            ) => false,
        };
        event.namespace() == self.namespace && (self.any.is_empty() || self.any.iter().any(passes))
    }
}

fn to_wire(revision: u64, event: &Event) -> v1::WatchEvent {
    use v1::watch_event::Event as Wire;
    let event = match event.clone() {
        Event::State(state::Event::ObjectCreated { object, name, class_name, .. }) => {
            Wire::ObjectCreated(v1::ObjectCreated { object_id: object, name, class_name })
        }
        Event::State(state::Event::Put { object, name, value, .. }) => {
            Wire::StatePut(v1::StatePut { object_id: object, name, value: value.to_vec() })
        }
        Event::State(state::Event::Deleted { object, name, .. }) => {
            Wire::StateDeleted(v1::StateDeleted { object_id: object, name })
        }
        Event::State(state::Event::CreatorChanged { object, name, token, .. }) => {
            let token = token.unwrap_or(0);
            Wire::CreatorChanged(v1::CreatorChanged { object_id: object, name, token })
        }
        Event::Master(masters::Event { id, name, active, lease, claims, .. }) => {
            let lease_id = lease.unwrap_or(0);
            Wire::MasterChanged(v1::MasterChanged { master_id: id, name, active, lease_id, claims })
        }
        Event::ChangeSource(changesources::Event { id, name, owner, group, .. }) => {
            let (master_id, token) = owner.unwrap_or((0, 0));
            Wire::ChangesourceChanged(v1::ChangeSourceChanged {
                changesource_id: id,
                name,
                master_id,
                token,
                group: group.unwrap_or_default(),
            })
        }
        Event::StoredObject(objects::Event::Saved { id, class_name, mod_revision, .. }) => {
            let object_id = id;
            Wire::StoredObjectChanged(v1::StoredObjectChanged {
                object_id,
                class_name,
                mod_revision,
            })
        }
        Event::StoredObject(objects::Event::Removed { id, .. }) => {
            let (object_id, class_name, mod_revision) = (id, String::new(), 0);
            Wire::StoredObjectChanged(v1::StoredObjectChanged {
                object_id,
                class_name,
                mod_revision,
            })
        }
        Event::Variable(stm::Event { key, version, .. }) => {
            Wire::VariableChanged(v1::VariableChanged { key, version })
        }
    };
    v1::WatchEvent { revision, event: Some(event) }
}
