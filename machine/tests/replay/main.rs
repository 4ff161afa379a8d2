//! Random histories, from seeds: all ways of coming to a state lead to the same one, and what must always
//! hold does, after every entry.
//!
//! Three replicas apply each history. The first applies entries as they were made. The second applies what
//! it decodes from their bytes. The third is thrown away at random points and read back from rows: the fold
//! of all changes, and the header row. Responses, changes, header, digest and rows must agree. A model that
//! knows nothing of rows checks the answers.
//!
//! `HOLDFAST_SEEDS=10000` runs more histories, `HOLDFAST_SEED=17` only that one.

#![expect(clippy::disallowed_methods, reason = "seeds come from the environment")]

mod generate;
mod kinds;
mod model;
mod random;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_machine::{Applied, Bytes, Entry, LogPosition, Payload, Request, State};

use generate::{Generator, Made};
use model::Model;
use random::Random;

const SEEDS: u64 = 500;
const ENTRIES: u64 = 100;

#[test]
fn replicas_agree_and_invariants_hold() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("HOLDFAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HOLDFAST_SEEDS").unwrap_or(SEEDS),
    };
    let is_whole = seeds.end - seeds.start >= SEEDS;
    let mut seen = BTreeSet::new();
    for seed in seeds {
        match std::panic::catch_unwind(|| History::new(seed).run()) {
            Ok(kinds) => seen.extend(kinds),
            Err(_) => panic!("seed {seed} fails; HOLDFAST_SEED={seed} runs it alone"),
        }
    }
    let missed: Vec<_> = kinds::ALL.iter().filter(|kind| !seen.contains(*kind)).collect();
    assert!(!is_whole || missed.is_empty(), "no history answers {missed:?}");
}

struct History {
    random: Random,
    generator: Generator,
    model: Model,
    leader: State,
    follower: State,
    restarted: State,
    /// The fold of all changes, as a store keeps it.
    stored: BTreeMap<Bytes, Bytes>,
    term: u64,
    /// The kinds of answers there were.
    seen: BTreeSet<&'static str>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        History {
            generator: Generator::new(random.fork(), seed.is_multiple_of(10)),
            random,
            model: Model::default(),
            leader: State::new(),
            follower: State::new(),
            restarted: State::new(),
            stored: BTreeMap::new(),
            term: 1,
            seen: BTreeSet::new(),
        }
    }

    /// Runs the history; says which kinds of answers there were.
    fn run(mut self) -> BTreeSet<&'static str> {
        for index in 0..ENTRIES {
            self.term += u64::from(self.random.one_in(20));
            let at = LogPosition { term: self.term, index };
            match self.generator.next(&self.leader) {
                Made::Blank => self.apply_everywhere(at, Payload::Blank),
                Made::Membership(members) => {
                    self.apply_everywhere(at, Payload::Membership(&members));
                }
                Made::Batch(entry) => self.apply_batch(at, &entry),
            }
            if self.random.one_in(12) {
                self.restart();
            }
            if self.random.one_in(10) {
                self.audit();
            }
        }
        self.restart();
        self.audit();
        self.seen
    }

    fn apply_everywhere(&mut self, at: LogPosition, payload: Payload<'_>) {
        let before = self.leader.clone();
        for state in [&mut self.leader, &mut self.follower, &mut self.restarted] {
            let applied = state.apply(at, payload).expect("no fault");
            assert_eq!(applied, Applied::default(), "only commands answer and change rows");
        }
        assert_eq!(before.header().revision, self.leader.header().revision);
        assert!(before.rows().eq(self.leader.rows()));
    }

    fn apply_batch(&mut self, at: LogPosition, entry: &Entry) {
        let clock_before = self.leader.header().clock_ms;
        let snapshot = self.leader.clone();
        let rows_before = snapshot.len();

        let applied = self.leader.apply(at, Payload::Batch(entry)).expect("no fault");
        let bytes = entry.encode().expect("entries are small");
        let decoded = Entry::decode(&bytes).expect("what was encoded");
        assert_eq!(*entry, decoded);
        assert_eq!(applied, self.follower.apply(at, Payload::Batch(&decoded)).expect("no fault"));
        assert_eq!(applied, self.restarted.apply(at, Payload::Batch(&decoded)).expect("no fault"));
        assert_eq!(self.leader.header(), self.follower.header());
        assert_eq!(self.leader.header(), self.restarted.header());

        assert_eq!(rows_before, snapshot.len(), "a clone is a snapshot");
        assert_eq!(self.leader.header().clock_ms, clock_before.max(entry.clock_ms));
        assert_eq!(applied.responses.len(), entry.requests.len());
        self.check_changes(&applied, snapshot.header().revision);
        if let [request] = entry.requests.as_slice() {
            check_growth(&snapshot, request, &applied);
        }
        self.fold(&applied);
        self.generator.learn(entry, &applied);
        self.model.check(entry, &applied, &self.leader);
        self.seen.extend(applied.responses.iter().map(kinds::kind));
    }

    /// Revisions of changes rise without a gap from the one before the entry to the one after.
    fn check_changes(&self, applied: &Applied, before: u64) {
        let mut revision = before;
        for change in &applied.changes {
            assert!(
                change.revision == revision || change.revision == revision + 1,
                "a change at {} behind {revision}",
                change.revision
            );
            revision = change.revision;
        }
        assert_eq!(revision, self.leader.header().revision);
    }

    fn fold(&mut self, applied: &Applied) {
        for change in &applied.changes {
            match &change.value {
                Some(value) => self.stored.insert(change.key.clone(), value.clone()),
                None => self.stored.remove(&change.key),
            };
        }
    }

    /// Throws the third replica away and reads it back from what is stored.
    fn restart(&mut self) {
        let rows = self.stored.iter().map(|(key, value)| (key.clone(), value.clone()));
        let header = self.restarted.header_row();
        self.restarted = State::from_rows(rows.chain([header])).expect("the rows are sound");
        assert_eq!(self.restarted, self.leader);
        assert_eq!(self.restarted, self.follower);
        assert!(self.leader.rows().eq(&self.stored));
    }

    fn audit(&self) {
        assert_eq!(self.leader.audit().expect("rows can be read"), Vec::<String>::new());
    }
}

/// The rows that clients store have not grown by more than the request said that they would. // G9
fn check_growth(before: &State, request: &Request, applied: &Applied) {
    let old: BTreeMap<&Bytes, &Bytes> = before.rows().collect();
    let mut new: BTreeMap<&Bytes, usize> = BTreeMap::new();
    for change in &applied.changes {
        let bytes = change.value.as_ref().map_or(0, |value| change.key.len() + value.len());
        new.insert(&change.key, bytes);
    }
    let (mut added, mut removed, mut numbers): (u64, u64, u64) = (0, 0, 0);
    added += applied
        .bodies
        .iter()
        .filter_map(|body| body.bytes.as_ref())
        .map(|b| b.len() as u64)
        .sum::<u64>();
    // The prefixes of objects, their ids and their values, of variables and of stored objects; docs/formats.md lists them.
    let is_counted = |key: &Bytes| matches!(key[0], 0x20..=0x22 | 0x50 | 0x60..=0x66);
    for (key, bytes) in new.into_iter().filter(|(key, _)| is_counted(key)) {
        added += bytes as u64;
        // A value that is replaced keeps its numbers, which may have become longer ones.
        numbers += 3 * 9;
        removed += old.get(key).map_or(0, |value| key.len() + value.len()) as u64;
    }
    let growth = before.growth(request);
    assert!(added <= removed + growth + numbers, "{added} for {removed} by {growth}: {request:?}");
}
