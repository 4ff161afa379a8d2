//! What one request costs to apply, with a million rows in the state, in processor time.
//!
//! `cargo run --release -p holdfast-machine --example apply_cost [ROWS]`

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures")]
#![expect(clippy::unwrap_used, reason = "a failure ends the measurement")]

use std::hint::black_box;

use holdfast_machine::{
    Command, Entry, LogPosition, Origin, Payload, Request, State, masters, sessions, state,
};

const BATCH: u64 = 64;
const SESSIONS: u64 = 64;

struct Cost {
    state: State,
    index: u64,
    seqs: Vec<u64>,
}

impl Cost {
    fn apply(&mut self, entry: &Entry) -> u64 {
        let at = LogPosition { term: 1, index: self.index };
        self.index += 1;
        let applied = self.state.apply(at, Payload::Batch(entry)).unwrap();
        let header = self.state.header_row();
        assert!(applied.responses.iter().all(|response| response.outcome.is_ok()));
        black_box((applied.changes.len() + header.1.len()) as u64)
    }

    /// A command as the next write of one of the sessions.
    fn request(&mut self, nth: u64, command: Command) -> Request {
        let session = nth % SESSIONS;
        let seq = self.seqs.get_mut(usize::try_from(session).unwrap()).unwrap();
        *seq += 1;
        let (seq, first_incomplete) = (*seq, *seq);
        let origin = Origin { session: session + 1, seq, first_incomplete, resent: false };
        Request { origin: Some(origin), command }
    }

    fn measure(&mut self, what: &str, count: u64, command: impl Fn(u64) -> Command) {
        let entries: Vec<_> = (0..count / BATCH)
            .map(|entry| {
                let nths = entry * BATCH..(entry + 1) * BATCH;
                let requests = nths.map(|nth| self.request(nth, command(nth))).collect();
                Entry { clock_ms: entry, wall_ms: entry, requests }
            })
            .collect();
        let start = processor_ns();
        let changes: u64 = entries.iter().map(|entry| self.apply(entry)).sum();
        let per_request = (processor_ns() - start) / count;
        println!("{what:24} {per_request:8} ns, {} changes", changes / count);
    }
}

/// How long this thread has been running on a processor; the rest of the machine does not count.
fn processor_ns() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

fn set(key: u64, len: usize, tag: u64) -> Command {
    let mut value = vec![b'v'; len];
    value[..8].copy_from_slice(&tag.to_le_bytes());
    Command::State(state::Command::Set {
        namespace: "default".to_owned(),
        object: 1,
        name: format!("key-{key:08}"),
        value: value.into(),
        if_revision: None,
        fence: None,
        noted_revision: Some(u64::MAX),
    })
}

fn main() {
    let rows: u64 = std::env::args().nth(1).map_or(1_000_000, |rows| rows.parse().unwrap());
    let mut cost =
        Cost { state: State::new(), index: 0, seqs: vec![0; usize::try_from(SESSIONS).unwrap()] };
    let open = Command::Session(sessions::Command::Open { idle_ms: 86_400_000 });
    let requests =
        vec![Request { origin: None, command: open }; usize::try_from(SESSIONS).unwrap()];
    cost.apply(&Entry { clock_ms: 0, wall_ms: 0, requests });
    cost.measure("object ids", BATCH, |nth| {
        let (namespace, class_name) = ("default".to_owned(), "Class".to_owned());
        let name = format!("object-{nth}");
        Command::State(state::Command::GetObjectId { namespace, name, class_name })
    });
    cost.measure("new keys of 200 bytes", rows, |nth| set(nth, 200, 0));
    let scattered = |nth: u64| nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % rows;
    cost.measure("set, 200 bytes", 256_000, |nth| set(scattered(nth), 200, nth + 1));
    cost.measure("set, 1 MiB", 128, |nth| set(scattered(nth), 1 << 20, nth + 1));
    cost.measure("open lease", 256, |nth| {
        let (namespace, name) = ("default".to_owned(), format!("master-{nth}"));
        let (instance, ttl_ms, grace_ms) = ([1; 32], 86_400_000, 0);
        Command::Masters(masters::Command::OpenLease {
            namespace,
            name,
            instance,
            ttl_ms,
            grace_ms,
        })
    });
    let first_lease = cost.state.header().revision - 255;
    cost.measure("keep alive", 256_000, |nth| {
        let (namespace, lease) = ("default".to_owned(), first_lease + nth % 256);
        Command::Masters(masters::Command::KeepAlive { namespace, lease })
    });
    let _snapshot = cost.state.clone();
    cost.measure("set, beside a snapshot", 64_000, |nth| set(scattered(nth), 200, nth + 7));
    let start = processor_ns();
    let all: Vec<_> = cost.state.rows().map(|(k, v)| (k.clone(), v.clone())).collect();
    let read = State::from_rows(all.into_iter().chain([cost.state.header_row()])).unwrap();
    println!("{} rows read back in {} ms", read.len(), (processor_ns() - start) / 1_000_000);
}
