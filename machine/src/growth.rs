//! How much a request adds to the state: what a leader compares with its quota before it proposes.
//!
//! # Model
//!
//! Growth is what clients store: objects, values, bodies, variables, and the names of masters and change
//! sources. Everything else goes on when there is no room left: removing, giving back, and whatever keeps
//! sessions, leases and claims alive. Those rows have bounds of their own ([`limits`](crate::limits)), so they fit into a reserve.
//!
//! # Invariants
//!
//! - The growth of a request that is applied next is never less than what the rows that clients store take
//!   more after it, but for the few bytes by which numbers beside a replaced value get longer; it is 0 for a
//!   value that is replaced by one that is not longer. An object that replaces another is counted in full: its
//!   body is there before the other one goes.
//! - Apply never asks: a quota is no part of the replicated function.

use crate::fault::Fault;
use crate::{
    Command, Request, State, changesources, creators, import, masters, objects, state, stm,
};

/// What a row takes beside its names and its value, in bytes at most: prefix, version, numbers, lengths.
const ROW_EXTRA_BYTES: usize = 64;

/// The growth by rows with so many bytes of names and values.
pub(crate) fn of_rows(rows: usize, text_bytes: usize) -> u64 {
    (rows * ROW_EXTRA_BYTES + text_bytes) as u64
}

impl State {
    /// At most how many bytes the request adds to the state; 0 if it is one that must go on.
    ///
    /// A row that cannot be read is left for apply to find: then this is 0.
    pub fn growth(&self, request: &Request) -> u64 {
        self.try_growth(&request.command).unwrap_or(0)
    }

    fn try_growth(&self, command: &Command) -> Result<u64, Fault> {
        match command {
            Command::Session(_) => Ok(0),
            Command::State(command) => state::growth(self.view(), command),
            Command::Masters(command) => Ok(masters::growth(self.view(), command)),
            Command::ChangeSources(command) => Ok(changesources::growth(self.view(), command)),
            Command::Creators(command) => Ok(creators::growth(self.view(), command)),
            Command::Import(command) => Ok(import::growth(command)),
            Command::Objects(command) => Ok(objects::growth(command)),
            Command::Stm(command) => stm::growth(self.view(), command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, LogPosition, Origin, Payload, sessions};

    const NAMESPACE: &str = "default";

    fn set(name: &str, value_bytes: usize) -> Command {
        Command::State(state::Command::Set {
            namespace: NAMESPACE.to_owned(),
            object: 1,
            name: name.to_owned(),
            value: vec![b'7'; value_bytes].into(),
            if_revision: None,
            fence: None,
            noted_revision: None,
        })
    }

    fn lease(name: &str) -> Command {
        Command::Masters(masters::Command::OpenLease {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            instance: [7; 32],
            ttl_ms: 10_000,
            grace_ms: 0,
        })
    }

    fn find_source(name: &str) -> Command {
        let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
        Command::ChangeSources(changesources::Command::FindId { namespace, name })
    }

    fn find_object(name: &str) -> Command {
        let (namespace, class_name) = (NAMESPACE.to_owned(), "Test".to_owned());
        let name = name.to_owned();
        Command::State(state::Command::GetObjectId { namespace, name, class_name })
    }

    /// An object with a value of 100 bytes, a master with a lease, and a change source.
    fn full() -> State {
        let open = sessions::Command::Open { idle_ms: 60_000 };
        let commands =
            [find_object("a"), set("present", 100), lease("master"), find_source("source")];
        let opens = Request { origin: None, command: Command::Session(open) };
        let requests = (1..).zip(commands).map(|(seq, command)| {
            let origin = Origin { session: 1, seq, first_incomplete: seq, resent: false };
            Request { origin: Some(origin), command }
        });
        let requests = [opens].into_iter().chain(requests).collect();
        let entry = Entry { clock_ms: 1, wall_ms: 1, requests };
        let mut state = State::new();
        let at = LogPosition { term: 1, index: 0 };
        let applied = state.apply(at, Payload::Batch(&entry)).expect("it is in order");
        assert!(applied.responses.iter().all(|response| response.outcome.is_ok()));
        state
    }

    fn growth(command: Command) -> u64 {
        full().growth(&Request { origin: None, command })
    }

    // G9
    #[test]
    fn values_grow_by_what_they_are_longer() {
        assert_eq!(growth(set("present", 99)), 0);
        assert_eq!(growth(set("present", 100)), 0, "a poller that overwrites its state");
        assert_eq!(growth(set("present", 101)), 1);
        assert!(growth(set("absent", 100)) > 100 + "default".len() as u64);
    }

    // G9
    #[test]
    fn what_is_new_grows_and_what_is_known_does_not() {
        for (new, known) in [
            (find_object("b"), find_object("a")),
            (find_source("another"), find_source("source")),
            (lease("newcomer"), lease("master")),
        ] {
            assert!(growth(new.clone()) > 64, "{new:?}");
            assert_eq!(growth(known.clone()), 0, "{known:?}");
        }
    }

    // G9 S5
    #[test]
    fn asking_to_create_grows_as_creating_does() {
        let ask = |name: &str| {
            let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
            let (ttl_ms, wait_ms) = (1000, 1000);
            Command::Creators(creators::Command::Ask {
                namespace,
                object: 1,
                name,
                ttl_ms,
                wait_ms,
            })
        };
        assert!(growth(ask("absent")) > 64);
        assert_eq!(growth(ask("present")), 0);
    }

    // G9 S7
    #[test]
    fn an_import_grows_by_all_its_rows() {
        use import::Row;
        let name = || "n".repeat(100);
        let rows = [
            Row::Master { id: 9, name: name(), last_active_ms: 0 },
            Row::ChangeSource { id: 9, name: name(), group: Some(name()) },
            Row::Object { id: 9, name: name(), class_name: name() },
            Row::Item { object: 9, name: name(), value: vec![7; 1000].into() },
        ];
        let mut state = full();
        for (index, row) in (1..).zip(rows) {
            let command = import::Command { namespace: NAMESPACE.to_owned(), rows: vec![row] };
            let seq = 4 + index;
            let origin = Origin { session: 1, seq, first_incomplete: seq, resent: false };
            let request = Request { origin: Some(origin), command: Command::Import(command) };
            let (growth, before) = (state.growth(&request), state.bytes());
            let entry = Entry { clock_ms: 1, wall_ms: 1, requests: vec![request] };
            let at = LogPosition { term: 1, index };
            let applied = state.apply(at, Payload::Batch(&entry)).expect("it is in order");
            assert!(applied.responses[0].outcome.is_ok(), "{:?}", applied.responses);
            let grown = state.bytes() - before;
            assert!(grown > 100 && growth >= grown, "{grown} bytes, {growth} expected");
        }
    }

    // G9
    #[test]
    fn objects_and_what_is_staged_grow_by_their_bodies_and_rows() {
        use objects::{Body, Record, Small, Staged};
        let mut state = full();
        let (mut index, mut seq) = (0, 4);
        let mut apply = |state: &mut State, command: objects::Command| {
            (index, seq) = (index + 1, seq + 1);
            let origin = Origin { session: 1, seq, first_incomplete: seq, resent: false };
            let command = Command::Objects(command);
            let request = Request { origin: Some(origin), command };
            let (growth, before) = (state.growth(&request), state.bytes());
            let entry = Entry { clock_ms: 1, wall_ms: 1, requests: vec![request] };
            let at = LogPosition { term: 1, index };
            let applied = state.apply(at, Payload::Batch(&entry)).expect("it is in order");
            assert!(applied.responses[0].outcome.is_ok(), "{:?}", applied.responses);
            (state.bytes().saturating_sub(before), growth)
        };
        let namespace = || NAMESPACE.to_owned();
        apply(&mut state, objects::Command::LeaseIds { namespace: namespace(), count: 4 });
        let record = |id: u64| {
            let metadata = (0..64).map(|nth| (format!("{nth}"), "v".to_owned())).collect();
            let id = crate::limits::OBJECT_ID_FIRST + id;
            Record { id, class_name: "c".to_owned(), metadata }
        };
        let small = Small { record: record(0), body: vec![7; 600_000].into() };
        let chunk = crate::Bytes::from(vec![8; 300_000]);
        let objects = vec![
            Staged { record: record(1), body: Body::Inline(vec![9; 1000].into()) },
            Staged { record: record(2), body: Body::Chunks(vec![crate::Hash::of(&chunk)]) },
        ];
        let upload = state.header().revision + 2;
        let commands = [
            objects::Command::Save { namespace: namespace(), objects: vec![small] },
            objects::Command::OpenUpload { namespace: namespace(), idle_ms: 60_000 },
            objects::Command::StageChunk { namespace: namespace(), upload, bytes: chunk },
            objects::Command::StageObjects { namespace: namespace(), upload, objects },
        ];
        for command in commands {
            let (grown, growth) = apply(&mut state, command.clone());
            assert!(grown > 30 && growth >= grown, "{grown} bytes, {growth} expected: {command:?}");
        }
        let commit = objects::Command::CommitUpload { namespace: namespace(), upload, objects: 2 };
        assert_eq!(apply(&mut state, commit).1, 0);
        let ids = vec![record(0).id];
        assert_eq!(
            apply(&mut state, objects::Command::Remove { namespace: namespace(), ids }).1,
            0
        );
    }

    // G9
    #[test]
    fn a_transaction_grows_by_what_is_new_and_what_gets_longer() {
        let put = |key: &str, bytes: usize| stm::Write::Put {
            key: key.as_bytes().into(),
            codec: stm::Codec::Bytes,
            value: vec![b'7'; bytes].into(),
        };
        let commit = |writes: Vec<stm::Write>| {
            let (namespace, comparisons) = (NAMESPACE.to_owned(), Vec::new());
            let command = Command::Stm(stm::Command { namespace, comparisons, writes });
            let origin = Origin { session: 1, seq: 9, first_incomplete: 9, resent: false };
            Request { origin: Some(origin), command }
        };
        let mut state = full();
        let first = commit(vec![put("a\0\0\0", 100), put("b", 50)]);
        let growth = state.growth(&first);
        let before = state.bytes();
        let entry = Entry { clock_ms: 1, wall_ms: 1, requests: vec![first] };
        let at = LogPosition { term: 1, index: 1 };
        let applied = state.apply(at, Payload::Batch(&entry)).expect("it is in order");
        assert!(applied.responses[0].outcome.is_ok(), "{:?}", applied.responses);
        let grown = state.bytes() - before;
        assert!(grown > 150 && growth >= grown, "{grown} bytes, {growth} expected");
        let delete = stm::Write::Delete { key: b"b".as_slice().into() };
        let next = [put("a\0\0\0", 130), put("c", 5), delete];
        assert_eq!(state.growth(&commit(next[..1].to_vec())), 30, "what gets longer");
        assert!(state.growth(&commit(next[..2].to_vec())) > 35 + 64, "and what is new");
        assert_eq!(state.growth(&commit(next[2..].to_vec())), 0, "what is deleted");
        assert_eq!(state.growth(&commit(vec![put("b", 50)])), 0, "what stays as long");
    }

    // G9
    #[test]
    fn joining_a_group_grows_and_leaving_it_does_not() {
        let set = |group: Option<&str>| {
            Command::ChangeSources(changesources::Command::SetGroup {
                namespace: NAMESPACE.to_owned(),
                changesource: 1,
                group: group.map(str::to_owned),
            })
        };
        assert!(growth(set(Some("group"))) > 64);
        assert_eq!(growth(set(None)), 0);
    }

    // G9
    #[test]
    fn what_keeps_masters_alive_or_removes_does_not_grow() {
        let namespace = || NAMESPACE.to_owned();
        let (changesource, object, name) = (1, 1, "present".to_owned());
        let sources = [
            changesources::Command::SetMaster {
                namespace: namespace(),
                changesource,
                master: Some(1),
            },
            changesources::Command::Claim { namespace: namespace(), changesource, lease: 4 },
            changesources::Command::Await { namespace: namespace(), changesource, lease: 4 },
            changesources::Command::Release { namespace: namespace(), changesource, token: 9 },
        ];
        let masters = [
            masters::Command::KeepAlive { namespace: namespace(), lease: 4 },
            masters::Command::KeepWithinGrace { namespace: namespace(), lease: 4 },
            masters::Command::CloseLease { namespace: namespace(), lease: 4 },
            masters::Command::SetState { namespace: namespace(), master: 1, active: true },
        ];
        let sessions = [
            sessions::Command::Open { idle_ms: 60_000 },
            sessions::Command::Keep { session: 1 },
            sessions::Command::Close { session: 1 },
        ];
        let delete = state::Command::Delete { namespace: namespace(), object, name, fence: None };
        let commands = [Command::State(delete)]
            .into_iter()
            .chain(sources.map(Command::ChangeSources))
            .chain(masters.map(Command::Masters))
            .chain(sessions.map(Command::Session));
        for command in commands {
            assert_eq!(growth(command.clone()), 0, "{command:?}");
        }
    }
}
