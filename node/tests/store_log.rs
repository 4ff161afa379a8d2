//! The raft log on disk: what is read back, after restarts, at the sizes where rows are cut, and
//! how many syncs it costs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use holdfast_node::store::{DataDir, Done, LogStart, LogStore};

const SOON: Duration = Duration::from_secs(60);

fn open(path: &Path) -> (LogStore, LogStart) {
    let dir = DataDir::open(path, Arc::new(|_: &str| {})).expect("open the directory");
    LogStore::open(&dir).expect("open the log")
}

/// Runs a call and waits for its answer.
fn wait(call: impl FnOnce(Done)) -> io::Result<()> {
    let (send, receive) = mpsc::channel();
    call(Box::new(move |answer| drop(send.send(answer))));
    receive.recv_timeout(SOON).expect("an answer")
}

fn entries(indexes: std::ops::Range<u64>) -> Vec<(u64, Bytes)> {
    indexes.map(|index| (index, Bytes::from(format!("entry {index}")))).collect()
}

fn append(log: &LogStore, indexes: std::ops::Range<u64>) {
    wait(|done| log.append(entries(indexes), done)).expect("append");
}

fn read_all(log: &LogStore) -> Vec<(u64, Bytes)> {
    log.read(0..u64::MAX, u64::MAX).expect("read")
}

#[test]
fn entries_can_be_read_at_once_and_after_a_restart() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, start) = open(temp.path());
    assert_eq!(start, LogStart::default());
    log.append(entries(0..100), Box::new(|_| {}));
    assert_eq!(read_all(&log), entries(0..100), "before it is durable");
    append(&log, 100..200);
    assert_eq!(log.read(50..60, u64::MAX).expect("read"), entries(50..60));
    assert_eq!(log.read(190..300, u64::MAX).expect("read"), entries(190..200));
    assert_eq!(log.read(200..300, u64::MAX).expect("read"), entries(0..0));
    assert_eq!(log.read(10..20, 1).expect("read"), entries(10..11), "at least one");
    assert_eq!(log.read(10..20, 24).expect("read"), entries(10..13));
    drop(log);

    let (log, start) = open(temp.path());
    assert_eq!((start.first_index, start.last_index), (Some(0), Some(199)));
    assert_eq!(start.last_entry.as_deref(), Some(&b"entry 199"[..]));
    assert_eq!(read_all(&log), entries(0..200));
    append(&log, 200..201);
    assert_eq!(read_all(&log), entries(0..201));
}

#[test]
fn truncation_and_purge_survive_a_restart() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    append(&log, 0..1000);
    wait(|done| log.truncate_from(900, done)).expect("truncate");
    wait(|done| log.purge_to(499, b"position 499".to_vec(), done)).expect("purge");
    assert_eq!(read_all(&log), entries(500..900));
    log.append(vec![(900, "another 900".into())], Box::new(|_| {}));
    drop(log);

    let (log, start) = open(temp.path());
    assert_eq!((start.first_index, start.last_index), (Some(500), Some(900)));
    assert_eq!(start.last_entry.as_deref(), Some(&b"another 900"[..]));
    assert_eq!(start.purged.as_deref(), Some(&b"position 499"[..]));
    assert_eq!(start.purged_index, Some(499));
    assert_eq!(log.read(0..900, u64::MAX).expect("read"), entries(500..900));
}

#[test]
fn a_purge_beyond_the_end_empties_the_log_for_a_snapshot() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    append(&log, 0..10);
    wait(|done| log.purge_to(5000, b"snapshot".to_vec(), done)).expect("purge");
    assert_eq!((log.first_index(), log.last_index()), (None, None));
    append(&log, 5001..5003);
    drop(log);

    let (log, start) = open(temp.path());
    assert_eq!((start.first_index, start.last_index), (Some(5001), Some(5002)));
    assert_eq!(read_all(&log), entries(5001..5003));
    wait(|done| log.truncate_from(5001, done)).expect("truncate");
    drop(log);

    let (_log, start) = open(temp.path());
    assert_eq!((start.first_index, start.last_index, start.last_entry), (None, None, None));
    assert_eq!(start.purged_index, Some(5000));
}

// G1: votes are as durable as entries.
#[test]
fn vote_and_committed_position_come_back() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    wait(|done| log.save_vote(b"term 1".to_vec(), done)).expect("vote");
    wait(|done| log.save_vote(b"term 2".to_vec(), done)).expect("vote");
    let syncs = log.syncs();
    log.save_committed(b"position 7".to_vec());
    append(&log, 0..1);
    assert_eq!(log.syncs(), syncs + 1, "the committed position costs no sync of its own");
    log.save_committed(b"position 8".to_vec());
    drop(log);

    let (_log, start) = open(temp.path());
    assert_eq!(start.vote.as_deref(), Some(&b"term 2"[..]));
    assert_eq!(start.committed.as_deref(), Some(&b"position 8"[..]));
}

#[test]
fn many_appends_share_a_sync() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    append(&log, 0..1);
    let before = log.syncs();
    let (send, answers) = mpsc::channel();
    for index in 1..=256 {
        let send = send.clone();
        log.append(entries(index..index + 1), Box::new(move |answer| drop(send.send(answer))));
    }
    for _ in 0..256 {
        answers.recv_timeout(SOON).expect("an answer").expect("success");
    }
    let syncs = log.syncs() - before;
    // The first one or two may go alone; the rest waits for them, together.
    assert!((1..=16).contains(&syncs), "{syncs} syncs for 256 appends");
}

#[test]
fn answers_come_in_order() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    let (send, answers) = mpsc::channel();
    for index in 0..500 {
        let send = send.clone();
        log.append(
            entries(index..index + 1),
            Box::new(move |_| send.send(index).expect("the test waits")),
        );
    }
    let order: Vec<u64> = (0..500).map(|_| answers.recv_timeout(SOON).expect("one")).collect();
    assert_eq!(order, (0..500).collect::<Vec<_>>());
}

#[test]
fn entries_of_every_critical_size_survive_a_restart() {
    let row = 64 << 10;
    let head = 11;
    let sizes = [0, 1, row - head - 1, row - head, row - head + 1, row - 1, row, row + 1];
    let sizes = sizes.into_iter().chain([2 * row - head, 2 * row - head + 1, 1 << 20, 9 << 20]);
    let written: Vec<(u64, Bytes)> = (0..)
        .zip(sizes)
        .map(|(index, bytes)| {
            let value = (0..bytes).map(|at| u8::try_from((at / 7 + bytes) % 256).expect("small"));
            (index, value.collect())
        })
        .collect();
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    wait(|done| log.append(written.clone(), done)).expect("append");
    assert!(read_all(&log) == written, "from memory");
    drop(log);
    // The last entry fills what is read into memory at the start; the others come from disk.
    let (log, _) = open(temp.path());
    assert!(read_all(&log) == written, "after a restart");
}

#[test]
fn a_gap_or_an_overlap_is_a_fault() {
    for wrong in [5..6, 9..10, 11..12] {
        let temp = tempfile::tempdir().expect("a directory");
        let (log, _) = open(temp.path());
        append(&log, 0..10);
        let error = wait(|done| log.append(entries(wrong), done)).expect_err("refused");
        assert!(error.to_string().contains("does not follow the log"), "{error}");
        wait(|done| log.append(entries(10..11), done)).expect_err("nothing goes on");
    }
}

#[test]
fn after_shutdown_every_call_is_answered_with_an_error() {
    let temp = tempfile::tempdir().expect("a directory");
    let (log, _) = open(temp.path());
    let (send, answers): (_, Receiver<io::Result<()>>) = mpsc::channel();
    for index in 0..100 {
        let send = send.clone();
        log.append(entries(index..index + 1), Box::new(move |answer| drop(send.send(answer))));
    }
    log.shutdown();
    for _ in 0..100 {
        answers.try_recv().expect("answered before shutdown returns").expect("success");
    }
    wait(|done| log.save_vote(b"vote".to_vec(), done)).expect_err("closed");
    drop(log);
    assert_eq!(read_all(&open(temp.path()).0), entries(0..100));
}
