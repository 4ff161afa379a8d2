//! The state on disk: checkpoints of rows and bodies, what they cost, how long bodies stay, and
//! installing a snapshot, with the leftovers of crashes between its steps.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_node::store::{BodyChange, DataDir, Done, Hash, Row, StateStore};

const SOON: Duration = Duration::from_secs(60);

fn open(path: &Path) -> (StateStore, Vec<Row>) {
    let dir = DataDir::open(path, Arc::new(|_: &str| {})).expect("open the directory");
    StateStore::open(&dir).expect("open the state")
}

fn wait(call: impl FnOnce(Done)) -> io::Result<()> {
    let (send, receive) = mpsc::channel();
    call(Box::new(move |answer| drop(send.send(answer))));
    receive.recv_timeout(SOON).expect("an answer")
}

fn row(key: &str, value: &[u8]) -> Row {
    (Arc::from(key.as_bytes()), Arc::from(value))
}

fn header(index: u64) -> Row {
    (Arc::from([0_u8]), Arc::from(index.to_be_bytes()))
}

fn write(state: &StateStore, rows: &[Row], index: u64) {
    let batch = rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    state.write(batch, vec![], header(index), index).expect("write");
}

/// Installs rows without bodies as the state at index 70, and publishes it.
fn install(state: &StateStore, rows: impl Iterator<Item = io::Result<Row>>) -> io::Result<()> {
    state.install(state.build()?, rows, header(70), 70)?;
    state.pins().publish(70);
    Ok(())
}

fn snapshot(count: u32) -> Vec<Row> {
    (0..count).map(|number| row(&format!("row {number:06}"), &number.to_be_bytes())).collect()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn rows_come_back_in_order_with_their_header() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, rows) = open(temp.path());
    assert_eq!((rows.len(), state.synced_index()), (0, 0));
    let large = vec![7; 1 << 20];
    write(&state, &[row("b", b"two"), row("a", &large), row("c", b"three")], 1);
    write(&state, &[row("b", b"second")], 2);
    state.write(vec![(Arc::from(*b"c"), None)], vec![], header(3), 3).expect("remove");
    wait(|done| state.sync(done)).expect("sync");
    assert_eq!(state.synced_index(), 3);
    drop(state);

    let (state, rows) = open(temp.path());
    assert_eq!(state.synced_index(), 3);
    assert!(rows == [header(3), row("a", &large), row("b", b"second")]);
    write(&state, &[row("a", b"small now")], 4);
    drop(state);

    let (_state, rows) = open(temp.path());
    assert_eq!(rows, [header(4), row("a", b"small now"), row("b", b"second")]);
}

#[test]
fn writes_become_durable_by_themselves_so_that_the_log_can_be_purged() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write(&state, &[row("key", b"value")], 9);
    let started = std::time::Instant::now();
    while state.synced_index() < 9 {
        assert!(started.elapsed() < SOON, "never synced");
        std::thread::yield_now();
    }
}

#[test]
fn many_writes_share_a_checkpoint() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    let started = std::time::Instant::now();
    for index in 1..=2000_u64 {
        write(&state, &[row(&format!("key {}", index % 10), &index.to_be_bytes())], index);
    }
    wait(|done| state.sync(done)).expect("sync");
    let periods = u64::try_from(started.elapsed().as_millis() / 500).expect("small");
    assert!(state.checkpoints() <= periods + 2, "{} checkpoints", state.checkpoints());
    assert_eq!(state.synced_index(), 2000);
}

#[test]
fn a_flood_of_writes_waits_instead_of_filling_memory() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    let value: Arc<[u8]> = Arc::from(vec![1; 1 << 20]);
    for index in 1..=200_u64 {
        let key: Arc<[u8]> = Arc::from((index % 150).to_be_bytes());
        state.write(vec![(key, Some(value.clone()))], vec![], header(index), index).expect("write");
    }
    wait(|done| state.sync(done)).expect("sync");
    drop(state);
    let (state, rows) = open(temp.path());
    assert_eq!((rows.len(), state.synced_index()), (151, 200));
}

#[test]
fn an_applied_index_that_goes_back_is_a_fault() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write(&state, &[row("key", b"value")], 9);
    write(&state, &[row("key", b"older")], 8);
    let error = wait(|done| state.sync(done)).expect_err("refused");
    assert!(error.to_string().contains("applied index 8 comes after 9"), "{error}");
    state.write(vec![], vec![], header(10), 10).expect_err("nothing goes on");
}

fn body(number: u64) -> (Hash, Arc<[u8]>) {
    let bytes: Arc<[u8]> = number.to_be_bytes().repeat(30_000).into();
    (*blake3::hash(&bytes).as_bytes(), bytes)
}

fn comes(number: u64) -> BodyChange {
    let (hash, bytes) = body(number);
    (hash, Some(bytes))
}

fn goes(number: u64) -> BodyChange {
    (body(number).0, None)
}

/// Writes bodies, and publishes the state that names them.
fn write_bodies(state: &StateStore, bodies: Vec<BodyChange>, index: u64) {
    state.write(vec![], bodies, header(index), index).expect("write");
    state.pins().publish(index);
}

fn assert_readable(state: &StateStore, number: u64) {
    let (hash, bytes) = body(number);
    assert!(state.body(&hash).expect("it is there") == bytes, "body {number}");
}

/// Whether a body is there for whoever opens the directory after a crash at this moment.
fn survives_a_crash(path: &Path, number: u64) -> bool {
    let copy = tempfile::tempdir().expect("a directory");
    copy_dir(path, copy.path());
    let (state, _) = open(copy.path());
    state.body(&body(number).0).is_ok()
}

/// Waits until a body is gone that nobody names. Looking for it is a fault, so that this ends a test.
fn wait_until_gone(state: &StateStore, number: u64) {
    let started = std::time::Instant::now();
    while state.body(&body(number).0).is_ok() {
        assert!(started.elapsed() < SOON, "body {number} is still there");
        std::thread::yield_now();
    }
}

// P2
#[test]
fn bodies_come_and_go_with_their_checkpoint_and_are_read_before_and_after_it() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write_bodies(&state, vec![comes(1), comes(2)], 1);
    assert_readable(&state, 1);
    wait(|done| state.sync(done)).expect("sync");
    assert_readable(&state, 2);
    // In one checkpoint: gone and back, come and gone.
    write_bodies(&state, vec![goes(1), comes(3)], 2);
    write_bodies(&state, vec![comes(1), goes(3), goes(2)], 3);
    drop(state);
    let (state, rows) = open(temp.path());
    assert_eq!(rows, [header(3)]);
    assert_readable(&state, 1);
    drop(state);
    for (number, is_there) in [(1, true), (2, false), (3, false)] {
        assert_eq!(survives_a_crash(temp.path(), number), is_there, "body {number}");
    }
}

// P2 N3
#[test]
fn a_body_that_a_pinned_state_names_stays_until_the_pin_goes() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write_bodies(&state, vec![comes(1), comes(2)], 1);
    wait(|done| state.sync(done)).expect("sync");
    // The second one comes and goes between two checkpoints.
    write_bodies(&state, vec![comes(3)], 2);
    let pin = state.pins().pin(2);
    write_bodies(&state, vec![goes(1), goes(3)], 3);
    wait(|done| state.sync(done)).expect("sync");
    for number in [1, 2, 3] {
        assert_readable(&state, number);
    }
    // A crash now: what nobody names is gone after it, as no pin outlives its process.
    for (number, is_there) in [(1, false), (2, true), (3, false)] {
        assert_eq!(survives_a_crash(temp.path(), number), is_there, "body {number}");
    }
    // One of them is named again meanwhile.
    write_bodies(&state, vec![comes(1)], 4);
    drop(pin);
    wait(|done| state.sync(done)).expect("sync");
    assert_readable(&state, 1);
    assert!(survives_a_crash(temp.path(), 1) && survives_a_crash(temp.path(), 2));
    wait_until_gone(&state, 3);
}

// N3
#[test]
fn a_body_that_is_removed_before_its_state_is_published_stays() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write_bodies(&state, vec![comes(1)], 1);
    state.write(vec![], vec![goes(1)], header(2), 2).expect("write");
    wait(|done| state.sync(done)).expect("sync");
    // Somebody still gets the state before.
    let pin = state.pins().pin(1);
    state.pins().publish(2);
    assert_readable(&state, 1);
    drop(pin);
    wait_until_gone(&state, 1);
}

// N3
#[test]
fn a_snapshot_brings_its_bodies_and_the_old_ones_stay_for_whoever_reads_them() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write_bodies(&state, vec![comes(1)], 1);
    let pin = state.pins().pin(1);
    let mut refused = state.build().expect("build");
    refused.put_body(&body(5).1).expect("put");
    let mut building = state.build().expect("build");
    for number in [2, 3, 2] {
        let hash = building.put_body(&body(number).1).expect("put");
        assert_eq!(hash, body(number).0);
    }
    drop(refused);
    let rows = snapshot(10).into_iter().map(Ok);
    state.install(building, rows, header(70), 70).expect("install");
    state.pins().publish(70);
    for number in [1, 2, 3] {
        assert_readable(&state, number);
    }
    write_bodies(&state, vec![goes(2), comes(4)], 71);
    drop(pin);
    wait(|done| state.sync(done)).expect("sync");
    let started = std::time::Instant::now();
    while names(temp.path()) != ["CURRENT", "LOCK", "state-3"] {
        assert!(started.elapsed() < SOON, "{:?}", names(temp.path()));
        std::thread::yield_now();
    }
    assert!(survives_a_crash(temp.path(), 3) && survives_a_crash(temp.path(), 4));
    wait_until_gone(&state, 2);
}

// P2
#[test]
fn a_flood_of_bodies_waits_for_the_disk() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    let mut was_full = 0;
    for index in 1..=100 {
        write_bodies(&state, vec![comes(index)], index);
        was_full += u32::from(state.is_full());
    }
    assert!(was_full > 0, "24 MB of bodies never filled the queue");
    wait(|done| state.sync(done)).expect("sync");
    for number in 1..=100 {
        assert_readable(&state, number);
    }
}

// P2
#[test]
fn small_bodies_do_not_wait_in_memory_for_the_time_of_a_checkpoint() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    let small = |index: u64| {
        let mut bytes = vec![7; 100_000];
        bytes[..8].copy_from_slice(&index.to_be_bytes());
        (*blake3::hash(&bytes).as_bytes(), Some(bytes.into()))
    };
    for index in 1..=100 {
        write_bodies(&state, vec![small(index)], index);
    }
    wait(|done| state.sync(done)).expect("sync");
    assert!(state.checkpoints() > 5, "{} checkpoints", state.checkpoints());
}

#[test]
fn a_snapshot_replaces_everything() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write(&state, &[row("old", b"row")], 5);
    let mut rows = snapshot(5000);
    rows.push(row("zzz", &vec![3; 300_000]));
    install(&state, rows.clone().into_iter().map(Ok)).expect("install");
    assert_eq!(state.synced_index(), 70);
    write(&state, &[row("new", b"row")], 71);
    drop(state);
    assert_eq!(names(temp.path()), ["CURRENT", "LOCK", "state-2"]);

    let (_state, found) = open(temp.path());
    rows.insert(0, header(71));
    rows.insert(1, row("new", b"row"));
    assert!(found == rows);
}

#[test]
fn a_snapshot_that_breaks_off_changes_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write(&state, &[row("old", b"row")], 5);
    let broken = snapshot(100).into_iter().map(Ok).chain([Err(io::Error::other("broke off"))]);
    let error = install(&state, broken).expect_err("refused");
    assert_eq!(error.to_string(), "broke off");
    let twice = snapshot(10).into_iter().chain(snapshot(1)).map(Ok);
    let error = install(&state, twice).expect_err("refused");
    assert!(error.to_string().contains("was read back"), "{error}");
    write(&state, &[row("more", b"row")], 6);
    drop(state);
    assert_eq!(names(temp.path()), ["CURRENT", "LOCK", "state-1"]);
    let (_state, rows) = open(temp.path());
    assert_eq!(rows, [header(6), row("more", b"row"), row("old", b"row")]);
}

/// A closed directory with the old state, and one with the state after an install.
fn before_and_after() -> (tempfile::TempDir, tempfile::TempDir) {
    let temp = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    for (temp, installs) in temp.iter().zip([false, true]) {
        let (state, _) = open(temp.path());
        write(&state, &[row("old", b"row")], 5);
        if installs {
            install(&state, snapshot(3).into_iter().map(Ok)).expect("install");
        }
    }
    let [before, after] = temp;
    (before, after)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create");
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

// N3
#[test]
fn a_crash_between_the_steps_of_an_install_leaves_the_old_state_or_the_new() {
    let old = [header(5), row("old", b"row")];
    let new = [&[header(70)], &snapshot(3)[..]].concat();

    // While rows were being written: a directory that CURRENT does not name, whatever is in it.
    let (before, _) = before_and_after();
    fs::create_dir_all(before.path().join("state-2/blobs")).expect("create");
    fs::write(before.path().join("state-2/db"), b"half").expect("write");
    assert_eq!(open(before.path()).1, old);
    assert_eq!(names(before.path()), ["CURRENT", "LOCK", "state-1"]);

    // All rows are synced, CURRENT is still the old one.
    let (before, after) = before_and_after();
    copy_dir(&after.path().join("state-2"), &before.path().join("state-2"));
    assert_eq!(open(before.path()).1, old);
    assert_eq!(names(before.path()), ["CURRENT", "LOCK", "state-1"]);

    // CURRENT was written aside and not renamed.
    let (before, after) = before_and_after();
    copy_dir(&after.path().join("state-2"), &before.path().join("state-2"));
    fs::copy(after.path().join("CURRENT"), before.path().join("CURRENT.new")).expect("copy");
    assert_eq!(open(before.path()).1, old);
    assert_eq!(names(before.path()), ["CURRENT", "LOCK", "state-1"]);

    // CURRENT is the new one, the old state is not removed yet, or half.
    let (before, after) = before_and_after();
    copy_dir(&before.path().join("state-1"), &after.path().join("state-1"));
    fs::remove_file(after.path().join("state-1/conf")).expect("remove");
    assert_eq!(open(after.path()).1, new);
    assert_eq!(names(after.path()), ["CURRENT", "LOCK", "state-2"]);
}

#[test]
fn a_state_that_was_used_and_is_gone_is_not_begun_anew() {
    let (before, _) = before_and_after();
    fs::remove_dir_all(before.path().join("state-1")).expect("remove");
    let dir = DataDir::open(before.path(), Arc::new(|_: &str| {})).expect("open");
    let error = StateStore::open(&dir).err().expect("refused");
    assert_eq!(error.code(), "store-missing");
    assert!(error.help().contains("join a new one"), "{}", error.help());
}
