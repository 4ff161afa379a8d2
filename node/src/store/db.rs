//! One sled database with the guards it needs to keep its promises.
//!
//! What is guarded, and why:
//! - *Opening.*  A crash while sled writes its snapshot leaves `snap.*.generating`, after which it
//!   reports corruption for ever: such files are deleted first.  If it still does, all of `snap.*`
//!   go (they are a cache).  If it still does, the directory is set aside.
//! - *Syncing.*  [`Db::sync`] flushes, which syncs by way of [`sync`], and then syncs
//!   once more through our own handle, which also sees write-back errors that sled only logs.
//! - *Creating.*  sled syncs neither its `conf` nor any directory; [`Db::create`] does.
//! - *Reading back.*  After `kill -9` the rows that are read may be in the page cache only, so
//!   opening ends with a sync.
//! - *Hanging.*  When a write on one of sled's own threads fails, a flush may wait for ever: a
//!   watch thread looks for such errors.
//!
//! Invariant: rows written by one thread are recovered as a prefix, in the order of the calls.
//! (sled's recovery stops at the first hole of its log; both guards of syncing keep that true.)

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::{Fault, StoreError, record, rows, sync};

/// sled frees space only in its own periodic flush.
const FLUSH_EVERY_MS: u64 = 500;
/// How long a database closed by this very process may still hold its file lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// A row that every database has from its creation on.
const MARK: &[u8] = b"\x00holdfast";
/// The format of the database's rows, dated 2026-11.
const MARKED: u8 = 1;
/// Bounds how long a flush that sled leaves hanging after a failed write goes unnoticed.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// How large a database's parts are, in bytes.
///
/// Memory follows from both. sled writes segments in the background, however many there are: some
/// wait for the disk at a time, each with a buffer of this size.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// A power of two, and for good: the database remembers it. A quarter of it bounds a tree node, of
    /// 17 rows or of 257 keys (see [`rows`]).
    pub(super) segment: usize,
    /// Of pages in memory; it is exceeded, see [`rows`].
    pub(super) cache: u64,
}

/// An open database: its default tree and a way to make it durable.
pub(super) struct Db {
    tree: sled::Db,
    /// Our own handle to the data file; kept open, since the kernel tells each open file once about
    /// a failed write-back.
    file: File,
    path: PathBuf,
    fault: Fault,
    syncs: AtomicU64,
    /// Ends the watch thread when it is dropped.
    _alive: Arc<()>,
}

impl Db {
    /// Makes a new database in `path`, durably; removes what is there.
    pub(super) fn create(path: &Path, sizes: Sizes, fault: Fault) -> Result<Self, StoreError> {
        if path.exists() {
            fs::remove_dir_all(path).map_err(StoreError::io("remove", path))?;
        }
        fs::create_dir(path).map_err(StoreError::io("create directory", path))?;
        let db = Self::open_unmarked(path, sizes, fault)?;
        db.insert(MARK, &[MARKED])
            .and_then(|()| db.sync())
            .map_err(StoreError::io("write", path))?;
        let conf = path.join("conf");
        File::open(&conf).and_then(|f| f.sync_all()).map_err(StoreError::io("sync", &conf))?;
        let blobs = path.join("blobs");
        record::sync_dir(&blobs).map_err(StoreError::io("sync", &blobs))?;
        record::sync_dir(path).map_err(StoreError::io("sync", path))?;
        record::sync_parent(path).map_err(StoreError::io("sync the directory above", path))?;
        Ok(db)
    }

    /// Opens the database in `path`, which must have been made by [`Db::create`].
    ///
    /// If its first row is gone, the engine has found nothing it could read and begun anew: then it
    /// is set aside like one that cannot be opened.
    pub(super) fn open(path: &Path, sizes: Sizes, fault: Fault) -> Result<Self, StoreError> {
        let db = Self::open_unmarked(path, sizes, fault)?;
        match db.get(MARK).map_err(StoreError::io("read", path))?.as_deref() {
            Some(&[MARKED]) => Ok(db),
            Some(mark) => {
                let found = mark.first().copied().unwrap_or(0);
                Err(StoreError::NewerFormat { path: path.to_owned(), found, supported: MARKED })
            }
            None => {
                drop(db);
                Err(set_aside(path, "its first row is gone".to_owned()))
            }
        }
    }

    fn open_unmarked(path: &Path, sizes: Sizes, fault: Fault) -> Result<Self, StoreError> {
        if !path.is_dir() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        let config = sled::Config::new()
            .path(path)
            .segment_size(sizes.segment)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .cache_capacity(sizes.cache);
        let tree = open_recovering(path, &config)?;
        let data = path.join("db");
        let file = File::open(&data).map_err(StoreError::io("open", &data))?;
        let alive = Arc::new(());
        watch(config, fault.clone(), Arc::downgrade(&alive));
        let db = Self {
            tree,
            file,
            path: path.to_owned(),
            fault,
            syncs: AtomicU64::new(0),
            _alive: alive,
        };
        db.sync().map_err(StoreError::io("sync", path))?;
        record::sync_dir(path).map_err(StoreError::io("sync", path))?;
        Ok(db)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// How often [`Db::sync`] has succeeded.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<sled::IVec>> {
        self.tree.get(key).map_err(|error| self.fail("read", &error))
    }

    /// Rows in the order of their keys.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = io::Result<(sled::IVec, sled::IVec)>> + '_ {
        self.tree.range(from..to).map(|row| row.map_err(|error| self.fail("read", &error)))
    }

    /// Writes a row; what one thread writes is recovered in order, as a prefix.
    pub(super) fn insert(&self, key: &[u8], row: &[u8]) -> io::Result<()> {
        debug_assert!(row.len() <= rows::ROW_BYTES_MAX, "a row of {} bytes", row.len());
        self.tree.insert(key, row).map(drop).map_err(|error| self.fail("write", &error))
    }

    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.tree.remove(key).map(drop).map_err(|error| self.fail("write", &error))
    }

    /// Makes everything written before this call durable; blocks for the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.fault.check()?;
        self.tree.flush().map_err(|error| self.fail("flush", &error))?;
        // Not the times, which would cost a journal commit.
        sync::data(&self.file).map_err(|error| self.fail("sync", &error))?;
        // A sync that failed on one of the engine's own threads was seen by that thread only.
        self.fault.check()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fail(&self, action: &str, error: &dyn std::fmt::Display) -> io::Error {
        self.fault.fail(&format!("{action} {}", self.path.display()), error)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if self.fault.text().is_some() {
            // Closing would write again, after which nobody could tell what is on disk.
            std::mem::forget(self.tree.clone());
        }
    }
}

/// Opens `path`, dropping caches that a crash may have spoilt.
fn open_recovering(path: &Path, config: &sled::Config) -> Result<sled::Db, StoreError> {
    remove_snapshots(path, true).map_err(StoreError::io("remove stale snapshots in", path))?;
    let error = match open_unlocked(config) {
        Err(error) if is_damage(&error) => error,
        outcome => return outcome.map_err(|error| refused(path, error)),
    };
    tracing::warn!(path = %path.display(), %error, "opening again without the engine's snapshot");
    remove_snapshots(path, false).map_err(StoreError::io("remove snapshots in", path))?;
    match open_unlocked(config) {
        Err(error) if is_damage(&error) => {
            let aside = quarantine(path).map_err(StoreError::io("set aside", path))?;
            Err(StoreError::Quarantined { path: path.to_owned(), aside, cause: error.to_string() })
        }
        outcome => outcome.map_err(|error| refused(path, error)),
    }
}

/// Opens, waiting for this process's own earlier database there to let go of its file.
///
/// Other processes are kept out by the lock of the data directory.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && Instant::now() < give_up =>
            {
                thread::sleep(LOCK_RETRY);
            }
            outcome => return outcome,
        }
    }
}

fn is_damage(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Corruption { .. } | sled::Error::ReportableBug(_))
}

fn refused(path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => {
            StoreError::Io { action: "open database", path: path.to_owned(), source }
        }
        error @ (sled::Error::Unsupported(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. }) => {
            StoreError::Corrupt { path: path.to_owned(), cause: error.to_string() }
        }
    }
}

/// Deletes sled's snapshots of its page table: all, or only those it was still writing.
fn remove_snapshots(path: &Path, only_unfinished: bool) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && (!only_unfinished || name.ends_with(".generating")) {
            fs::remove_file(entry.path())?;
        }
    }
    record::sync_dir(path)
}

/// Sets a database aside and says so.
fn set_aside(path: &Path, cause: String) -> StoreError {
    match quarantine(path) {
        Ok(aside) => StoreError::Quarantined { path: path.to_owned(), aside, cause },
        Err(error) => StoreError::io("set aside", path)(error),
    }
}

/// Renames a directory out of the way, durably; returns its new name.
fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{number}"));
        PathBuf::from(name)
    };
    let aside = (1..).map(name).find(|aside| !aside.exists());
    let aside = aside.expect("there are more numbers than directories");
    fs::rename(path, &aside)?;
    record::sync_parent(path)?;
    Ok(aside)
}

/// Raises the fault for errors on sled's own threads, until the database is dropped.
///
/// `config` shares sled's error cell without keeping the database open.
fn watch(config: sled::Config, fault: Fault, alive: Weak<()>) {
    let look = move || {
        while alive.strong_count() > 0 {
            if let Err(error) = config.global_error() {
                fault.fail("write in the background", &error);
            }
            // Also raises what only a failed sync itself has recorded.
            if fault.text().is_some() {
                return;
            }
            thread::sleep(WATCH_EVERY);
        }
    };
    let spawned = thread::Builder::new().name("store-watch".to_owned()).spawn(look);
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to watch the store; a failed disk may hang it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { segment: 2 << 20, cache: 1 << 20 };

    fn fault() -> Fault {
        Fault::new(Arc::new(|_| {}))
    }

    /// A closed database with one row, in a directory of its own.
    fn made() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let db = Db::create(&path, SIZES, fault()).expect("create");
        db.insert(b"key", b"row").expect("insert");
        db.sync().expect("sync");
        drop(db);
        (dir, path)
    }

    fn assert_whole(path: &Path) {
        let db = Db::open(path, SIZES, fault()).expect("open");
        assert_eq!(db.get(b"key").expect("get").as_deref(), Some(&b"row"[..]));
    }

    #[test]
    fn an_unfinished_snapshot_is_deleted_before_opening() {
        let (_dir, path) = made();
        let stale = path.join("snap.7FFFFFFFFFFFFFFF.generating");
        fs::write(&stale, b"half a snapshot").expect("write");
        assert_whole(&path);
        assert!(!stale.exists());
    }

    #[test]
    fn a_damaged_snapshot_is_dropped() {
        let (_dir, path) = made();
        fs::write(path.join("snap.7FFFFFFFFFFFFFFF"), b"not a snapshot at all").expect("write");
        assert_whole(&path);
    }

    #[test]
    fn a_damaged_database_is_set_aside_and_never_replaced() {
        let (dir, path) = made();
        for entry in fs::read_dir(&path).expect("list") {
            let file = entry.expect("entry").path();
            if file.is_file() && !file.ends_with("conf") {
                fs::write(&file, vec![0xA5; 1 << 16]).expect("overwrite");
            }
        }
        let error = Db::open(&path, SIZES, fault()).err().expect("refused");
        assert_eq!(error.code(), "store-damaged");
        assert!(error.to_string().contains("log.corrupt-1"), "{error}");
        assert!(dir.path().join("log.corrupt-1").is_dir());
        let again = Db::open(&path, SIZES, fault()).err().expect("refused again");
        assert_eq!(again.code(), "store-missing");
    }

    #[test]
    fn each_sync_is_a_real_one() {
        let (_dir, path) = made();
        let db = Db::open(&path, SIZES, fault()).expect("open");
        let (real, counted) = (sync::count(), db.syncs());
        db.insert(b"key", b"another row").expect("insert");
        db.sync().expect("sync");
        assert_eq!(db.syncs(), counted + 1);
        assert!(sync::count() > real);
    }

    #[test]
    fn rows_of_one_thread_come_back_in_order_as_a_prefix() {
        // A copy of the files under a running writer is what a crash leaves: a prefix.
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("live");
        let db = Db::create(&path, SIZES, fault()).expect("create");
        for number in 0..20_000_u32 {
            db.insert(&number.to_be_bytes(), &[7; 100]).expect("insert");
            if number % 4_000 == 3_999 {
                db.sync().expect("sync");
                let copy = dir.path().join(format!("copy-{number}"));
                fs::create_dir_all(copy.join("blobs")).expect("create");
                for file in ["conf", "db"] {
                    fs::copy(path.join(file), copy.join(file)).expect("copy");
                }
                let copied = Db::open(&copy, SIZES, fault()).expect("open the copy");
                let keys = copied.range(&[], &[0, 0xFF]).map(|row| row.expect("row").0);
                let numbers: Vec<u32> = keys
                    .filter_map(|key| Some(u32::from_be_bytes(key.as_ref().try_into().ok()?)))
                    .collect();
                assert_eq!(numbers, (0..=number).collect::<Vec<_>>());
            }
        }
    }
}
