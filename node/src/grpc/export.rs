//! Rows on their way from cluster to cluster: `State.Export` and `State.Import`.
//!
//! An export reads one state page by page; see [`super::feed`].

use holdfast_machine::import::Row;
use holdfast_machine::{State, changesources, masters, state};
use holdfast_proto::v1;

use super::Calls;
use super::feed::{self, Ended, Feed, RESPONSE_BYTES};

/// The responses of one export.
pub(super) type Responses = feed::Responses<v1::ExportResponse>;

impl Calls {
    /// Streams the rows of a namespace as they are in this state.
    pub(super) fn export(&self, state: State, namespace: String) -> Responses {
        feed::stream(&self.0, "export", |feed| async move {
            let header = feed.header_of(&state);
            let mut export = Export { feed, header, rows: Vec::new(), bytes: 0 };
            export.run(&state, &namespace).await
        })
    }
}

/// An export on its way.
struct Export {
    feed: Feed<v1::ExportResponse>,
    header: v1::ResponseHeader,
    /// The rows of the next response, and how many bytes they take.
    rows: Vec<v1::Row>,
    bytes: usize,
}

impl Export {
    async fn run(&mut self, state: &State, namespace: &str) -> Result<(), Ended> {
        for master in self.feed.read(masters::list(state, namespace)).await? {
            let masters::Master { id, name, last_active_ms, .. } = master;
            self.add(Row::Master { id, name, last_active_ms }).await?;
        }
        for source in self.feed.read(changesources::list(state, namespace, None, None)).await? {
            let changesources::ChangeSource { id, name, group, .. } = source;
            self.add(Row::ChangeSource { id, name, group }).await?;
        }
        let mut after = 0;
        loop {
            let page = self.feed.read(state::list_objects(state, namespace, after, 0)).await?;
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
            let page = self.feed.read(state::list(state, namespace, id, &after, 0)).await?;
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

    async fn add(&mut self, row: Row) -> Result<(), Ended> {
        let row = to_wire(row);
        self.bytes += prost::Message::encoded_len(&row);
        self.rows.push(row);
        if self.bytes >= RESPONSE_BYTES { self.send(false).await } else { Ok(()) }
    }

    async fn send(&mut self, is_last: bool) -> Result<(), Ended> {
        let (header, rows) = (Some(self.header.clone()), std::mem::take(&mut self.rows));
        self.bytes = 0;
        self.feed.send(v1::ExportResponse { header, rows, is_last }).await
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
