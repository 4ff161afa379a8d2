//! Transactions as large as they may be, and one key or byte beyond. // G9

use holdfast_machine::limits::{
    CONFLICTS_NAMED_MAX, ENTRY_BYTES_MAX, NAME_BYTES_MAX, OUTCOME_BYTES_MAX, TRANSACTION_BYTES_MAX,
    TRANSACTION_KEYS_MAX, VALUE_BYTES_MAX,
};
use holdfast_machine::stm::{self, Codec, Comparison, Write};
use holdfast_machine::{
    Bytes, Command, Entry, Field, LogPosition, Origin, Payload, Refusal, Reply, Request, Response,
    State, sessions,
};

/// A state with a session, and the number of its next write.
struct Fixture {
    state: State,
    next: u64,
}

impl Fixture {
    fn new() -> Fixture {
        let mut fixture = Fixture { state: State::new(), next: 0 };
        let open = sessions::Command::Open { idle_ms: 60_000 };
        fixture.apply(Request { origin: None, command: Command::Session(open) });
        fixture
    }

    /// Applies a request from the bytes of its entry, which must not be longer than entries may be.
    fn apply(&mut self, request: Request) -> Response {
        let entry = Entry { clock_ms: 1, wall_ms: 1, requests: vec![request] };
        let bytes = entry.encode().expect("peers decode it");
        assert!(bytes.len() <= ENTRY_BYTES_MAX, "an entry of {} bytes", bytes.len());
        let entry = Entry::decode(&bytes).expect("what was encoded");
        let at = LogPosition { term: 1, index: self.next };
        self.next += 1;
        let applied = self.state.apply(at, Payload::Batch(&entry)).expect("it is in order");
        let [response] = &applied.responses[..] else { panic!("{:?}", applied.responses) };
        response.clone()
    }

    fn commit(
        &mut self,
        comparisons: Vec<Comparison>,
        writes: Vec<Write>,
    ) -> Result<stm::Reply, Refusal> {
        let (namespace, seq) = ("default".to_owned(), self.next);
        let command = Command::Stm(stm::Command { namespace, comparisons, writes });
        let origin = Origin { session: 1, seq, first_incomplete: seq, resent: false };
        let request = Request { origin: Some(origin), command };
        let validated = request.validate();
        let response = self.apply(request);
        assert_eq!(validated.is_err(), response.outcome.is_err(), "{validated:?}");
        let reply = response.outcome?;
        let Reply::Stm(reply) = reply else { panic!("{reply:?}") };
        Ok(reply)
    }
}

fn key(nth: usize) -> Bytes {
    format!("key-{nth:05}").into_bytes().into()
}

fn absent(key: Bytes) -> Comparison {
    Comparison { key, version: 0, mod_revision: Some(0) }
}

fn put(key: Bytes, value_bytes: usize) -> Write {
    Write::Put { key, codec: Codec::Bytes, value: vec![7; value_bytes].into() }
}

fn too_large(field: Field, actual: usize, allowed: usize) -> Refusal {
    let (actual, allowed) = (actual as u64, allowed as u64);
    Refusal::TransactionTooLarge { field, actual, allowed }
}

#[test]
fn as_many_keys_as_there_may_be_and_one_more() {
    let mut fixture = Fixture::new();
    let keys = TRANSACTION_KEYS_MAX;
    let compared = |range: std::ops::Range<usize>| range.map(key).map(absent).collect::<Vec<_>>();
    let written =
        |range: std::ops::Range<usize>| range.map(|nth| put(key(nth), 1)).collect::<Vec<_>>();
    let committed = fixture.commit(compared(0..keys), written(0..keys));
    assert_eq!(committed, Ok(stm::Reply::Committed), "a key that is read and written is one key");
    let refusal = Err(too_large(Field::Keys, keys + 1, keys));
    assert_eq!(fixture.commit(compared(0..keys + 1), vec![]), refusal);
    assert_eq!(fixture.commit(vec![], written(0..keys + 1)), refusal);
    assert_eq!(fixture.commit(compared(1..keys + 1), written(0..keys)), refusal);

    // Now none of these holds, and the outcome, which its session stores, names as many as fit.
    let conflict = fixture.commit(compared(0..keys), vec![]).expect("a conflict is no refusal");
    let stm::Reply::Conflict { failed, total } = &conflict else { panic!("{conflict:?}") };
    assert_eq!(*total as usize, keys);
    assert!(failed.iter().map(|nth| *nth as usize).eq(0..CONFLICTS_NAMED_MAX), "{failed:?}");
    let last = compared(0..keys).split_off(keys - 1);
    let holds = Comparison { version: 1, mod_revision: None, ..last[0].clone() };
    let many = compared(0..keys - 1).into_iter().chain([holds]).collect();
    let conflict = fixture.commit(many, vec![]).expect("a conflict is no refusal");
    let response = Response { revision: u64::MAX, outcome: Ok(Reply::Stm(conflict)) };
    let bytes = response.encode().expect("it fits").len();
    assert!(bytes <= OUTCOME_BYTES_MAX / 4, "{bytes} bytes");
}

#[test]
fn as_many_bytes_as_there_may_be_and_one_more() {
    let mut fixture = Fixture::new();
    // Seven values of the largest size, and what is left for the eighth beside the keys.
    let bytes_of_keys = 2 * 8 * key(0).len();
    let left = TRANSACTION_BYTES_MAX - 7 * VALUE_BYTES_MAX - bytes_of_keys;
    let commit = |fixture: &mut Fixture, last: usize| {
        let sizes = [VALUE_BYTES_MAX; 7].into_iter().chain([last]);
        let writes = (0..).zip(sizes).map(|(nth, bytes)| put(key(nth), bytes)).collect();
        let compare = |nth| Comparison { key: key(nth), version: 0, mod_revision: None };
        fixture.commit((0..8).map(compare).collect(), writes)
    };
    let refusal = too_large(Field::Bytes, TRANSACTION_BYTES_MAX + 1, TRANSACTION_BYTES_MAX);
    assert_eq!(commit(&mut fixture, left + 1), Err(refusal));
    assert_eq!(fixture.state.header().revision, 1, "nothing was written");
    assert_eq!(commit(&mut fixture, left), Ok(stm::Reply::Committed));
    assert!(fixture.state.bytes() > TRANSACTION_BYTES_MAX as u64 - bytes_of_keys as u64);
}

/// The longest keys with the fewest bytes of values: then the numbers beside them take most.
#[test]
fn a_transaction_of_keys_alone_fits_into_an_entry() {
    let mut fixture = Fixture::new();
    let long = |nth: usize| Bytes::from(format!("{nth:0NAME_BYTES_MAX$}").into_bytes());
    let keys = TRANSACTION_BYTES_MAX / 2 / NAME_BYTES_MAX;
    assert_eq!(keys, TRANSACTION_KEYS_MAX, "as many of the longest keys as there may be of any");
    let compared = |nth| Comparison { key: long(nth), version: 0, mod_revision: Some(0) };
    let writes = (0..keys).map(|nth| put(long(nth), 0)).collect();
    let committed = fixture.commit((0..keys).map(compared).collect(), writes);
    assert_eq!(committed, Ok(stm::Reply::Committed));
}
