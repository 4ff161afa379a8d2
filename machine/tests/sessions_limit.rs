//! G4, G9: there are at most 100,000 sessions; the next one can be opened once one is closed or has expired.
//! That clearing expired ones away is bounded for each entry does not keep the cluster from getting there.

use holdfast_machine::{
    Command, Entry, LogPosition, Payload, Refusal, Reply, Request, Response, State, limits,
    sessions,
};

struct Cluster {
    state: State,
    index: u64,
}

impl Cluster {
    fn apply(&mut self, clock_ms: u64, commands: Vec<sessions::Command>) -> Vec<Response> {
        let requests = commands
            .into_iter()
            .map(|command| Request { origin: None, command: Command::Session(command) })
            .collect();
        let entry = Entry { clock_ms, wall_ms: 0, requests };
        let at = LogPosition { term: 1, index: self.index };
        self.index += 1;
        self.state.apply(at, Payload::Batch(&entry)).expect("no fault").responses
    }

    fn open(&mut self, clock_ms: u64) -> Result<Reply, Refusal> {
        let open = sessions::Command::Open { idle_ms: limits::SESSION_IDLE_MS_MIN };
        self.apply(clock_ms, vec![open]).remove(0).outcome
    }
}

#[test]
fn at_most_100_000_sessions() {
    let mut cluster = Cluster { state: State::new(), index: 0 };
    let open = sessions::Command::Open { idle_ms: limits::SESSION_IDLE_MS_MIN };
    for _ in 0..limits::SESSIONS_MAX / 100 {
        let responses = cluster.apply(0, vec![open.clone(); 100]);
        assert!(responses.iter().all(|response| response.outcome.is_ok()));
    }
    let full = Refusal::TooManySessions { actual: 100_000, allowed: 100_000 };
    assert_eq!(cluster.open(0), Err(full.clone()));

    cluster.apply(0, vec![sessions::Command::Close { session: 1 }]);
    assert!(cluster.open(0).is_ok());
    assert_eq!(cluster.open(0), Err(full));

    assert!(cluster.open(limits::SESSION_IDLE_MS_MIN).is_ok());
    let mut entries = 0;
    while cluster.state.next_deadline_ms() == Some(limits::SESSION_IDLE_MS_MIN) {
        cluster.apply(limits::SESSION_IDLE_MS_MIN, vec![]);
        entries += 1;
    }
    assert_eq!(entries, limits::SESSIONS_MAX.div_ceil(64) - 1);
    assert_eq!(cluster.state.audit(), Ok(vec![]));
}
