//! Seeded model tests: the stores against ordered maps, with restarts.
//!
//! Each runs random calls against a store and a `BTreeMap` and compares what can be read.  The seed
//! is in each message; put a failing one into `SEEDS`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{BodyChange, DataDir, Done, Hash, LogStart, LogStore, Pin, StateStore};

const SEEDS: std::ops::Range<u64> = 0..6;
const STEPS: u32 = 400;

type RowMap = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

fn done(answers: &mpsc::Sender<io::Result<()>>) -> Done {
    let answers = answers.clone();
    Box::new(move |answer| answers.send(answer).expect("the test waits"))
}

fn open(path: &std::path::Path) -> DataDir {
    DataDir::open(path, Arc::new(|fault| panic!("{fault}"))).expect("open directory")
}

/// Mostly small, sometimes at the edge of a row, sometimes of several rows.
fn value(random: &mut StdRng) -> Vec<u8> {
    let bytes = match random.random_range(0..20) {
        0 => (64 << 10) + random.random_range(0..40) - 20,
        1 => random.random_range(0..300_000),
        _ => random.random_range(0..300),
    };
    vec![random.random(); bytes]
}

#[test]
fn the_log_is_a_map_from_index_to_entry() {
    for seed in SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let mut data = open(dir.path());
        // So small a tail that most reads go to the database.
        let tail_bytes_max = if seed % 2 == 0 { 0 } else { 2000 };
        let (mut log, _) = LogStore::open_with(&data, tail_bytes_max).expect("open");
        let mut model: BTreeMap<u64, Bytes> = BTreeMap::new();
        let mut next = 0;
        let mut first = 0;
        let (send, answers) = mpsc::channel();
        let mut awaited = 0;
        for step in 0..STEPS {
            let at = format!("seed {seed}, step {step}");
            match random.random_range(0..100) {
                0..50 => {
                    let count = random.random_range(1..6);
                    let entries: Vec<(u64, Bytes)> =
                        (next..next + count).map(|i| (i, value(&mut random).into())).collect();
                    model.extend(entries.iter().cloned());
                    next += count;
                    log.append(entries, done(&send));
                    awaited += 1;
                }
                50..60 => {
                    let index = random.random_range(first..=next);
                    model.split_off(&index);
                    next = index;
                    log.truncate_from(index, done(&send));
                    awaited += 1;
                }
                60..70 => {
                    let index = random.random_range(first..=next + 2);
                    model = model.split_off(&(index + 1));
                    first = index + 1;
                    next = next.max(first);
                    log.purge_to(index, index.to_le_bytes().to_vec(), done(&send));
                    awaited += 1;
                }
                70..95 => {
                    let from = random.random_range(0..=next);
                    let to = random.random_range(from..=next + 3);
                    let found = log.read(from..to, u64::MAX).expect(&at);
                    let expected: Vec<_> =
                        model.range(from..to).map(|(i, e)| (*i, e.clone())).collect();
                    assert!(found == expected, "{at}: read {from}..{to}");
                }
                _ => {
                    drop(log);
                    drop(data);
                    data = open(dir.path());
                    let start: LogStart;
                    (log, start) = LogStore::open_with(&data, tail_bytes_max).expect(&at);
                    assert_eq!(start.first_index, model.keys().next().copied(), "{at}");
                    assert_eq!(start.last_index, model.keys().next_back().copied(), "{at}");
                    assert!(start.last_entry.as_ref() == model.values().next_back(), "{at}");
                    assert_eq!(start.purged_index, first.checked_sub(1), "{at}");
                }
            }
        }
        for _ in 0..awaited {
            answers.recv().expect("every call is answered").expect("success");
        }
    }
}

/// What a state should be that somebody reads.
type BodyMap = BTreeMap<Hash, Arc<[u8]>>;

/// One of a few bodies, the largest of which are for files.
fn body(random: &mut StdRng) -> (Hash, Arc<[u8]>) {
    let bytes: Arc<[u8]> =
        vec![random.random_range(0..12_u8); random.random_range(1..4) * 60_000].into();
    (*blake3::hash(&bytes).as_bytes(), bytes)
}

fn assert_bodies(state: &StateStore, bodies: &BodyMap, at: &str) {
    for (hash, bytes) in bodies {
        assert!(state.body(hash).expect(at) == *bytes, "{at}: a body");
    }
}

/// Bodies that come and go, under readers that pin states, restarts and snapshots.
#[test]
fn every_pinned_state_has_its_bodies() {
    for seed in SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let mut data = open(dir.path());
        let (mut state, _) = StateStore::open(&data).expect("open");
        let mut model = BodyMap::new();
        let mut readers: Vec<(Pin, BodyMap)> = Vec::new();
        let header = |index: u64| (Arc::from([0_u8]), Arc::from(index.to_be_bytes()));
        for index in 1..=u64::from(STEPS) {
            let at = format!("seed {seed}, index {index}");
            match random.random_range(0..100) {
                0..2 => {
                    readers.clear();
                    drop(state);
                    drop(data);
                    data = open(dir.path());
                    (state, _) = StateStore::open(&data).expect(&at);
                    state.write(vec![], vec![], header(index), index).expect(&at);
                }
                2..4 => {
                    let mut building = state.build().expect(&at);
                    model = (0..random.random_range(0..8)).map(|_| body(&mut random)).collect();
                    for bytes in model.values() {
                        building.put_body(bytes).expect(&at);
                    }
                    state.install(building, std::iter::empty(), header(index), index).expect(&at);
                }
                4..10 => {
                    state.write(vec![], vec![], header(index), index).expect(&at);
                    let (send, answer) = mpsc::channel();
                    state.sync(done(&send));
                    answer.recv().expect("an answer").expect(&at);
                }
                _ => {
                    let mut bodies: Vec<BodyChange> = Vec::new();
                    for _ in 0..random.random_range(0..4) {
                        let (hash, bytes) = body(&mut random);
                        // As rows name them: one that is there goes, one that is not comes.
                        bodies.push(match model.remove(&hash) {
                            Some(_) => (hash, None),
                            None => {
                                model.insert(hash, bytes.clone());
                                (hash, Some(bytes))
                            }
                        });
                    }
                    state.write(vec![], bodies, header(index), index).expect(&at);
                }
            }
            for (_, bodies) in &readers {
                assert_bodies(&state, bodies, &at);
            }
            state.pins().publish(index);
            assert_bodies(&state, &model, &at);
            if random.random_bool(0.1) {
                readers.push((state.pins().pin(index), model.clone()));
            }
            if readers.len() > 4 || random.random_bool(0.05) && !readers.is_empty() {
                readers.swap_remove(random.random_range(0..readers.len()));
            }
        }
    }
}

#[test]
fn the_state_is_a_map_of_rows_at_one_applied_index() {
    for seed in SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let mut data = open(dir.path());
        let (mut state, _) = StateStore::open(&data).expect("open");
        let mut model = RowMap::new();
        let header = |index: u64| (Arc::from([0_u8]), Arc::from(index.to_be_bytes()));
        for index in 1..=u64::from(STEPS) {
            let at = format!("seed {seed}, index {index}");
            match random.random_range(0..100) {
                0..2 => {
                    drop(state);
                    drop(data);
                    data = open(dir.path());
                    let rows;
                    (state, rows) = StateStore::open(&data).expect(&at);
                    assert!(rows.into_iter().eq(model.clone()), "{at}: rows after a restart");
                }
                2..4 => {
                    model = (0..random.random_range(0..200))
                        .map(|_| (Arc::from(value(&mut random)), Arc::from(value(&mut random))))
                        .filter(|(key, _): &(Arc<[u8]>, _)| key.len() < 1000)
                        .collect();
                    let rows = model.clone().into_iter().map(Ok);
                    let building = state.build().expect(&at);
                    state.install(building, rows, header(index), index).expect(&at);
                    state.pins().publish(index);
                    assert_eq!(state.synced_index(), index, "{at}");
                }
                4..10 => {
                    let (send, answer) = mpsc::channel();
                    state.sync(done(&send));
                    answer.recv().expect("an answer").expect(&at);
                }
                _ => {
                    let mut batch = Vec::new();
                    for _ in 0..random.random_range(0..20) {
                        let key: Arc<[u8]> = Arc::from([random.random_range(0..60_u8), 0]);
                        let value: Option<Arc<[u8]>> =
                            random.random_bool(0.7).then(|| Arc::from(value(&mut random)));
                        match &value {
                            Some(value) => model.insert(key.clone(), value.clone()),
                            None => model.remove(&key),
                        };
                        batch.push((key, value));
                    }
                    state.write(batch, vec![], header(index), index).expect(&at);
                }
            }
            let (key, row) = header(index);
            model.insert(key.clone(), row.clone());
            state.write(vec![], vec![], (key, row), index).expect(&at);
        }
    }
}
