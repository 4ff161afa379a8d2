//! Rows on their way from cluster to cluster: `State.Export` and `State.Import`.
//!
//! An export reads one state, whose clone costs nothing, page by page. A task of its own hands over to
//! the connection; it gives up when the reader leaves a response lying, so that no reader keeps an old
//! state for ever.

use std::sync::Arc;
use std::time::Duration;

use holdfast_machine::import::Row;
use holdfast_machine::{Fault, State, changesources, masters, state};
use holdfast_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Calls;
use crate::node::Node;
use crate::runtime;

/// How long a reader may leave a response lying before it is cut off.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// Size at which a response is closed, in bytes of names and values; one row more may be in it.
const RESPONSE_BYTES: usize = 256 << 10;

/// The responses of one export.
pub(super) type Responses = ReceiverStream<Result<v1::ExportResponse, Status>>;

impl Calls {
    /// Streams the rows of a namespace as they are in this state.
    pub(super) fn export(&self, state: State, namespace: String) -> Responses {
        // The second place is for the last word of a reader that is cut off.
        let (responses, taken) = mpsc::channel(2);
        let node = Arc::clone(&self.0);
        runtime::spawn(async move {
            let header = node.header_of(&state);
            let mut feed = Feed { node: &node, header, responses, rows: Vec::new(), bytes: 0 };
            // Cut off or gone; either way there is nothing more to send.
            let _ended = feed.run(&state, &namespace).await;
        });
        ReceiverStream::new(taken)
    }
}

/// What one stream is fed from.
struct Feed<'a> {
    node: &'a Node,
    header: v1::ResponseHeader,
    responses: mpsc::Sender<Result<v1::ExportResponse, Status>>,
    /// The rows of the next response, and how many bytes they take.
    rows: Vec<v1::Row>,
    bytes: usize,
}

/// The stream has ended early.
struct Ended;

impl Feed<'_> {
    async fn run(&mut self, state: &State, namespace: &str) -> Result<(), Ended> {
        for master in self.read(masters::list(state, namespace)).await? {
            let masters::Master { id, name, last_active_ms, .. } = master;
            self.add(Row::Master { id, name, last_active_ms }).await?;
        }
        for source in self.read(changesources::list(state, namespace, None, None)).await? {
            let changesources::ChangeSource { id, name, group, .. } = source;
            self.add(Row::ChangeSource { id, name, group }).await?;
        }
        let mut after = 0;
        loop {
            let page = self.read(state::list_objects(state, namespace, after, 0)).await?;
            for state::Object { id, name, class_name } in page.items {
                after = id;
                self.add(Row::Object { id, name, class_name }).await?;
                self.add_items(state, namespace, id).await?;
            }
            if !page.more {
                return self.send(true).await;
            }
        }
    }

    async fn add_items(&mut self, state: &State, namespace: &str, id: i64) -> Result<(), Ended> {
        let mut after = String::new();
        loop {
            let page = self.read(state::list(state, namespace, id, &after, 0)).await?;
            // An object of this very state.
            let Some(page) = page else { return Ok(()) };
            for state::Listed { name, value, .. } in page.items {
                after.clone_from(&name);
                self.add(Row::Item { object: id, name, value: value.into() }).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn read<T>(&self, result: Result<T, Fault>) -> Result<T, Ended> {
        match result {
            Ok(read) => Ok(read),
            Err(fault) => {
                self.node.stop_for(format!("read the state: {fault}"));
                // Gone with the node, or with the reader.
                let _ = self.responses.send(Err(Status::internal(fault.to_string()))).await;
                Err(Ended)
            }
        }
    }

    async fn add(&mut self, row: Row) -> Result<(), Ended> {
        let row = to_wire(row);
        self.bytes += prost::Message::encoded_len(&row);
        self.rows.push(row);
        if self.bytes >= RESPONSE_BYTES { self.send(false).await } else { Ok(()) }
    }

    async fn send(&mut self, is_last: bool) -> Result<(), Ended> {
        let (header, rows) = (Some(self.header.clone()), std::mem::take(&mut self.rows));
        self.bytes = 0;
        let response = v1::ExportResponse { header, rows, is_last };
        let deadline = runtime::now() + UNREAD_MAX;
        // Two places and one of them always free: the other one waits for the reader.
        let place = runtime::until(deadline, self.responses.reserve_many(2)).await;
        match place {
            Some(Ok(mut places)) => {
                if let Some(place) = places.next() {
                    place.send(Ok(response));
                }
                Ok(())
            }
            Some(Err(_)) => Err(Ended),
            None => {
                // Gone, or it finds this behind what is already on its way.
                let _ = self.responses.try_send(Err(self.node.export_cut_off()));
                Err(Ended)
            }
        }
    }
}

fn to_wire(row: Row) -> v1::Row {
    use v1::row::Row as Wire;
    let row = match row {
        Row::Master { id, name, last_active_ms } => {
            Wire::Master(v1::MasterRow { master_id: id, name, last_active_ms })
        }
        Row::ChangeSource { id, name, group } => {
            Wire::Changesource(v1::ChangeSourceRow { changesource_id: id, name, group })
        }
        Row::Object { id, name, class_name } => {
            Wire::Object(v1::ObjectItem { object_id: id, name, class_name })
        }
        Row::Item { object, name, value } => {
            Wire::State(v1::StateRow { object_id: object, name, value: value.to_vec() })
        }
    };
    v1::Row { row: Some(row) }
}

/// None for a row that says nothing.
pub(super) fn from_wire(row: v1::Row) -> Option<Row> {
    use v1::row::Row as Wire;
    Some(match row.row? {
        Wire::Master(v1::MasterRow { master_id: id, name, last_active_ms }) => {
            Row::Master { id, name, last_active_ms }
        }
        Wire::Changesource(v1::ChangeSourceRow { changesource_id: id, name, group }) => {
            Row::ChangeSource { id, name, group }
        }
        Wire::Object(v1::ObjectItem { object_id: id, name, class_name }) => {
            Row::Object { id, name, class_name }
        }
        Wire::State(v1::StateRow { object_id: object, name, value }) => {
            Row::Item { object, name, value: value.into() }
        }
    })
}
