//! The store of a simulated node, in memory, with what a disk may do to it.
//!
//! The model is that of `store`: one writer for the log, which makes whatever waits durable with
//! one sync, and one for the state's rows, which makes a checkpoint now and then. A sync takes time,
//! and what no sync has covered is at the mercy of a crash: some first part of it is there
//! afterwards, perhaps none, perhaps all; the write at its end may be torn, so that only its first
//! entries are there. What a sync has covered is there.
//!
//! Invariant, as of the real store: after a crash the log is a prefix of what was written, which
//! contains everything that was acknowledged; rows and bodies are those of one applied index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use holdfast_machine::plant::{self, Plant};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;

pub(crate) use crate::pins::{Pin, Pins};
use crate::runtime;

/// A checkpoint of the rows is made this long after the one before, as in the real store.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(500);
/// What a sync of a disk in order takes.
const SYNC: Range<Duration> = Duration::from_micros(100)..Duration::from_millis(3);
/// One sync in so many takes much longer: the disk was busy.
const STALL_ONE_IN: u32 = 500;
const STALL: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(400);

/// Called once with the outcome of a durable write; see `store`.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;
/// Key and value of a row.
pub(crate) type Row = (Arc<[u8]>, Arc<[u8]>);
/// A change of a row: its key, and its new value unless it was removed.
pub(crate) type RowChange = (Arc<[u8]>, Option<Arc<[u8]>>);
/// What a body is found by.
pub(crate) type Hash = [u8; 32];
/// A body that comes, or without bytes goes.
pub(crate) type BodyChange = (Hash, Option<Arc<[u8]>>);
/// Nothing here keeps a store from opening.
pub(crate) type StoreError = std::convert::Infallible;

/// Failed syncs are not simulated.
pub(crate) mod sync {
    pub(crate) fn failed() -> Option<String> {
        None
    }
}

/// What is on one node's disk; clones share it. It outlives the node's processes.
#[derive(Clone)]
pub(crate) struct DataDir(Arc<Mutex<Platter>>);

struct Platter {
    random: SmallRng,
    log: LogImage,
    /// Written, and not yet covered by a sync; the oldest first.
    unsynced: VecDeque<Work>,
    rows: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    bodies: BTreeMap<Hash, Arc<[u8]>>,
    applied_index: u64,
    /// The checkpoint that is being written.
    checkpoint: Option<Pending>,
    /// Multiplies what syncs take.
    slowness: u32,
}

impl DataDir {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> DataDir {
        DataDir(Arc::new(Mutex::new(Platter {
            random: SmallRng::seed_from_u64(seed),
            log: LogImage::default(),
            unsynced: VecDeque::new(),
            rows: BTreeMap::new(),
            bodies: BTreeMap::new(),
            applied_index: 0,
            checkpoint: None,
            slowness: 1,
        })))
    }

    /// Makes every sync take so many times as long from now on.
    pub(crate) fn set_slowness(&self, slowness: u32) {
        self.lock().slowness = slowness;
    }

    /// What the end of the process or of the power makes of what was not synced. Call it once the
    /// process is dead.
    pub(crate) fn crash(&self) {
        let mut platter = self.lock();
        let platter = &mut *platter;
        let unsynced = std::mem::take(&mut platter.unsynced);
        let survive = match platter.random.random_range(0..3) {
            0 => 0,
            1 => unsynced.len(),
            _ => platter.random.random_range(0..=unsynced.len()),
        };
        let mut unsynced = unsynced.into_iter();
        for work in unsynced.by_ref().take(survive) {
            platter.log.apply(&work);
        }
        if let Some(Work::Append(mut entries)) = unsynced.next() {
            let torn_at = platter.random.random_range(0..=entries.len());
            entries.truncate(torn_at);
            platter.log.apply(&Work::Append(entries));
        }
        if let Some(checkpoint) = platter.checkpoint.take()
            && platter.random.random_bool(0.5)
        {
            platter.take_checkpoint(checkpoint);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    fn sync_time(&self) -> Duration {
        let mut platter = self.lock();
        let range = if platter.random.random_ratio(1, STALL_ONE_IN) { STALL } else { SYNC };
        platter.random.random_range(range) * platter.slowness
    }
}

impl Platter {
    fn take_checkpoint(&mut self, checkpoint: Pending) {
        for (key, value) in checkpoint.rows {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        for (hash, bytes) in checkpoint.bodies {
            match bytes {
                Some(bytes) => drop(self.bodies.insert(hash, bytes)),
                None => drop(self.bodies.remove(&hash)),
            }
        }
        self.applied_index = checkpoint.applied_index;
    }
}

/// A log as it is after some writes.
#[derive(Clone, Default)]
struct LogImage {
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
    purged: Option<(u64, Vec<u8>)>,
    entries: BTreeMap<u64, Bytes>,
}

/// One write to the log.
enum Work {
    Append(Vec<(u64, Bytes)>),
    Vote(Vec<u8>),
    Committed(Vec<u8>),
    Truncate(u64),
    Purge(u64, Vec<u8>),
}

impl LogImage {
    fn apply(&mut self, work: &Work) {
        match work {
            Work::Append(entries) => {
                for (index, entry) in entries {
                    let next = self.entries.last_key_value().map(|(last, _)| last + 1);
                    let purged = self.purged.as_ref().map(|(purged, _)| purged + 1);
                    let expected = next.or(purged).unwrap_or(*index);
                    assert_eq!(*index, expected, "entries follow the log");
                    self.entries.insert(*index, entry.clone());
                }
            }
            Work::Vote(vote) => self.vote = Some(vote.clone()),
            Work::Committed(committed) => self.committed = Some(committed.clone()),
            Work::Truncate(index) => drop(self.entries.split_off(index)),
            Work::Purge(index, purged) => {
                self.entries = self.entries.split_off(&(index + 1));
                self.purged = Some((*index, purged.clone()));
            }
        }
    }

    fn start(&self) -> LogStart {
        let last = self.entries.last_key_value();
        LogStart {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.as_ref().map(|(_, purged)| purged.clone()),
            last_index: last.map(|(index, _)| *index),
            last_entry: last.map(|(_, entry)| entry.clone()),
        }
    }
}

/// What the log held when it was opened; see `store`.
pub(crate) struct LogStart {
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) committed: Option<Vec<u8>>,
    pub(crate) purged: Option<Vec<u8>>,
    pub(crate) last_index: Option<u64>,
    pub(crate) last_entry: Option<Bytes>,
}

/// An open log.
#[derive(Clone)]
pub(crate) struct LogStore(Arc<OpenLog>);

struct OpenLog {
    dir: DataDir,
    /// As it reads, synced or not.
    image: Mutex<LogImage>,
    /// Who waits for the next sync.
    waiting: Mutex<Vec<Done>>,
    urgent: Notify,
    /// Of entries, since the log was opened.
    appended_bytes: AtomicU64,
}

impl LogStore {
    pub(crate) fn open(dir: &DataDir) -> Result<(LogStore, LogStart), StoreError> {
        let image = dir.lock().log.clone();
        let start = image.start();
        let open = Arc::new(OpenLog {
            dir: dir.clone(),
            image: Mutex::new(image),
            waiting: Mutex::default(),
            urgent: Notify::new(),
            appended_bytes: AtomicU64::new(0),
        });
        runtime::spawn(Arc::clone(&open).write());
        Ok((LogStore(open), start))
    }

    pub(crate) fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) {
        let bytes: usize = entries.iter().map(|(_, entry)| entry.len()).sum();
        self.0.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.submit(Work::Append(entries), Some(done));
    }

    pub(crate) fn appended_bytes(&self) -> u64 {
        self.0.appended_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn save_vote(&self, vote: Vec<u8>, done: Done) {
        self.submit(Work::Vote(vote), Some(done));
    }

    pub(crate) fn save_committed(&self, committed: Vec<u8>) {
        self.submit(Work::Committed(committed), None);
    }

    pub(crate) fn truncate_from(&self, index: u64, done: Done) {
        self.submit(Work::Truncate(index), Some(done));
    }

    pub(crate) fn purge_to(&self, index: u64, purged: Vec<u8>, done: Done) {
        self.submit(Work::Purge(index, purged), Some(done));
    }

    pub(crate) fn read(&self, range: Range<u64>, bytes_max: u64) -> io::Result<Vec<(u64, Bytes)>> {
        let image = self.0.image.lock().expect("no code panics while it holds this lock");
        let mut budget = bytes_max;
        let mut found = Vec::new();
        if range.start >= range.end {
            return Ok(found);
        }
        for (index, entry) in image.entries.range(range) {
            let bytes = entry.len() as u64;
            if bytes > budget && !found.is_empty() {
                break;
            }
            budget = budget.saturating_sub(bytes);
            found.push((*index, entry.clone()));
        }
        Ok(found)
    }

    fn submit(&self, work: Work, done: Option<Done>) {
        let open = &self.0;
        open.image.lock().expect("no code panics while it holds this lock").apply(&work);
        open.dir.lock().unsynced.push_back(work);
        let Some(done) = done else { return };
        if plant::is(Plant::AcknowledgeBeforeSync) {
            return done(Ok(()));
        }
        open.waiting.lock().expect("no code panics while it holds this lock").push(done);
        open.urgent.notify_one();
    }
}

impl OpenLog {
    /// The writer: group commit until the process dies.
    async fn write(self: Arc<OpenLog>) {
        loop {
            self.urgent.notified().await;
            let covered = self.dir.lock().unsynced.len();
            let waiting = {
                let mut waiting =
                    self.waiting.lock().expect("no code panics while it holds this lock");
                std::mem::take(&mut *waiting)
            };
            let time = self.dir.sync_time();
            runtime::sleep(time).await;
            {
                let mut platter = self.dir.lock();
                for _ in 0..covered {
                    let work = platter.unsynced.pop_front().expect("only this task takes them");
                    platter.log.apply(&work);
                }
            }
            for done in waiting {
                done(Ok(()));
            }
        }
    }
}

/// Bodies with the index from which on nobody reads them.
type Leaving = BTreeMap<Hash, (Arc<[u8]>, u64)>;

/// The open rows of the state.
#[derive(Clone)]
pub(crate) struct StateStore(Arc<OpenRows>);

struct OpenRows {
    dir: DataDir,
    pending: Mutex<Pending>,
    pins: Pins,
    /// Bodies that no row names any more, and from which index on nobody reads them.
    leaving: Mutex<Leaving>,
    waiting: Mutex<Vec<Done>>,
    synced_index: AtomicU64,
    urgent: Notify,
}

/// What the next checkpoint will write.
#[derive(Clone, Default)]
struct Pending {
    rows: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
    bodies: BTreeMap<Hash, Option<Arc<[u8]>>>,
    applied_index: u64,
}

impl StateStore {
    pub(crate) fn open(dir: &DataDir) -> Result<(StateStore, Vec<Row>), StoreError> {
        let (rows, applied_index) = {
            let platter = dir.lock();
            let rows = platter.rows.iter().map(|(key, value)| (key.clone(), value.clone()));
            (rows.collect(), platter.applied_index)
        };
        let pins = Pins::default();
        pins.publish(applied_index);
        let open = Arc::new(OpenRows {
            dir: dir.clone(),
            pending: Mutex::default(),
            pins,
            leaving: Mutex::default(),
            waiting: Mutex::default(),
            synced_index: AtomicU64::new(applied_index),
            urgent: Notify::new(),
        });
        runtime::spawn(Arc::clone(&open).write());
        Ok((StateStore(open), rows))
    }

    pub(crate) fn write(
        &self,
        batch: Vec<RowChange>,
        bodies: Vec<BodyChange>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        self.0.leave(bodies.iter().filter(|(_, bytes)| bytes.is_none()), applied_index);
        let mut pending = self.0.pending();
        for (key, value) in batch.into_iter().chain([(header_row.0, Some(header_row.1))]) {
            pending.rows.insert(key, value);
        }
        pending.bodies.extend(bodies);
        pending.applied_index = applied_index;
        Ok(())
    }

    /// Nothing ever waits for room here.
    pub(crate) fn is_full(&self) -> bool {
        false
    }

    /// Who reads which state; see `store`.
    pub(crate) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    /// A body that a pinned state names.
    pub(crate) fn body(&self, hash: &Hash) -> io::Result<Arc<[u8]>> {
        let bytes = self.0.body(hash).ok_or_else(|| io::Error::other("a body is not there"))?;
        assert_eq!(blake3::hash(&bytes).as_bytes(), hash, "a body has its hash");
        Ok(bytes)
    }

    /// Begins another state; see `store`.
    pub(crate) fn build(&self) -> io::Result<Building> {
        Ok(Building::default())
    }

    /// The last applied index that a crash leaves.
    pub(crate) fn synced_index(&self) -> u64 {
        self.0.synced_index.load(Ordering::Relaxed)
    }

    pub(crate) fn sync(&self, done: Done) {
        self.0.waiting.lock().expect("no code panics while it holds this lock").push(done);
        self.0.urgent.notify_one();
    }

    /// Puts a snapshot in the place of all rows, durably and at once.
    pub(crate) fn install(
        &self,
        building: Building,
        rows: impl Iterator<Item = io::Result<Row>>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        let rows = rows.chain([Ok(header_row)]).collect::<io::Result<_>>()?;
        // Whoever sees the old state reads all its bodies from memory.
        self.0.leave_all(applied_index);
        *self.0.pending() = Pending::default();
        let mut platter = self.0.dir.lock();
        platter.rows = rows;
        platter.bodies = building.bodies;
        platter.applied_index = applied_index;
        platter.checkpoint = None;
        drop(platter);
        self.0.synced_index.store(applied_index, Ordering::Relaxed);
        Ok(())
    }
}

/// A state in the making; see `store`.
#[derive(Default)]
pub(crate) struct Building {
    bodies: BTreeMap<Hash, Arc<[u8]>>,
    hashes: BTreeSet<Hash>,
}

impl Building {
    pub(crate) fn put_body(&mut self, bytes: &[u8]) -> io::Result<Hash> {
        let hash = *blake3::hash(bytes).as_bytes();
        self.bodies.insert(hash, bytes.into());
        self.hashes.insert(hash);
        Ok(hash)
    }

    pub(crate) fn bodies(&self) -> &BTreeSet<Hash> {
        &self.hashes
    }
}

impl OpenRows {
    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().expect("no code panics while it holds this lock")
    }

    /// Holds bodies in memory that go, until nobody reads them any more.
    fn leave<'a>(&self, bodies: impl Iterator<Item = &'a BodyChange>, applied_index: u64) {
        for (hash, _) in bodies {
            if let Some(bytes) = self.body(hash) {
                self.leaving().insert(*hash, (bytes, applied_index));
            }
        }
        self.leaving().retain(|_, (_, at)| !self.pins.are_behind(*at));
    }

    fn leave_all(&self, applied_index: u64) {
        let mut all: BTreeSet<Hash> = self.pending().bodies.keys().copied().collect();
        {
            let platter = self.dir.lock();
            let checkpoint = platter.checkpoint.iter().flat_map(|pending| pending.bodies.keys());
            all.extend(platter.bodies.keys().chain(checkpoint));
        }
        let all: Vec<BodyChange> = all.into_iter().map(|hash| (hash, None)).collect();
        self.leave(all.iter(), applied_index);
    }

    fn body(&self, hash: &Hash) -> Option<Arc<[u8]>> {
        if let Some(bytes) = self.pending().bodies.get(hash).cloned().flatten() {
            return Some(bytes);
        }
        let on_disk = {
            let platter = self.dir.lock();
            let waits = platter.checkpoint.as_ref().and_then(|pending| pending.bodies.get(hash));
            waits.cloned().flatten().or_else(|| platter.bodies.get(hash).cloned())
        };
        on_disk.or_else(|| self.leaving().get(hash).map(|(bytes, _)| bytes.clone()))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no code panics while it holds this lock")
    }

    /// The writer: a checkpoint whenever one is due or asked for.
    async fn write(self: Arc<OpenRows>) {
        loop {
            let due = runtime::now() + CHECKPOINT_EVERY;
            // Either way it is time.
            let _ = runtime::until(due, self.urgent.notified()).await;
            let waiting = {
                let mut waiting =
                    self.waiting.lock().expect("no code panics while it holds this lock");
                std::mem::take(&mut *waiting)
            };
            let pending = std::mem::take(&mut *self.pending());
            if !pending.rows.is_empty() {
                self.dir.lock().checkpoint = Some(pending);
                let time = self.dir.sync_time();
                runtime::sleep(time).await;
                let mut platter = self.dir.lock();
                // None if a snapshot has taken its place meanwhile.
                if let Some(checkpoint) = platter.checkpoint.take() {
                    platter.take_checkpoint(checkpoint);
                    self.synced_index.store(platter.applied_index, Ordering::Relaxed);
                }
            }
            for done in waiting {
                done(Ok(()));
            }
        }
    }
}
