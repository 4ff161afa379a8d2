//! S5, G9: at most so many stand in line to create one value, and a value sends all of them away in one step.
//! Places that are over all at once are cleared away in bounded steps; meanwhile they count for nothing.

use holdfast_machine::creators::{self, Command as Creation, Reply as Told};
use holdfast_machine::limits::{CREATORS_EXPIRED_PER_ENTRY_MAX, CREATORS_PER_ITEM_MAX};
use holdfast_machine::{
    Command, Entry, LogPosition, Origin, Payload, Refusal, Reply, Request, State, sessions, state,
};

const NAMESPACE: &str = "default";
const TTL_MS: u64 = 1000;
const WAIT_MS: u64 = 5000;

/// A state with one session, which makes all writes, and one object.
struct Cluster {
    state: State,
    clock_ms: u64,
    seq: u64,
}

impl Cluster {
    fn new() -> Cluster {
        let mut cluster = Cluster { state: State::new(), clock_ms: 0, seq: 0 };
        let open = Command::Session(sessions::Command::Open { idle_ms: 60_000 });
        cluster.apply(vec![Request { origin: None, command: open }]);
        let (name, class_name) = ("builder".to_owned(), "Builder".to_owned());
        let namespace = NAMESPACE.to_owned();
        let object = state::Command::GetObjectId { namespace, name, class_name };
        cluster.run(Command::State(object)).expect("it is new");
        cluster
    }

    fn apply(&mut self, requests: Vec<Request>) -> Vec<Result<Reply, Refusal>> {
        let entry = Entry { clock_ms: self.clock_ms, wall_ms: 0, requests };
        let index = self.state.header().applied.map_or(0, |at| at.index + 1);
        let at = LogPosition { term: 1, index };
        let applied = self.state.apply(at, Payload::Batch(&entry)).expect("no fault");
        applied.responses.into_iter().map(|response| response.outcome).collect()
    }

    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.seq += 1;
        let seq = self.seq;
        let origin = Some(Origin { session: 1, seq, first_incomplete: seq, resent: false });
        self.apply(vec![Request { origin, command }]).remove(0)
    }

    fn ask(&mut self, name: &str) -> Result<Told, Refusal> {
        let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
        let (object, ttl_ms, wait_ms) = (1, TTL_MS, WAIT_MS);
        let ask = Creation::Ask { namespace, object, name, ttl_ms, wait_ms };
        let reply = self.run(Command::Creators(ask))?;
        let Reply::Creators(told) = reply else { panic!("{reply:?}") };
        Ok(told)
    }

    fn create(&mut self, name: &str, token: u64) -> Result<Reply, Refusal> {
        let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
        let (object, value, fence, token) = (1, b"made".as_slice().into(), None, Some(token));
        let create = state::Command::Create { namespace, object, name, value, fence, token };
        self.run(Command::State(create))
    }

    /// A creator, and those behind it; says their tokens.
    fn line_up(&mut self, name: &str, callers: u64) -> Vec<u64> {
        let mut tokens = Vec::new();
        for nth in 0..callers {
            match (nth, self.ask(name)) {
                (0, Ok(Told::Creating { token, ttl_ms: TTL_MS })) => tokens.push(token),
                (_, Ok(Told::Waiting { token, ahead })) if ahead == nth => tokens.push(token),
                (_, other) => panic!("{nth}: {other:?}"),
            }
        }
        tokens
    }

    fn line(&self, name: &str) -> Vec<u64> {
        creators::callers(&self.state, NAMESPACE, 1, name).expect("no fault")
    }

    fn is_sound(&self) {
        assert_eq!(self.state.audit(), Ok(vec![]));
    }
}

#[test]
fn at_most_1_000_stand_in_line_and_a_value_sends_all_away() {
    let mut cluster = Cluster::new();
    let tokens = cluster.line_up("key", CREATORS_PER_ITEM_MAX);
    let (actual, allowed) = (1000, 1000);
    assert_eq!(cluster.ask("key"), Err(Refusal::TooManyCreators { actual, allowed }));
    assert!(matches!(cluster.ask("another"), Ok(Told::Creating { .. })));
    cluster.is_sound();

    let rows = cluster.state.len();
    let created = cluster.create("key", tokens[0]);
    assert!(matches!(created, Ok(Reply::State(state::Reply::Created { created: true, .. }))));
    assert_eq!(cluster.line("key"), []);
    // Two rows for each place and one for the creator have gone; the value has come.
    assert_eq!(cluster.state.len(), rows - 2 * 1000 - 1 + 1);
    assert!(matches!(cluster.ask("key"), Ok(Told::Exists { .. })));
    cluster.is_sound();
}

#[test]
fn places_that_are_over_together_go_in_bounded_steps_and_count_for_nothing() {
    const LINE: u64 = CREATORS_EXPIRED_PER_ENTRY_MAX / 2;
    let names = ["a", "b", "c", "d"];
    let mut cluster = Cluster::new();
    let lines = names.map(|name| cluster.line_up(name, LINE));
    cluster.clock_ms = WAIT_MS;
    // Two lines are all that one entry clears away.
    cluster.apply(vec![]);
    cluster.is_sound();
    assert_eq!(cluster.state.next_deadline_ms(), Some(TTL_MS), "there is more to clear away");
    for (name, line) in names.iter().zip(&lines) {
        assert_eq!(cluster.line(name), [], "nobody's time is left");
        for token in [line[0], line[1]] {
            assert_eq!(cluster.create(name, token), Err(Refusal::CreationLost { token }));
        }
    }
    cluster.is_sound();
    assert!(cluster.state.next_deadline_ms().is_none_or(|due_ms| due_ms > WAIT_MS), "all is clear");
}

#[test]
fn who_comes_upon_places_that_are_over_is_first() {
    const LINE: u64 = CREATORS_EXPIRED_PER_ENTRY_MAX / 2;
    let mut cluster = Cluster::new();
    let lines = ["a", "b", "c", "d", "e"].map(|name| cluster.line_up(name, LINE));
    cluster.clock_ms = WAIT_MS;
    // Each entry clears two lines away, and then comes upon one of which all rows are there.
    let token = lines[2][0];
    assert_eq!(cluster.create("c", token), Err(Refusal::CreationLost { token }));
    assert!(matches!(cluster.ask("e"), Ok(Told::Creating { .. })));
    assert_eq!(cluster.line("e").len(), 1);
    cluster.is_sound();
}
