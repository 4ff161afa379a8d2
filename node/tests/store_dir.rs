//! The data directory: one user at a time, an identity that cannot be mistaken, and no database
//! that is silently begun anew.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use holdfast_node::store::{DataDir, DirError, Identity, LogStore, Place, StateStore, sync};

fn open(path: &Path) -> Result<DataDir, DirError> {
    DataDir::open(path, Arc::new(|_: &str| {}))
}

fn identity() -> Identity {
    Identity {
        format: 0,
        cluster_id: Some(*b"0123456789abcdef"),
        node_id: 3,
        incarnation: 77,
        place: Place::default(),
    }
}

#[test]
fn a_new_directory_is_made_with_all_above_it() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("a/b/node");
    let dir = open(&path).expect("open");
    assert_eq!(dir.identity(), None);
    assert!(dir.path().is_absolute());
    assert!(dir.free_bytes().expect("free") > 0);
    dir.check_place(false).expect("nothing to compare yet");
}

// N1
#[test]
fn an_identity_comes_back_and_pending_joins_too() {
    let temp = tempfile::tempdir().expect("a directory");
    let pending = Identity { cluster_id: None, ..identity() };
    for written in [pending, identity()] {
        let dir = open(temp.path()).expect("open");
        dir.write_identity(written).expect("write");
        drop(dir);
        let dir = open(temp.path()).expect("open");
        let found = dir.identity().expect("an identity");
        assert_eq!(found.format, 1);
        assert!(found.place.inode > 0);
        assert_eq!(found, Identity { format: 1, place: found.place, ..written });
        dir.check_place(false).expect("the same place");
    }
}

// N1
#[test]
fn a_copy_is_refused_unless_the_operator_says_that_it_was_moved() {
    let temp = tempfile::tempdir().expect("a directory");
    let (original, copy) = (temp.path().join("original"), temp.path().join("copy"));
    open(&original).expect("open").write_identity(identity()).expect("write");
    fs::create_dir(&copy).expect("create");
    for file in ["IDENTITY", "CURRENT", "LOCK"] {
        fs::copy(original.join(file), copy.join(file)).expect("copy");
    }
    let dir = open(&copy).expect("open");
    let error = dir.check_place(false).expect_err("refused");
    assert_eq!(error.code(), "copied-directory");
    assert!(error.to_string().contains("node 3"), "{error}");
    assert!(error.help().contains("--moved"), "{}", error.help());
    dir.check_place(true).expect("moved");
    dir.check_place(false).expect("from now on it is here");
    drop(dir);
    open(&copy).expect("open").check_place(false).expect("after a restart too");

    // Renaming is not copying.
    fs::rename(&copy, temp.path().join("renamed")).expect("rename");
    open(&temp.path().join("renamed")).expect("open").check_place(false).expect("the same place");
}

// N1: a file system may give the inode of a removed directory to the one that is made next.
#[test]
fn a_copy_in_the_place_of_its_removed_original_is_refused() {
    let temp = tempfile::tempdir().expect("a directory");
    let (path, aside) = (temp.path().join("node"), temp.path().join("aside"));
    let files = ["IDENTITY", "CURRENT"];
    open(&path).expect("open").write_identity(identity()).expect("write");
    fs::create_dir(&aside).expect("create");
    for file in files {
        fs::copy(path.join(file), aside.join(file)).expect("copy");
    }
    for _ in 0..20 {
        fs::remove_dir_all(&path).expect("remove");
        fs::create_dir(&path).expect("create");
        for file in files {
            fs::copy(aside.join(file), path.join(file)).expect("copy");
        }
        let error = open(&path).expect("open").check_place(false).expect_err("refused");
        assert_eq!(error.code(), "copied-directory");
    }
}

#[test]
fn a_second_user_is_refused_and_told_who_has_it() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = open(temp.path()).expect("open");
    let error = open(temp.path()).expect_err("refused");
    assert_eq!(error.code(), "data-dir-in-use");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let other = dir.clone();
    drop(dir);
    open(temp.path()).expect_err("a clone still holds it");
    drop(other);
    open(temp.path()).expect("free again");
}

#[test]
fn a_dead_process_leaves_no_lock() {
    let temp = tempfile::tempdir().expect("a directory");
    open(temp.path()).expect("open");
    let mut dead = Command::new("true").spawn().expect("spawn");
    let pid = dead.id();
    dead.wait().expect("wait");
    fs::write(temp.path().join("LOCK"), format!("{pid}\n")).expect("write");
    open(temp.path()).expect("only flock counts, not the text");
}

#[test]
fn a_damaged_identity_is_refused() {
    let temp = tempfile::tempdir().expect("a directory");
    open(temp.path()).expect("open").write_identity(identity()).expect("write");
    let file = temp.path().join("IDENTITY");
    let good = fs::read_to_string(&file).expect("read");
    let newer = with_checksum(&good.replace("identity 1", "identity 9"));
    let cases = [
        (good.replace("node 3", "node 4"), "bad-identity", "checksum"),
        (good[..20].to_owned(), "bad-identity", "crc"),
        (String::new(), "bad-identity", "does not begin"),
        (with_checksum(&good.replace("incarnation", "incantation")), "bad-identity", "missing"),
        (newer, "newer-format", "format 9"),
    ];
    for (text, code, cause) in cases {
        fs::write(&file, &text).expect("write");
        let error = open(temp.path()).expect_err("refused");
        assert_eq!(error.code(), code, "{text}");
        assert!(error.to_string().contains(cause), "{error}");
        assert!(!error.help().is_empty() && !error.cause().is_empty());
    }
    fs::write(&file, good).expect("write");
    fs::remove_file(temp.path().join("CURRENT")).expect("remove");
    assert_eq!(open(temp.path()).expect_err("refused").code(), "bad-identity");
}

fn with_checksum(text: &str) -> String {
    let body = text.split_once("crc ").expect("a checksum").0;
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()))
}

#[test]
fn a_directory_that_is_not_ours_is_left_alone() {
    let temp = tempfile::tempdir().expect("a directory");
    fs::create_dir(temp.path().join("log")).expect("create");
    fs::write(temp.path().join("log/precious"), b"not ours").expect("write");
    let error = open(temp.path()).expect_err("refused");
    assert_eq!(error.code(), "foreign-directory");
    assert!(temp.path().join("log/precious").exists());
    let file = temp.path().join("log/precious");
    assert_eq!(open(&file).expect_err("a file").code(), "data-dir-unwritable");
}

#[test]
fn what_a_first_start_did_not_finish_is_done_again() {
    let temp = tempfile::tempdir().expect("a directory");
    open(temp.path()).expect("open");
    for name in ["log", "state-1", ".sync-proof-7"] {
        fs::create_dir(temp.path().join(name)).expect("create");
        fs::write(temp.path().join(name).join("conf"), b"half of a file").expect("write");
    }
    fs::write(temp.path().join("IDENTITY.new"), b"half").expect("write");
    let dir = open(temp.path()).expect("open");
    LogStore::open(&dir).expect("open the log");
    StateStore::open(&dir).expect("open the state");
    assert!(!temp.path().join(".sync-proof-7").exists());
    assert!(!temp.path().join("IDENTITY.new").exists());
}

#[test]
fn a_log_that_was_used_and_is_gone_is_not_begun_anew() {
    let temp = tempfile::tempdir().expect("a directory");
    drop(LogStore::open(&open(temp.path()).expect("open")).expect("open the log"));
    fs::remove_dir_all(temp.path().join("log")).expect("remove");
    let error = LogStore::open(&open(temp.path()).expect("open")).err().expect("refused");
    assert_eq!(error.code(), "store-missing");
    assert!(!temp.path().join("log").exists());
}

// G1: this binary links the library like the shipped one does.
#[test]
fn a_binary_that_links_the_library_syncs_for_real() {
    let temp = tempfile::tempdir().expect("a directory");
    let before = sync::count();
    sync::prove(temp.path()).expect("proved");
    assert!(sync::count() > before);
    assert_eq!(sync::failed(), None);
}
