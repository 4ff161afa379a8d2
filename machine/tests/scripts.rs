//! Golden scripts: each file under `tests/scripts` tells one story of the state machine, with the commands
//! that make it, and the replies and changed rows that come of them.
//!
//! A command's prefix names a client (`a: set 1 key value`); its writes go into the client's session under
//! the next number, and say that all before it are answered. Every command is an entry of its own, unless
//! it stands between `begin` and `commit`. `x.1025` stands for a text of so many letters.
//! With `times=3` a command runs three times, `_n` standing for the number of the run. After each script
//! the state must agree with itself, and be the same when it is read back from its rows.
//!
//! The tag `[admit]` shows what the leader would do with a write, `[bytes]` the bytes of an entry with it.
//! Neither applies it.
//!
//! `UPDATE_GOLDENFILES=1` records the output anew; read the difference before you keep it.

#![expect(clippy::disallowed_methods, reason = "the scripts are files")]

mod script;

use std::path::Path;

fn run_area(area: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(area);
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("read {}: {error}", dir.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    for path in paths {
        eprintln!("{}", path.display());
        goldenscript::run(&mut script::Runner::new(), &path).expect("the script runs");
    }
}

#[test]
fn apply() {
    run_area("apply");
}

#[test]
fn sessions() {
    run_area("sessions");
}

#[test]
fn state() {
    run_area("state");
}

#[test]
fn creators() {
    run_area("creators");
}

#[test]
fn import() {
    run_area("import");
}

#[test]
fn objects() {
    run_area("objects");
}

#[test]
fn masters() {
    run_area("masters");
}

#[test]
fn changesources() {
    run_area("changesources");
}

#[test]
fn stm() {
    run_area("stm");
}

#[test]
fn events() {
    run_area("events");
}

#[test]
fn limits() {
    run_area("limits");
}

#[test]
fn admit() {
    run_area("admit");
}

#[test]
fn formats() {
    run_area("formats");
}
