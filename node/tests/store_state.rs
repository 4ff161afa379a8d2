//! The state's rows on disk: checkpoints, what they cost, and installing a snapshot, with the
//! leftovers of crashes between its steps.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_node::store::{DataDir, Done, Row, StateStore};

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
    state.write(batch, header(index), index).expect("write");
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
    state.write(vec![(Arc::from(*b"c"), None)], header(3), 3).expect("remove");
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
        state.write(vec![(key, Some(value.clone()))], header(index), index).expect("write");
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
    state.write(Vec::new(), header(10), 10).expect_err("nothing goes on");
}

#[test]
fn a_snapshot_replaces_everything() {
    let temp = tempfile::tempdir().expect("a directory");
    let (state, _) = open(temp.path());
    write(&state, &[row("old", b"row")], 5);
    let mut rows = snapshot(5000);
    rows.push(row("zzz", &vec![3; 300_000]));
    state.install(rows.clone().into_iter().map(Ok), header(70), 70).expect("install");
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
    let error = state.install(broken, header(70), 70).expect_err("refused");
    assert_eq!(error.to_string(), "broke off");
    let twice = snapshot(10).into_iter().chain(snapshot(1)).map(Ok);
    let error = state.install(twice, header(70), 70).expect_err("refused");
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
            state.install(snapshot(3).into_iter().map(Ok), header(70), 70).expect("install");
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
