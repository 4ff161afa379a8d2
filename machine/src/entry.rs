//! What goes into the log, what comes back, and their bytes.
//!
//! An [`Entry`] carries requests and the time at which the leader made it; it is the unit of replication.
//! Its bytes are a format of their own, apart from the API's: a version byte, then bincode.
//!
//! Enums here are stored in logs and sessions: variants and fields are only ever added at the end.

use serde::{Deserialize, Serialize};

use crate::encoding::{self, CodecError};
use crate::limits::{DECODE_BYTES_MAX, OUTCOME_BYTES_MAX};
use crate::table::Value;
use crate::{Refusal, changesources, creators, import, masters, objects, sessions, state};

const ENTRY_VERSION: u8 = 1;
const REQUEST_VERSION: u8 = 1;
const RESPONSE_VERSION: u8 = 1;

/// One log entry that carries commands. Without requests it is a tick: it moves the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The cluster clock as the leader stamped it, in milliseconds. One below the state's is ignored.
    pub clock_ms: u64,
    /// The leader's wall clock, in milliseconds since 1970. For display only; nothing is decided by it.
    pub wall_ms: u64,
    /// Applied in this order.
    pub requests: Vec<Request>,
}

impl Entry {
    /// The entry as bytes. An error if they are more than peers decode.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encoding::encode(ENTRY_VERSION, self, DECODE_BYTES_MAX)
    }

    /// The entry that [`Entry::encode`] made these bytes from.
    pub fn decode(bytes: &[u8]) -> Result<Entry, CodecError> {
        encoding::decode(ENTRY_VERSION, bytes, DECODE_BYTES_MAX)
    }
}

/// One write, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What makes the write exactly-once. None for session commands, for what nodes make and for staging; anything
    /// else is refused without.
    pub origin: Option<Origin>,
    /// What to do.
    pub command: Command,
}

/// Identifies a write in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The session, by the revision that opened it.
    pub session: u64,
    /// The write's number in the session; begins at 1, and no two writes share one.
    pub seq: u64,
    /// Every write below this one has been answered to the caller.
    pub first_incomplete: u64,
    /// Whether this may not be the first transmission. Apply does not look at it; [`State::admit`] does.
    ///
    /// [`State::admit`]: crate::State::admit
    pub resent: bool,
}

/// What to do, by connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Sessions themselves.
    Session(sessions::Command),
    /// Object state.
    State(state::Command),
    /// Masters and leases.
    Masters(masters::Command),
    /// Change sources and claims.
    ChangeSources(changesources::Command),
    /// The right to create a value.
    Creators(creators::Command),
    /// Rows from elsewhere.
    Import(import::Command),
    /// Stored objects.
    Objects(objects::Command),
}

/// What was done, by connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Sessions themselves.
    Session(sessions::Reply),
    /// Object state.
    State(state::Reply),
    /// Masters and leases.
    Masters(masters::Reply),
    /// Change sources and claims.
    ChangeSources(changesources::Reply),
    /// The right to create a value.
    Creators(creators::Reply),
    /// Rows from elsewhere.
    Import(import::Reply),
    /// Stored objects.
    Objects(objects::Reply),
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The revision at which it is true: of the write itself, or of the state that refused it.
    pub revision: u64,
    /// The reply, or why there is none.
    pub outcome: Result<Reply, Refusal>,
}

impl Request {
    /// The request as bytes, to be forwarded to the leader.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encoding::encode(REQUEST_VERSION, self, DECODE_BYTES_MAX)
    }

    /// The request that [`Request::encode`] made these bytes from.
    pub fn decode(bytes: &[u8]) -> Result<Request, CodecError> {
        encoding::decode(REQUEST_VERSION, bytes, DECODE_BYTES_MAX)
    }

    /// Refuses what would be refused in any state: names, values, ids and times out of bounds.
    pub fn validate(&self) -> Result<(), Refusal> {
        match &self.command {
            Command::Session(command) => return command.validate(),
            Command::Masters(command) if command.is_of_nodes() => return command.validate(),
            Command::Objects(command) if command.is_of_nodes() => return command.validate(),
            Command::State(command) => command.validate()?,
            Command::Masters(command) => command.validate()?,
            Command::ChangeSources(command) => command.validate()?,
            Command::Creators(command) => command.validate()?,
            Command::Import(command) => command.validate()?,
            Command::Objects(command) => command.validate()?,
        }
        self.origin.map(|_| ()).ok_or(Refusal::SessionRequired)
    }

    /// The row that this write touches, so that a proposer can tell whether a write to it is pending.
    /// None for all but reads-before-writes of object state.
    pub fn conflict_key(&self) -> Option<Vec<u8>> {
        match &self.command {
            Command::State(command) => command.item_key(),
            Command::Creators(command) => command.item_key(),
            Command::Session(_)
            | Command::Masters(_)
            | Command::ChangeSources(_)
            | Command::Import(_)
            | Command::Objects(_) => None,
        }
    }

    /// About how many bytes the request takes in an entry; never less than its names and value take.
    pub fn encoded_len_hint(&self) -> usize {
        /// More than all numbers, tags and lengths of any command take.
        const FIXED_BYTES: usize = 112;
        FIXED_BYTES
            + match &self.command {
                Command::Session(_) => 0,
                Command::State(command) => command.text_bytes(),
                Command::Masters(command) => command.text_bytes(),
                Command::ChangeSources(command) => command.text_bytes(),
                Command::Creators(command) => command.text_bytes(),
                Command::Import(command) => command.text_bytes(),
                Command::Objects(command) => command.text_bytes(),
            }
    }
}

impl Response {
    /// The response as bytes, to be stored with a session or sent back to the node that asked.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encoding::encode(RESPONSE_VERSION, self, OUTCOME_BYTES_MAX)
    }

    /// The response that [`Response::encode`] made these bytes from.
    pub fn decode(bytes: &[u8]) -> Result<Response, CodecError> {
        encoding::decode(RESPONSE_VERSION, bytes, OUTCOME_BYTES_MAX)
    }
}

impl Value for Response {
    const VERSION: u8 = RESPONSE_VERSION;
    const BYTES_MAX: usize = OUTCOME_BYTES_MAX;
    type At<'a> = Response;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: Command) -> Request {
        let (session, seq) = (u64::MAX, u64::MAX);
        let origin = Origin { session, seq, first_incomplete: u64::MAX, resent: true };
        Request { origin: Some(origin), command }
    }

    /// The largest of each kind, but for its texts.
    fn all(text: &str) -> Vec<Request> {
        let (namespace, name, fence) = (text.to_owned(), text.to_owned(), None);
        let big = (i64::MIN, u64::MAX);
        let item = state::Command::Set {
            namespace: namespace.clone(),
            object: big.0,
            name: name.clone(),
            value: text.as_bytes().into(),
            if_revision: Some(big.1),
            fence: Some(changesources::Fence { changesource: big.0, token: big.1 }),
            noted_revision: Some(big.1),
        };
        let delete = state::Command::Delete {
            namespace: namespace.clone(),
            object: big.0,
            name: name.clone(),
            fence,
        };
        let lease = masters::Command::OpenLease {
            namespace: namespace.clone(),
            name: name.clone(),
            instance: [255; 32],
            ttl_ms: big.1,
            grace_ms: big.1,
        };
        let group = changesources::Command::SetGroup {
            namespace: namespace.clone(),
            changesource: big.0,
            group: Some(name.clone()),
        };
        let rows = vec![
            import::Row::Master { id: big.0, name: name.clone(), last_active_ms: big.1 },
            import::Row::ChangeSource { id: big.0, name: name.clone(), group: Some(name.clone()) },
            import::Row::Object { id: big.0, name: name.clone(), class_name: name.clone() },
            import::Row::Item { object: big.0, name: name.clone(), value: text.as_bytes().into() },
        ];
        let ask = creators::Command::Ask {
            namespace: namespace.clone(),
            object: big.0,
            name,
            ttl_ms: big.1,
            wait_ms: big.1,
        };
        let claim = changesources::Command::Claim { namespace, changesource: big.0, lease: big.1 };
        vec![
            request(Command::State(item)),
            request(Command::State(delete)),
            request(Command::Masters(lease)),
            request(Command::ChangeSources(claim)),
            request(Command::ChangeSources(group)),
            request(Command::Session(sessions::Command::Open { idle_ms: big.1 })),
            request(Command::Creators(ask)),
            request(Command::Import(import::Command { namespace: text.to_owned(), rows })),
            request(Command::Objects(save(text))),
            request(Command::Objects(stage(text))),
            request(Command::Objects(objects::Command::StageChunk {
                namespace: text.to_owned(),
                upload: big.1,
                bytes: text.as_bytes().into(),
            })),
            request(Command::Objects(objects::Command::Remove {
                namespace: text.to_owned(),
                ids: vec![big.1; 100],
            })),
        ]
    }

    fn record(text: &str) -> objects::Record {
        let metadata = (0..9).map(|nth| (format!("{text}{nth}"), text.to_owned())).collect();
        objects::Record { id: u64::MAX, class_name: text.to_owned(), metadata }
    }

    fn save(text: &str) -> objects::Command {
        let small = objects::Small { record: record(text), body: text.as_bytes().into() };
        objects::Command::Save { namespace: text.to_owned(), objects: vec![small; 5] }
    }

    fn stage(text: &str) -> objects::Command {
        let inline = objects::Body::Inline(text.as_bytes().into());
        let chunks = objects::Body::Chunks(vec![crate::Hash([255; 32]); 9]);
        let staged = |body| objects::Staged { record: record(text), body };
        let objects = [inline, chunks].map(staged).into();
        objects::Command::StageObjects { namespace: text.to_owned(), upload: u64::MAX, objects }
    }

    #[test]
    fn requests_read_back_and_fit_their_hint() {
        for request in all("name").into_iter().chain(all(&"n".repeat(70_000))).chain(all("")) {
            let bytes = request.encode().expect("it is below the limit");
            assert!(bytes.len() <= request.encoded_len_hint(), "{request:?}");
            assert_eq!(Request::decode(&bytes), Ok(request));
        }
    }

    #[test]
    fn an_entry_beyond_its_limit_is_an_error() {
        let requests = all(&"n".repeat(DECODE_BYTES_MAX / 2));
        let entry = Entry { clock_ms: 0, wall_ms: 0, requests };
        assert!(matches!(entry.encode(), Err(CodecError::TooLong { .. })));
        let bytes = vec![ENTRY_VERSION; DECODE_BYTES_MAX + 1];
        assert!(matches!(Entry::decode(&bytes), Err(CodecError::TooLong { .. })));
    }

    #[test]
    fn only_writes_of_items_have_a_key_to_conflict_on() {
        let keys: Vec<_> = all("a").iter().map(Request::conflict_key).collect();
        assert_eq!(keys[0], Some(b"\x22a\0\0\0\0\0\0\0\0\0\0a\0\0".to_vec()));
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[2..6], [None, None, None, None]);
        assert_eq!(keys[7], None);
        assert_eq!(keys[6], keys[0], "a value ends the queue to create it");
    }
}
