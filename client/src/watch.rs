//! Watching: every change of a namespace, in order, whatever happens to the nodes.
//!
//! The model: a watch has one stream open, to whichever node takes it, and a cursor behind the last
//! change that it handed out. When the stream breaks or falls silent it opens the next one, at
//! another node if it can, from its cursor on.
//!
//! Invariants:
//! - The cursor moves only over what was handed out, or what a node says holds nothing of interest;
//!   so nothing is missing and nothing comes twice.
//! - A node that does not remember far enough back ends the watch only if no other node that answers
//!   does remember.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tokio::time::Instant;
use tonic::Streaming;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{Answer, Attempt, Cause, Error, Header, Refusal, is_transport_error};
use crate::pool::Pool;
use crate::rpc;

/// How often an idle stream says how far it has come.
const PROGRESS: Duration = Duration::from_secs(1);
/// Silence after which a stream counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Pause after all endpoints have failed; doubles from round to round.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// What to watch. Start from [`WatchOptions::default`], which is everything in the namespace from
/// now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// The first revision of interest; none: from now on.
    pub from_revision: Option<u64>,
    /// A change is handed out if it passes one of these; empty: every change.
    pub filters: Vec<WatchFilter>,
}

/// Which changes are of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchFilter {
    /// Values of an object, or of all objects, whose names begin with a text; with an empty text
    /// also the creation of objects.
    State {
        /// None: all objects.
        object: Option<i64>,
        /// Empty: all names.
        name_prefix: String,
    },
    /// A master, or all of them.
    Master(Option<i64>),
    /// A change source, or all of them.
    ChangeSource(Option<i64>),
    /// A stored object, or all of them.
    StoredObject(Option<u64>),
    /// STM variables whose keys, as they are encoded, begin with these bytes; empty: all.
    Variable(Vec<u8>),
}

/// A change, and the revision that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Rises from change to change; several changes of one step share it.
    pub revision: u64,
    /// What changed.
    pub event: Event,
}

/// What something is from a revision on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is a new object.
    ObjectCreated {
        /// Its id.
        object: i64,
        /// Its name.
        name: String,
        /// Its class.
        class_name: String,
    },
    /// A value was written.
    StatePut {
        /// The object.
        object: i64,
        /// The value's name.
        name: String,
        /// The value, byte for byte as it was written.
        value: Vec<u8>,
    },
    /// A value was deleted.
    StateDeleted {
        /// The object.
        object: i64,
        /// The value's name.
        name: String,
    },
    /// Another caller has the right to create a value, from this revision on.
    CreatorChanged {
        /// The object.
        object: i64,
        /// The value's name.
        name: String,
        /// The caller's token; none if nobody has the right any more.
        token: Option<u64>,
    },
    /// A master is, from this revision on:
    Master {
        /// Its id.
        id: i64,
        /// Its name.
        name: String,
        /// Whether it is active.
        active: bool,
        /// Its lease, if it has one.
        lease: Option<u64>,
        /// How many change sources it owns.
        claims: u32,
    },
    /// A change source is, from this revision on:
    ChangeSource {
        /// Its id.
        id: i64,
        /// Its name.
        name: String,
        /// The owner's id and the token of the grant; none if nobody owns it.
        owner: Option<(i64, u64)>,
        /// The group it is in.
        group: Option<String>,
    },
    /// A stored object is, from this revision on:
    StoredObject {
        /// Its id.
        id: u64,
        /// Its class; empty if it was removed.
        class_name: String,
        /// The revision that made it visible, which may be one shortly before; none if it was removed.
        mod_revision: Option<u64>,
    },
    /// An STM variable is, from this revision on:
    Variable {
        /// Its key, as it is encoded.
        key: Vec<u8>,
        /// How often it has been written since it was created; none: it was deleted.
        version: Option<u64>,
    },
}

/// A watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    options: WatchOptions,
    /// Everything up to this revision was handed out or holds nothing of interest. None until the
    /// first stream has said where it begins.
    cursor: Option<u64>,
    /// Received and not yet handed out, all behind the cursor; and where the cursor goes when the
    /// last of them is.
    received: VecDeque<Change>,
    through: u64,
    stream: Option<Stream>,
    /// Where the last stream was, to try others first.
    last: Option<Arc<str>>,
}

#[derive(Debug)]
struct Stream {
    endpoint: Arc<Endpoint>,
    responses: Streaming<proto::WatchResponse>,
}

impl Watch {
    /// Opens the watch: when this returns, every change that is acknowledged from here on will be
    /// handed out.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub(crate) async fn open(client: Client, options: WatchOptions) -> Result<Watch, Error> {
        let cursor = options.from_revision.map(|from| from.saturating_sub(1));
        let mut watch = Watch {
            client,
            options,
            cursor,
            received: VecDeque::new(),
            through: cursor.unwrap_or(0),
            stream: None,
            last: None,
        };
        watch.connect().await?;
        Ok(watch)
    }

    /// Everything up to this revision was handed out: a watch that begins behind it goes on where
    /// this one is.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.cursor.unwrap_or(0)
    }

    /// The next change; waits for as long as there is none. Safe to drop and call again: nothing is
    /// lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could be reached for as long as a call of this client may
    /// take; calling again goes on from where it was. [`Error::Refused`] with reason `COMPACTED` if
    /// no node remembers far enough back: read the state, and watch from there.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.received.pop_front() {
                let is_last_of_revision =
                    self.received.front().is_none_or(|next| next.revision > change.revision);
                if self.received.is_empty() {
                    self.cursor = Some(self.through);
                } else if is_last_of_revision {
                    self.cursor = Some(change.revision);
                }
                return Ok(change);
            }
            let Some(stream) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, stream.responses.message()).await {
                Ok(Ok(Some(response))) => self.take_in(response),
                // The node stops, or cut off a slow reader; or it has become silent.
                Ok(Ok(None) | Err(_)) | Err(_) => self.break_off(),
            }
        }
    }

    fn take_in(&mut self, response: proto::WatchResponse) {
        let through = response.header.as_ref().map_or(self.through, |header| header.revision);
        self.through = self.through.max(through);
        self.received.extend(response.events.into_iter().filter_map(change));
        if self.received.is_empty() {
            self.cursor = Some(self.through);
        }
    }

    fn break_off(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.last = Some(stream.endpoint.address().clone());
        }
    }

    /// Opens a stream at any node, from the cursor on.
    async fn connect(&mut self) -> Result<(), Error> {
        let pool = self.client.pool();
        let started = Instant::now();
        let deadline = started + self.client.call_timeout();
        let mut attempts = BTreeMap::new();
        let mut pause = PAUSE_FIRST;
        if let Some(faults) = pool.faults() {
            for (endpoint, message) in faults {
                note(&mut attempts, &endpoint, None, message);
            }
            return Err(unavailable(started, attempts));
        }
        loop {
            // A node that refuses for its lack of memory, when all others have been asked.
            let mut refused = None;
            let mut others_may_answer = false;
            for endpoint in self.in_order(&pool) {
                match tokio::time::timeout_at(deadline, self.open_at(&pool, &endpoint)).await {
                    Err(_) => {
                        note(&mut attempts, endpoint.address(), None, "no answer".to_owned());
                        return Err(unavailable(started, attempts));
                    }
                    Ok(Ok(responses)) => {
                        endpoint.mark_good();
                        self.stream = Some(Stream { endpoint, responses });
                        return Ok(());
                    }
                    Ok(Err(Answer::Refused(refusal))) => {
                        let is_about_node = matches!(
                            refusal.reason.as_str(),
                            "COMPACTED" | "TOO_MANY_WATCHES" | "UNIMPLEMENTED"
                        );
                        if !is_about_node {
                            return Err(refusal.into_error());
                        }
                        let reason = Some(refusal.reason.clone());
                        note(&mut attempts, endpoint.address(), reason, refusal.message.clone());
                        refused = Some(refusal);
                    }
                    Ok(Err(Answer::Elsewhere { reason, message, .. })) => {
                        others_may_answer = true;
                        note(&mut attempts, endpoint.address(), Some(reason), message);
                    }
                    Ok(Err(Answer::Unknown { reason, message, .. })) => {
                        endpoint.mark_bad();
                        note(&mut attempts, endpoint.address(), reason, message);
                    }
                    Ok(Err(Answer::NotSent { message })) => {
                        endpoint.mark_bad();
                        note(&mut attempts, endpoint.address(), None, message);
                    }
                }
            }
            if let Some(refusal) = refused
                && !others_may_answer
            {
                return Err(Refusal::into_error(refusal));
            }
            let pausing = pause.mul_f64(rand::random_range(0.5..1.0));
            if Instant::now() + pausing >= deadline {
                return Err(unavailable(started, attempts));
            }
            tokio::time::sleep(pausing).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// All endpoints, in no order, so that watches spread over the nodes; those that failed lately
    /// behind the others, the one that has just failed last of all.
    fn in_order(&self, pool: &Pool) -> Vec<Arc<Endpoint>> {
        let mut endpoints = pool.in_order();
        endpoints.sort_by_cached_key(|endpoint| {
            let has_failed = self.last.as_ref() == Some(endpoint.address());
            (has_failed, endpoint.is_avoided(), rand::random::<u32>())
        });
        endpoints
    }

    /// Opens a stream at one node, and waits until it says where it begins.
    async fn open_at(
        &mut self,
        pool: &Pool,
        endpoint: &Endpoint,
    ) -> Result<Streaming<proto::WatchResponse>, Answer> {
        let connection = endpoint
            .connection()
            .await
            .map_err(|message| Answer::NotSent { message: message.to_string() })?;
        let request = proto::WatchRequest {
            namespace: self.client.namespace().to_owned(),
            from_revision: self.cursor.map_or(0, |cursor| cursor + 1),
            filters: self.options.filters.iter().map(filter).collect(),
            progress_ms: u32::try_from(PROGRESS.as_millis()).unwrap_or(0),
        };
        let opened = async {
            let mut client = rpc::watch(connection.channel.clone());
            let mut responses = client.watch(request).await?.into_inner();
            let first = responses.message().await?;
            Ok((responses, first))
        };
        let silent = Err(tonic::Status::deadline_exceeded("no answer"));
        let opened = tokio::time::timeout(SILENCE_MAX, opened).await.unwrap_or(silent);
        let (responses, first) = opened.map_err(|status| {
            if is_transport_error(&status) {
                endpoint.forget(&connection);
            }
            Answer::from_status(&status)
        })?;
        let first = first.unwrap_or_default();
        let header = first.header.as_ref().map(Header::from).unwrap_or_default();
        pool.observe(endpoint, &header, false).map_err(|message| Answer::Unknown {
            reason: None,
            message,
            header: None,
        })?;
        // What a watch from now on begins with. Afterwards it is the node that says again what we
        // have asked for.
        self.cursor.get_or_insert(header.revision);
        self.through = self.through.max(self.cursor.unwrap_or(0));
        Ok(responses)
    }
}

fn note(
    attempts: &mut BTreeMap<Arc<str>, Attempt>,
    address: &Arc<str>,
    reason: Option<String>,
    message: String,
) {
    let attempt = Attempt { endpoint: address.to_string(), reason, message };
    attempts.insert(address.clone(), attempt);
}

fn unavailable(started: Instant, attempts: BTreeMap<Arc<str>, Attempt>) -> Error {
    let seconds = started.elapsed().as_secs_f64();
    let summary = format!("watch.watch got no answer within {seconds:.1} s");
    let cause = Cause { summary, attempts: attempts.into_values().collect() };
    Error::Unavailable { cause, header: None }
}

fn filter(filter: &WatchFilter) -> proto::WatchFilter {
    use proto::watch_filter::What;
    let what = match filter {
        WatchFilter::State { object, name_prefix } => What::State(proto::StateFilter {
            object_id: object.unwrap_or(0),
            name_prefix: name_prefix.clone(),
        }),
        WatchFilter::Master(id) => {
            What::Masters(proto::MasterFilter { master_id: id.unwrap_or(0) })
        }
        WatchFilter::ChangeSource(id) => {
            What::Changesources(proto::ChangeSourceFilter { changesource_id: id.unwrap_or(0) })
        }
        WatchFilter::StoredObject(id) => {
            What::StoredObjects(proto::StoredObjectFilter { object_id: id.unwrap_or(0) })
        }
        WatchFilter::Variable(key_prefix) => {
            What::Variables(proto::VariableFilter { key_prefix: key_prefix.clone() })
        }
    };
    proto::WatchFilter { what: Some(what) }
}

/// None for an event of a kind that this release does not know.
fn change(event: proto::WatchEvent) -> Option<Change> {
    use proto::watch_event::Event as Wire;
    let revision = event.revision;
    let event = match event.event? {
        Wire::ObjectCreated(proto::ObjectCreated { object_id: object, name, class_name }) => {
            Event::ObjectCreated { object, name, class_name }
        }
        Wire::StatePut(proto::StatePut { object_id: object, name, value }) => {
            Event::StatePut { object, name, value }
        }
        Wire::StateDeleted(proto::StateDeleted { object_id: object, name }) => {
            Event::StateDeleted { object, name }
        }
        Wire::CreatorChanged(proto::CreatorChanged { object_id: object, name, token }) => {
            Event::CreatorChanged { object, name, token: (token != 0).then_some(token) }
        }
        Wire::MasterChanged(master) => {
            let proto::MasterChanged { master_id: id, name, active, lease_id, claims } = master;
            Event::Master { id, name, active, lease: (lease_id != 0).then_some(lease_id), claims }
        }
        Wire::ChangesourceChanged(source) => {
            let proto::ChangeSourceChanged { changesource_id: id, name, master_id, token, group } =
                source;
            let owner = (token != 0).then_some((master_id, token));
            Event::ChangeSource { id, name, owner, group: Some(group).filter(|g| !g.is_empty()) }
        }
        Wire::StoredObjectChanged(object) => {
            let proto::StoredObjectChanged { object_id: id, class_name, mod_revision } = object;
            let mod_revision = (mod_revision != 0).then_some(mod_revision);
            Event::StoredObject { id, class_name, mod_revision }
        }
        Wire::VariableChanged(proto::VariableChanged { key, version }) => {
            Event::Variable { key, version: (version != 0).then_some(version) }
        }
    };
    Some(Change { revision, event })
}
