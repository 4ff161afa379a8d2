//! Rows on their way from one cluster to another, with their ids.
//!
//! An export is a stream of rows as they were at one revision. It does not go on at another node when it
//! breaks: another one is at another revision. An import takes rows in under the ids that they have; it can
//! be repeated.

use holdfast_proto::v1 as proto;

use crate::client::Client;
use crate::error::{Error, Header};
use crate::rpc::Write;
use crate::stream::Parts;

/// A row as it is moved from cluster to cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A master; it comes in inactive.
    Master {
        /// 1 to 2^53, as all ids here.
        id: i64,
        /// Its name, unique within the namespace.
        name: String,
        /// When it was last heard of: wall clock, in milliseconds since 1970. For display.
        last_active_ms: u64,
    },
    /// A change source; it comes in unowned.
    ChangeSource {
        /// Its id.
        id: i64,
        /// Its name, unique within the namespace.
        name: String,
        /// The group it is in.
        group: Option<String>,
    },
    /// An object; it comes before its values.
    Object {
        /// Its id.
        id: i64,
        /// Its name, unique within its class.
        name: String,
        /// Its class.
        class_name: String,
    },
    /// A value of an object.
    Value {
        /// The object.
        object: i64,
        /// The value's name.
        name: String,
        /// The bytes as they were written.
        bytes: Vec<u8>,
    },
}

/// All rows of a namespace, at one revision. Dropping it ends it.
#[derive(Debug)]
pub struct Export {
    parts: Parts<proto::ExportResponse>,
}

impl Export {
    pub(crate) async fn open(client: &Client) -> Result<Export, Error> {
        let namespace = client.namespace().to_owned();
        let opened = client.read(proto::ExportRequest { read: None, namespace }).await?;
        Ok(Export { parts: Parts::new("the export", opened) })
    }

    /// The cluster that the rows come from, and the revision that they are of.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.parts.header()
    }

    /// The next rows; none when there are no more. All together they are complete.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the stream broke; [`Error::Refused`] with reason `SLOW_READER` if it was
    /// not read for 10 s. Either way the rows are to be read anew.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, Error> {
        let part = self.parts.next().await?;
        Ok(part.map(|part| part.rows.into_iter().filter_map(from_wire).collect()))
    }
}

/// Takes rows in; says how many were not there yet.
pub(crate) async fn import(client: &Client, rows: Vec<Row>) -> Result<u64, Error> {
    let request = proto::ImportRequest {
        context: None,
        namespace: client.namespace().to_owned(),
        rows: rows.into_iter().map(to_wire).collect(),
    };
    Ok(client.write(request).await?.written)
}

impl Write for proto::ImportRequest {
    fn set_context(&mut self, context: proto::WriteContext) {
        self.context = Some(context);
    }
}

fn to_wire(row: Row) -> proto::Row {
    use proto::row::Row as Wire;
    let row = match row {
        Row::Master { id, name, last_active_ms } => {
            Wire::Master(proto::MasterRow { master_id: id, name, last_active_ms })
        }
        Row::ChangeSource { id, name, group } => {
            Wire::Changesource(proto::ChangeSourceRow { changesource_id: id, name, group })
        }
        Row::Object { id, name, class_name } => {
            Wire::Object(proto::ObjectItem { object_id: id, name, class_name })
        }
        Row::Value { object, name, bytes } => {
            Wire::State(proto::StateRow { object_id: object, name, value: bytes })
        }
    };
    proto::Row { row: Some(row) }
}

/// None for a row of a kind that this release does not know.
fn from_wire(row: proto::Row) -> Option<Row> {
    use proto::row::Row as Wire;
    Some(match row.row? {
        Wire::Master(proto::MasterRow { master_id: id, name, last_active_ms }) => {
            Row::Master { id, name, last_active_ms }
        }
        Wire::Changesource(proto::ChangeSourceRow { changesource_id: id, name, group }) => {
            Row::ChangeSource { id, name, group }
        }
        Wire::Object(proto::ObjectItem { object_id: id, name, class_name }) => {
            Row::Object { id, name, class_name }
        }
        Wire::State(proto::StateRow { object_id: object, name, value: bytes }) => {
            Row::Value { object, name, bytes }
        }
    })
}
