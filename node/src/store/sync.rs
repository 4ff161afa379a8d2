//! Makes the engine's flush a real sync, proves it, and remembers the first sync that failed.
//!
//! sled 0.34.7 ends a flush on Linux with `sync_file_range`, which starts write-back but does not
//! flush the disk's cache, and writes no metadata (see sync_file_range(2), "Warning").  After a
//! power cut none of its databases could be opened.  This file defines the symbol
//! `sync_file_range`, which the linker prefers over libc's, as fdatasync(2).  sled orders its own
//! writes by the same call, so that its recovery becomes true as well.
//!
//! Invariants:
//! - The first failed sync is recorded here, by the sync itself, whoever called it, and for the
//!   whole process: the kernel reports a lost page only once per open file.
//! - [`prove`] refuses a binary in which the symbol is somebody else's.
//!
//! This is the only file of the workspace with `unsafe` code.
#![expect(unsafe_code, reason = "defines a libc symbol and calls libc without a wrapper")]

use std::ffi::{c_int, c_long, c_uint};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::StoreError;

static FAILED: OnceLock<String> = OnceLock::new();
static CALLS: AtomicU64 = AtomicU64::new(0);
static UNSAFE_NO_SYNC: AtomicBool = AtomicBool::new(false);

/// The number of sync_file_range(2); the kernel's tables, `linux/arch/*/entry/syscalls`.
#[cfg(target_arch = "x86_64")]
const SYS_SYNC_FILE_RANGE: c_long = 277;
/// The number of sync_file_range(2) in the generic table.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const SYS_SYNC_FILE_RANGE: c_long = 84;

// SAFETY: these are the C library's own declarations (fdatasync(2), syscall(2), errno(3)).
unsafe extern "C" {
    fn fdatasync(fd: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

/// Replaces libc's function of this name in every binary that links this crate: syncs the data of
/// `fd`, whatever the range and flags, and sets `errno` on failure as libc's would.
// SAFETY: the signature is that of sync_file_range(2) on 64-bit Linux, where `off64_t` is `i64`.
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(fd: c_int, offset: i64, bytes: i64, flags: c_uint) -> c_int {
    CALLS.fetch_add(1, Ordering::SeqCst);
    if UNSAFE_NO_SYNC.load(Ordering::Relaxed) {
        // SAFETY: sync_file_range(2) takes four integers and touches no memory of ours.
        let outcome = unsafe { syscall(SYS_SYNC_FILE_RANGE, fd, offset, bytes, flags) };
        return if outcome < 0 { -1 } else { 0 };
    }
    match real_sync(fd) {
        Ok(()) => 0,
        Err(error) => {
            record("fdatasync", &error);
            // SAFETY: __errno_location returns the valid address of this thread's errno.
            unsafe { *__errno_location() = error.raw_os_error().unwrap_or(0) };
            -1
        }
    }
}

fn real_sync(fd: c_int) -> io::Result<()> {
    #[cfg(test)]
    inject::next()?;
    loop {
        // SAFETY: fdatasync(2) takes an integer; a bad descriptor is an error, not a fault.
        if unsafe { fdatasync(fd) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The first sync of this process that failed, if one did; never cleared.
pub fn failed() -> Option<String> {
    FAILED.get().cloned()
}

/// How often the engine has synced through this file since the process began.
pub fn count() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

/// Gives up durability: flushes become what sled meant, and the store's own syncs are left out.
///
/// For tests and measurements only: a power cut then loses acknowledged writes and may leave a
/// directory that cannot be opened.  Call it before anything is opened.
pub fn set_unsafe_no_sync(on: bool) {
    UNSAFE_NO_SYNC.store(on, Ordering::Relaxed);
}

/// Whether [`set_unsafe_no_sync`] is on.
pub fn is_unsafe_no_sync() -> bool {
    UNSAFE_NO_SYNC.load(Ordering::Relaxed)
}

/// Checks that a flush of the engine comes through this file, by a scratch database in `dir`.
///
/// Call it once at start, before other databases are opened: it watches the process-wide count.
/// Blocks for some syncs.
pub fn prove(dir: &Path) -> Result<(), StoreError> {
    let scratch = dir.join(format!(".sync-proof-{}", std::process::id()));
    let outcome = flush_scratch(&scratch);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(StoreError::io("remove", &scratch))?;
    }
    match outcome.map_err(StoreError::io("flush a scratch database in", &scratch))? {
        0 => Err(StoreError::SyncNotReal { path: dir.to_owned() }),
        _ => failed().map_or(Ok(()), |text| Err(StoreError::Fault(text))),
    }
}

/// Writes and flushes a new database; returns how many syncs the flush made.
fn flush_scratch(path: &Path) -> io::Result<u64> {
    let config = sled::Config::new().path(path).segment_size(1 << 16).flush_every_ms(None);
    let db = config.open().map_err(io::Error::from)?;
    let before = count();
    db.insert(b"proof", b"this row must be synced").map_err(io::Error::from)?;
    db.flush().map_err(io::Error::from)?;
    Ok(count() - before)
}

/// Makes the bytes of a file durable, and what is needed to find them; not its times.
pub(super) fn data(file: &File) -> io::Result<()> {
    real("fdatasync", || file.sync_data())
}

/// Makes all of a file durable, or the names in a directory.
pub(super) fn all(file: &File) -> io::Result<()> {
    real("fsync", || file.sync_all())
}

fn real(action: &str, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if is_unsafe_no_sync() {
        return Ok(());
    }
    sync().inspect_err(|error| record(action, error))
}

/// Remembers a failed sync for good and for the whole process.
pub(super) fn record(action: &str, error: &io::Error) {
    let _first_wins = FAILED.set(format!("{action} failed: {error}"));
}

/// Failing syncs, for tests only.
#[cfg(test)]
pub(super) mod inject {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    const EIO: i32 = 5;
    static NEXT_FAILS: AtomicBool = AtomicBool::new(false);

    /// Lets the next sync of this process fail; use it in a process of its own.
    pub(in crate::store) fn fail_next() {
        NEXT_FAILS.store(true, Ordering::SeqCst);
    }

    pub(super) fn next() -> io::Result<()> {
        let fails = NEXT_FAILS.swap(false, Ordering::SeqCst);
        if fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::{self, Receiver};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::store::{DataDir, Done, LogStore, StateStore};

    const SOON: Duration = Duration::from_secs(20);
    const IN_CHILD: &str = "HOLDFAST_TEST_FAILING_SYNC";

    /// A failed sync is for good and for the whole process, so each such test runs in its own.
    fn in_child(test: &str, body: impl FnOnce()) {
        if std::env::var_os(IN_CHILD).is_some() {
            return body();
        }
        let test = format!("{}::{test}", module_path!().split_once("::").expect("a module").1);
        let output = Command::new(std::env::current_exe().expect("a test binary"))
            .args(["--exact", &test, "--nocapture"])
            .env(IN_CHILD, "1")
            .output()
            .expect("run the child");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    }

    fn answer() -> (Done, Receiver<io::Result<()>>) {
        let (send, receive) = mpsc::channel();
        (Box::new(move |answer| drop(send.send(answer))), receive)
    }

    type Faults = Arc<Mutex<Vec<String>>>;

    fn open(path: &Path) -> (DataDir, Faults) {
        let faults = Faults::default();
        let seen = faults.clone();
        let on_fault = Arc::new(move |text: &str| seen.lock().expect("lock").push(text.to_owned()));
        (DataDir::open(path, on_fault).expect("open"), faults)
    }

    // G1
    #[test]
    fn after_a_failed_sync_no_store_acknowledges_anything() {
        in_child("after_a_failed_sync_no_store_acknowledges_anything", || {
            let temp = tempfile::tempdir().expect("a directory");
            let (dir, faults) = open(temp.path());
            let (log, _) = LogStore::open(&dir).expect("open");
            let (state, _) = StateStore::open(&dir).expect("open");
            let (done, written) = answer();
            log.append(vec![(0, "one".into())], done);
            written.recv_timeout(SOON).expect("an answer").expect("success");

            inject::fail_next();
            let (done, written) = answer();
            log.append(vec![(1, "two".into())], done);
            let error = written.recv_timeout(SOON).expect("an answer").expect_err("failed");
            assert!(error.to_string().contains("Input/output error"), "{error}");
            assert!(failed().expect("recorded").contains("fdatasync failed"));
            assert_eq!(faults.lock().expect("lock").len(), 1, "told once");

            let row = (Arc::from([0_u8]), Arc::from([1_u8]));
            state.write(Vec::new(), Vec::new(), row, 1).expect_err("the state refuses too");
            let calls: [&dyn Fn(Done); 5] = [
                &|done| log.append(vec![(2, "three".into())], done),
                &|done| log.save_vote(b"vote".to_vec(), done),
                &|done| log.truncate_from(1, done),
                &|done| log.purge_to(0, Vec::new(), done),
                &|done| state.sync(done),
            ];
            for call in calls {
                let (done, written) = answer();
                call(done);
                written.recv_timeout(SOON).expect("an answer").expect_err("failed for good");
            }
            log.read(0..2, u64::MAX).expect_err("reading as well");
            log.shutdown();
            state.shutdown();
            drop((log, state));
            assert_eq!(faults.lock().expect("lock").len(), 1, "told once");
        });
    }

    #[test]
    fn a_sync_that_fails_in_the_background_is_noticed_without_a_call() {
        in_child("a_sync_that_fails_in_the_background_is_noticed_without_a_call", || {
            let temp = tempfile::tempdir().expect("a directory");
            let (dir, faults) = open(temp.path());
            let (log, _) = LogStore::open(&dir).expect("open");
            record("fdatasync", &io::Error::from_raw_os_error(5));
            let waited = std::time::Instant::now();
            while faults.lock().expect("lock").is_empty() {
                assert!(waited.elapsed() < SOON, "nobody was told");
                std::thread::yield_now();
            }
            drop(log);
        });
    }

    #[test]
    fn the_proof_passes_and_leaves_nothing() {
        let temp = tempfile::tempdir().expect("a directory");
        prove(temp.path()).expect("this binary syncs for real");
        assert_eq!(fs::read_dir(temp.path()).expect("list").count(), 0);
    }
}
