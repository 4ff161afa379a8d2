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
use crate::{Refusal, changesources, creators, import, masters, objects, sessions, state, stm};

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
    /// Variables.
    Stm(stm::Command),
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
    /// Variables.
    Stm(stm::Reply),
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
            Command::Stm(command) => command.validate()?,
        }
        self.origin.map(|_| ()).ok_or(Refusal::SessionRequired)
    }

    /// What this write may change, so that a proposer can tell whether such a write is pending. Nothing for
    /// all but what an answer of [`Admission::Answer`] can rely on.
    ///
    /// [`Admission::Answer`]: crate::Admission::Answer
    pub fn touches(&self) -> Vec<Vec<u8>> {
        match &self.command {
            Command::State(command) => command.item_key().into_iter().collect(),
            Command::Creators(command) => command.item_key().into_iter().collect(),
            Command::Stm(command) => self.in_its_session(command.written_keys()),
            Command::Session(_)
            | Command::Masters(_)
            | Command::ChangeSources(_)
            | Command::Import(_)
            | Command::Objects(_) => Vec::new(),
        }
    }

    /// What an answer without a log entry relies on: no write that touches any of it may be pending. None if
    /// there is no such answer.
    pub fn relies_on(&self) -> Option<Vec<Vec<u8>>> {
        match &self.command {
            Command::State(command) => command.item_key().map(|key| vec![key]),
            Command::Creators(command) => command.item_key().map(|key| vec![key]),
            Command::Stm(command) => Some(self.in_its_session(command.compared_keys())),
            Command::Session(_)
            | Command::Masters(_)
            | Command::ChangeSources(_)
            | Command::Import(_)
            | Command::Objects(_) => None,
        }
    }

    /// Rows as one session writes and compares them: other sessions' writes are none of its concern.
    /// [`State::admit`](crate::State::admit) says why.
    fn in_its_session(&self, keys: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let session = self.origin.map_or(0, |origin| origin.session).to_be_bytes();
        keys.map(|key| [key.as_slice(), &session].concat()).collect()
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
                Command::Stm(command) => command.text_bytes(),
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
    use crate::Bytes;

    fn request(command: Command) -> Request {
        let (session, seq) = (u64::MAX, u64::MAX);
        let origin = Origin { session, seq, first_incomplete: u64::MAX, resent: true };
        Request { origin: Some(origin), command }
    }

    fn commit(text: &str) -> stm::Command {
        let (namespace, text) = (text.to_owned(), || Bytes::from(text.as_bytes()));
        let (version, mod_revision) = (u64::MAX, Some(u64::MAX));
        let codec = stm::Codec::Pickle;
        stm::Command {
            namespace,
            comparisons: vec![stm::Comparison { key: text(), version, mod_revision }; 20],
            writes: vec![stm::Write::Put { key: text(), codec, value: text() }; 20],
        }
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
            request(Command::Stm(commit(text))),
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
    fn only_items_and_variables_can_be_relied_on() {
        let all = all("a");
        let keys: Vec<_> = all[..8].iter().map(Request::relies_on).collect();
        assert_eq!(keys[0], Some(vec![b"\x22a\0\0\0\0\0\0\0\0\0\0a\0\0".to_vec()]));
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[2..6], [None, None, None, None]);
        assert_eq!(keys[7], None);
        assert_eq!(keys[6], keys[0], "a value ends the queue to create it");
        for (request, relies_on) in all.iter().zip(keys) {
            assert_eq!(request.touches(), relies_on.unwrap_or_default(), "{request:?}");
        }
    }

    // T2
    #[test]
    fn a_commit_relies_on_what_it_compares_and_touches_what_it_writes() {
        let key = |text: &str| Bytes::from(text.as_bytes());
        let compared = stm::Comparison { key: key("x"), version: 1, mod_revision: None };
        let written = [
            stm::Write::Put { key: key("y"), codec: stm::Codec::Json, value: key("1") },
            stm::Write::Delete { key: key("z") },
        ];
        let mut request = request(Command::Stm(stm::Command {
            namespace: "a".to_owned(),
            comparisons: vec![compared],
            writes: written.into(),
        }));
        let of_session = |session: &[u8; 8]| {
            let row = |key: &str| [b"\x50a\0\0", key.as_bytes(), b"\0\0", session].concat();
            (Some(vec![row("x")]), vec![row("y"), row("z")])
        };
        assert_eq!((request.relies_on(), request.touches()), of_session(&[255; 8]));
        request.origin = request.origin.map(|origin| Origin { session: 7, ..origin });
        let another = of_session(&[0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!((request.relies_on(), request.touches()), another, "another session's affair");
    }
}
