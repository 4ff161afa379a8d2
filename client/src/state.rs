//! Object state: key/value pairs of named objects.
//!
//! Objects are named by `(name, class)`; values are bytes to the cluster, and JSON texts by
//! agreement among Buildbot's masters. Each key has the revision that wrote it last.
//!
//! Values and names are limited by the cluster (1 MiB and 1 KiB); only the size of a value is
//! checked here as well, since one that is far too large would not even reach the node's check.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tonic::Code;

use crate::change_sources::Fence;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Cause, Error};
use crate::exclusive::{self, Creator, ExclusiveError, ExclusiveOptions};
use crate::transfer::{self, Export, Row};

/// Longest value, in bytes (1 MiB).
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Pause after a lost comparison in [`State::update`], doubled up to 64 times this.
const UPDATE_PAUSE_FIRST: Duration = Duration::from_micros(500);

/// Object state, in the namespace of the client it came from.
#[derive(Debug, Clone)]
pub struct State {
    client: Client,
}

/// A value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes as they were written.
    pub bytes: Vec<u8>,
    /// The revision that wrote them; what [`State::set_if`] compares with.
    pub mod_revision: u64,
    /// The revision at which this is the key's value.
    pub revision: u64,
}

/// What became of a write that overwrites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whether the value given is the one that stands. False: a racing write of another session
    /// was applied first, or the comparison failed; nothing changed.
    pub written: bool,
    /// The value that stands, if `written` is false; none if the key is absent.
    pub value: Option<Vec<u8>>,
    /// The revision of the value that stands; 0 if the key is absent.
    pub mod_revision: u64,
    /// The revision at which this was decided.
    pub revision: u64,
}

/// What became of a write that creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Whether this call created the value; true for exactly one caller.
    pub created: bool,
    /// The value that stands, whoever wrote it.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub mod_revision: u64,
    /// The revision at which this was decided.
    pub revision: u64,
}

/// One key of an object, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateItem {
    /// The key's name.
    pub name: String,
    /// The bytes as they were written.
    pub bytes: Vec<u8>,
    /// The revision that wrote them.
    pub mod_revision: u64,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Positive and never reused.
    pub id: i64,
    /// Its name, unique within its class.
    pub name: String,
    /// Its class.
    pub class_name: String,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most 1000 items, in order.
    pub items: Vec<T>,
    /// Whether there are more behind the last item.
    pub more: bool,
    /// The revision at which this page is true.
    pub revision: u64,
}

impl State {
    pub(crate) fn new(client: Client) -> State {
        State { client }
    }

    /// The id of an object; creates the object if there is none. The same pair of names always
    /// gives the same id.
    ///
    /// # Errors
    /// Those of a write; refused as `NAME_EMPTY` or `NAME_TOO_LONG` if a name is not 1 to 1024
    /// bytes long.
    pub async fn get_object_id(&self, name: &str, class_name: &str) -> Result<i64, Error> {
        let request = self.object_request(name, class_name, false);
        Ok(self.client.write(request).await?.object_id)
    }

    /// The id of an object, none if there is no such object. Linearizable; creates nothing.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn find_object_id(&self, name: &str, class_name: &str) -> Result<Option<i64>, Error> {
        match self.client.read(self.object_request(name, class_name, true)).await {
            Ok(response) => Ok(Some(response.object_id)),
            Err(Error::Refused { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a key, none if the key or the object is absent. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn get(&self, object: i64, name: &str) -> Result<Option<Value>, Error> {
        self.get_with(object, name, false).await
    }

    /// As [`State::get`], but whatever the node that answers has applied, which may be out of date;
    /// true at the revision that comes with it. Needs no quorum.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn get_local(&self, object: i64, name: &str) -> Result<Option<Value>, Error> {
        self.get_with(object, name, true).await
    }

    /// Several values of one object at one revision: those that exist, in the order asked for. At
    /// most 256 names. Linearizable.
    ///
    /// # Errors
    /// Those of a read; refused if there are too many names.
    pub async fn get_many(&self, object: i64, names: &[&str]) -> Result<Vec<StateItem>, Error> {
        let request = proto::GetStateManyRequest {
            read: None,
            namespace: self.namespace(),
            object_id: object,
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        let response = self.client.read(request).await?;
        Ok(response.items.into_iter().map(StateItem::from).collect())
    }

    /// Overwrites a value, unless a racing write of another session was applied first; a write that
    /// begins after another was acknowledged never loses to it.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_OBJECT` if there is no such object, and as
    /// `VALUE_TOO_LARGE` above 1 MiB.
    pub async fn set(
        &self,
        object: i64,
        name: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<Written, Error> {
        self.set_with(object, name, bytes.into(), None, None).await
    }

    /// Overwrites a value only if the key's `mod_revision` is this one; 0: only if it is absent.
    ///
    /// # Errors
    /// As [`State::set`].
    pub async fn set_if(
        &self,
        object: i64,
        name: &str,
        bytes: impl Into<Vec<u8>>,
        if_revision: u64,
    ) -> Result<Written, Error> {
        self.set_with(object, name, bytes.into(), Some(if_revision), None).await
    }

    /// As [`State::set`], for the owner of a change source only.
    ///
    /// # Errors
    /// As [`State::set`]; refused as `STALE_FENCE` once that claim has moved on.
    pub async fn set_fenced(
        &self,
        object: i64,
        name: &str,
        bytes: impl Into<Vec<u8>>,
        fence: Fence,
    ) -> Result<Written, Error> {
        self.set_with(object, name, bytes.into(), None, Some(fence)).await
    }

    /// Writes a value only if the key has none, and returns the one that stands.
    ///
    /// # Errors
    /// As [`State::set`].
    pub async fn create(
        &self,
        object: i64,
        name: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<Created, Error> {
        self.create_with(object, name, bytes.into(), None, None).await
    }

    /// As [`State::create`], for the owner of a change source only.
    ///
    /// # Errors
    /// As [`State::set_fenced`].
    pub async fn create_fenced(
        &self,
        object: i64,
        name: &str,
        bytes: impl Into<Vec<u8>>,
        fence: Fence,
    ) -> Result<Created, Error> {
        self.create_with(object, name, bytes.into(), Some(fence), None).await
    }

    /// The value of a key, or if there is none the one that `create` makes. `create` does not run
    /// if there is a value; several callers may run theirs, and all get the one that won.
    ///
    /// # Errors
    /// As [`State::set`].
    pub async fn atomic_create<B: Into<Vec<u8>>>(
        &self,
        object: i64,
        name: &str,
        create: impl FnOnce() -> B,
    ) -> Result<Created, Error> {
        match self.get(object, name).await? {
            Some(Value { bytes: value, mod_revision, revision }) => {
                Ok(Created { created: false, value, mod_revision, revision })
            }
            None => self.create(object, name, create()).await,
        }
    }

    /// The value of a key, or if there is none the one that `create` makes, which runs in one place of the
    /// cluster at a time: callers get the right to in the order in which they came, and keep it for as
    /// long as they renew it, which a task does. The next one has it if `create` fails, or if its caller
    /// dies or is cut off; so what was not completed runs again, and `create` is to be told by
    /// [`Creator::lost`] that it goes on in vain. Whoever waits gets the value once it is written. Plain
    /// writes of others do not wait for any of this, and win.
    ///
    /// Dropping the future gives the right up, or the place in line.
    ///
    /// # Errors
    /// [`ExclusiveError::Callback`] with what `create` failed with. [`ExclusiveError::Waited`] after
    /// [`ExclusiveOptions::wait`]. [`ExclusiveError::Call`] with those of a write; refused as
    /// `CREATION_LOST` if the right was lost before the value was written, and nobody has written one; as
    /// `TOO_MANY_CREATORS` if 1,000 are in line; as `OUT_OF_BOUNDS` if an option is.
    pub async fn create_exclusive<B, E, F>(
        &self,
        object: i64,
        name: &str,
        options: ExclusiveOptions,
        create: impl FnOnce(Creator) -> F,
    ) -> Result<Created, ExclusiveError<E>>
    where
        B: Into<Vec<u8>>,
        F: Future<Output = Result<B, E>>,
    {
        exclusive::create(&self.client, (object, name), options, create).await
    }

    /// Replaces a value by what `change` makes of it (of none, if the key is absent), as often as
    /// it takes until no other write came between. If this returns `Ok`, exactly one run of
    /// `change`, the last, has been applied. `change` may run many times and should have no effects
    /// of its own. Returning the value unchanged writes nothing.
    ///
    /// # Errors
    /// As [`State::set`]; [`Error::NotApplied`] if others kept coming between until the time-out.
    pub async fn update<B: Into<Vec<u8>>>(
        &self,
        object: i64,
        name: &str,
        mut change: impl FnMut(Option<&[u8]>) -> B,
    ) -> Result<Written, Error> {
        let deadline = Deadline::after(self.client.call_timeout());
        let mut seen = self.get(object, name).await?.map(|value| (value.bytes, value.mod_revision));
        for round in 0_u32.. {
            let (old, if_revision) = match &seen {
                Some((bytes, mod_revision)) => (Some(bytes.as_slice()), *mod_revision),
                None => (None, 0),
            };
            let new = change(old).into();
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                break;
            }
            let state = State::new(self.client.with_timeout(remaining));
            let written = state.set_if(object, name, new, if_revision).await?;
            if written.written {
                return Ok(written);
            }
            seen = written.value.map(|value| (value, written.mod_revision));
            let longest = UPDATE_PAUSE_FIRST * (1 << round.min(6));
            tokio::time::sleep(longest.mul_f64(rand::random_range(0.0..1.0))).await;
        }
        let summary = format!("other writes to {name:?} kept coming between");
        Err(Error::NotApplied { cause: Cause { summary, attempts: Vec::new() }, header: None })
    }

    /// Removes a value; returns whether there was one.
    ///
    /// # Errors
    /// Those of a write.
    pub async fn delete(&self, object: i64, name: &str) -> Result<bool, Error> {
        self.delete_with(object, name, None).await
    }

    /// As [`State::delete`], for the owner of a change source only.
    ///
    /// # Errors
    /// Those of a write; refused as `STALE_FENCE` once that claim has moved on.
    pub async fn delete_fenced(
        &self,
        object: i64,
        name: &str,
        fence: Fence,
    ) -> Result<bool, Error> {
        self.delete_with(object, name, Some(fence)).await
    }

    /// All objects of the namespace, in order of their ids. Each page is linearizable; what changes
    /// while they are read may or may not be in later ones.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn list_objects(&self) -> Result<Vec<Object>, Error> {
        let mut objects = Vec::new();
        loop {
            let after = objects.last().map_or(0, |object: &Object| object.id);
            let page = self.list_objects_page(after, 0).await?;
            let is_last = !page.more || page.items.is_empty();
            objects.extend(page.items);
            if is_last {
                return Ok(objects);
            }
        }
    }

    /// One page of the objects with an id above `after` (0 for the first page); `limit` is at most
    /// 1000, which is also what 0 means. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn list_objects_page(&self, after: i64, limit: u32) -> Result<Page<Object>, Error> {
        let request = proto::ListObjectsRequest {
            read: None,
            namespace: self.namespace(),
            after_object_id: after,
            limit,
        };
        let response = self.client.read(request).await?;
        let items = response.objects.into_iter().map(|object| Object {
            id: object.object_id,
            name: object.name,
            class_name: object.class_name,
        });
        Ok(Page {
            items: items.collect(),
            more: response.more,
            revision: response.header.map_or(0, |header| header.revision),
        })
    }

    /// All key/value pairs of an object, in order of their names. Each page is linearizable; what
    /// changes while they are read may or may not be in later ones.
    ///
    /// # Errors
    /// Those of a read; refused as `UNKNOWN_OBJECT` if there is no such object.
    pub async fn list(&self, object: i64) -> Result<Vec<StateItem>, Error> {
        let mut items: Vec<StateItem> = Vec::new();
        loop {
            let after = items.last().map_or("", |item| &item.name);
            let page = self.list_page(object, after, 0).await?;
            let is_last = !page.more || page.items.is_empty();
            items.extend(page.items);
            if is_last {
                return Ok(items);
            }
        }
    }

    /// One page of an object's key/value pairs with a name behind `after` (empty for the first
    /// page); `limit` is at most 1000, which is also what 0 means, and a page also ends after 1 MiB
    /// of values. Linearizable.
    ///
    /// # Errors
    /// As [`State::list`].
    pub async fn list_page(
        &self,
        object: i64,
        after: &str,
        limit: u32,
    ) -> Result<Page<StateItem>, Error> {
        let request = proto::ListStateRequest {
            read: None,
            namespace: self.namespace(),
            object_id: object,
            after_name: after.to_owned(),
            limit,
        };
        let response = self.client.read(request).await?;
        Ok(Page {
            items: response.items.into_iter().map(StateItem::from).collect(),
            more: response.more,
            revision: response.header.map_or(0, |header| header.revision),
        })
    }

    /// All rows of the namespace with their ids, at one revision: masters, change sources, objects and
    /// their values. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn export(&self) -> Result<Export, Error> {
        Export::open(&self.client).await
    }

    /// Takes in rows under the ids that they have, all or none; returns how many were not there yet. A row
    /// that is there already, the same in all that it says, is passed over, so that an import can be
    /// repeated. Ids that the cluster gives out later are above all of them. At most 1000 rows, and 2 MiB of
    /// names and values, with 40 bytes for each row.
    ///
    /// # Errors
    /// Those of a write; refused as `IMPORT_CONFLICT` if a row contradicts one that is there (the fields
    /// `nth`, from 0 on, `row` and `found` say which, and how), as `UNKNOWN_OBJECT` if a value comes before
    /// its object, as `CHANGE_SOURCE_IN_USE` if its group is owned, and as `OUT_OF_BOUNDS` beyond a limit.
    pub async fn import(&self, rows: Vec<Row>) -> Result<u64, Error> {
        transfer::import(&self.client, rows).await
    }

    fn namespace(&self) -> String {
        self.client.namespace().to_owned()
    }

    fn object_request(
        &self,
        name: &str,
        class_name: &str,
        only_existing: bool,
    ) -> proto::GetObjectIdRequest {
        proto::GetObjectIdRequest {
            context: None,
            namespace: self.namespace(),
            name: name.to_owned(),
            class_name: class_name.to_owned(),
            only_existing,
        }
    }

    async fn get_with(&self, object: i64, name: &str, local: bool) -> Result<Option<Value>, Error> {
        let request = proto::GetStateRequest {
            read: Some(proto::ReadOptions { local }),
            namespace: self.namespace(),
            object_id: object,
            name: name.to_owned(),
        };
        let response = self.client.read(request).await?;
        Ok(response.found.then(|| Value {
            bytes: response.value,
            mod_revision: response.mod_revision,
            revision: response.header.map_or(0, |header| header.revision),
        }))
    }

    async fn set_with(
        &self,
        object: i64,
        name: &str,
        bytes: Vec<u8>,
        if_revision: Option<u64>,
        fence: Option<Fence>,
    ) -> Result<Written, Error> {
        check_size(&bytes)?;
        let request = proto::SetStateRequest {
            context: None,
            namespace: self.namespace(),
            object_id: object,
            name: name.to_owned(),
            value: bytes,
            if_revision,
            fence: fence.map(proto::Fence::from),
        };
        let response = self.client.write(request).await?;
        let has_other_value = !response.written && response.found;
        Ok(Written {
            written: response.written,
            value: has_other_value.then_some(response.value),
            mod_revision: response.mod_revision,
            revision: response.header.map_or(0, |header| header.revision),
        })
    }

    /// Creates a value, with a token only while it has the right to.
    pub(crate) async fn create_with(
        &self,
        object: i64,
        name: &str,
        bytes: Vec<u8>,
        fence: Option<Fence>,
        token: Option<u64>,
    ) -> Result<Created, Error> {
        check_size(&bytes)?;
        let request = proto::CreateStateRequest {
            context: None,
            namespace: self.namespace(),
            object_id: object,
            name: name.to_owned(),
            value: bytes.clone(),
            fence: fence.map(proto::Fence::from),
            token,
        };
        let response = self.client.write(request).await?;
        Ok(Created {
            created: response.created,
            value: if response.created { bytes } else { response.value },
            mod_revision: response.mod_revision,
            revision: response.header.map_or(0, |header| header.revision),
        })
    }

    async fn delete_with(
        &self,
        object: i64,
        name: &str,
        fence: Option<Fence>,
    ) -> Result<bool, Error> {
        let request = proto::DeleteStateRequest {
            context: None,
            namespace: self.namespace(),
            object_id: object,
            name: name.to_owned(),
            fence: fence.map(proto::Fence::from),
        };
        Ok(self.client.write(request).await?.deleted)
    }
}

impl From<proto::StateItem> for StateItem {
    fn from(item: proto::StateItem) -> StateItem {
        StateItem { name: item.name, bytes: item.value, mod_revision: item.mod_revision }
    }
}

fn check_size(bytes: &[u8]) -> Result<(), Error> {
    let actual = bytes.len();
    if actual <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Refused {
        reason: "VALUE_TOO_LARGE".to_owned(),
        code: Code::InvalidArgument,
        message: format!("value has {actual} bytes, and at most {VALUE_BYTES_MAX} are allowed"),
        fields: BTreeMap::from([
            ("actual".to_owned(), actual.to_string()),
            ("allowed".to_owned(), VALUE_BYTES_MAX.to_string()),
        ]),
        header: None,
    })
}
