//! The rows of the replicated state on disk.
//!
//! The state in memory is the truth while a node runs, and the log makes it durable: this database
//! only saves replaying the whole log.  So writes are collected, newest value per key, and go out
//! as *checkpoints*: everything up to one applied entry, made atomic by `redo`,
//! followed by one sync.
//!
//! Invariants:
//! - Once opened, the database holds the rows of exactly one applied index, never part of an entry.
//! - [`StateStore::synced_index`] never runs ahead of what a power cut leaves.
//! - Memory is bounded: [`StateStore::write`] waits while too much is queued.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::generation::{Generation, check_row};
use super::queue::{LOOK_EVERY, Queue, Thread};
use super::redo::Rows;
use super::{DataDir, Done, StoreError, locked, snapshot};

/// Key and value of a row.
pub type Row = (Arc<[u8]>, Arc<[u8]>);

/// A checkpoint is made this long after the one before, if there is something to write.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(500);
/// Or as soon as this much is collected.
const CHECKPOINT_BYTES: usize = 32 << 20;
/// How much may wait in the queue while a checkpoint is being written.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A change of a row: its key, and its new value unless it was removed.
pub type RowChange = (Arc<[u8]>, Option<Arc<[u8]>>);

/// A handle to the state's rows; clones share it, and dropping the last one is a
/// [`StateStore::shutdown`].
#[derive(Clone)]
pub struct StateStore(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<Thread>>,
}

struct Shared {
    dir: DataDir,
    queue: Queue<Job>,
    synced_index: AtomicU64,
    checkpoints: AtomicU64,
    /// Callbacks that wait for the checkpoint that is being written.
    in_flight: Mutex<Vec<Done>>,
}

enum Job {
    Write { batch: Vec<RowChange>, header: Row, applied_index: u64 },
    Sync(Done),
    Swap(Box<Generation>, Done),
}

impl StateStore {
    /// Opens the state of a data directory and reads all rows, or makes an empty state if the
    /// directory never had one.
    ///
    /// The rows come in key order, the header row among them.  Blocks for reading and some syncs.
    pub fn open(dir: &DataDir) -> Result<(Self, Vec<Row>), StoreError> {
        let number = dir.layout().generation;
        let (generation, rows) = if number == 0 {
            let generation = Generation::create(dir, 1)?;
            dir.set_layout(|layout| layout.generation = 1)
                .map_err(StoreError::io("write CURRENT in", dir.path()))?;
            (generation, Vec::new())
        } else {
            Generation::open(dir, number)?
        };
        let shared = Arc::new(Shared {
            dir: dir.clone(),
            queue: Queue::new(),
            synced_index: AtomicU64::new(generation.applied_index),
            checkpoints: AtomicU64::new(0),
            in_flight: Mutex::new(Vec::new()),
        });
        let weak = Arc::downgrade(&shared);
        dir.fault().listen(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.fail_all();
            }
        }));
        let writer = Writer::new(shared.clone(), generation);
        let writer = Thread::spawn("store-state", dir.fault().clone(), move || writer.run())
            .map_err(StoreError::io("start a thread for", dir.path()))?;
        let handle = Handle { shared, writer: Mutex::new(Some(writer)) };
        Ok((Self(Arc::new(handle)), rows))
    }

    /// Writes the changes of the entries up to `applied_index`, and the header row that goes with
    /// them, as one.
    ///
    /// Returns before anything is on disk, but blocks while too much is queued.  Fails if the store
    /// has failed, or if a key is longer than 8 KiB.
    pub fn write(
        &self,
        batch: Vec<RowChange>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        let shared = &self.0.shared;
        let fault = shared.dir.fault();
        fault.check()?;
        let mut bytes = 0;
        for (key, value) in &batch {
            check_row(key, value.as_ref().map_or(0, |value| value.len()))
                .map_err(|cause| fault.fail("write a state row", &cause))?;
            bytes += weight(key, value.as_deref());
        }
        let job = Job::Write { batch, header: header_row, applied_index };
        let pushed = shared.queue.push_bounded(job, bytes, QUEUE_BYTES_MAX);
        pushed.map_err(|_| shared.closed())
    }

    /// Whether so much waits for the disk that [`StateStore::write`] would block.
    pub fn is_full(&self) -> bool {
        self.0.shared.queue.is_full(QUEUE_BYTES_MAX)
    }

    /// The last applied index that is durable in this database; the log may be purged to it.
    pub fn synced_index(&self) -> u64 {
        self.0.shared.synced_index.load(Ordering::Acquire)
    }

    /// Makes a checkpoint of everything written before this call; it is durable when `done` is
    /// called with success.
    pub fn sync(&self, done: Done) {
        self.0.shared.submit(Job::Sync(done));
    }

    /// How many checkpoints were made since the state was opened.
    pub fn checkpoints(&self) -> u64 {
        self.0.shared.checkpoints.load(Ordering::Relaxed)
    }

    /// Replaces all rows by those of a snapshot that was taken at `applied_index`.
    ///
    /// The rows go into a fresh database, are read back and counted, synced, and put in place by
    /// one rename: after a crash, or an error, the old state is there or the new one.  An error of
    /// `rows` itself leaves the old state in use.  Blocks for all of this; nothing may be written
    /// from before this call until it returns.
    pub fn install(
        &self,
        rows: impl Iterator<Item = io::Result<Row>>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        let shared = &self.0.shared;
        shared.dir.fault().check()?;
        let generation = snapshot::build(&shared.dir, rows, header_row, applied_index)?;
        let (send, receive) = std::sync::mpsc::channel();
        let done: Done = Box::new(move |outcome| {
            // The receiver is below; it gives up only after a fault.
            let _ = send.send(outcome);
        });
        shared.submit(Job::Swap(Box::new(generation), done));
        loop {
            match receive.recv_timeout(LOOK_EVERY) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) => shared.dir.fault().check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(shared.closed()),
            }
        }
    }

    /// Makes a last checkpoint and ends the thread; later calls fail.  Blocks.
    ///
    /// The database is closed when the last clone is dropped.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Handle {
    fn shutdown(&self) {
        self.shared.queue.close();
        if let Some(writer) = locked(&self.writer).take() {
            writer.join(self.shared.dir.fault());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    fn submit(&self, job: Job) {
        if let Err(job) = self.queue.push(job, 0) {
            job.finish(Err(self.closed()));
        } else if self.dir.fault().text().is_some() {
            self.fail_all();
        }
    }

    fn closed(&self) -> io::Error {
        let text = self.dir.fault().text();
        io::Error::other(text.unwrap_or_else(|| "the state store is closed".to_owned()))
    }

    /// Ends what waits for a checkpoint.
    fn finish(&self, outcome: &io::Result<()>) {
        let waiting = std::mem::take(&mut *locked(&self.in_flight));
        for done in waiting {
            done(match outcome {
                Ok(()) => self.dir.fault().check(),
                Err(error) => Err(io::Error::other(error.to_string())),
            });
        }
    }

    /// Fails all that waits, without the writer thread, which may hang in the engine.
    fn fail_all(&self) {
        self.queue.close();
        let queued = self.queue.take(Some(Duration::ZERO)).jobs;
        self.finish(&Err(self.closed()));
        for job in queued {
            job.finish(Err(self.closed()));
        }
    }
}

impl Job {
    fn finish(self, outcome: io::Result<()>) {
        match self {
            Self::Write { .. } => {}
            Self::Sync(done) | Self::Swap(_, done) => done(outcome),
        }
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    generation: Generation,
    pending: Pending,
    last_checkpoint: Instant,
}

/// What the next checkpoint will write.
#[derive(Default)]
struct Pending {
    rows: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
    bytes: usize,
    applied_index: Option<u64>,
}

impl Writer {
    fn new(shared: Arc<Shared>, generation: Generation) -> Self {
        Self { shared, generation, pending: Pending::default(), last_checkpoint: Instant::now() }
    }

    fn run(mut self) {
        loop {
            let due = self
                .pending
                .applied_index
                .map(|_| CHECKPOINT_EVERY.saturating_sub(self.last_checkpoint.elapsed()));
            let mut taken = self.shared.queue.take(due);
            let outcome = self.work(&mut taken.jobs);
            let outcome = outcome.and_then(|()| self.checkpoint_if_due(taken.closed));
            if outcome.is_err() {
                self.shared.fail_all();
                for job in taken.jobs {
                    job.finish(Err(self.shared.closed()));
                }
                return;
            }
            if taken.closed {
                return;
            }
        }
    }

    /// Takes the jobs out one by one; what is left after an error was not looked at.
    fn work(&mut self, jobs: &mut VecDeque<Job>) -> io::Result<()> {
        while let Some(job) = jobs.pop_front() {
            match job {
                Job::Write { batch, header, applied_index } => {
                    self.check_order(applied_index)?;
                    self.pending.add(batch, header, applied_index);
                    if self.pending.bytes >= CHECKPOINT_BYTES {
                        self.checkpoint()?;
                    }
                }
                Job::Sync(done) => locked(&self.shared.in_flight).push(done),
                Job::Swap(generation, done) => match self.swap(*generation) {
                    Ok(old) => {
                        done(Ok(()));
                        discard(old);
                    }
                    Err(error) => {
                        done(Err(error));
                        return self.shared.dir.fault().check();
                    }
                },
            }
        }
        Ok(())
    }

    /// Refuses to go back: the rows of two applied indexes would mix.
    fn check_order(&self, applied_index: u64) -> io::Result<()> {
        let last = self.pending.applied_index.unwrap_or(self.generation.applied_index);
        if applied_index >= last {
            return Ok(());
        }
        let cause = format!("applied index {applied_index} comes after {last}");
        Err(self.shared.dir.fault().fail("write the state", &cause))
    }

    fn checkpoint_if_due(&mut self, closing: bool) -> io::Result<()> {
        let is_awaited = !locked(&self.shared.in_flight).is_empty();
        let is_due = self.last_checkpoint.elapsed() >= CHECKPOINT_EVERY;
        if is_awaited || closing || is_due { self.checkpoint() } else { Ok(()) }
    }

    /// Writes what is pending and syncs; then whoever waits is called back.
    fn checkpoint(&mut self) -> io::Result<()> {
        let outcome = self.write_pending();
        self.shared.finish(&outcome);
        outcome
    }

    fn write_pending(&mut self) -> io::Result<()> {
        self.last_checkpoint = Instant::now();
        let pending = std::mem::take(&mut self.pending);
        let Some(applied_index) = pending.applied_index else { return Ok(()) };
        let generation = &mut self.generation;
        let mut copy = Rows::new();
        for (key, value) in &pending.rows {
            copy.add(key, value.as_deref());
        }
        if let Err(error) = generation.redo.write(applied_index, copy) {
            return Err(self.shared.dir.fault().fail("write the state's redo file", &error));
        }
        for (key, value) in &pending.rows {
            generation.put(key, value.as_deref())?;
        }
        generation.put_applied(applied_index)?;
        generation.db.sync()?;
        self.shared.synced_index.store(applied_index, Ordering::Release);
        self.shared.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a finished generation in the place of the present one, which it returns.
    fn swap(&mut self, generation: Generation) -> io::Result<Generation> {
        let dir = &self.shared.dir;
        if let Err(error) = dir.set_layout(|layout| layout.generation = generation.number) {
            // Nobody can tell which generation CURRENT names now.
            return Err(dir.fault().fail("write CURRENT", &error));
        }
        // What was written to the old state is part of the new one, or has been undone by it.
        self.pending = Pending::default();
        self.shared.synced_index.store(generation.applied_index, Ordering::Release);
        Ok(std::mem::replace(&mut self.generation, generation))
    }
}

/// Closes a generation that is not in use any more, and removes it.
fn discard(old: Generation) {
    let path = old.db.path().to_owned();
    drop(old);
    if let Err(error) = std::fs::remove_dir_all(&path) {
        tracing::warn!(path = %path.display(), %error, "an old state is left until the next start");
    }
}

impl Pending {
    fn add(&mut self, batch: Vec<RowChange>, header: Row, applied_index: u64) {
        for (key, value) in batch.into_iter().chain([(header.0, Some(header.1))]) {
            self.bytes += weight(&key, value.as_deref());
            self.rows.insert(key, value);
        }
        self.applied_index = Some(applied_index);
    }
}

/// What a row costs in the queue, with something for its containers.
fn weight(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len) + 64
}
