//! The replicated state on disk: its rows, and the bodies that they name.
//!
//! The state in memory is the truth while a node runs, and the log makes it durable: this database
//! only saves replaying the whole log.  So writes are collected, newest value per key, and go out
//! as *checkpoints*: everything up to one applied entry, made atomic by `redo`,
//! followed by one sync.
//!
//! Bodies are not in memory: they are read from here, by hash.  A reader pins the state whose bodies
//! it reads (see [`Pins`]); what it names stays readable until the pin goes, also over an install.
//!
//! Invariants:
//! - Once opened, the database holds the rows of exactly one applied index, never part of an entry,
//!   and every body that they name.
//! - [`StateStore::synced_index`] never runs ahead of what a power cut leaves.
//! - Memory is bounded: [`StateStore::write`] waits while too much is queued.
//! - A body that is handed out has the hash that was asked for; one that is missing is a fault.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::bodies::{BodyChange, Hash, Readable};
use super::generation::{Generation, check_row};
use super::queue::{LOOK_EVERY, Queue, Thread};
use super::snapshot::Building;
use super::writer::Writer;
use super::{DataDir, Done, StoreError, locked};
use crate::pins::Pins;

/// Key and value of a row.
pub type Row = (Arc<[u8]>, Arc<[u8]>);

/// A change of a row: its key, and its new value unless it was removed.
pub type RowChange = (Arc<[u8]>, Option<Arc<[u8]>>);

/// How much may wait in the queue while a checkpoint is being written, in bytes of rows and weight of bodies.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// A byte of a body counts as much as so many of rows. Rows are in memory anyway, and waiting costs
/// them little; bodies are to take little of it, so few of them make a checkpoint or a full queue.
const BODY_WEIGHT: usize = 32;
const CONTAINER_BYTES: usize = 64;

/// A handle to the state; clones share it, and dropping the last one is a
/// [`StateStore::shutdown`].
#[derive(Clone)]
pub struct StateStore(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<Thread>>,
}

pub(super) struct Shared {
    pub(super) dir: DataDir,
    pub(super) queue: Queue<Job>,
    pub(super) synced_index: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    /// Callbacks that wait for the checkpoint that is being written.
    pub(super) in_flight: Mutex<Vec<Done>>,
    pub(super) readable: Readable,
    pub(super) pins: Pins,
    /// The number of the next generation that is built.
    next_generation: AtomicU64,
}

pub(super) enum Job {
    Write { rows: Vec<RowChange>, bodies: Vec<BodyChange>, header: Row, applied_index: u64 },
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
        let pins = Pins::default();
        pins.publish(generation.applied_index);
        let shared = Arc::new(Shared {
            dir: dir.clone(),
            queue: Queue::new(),
            synced_index: AtomicU64::new(generation.applied_index),
            checkpoints: AtomicU64::new(0),
            in_flight: Mutex::new(Vec::new()),
            readable: Readable::new(generation.bodies.clone()),
            pins,
            next_generation: AtomicU64::new(generation.number + 1),
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

    /// Writes the changes of the entries up to `applied_index`, the bodies that came and went with
    /// them, and the header row that goes with them, as one.
    ///
    /// Returns before anything is on disk, but blocks while too much is queued.  Fails if the store
    /// has failed, or if a key is longer than 8 KiB.
    pub fn write(
        &self,
        rows: Vec<RowChange>,
        bodies: Vec<BodyChange>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        let shared = &self.0.shared;
        let fault = shared.dir.fault();
        fault.check()?;
        for (key, value) in &rows {
            check_row(key, value.as_ref().map_or(0, |value| value.len()))
                .map_err(|cause| fault.fail("write a state row", &cause))?;
        }
        for (hash, bytes) in &bodies {
            check_row(hash, bytes.as_ref().map_or(0, |bytes| bytes.len()))
                .map_err(|cause| fault.fail("write a body", &cause))?;
        }
        shared.readable.add(&bodies, applied_index);
        let bytes = weight(&rows, &bodies);
        let job = Job::Write { rows, bodies, header: header_row, applied_index };
        let pushed = shared.queue.push_bounded(job, bytes, QUEUE_BYTES_MAX);
        pushed.map_err(|_| shared.closed())
    }

    /// Whether so much waits for the disk that [`StateStore::write`] would block.
    pub fn is_full(&self) -> bool {
        self.0.shared.queue.is_full(QUEUE_BYTES_MAX)
    }

    /// Who reads which state: whoever publishes one says so there, and whoever reads bodies pins it.
    pub fn pins(&self) -> &Pins {
        &self.0.shared.pins
    }

    /// A body that a pinned state names.  Blocks for the disk.
    ///
    /// Its hash has been checked.  A body that is not there is a fault: some state names it.
    pub fn body(&self, hash: &Hash) -> io::Result<Arc<[u8]>> {
        let shared = &self.0.shared;
        shared.dir.fault().check()?;
        let missing = || {
            let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            shared.dir.fault().fail("read a body", &format!("{name} is not there"))
        };
        shared.readable.read(hash)?.ok_or_else(missing)
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

    /// Begins another state, to be filled and then installed.  Blocks for some syncs.
    pub fn build(&self) -> io::Result<Building> {
        let shared = &self.0.shared;
        shared.dir.fault().check()?;
        let number = shared.next_generation.fetch_add(1, Ordering::Relaxed);
        Building::begin(&shared.dir, number)
    }

    /// Replaces everything by a state that was taken at `applied_index`: these rows, and the bodies
    /// that are in `building` already.
    ///
    /// All is read back and compared, synced, and put in place by one rename: after a crash, or an
    /// error, the old state is there or the new one.  An error of `rows` itself leaves the old state
    /// in use.  Blocks for all of this; nothing may be written from before this call until it returns.
    pub fn install(
        &self,
        building: Building,
        rows: impl Iterator<Item = io::Result<Row>>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        let shared = &self.0.shared;
        shared.dir.fault().check()?;
        let generation = building.finish(rows, header_row, applied_index)?;
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

    pub(super) fn closed(&self) -> io::Error {
        let text = self.dir.fault().text();
        io::Error::other(text.unwrap_or_else(|| "the state store is closed".to_owned()))
    }

    /// Ends what waits for a checkpoint.
    pub(super) fn finish(&self, outcome: &io::Result<()>) {
        let waiting = std::mem::take(&mut *locked(&self.in_flight));
        for done in waiting {
            done(match outcome {
                Ok(()) => self.dir.fault().check(),
                Err(error) => Err(io::Error::other(error.to_string())),
            });
        }
    }

    /// Fails all that waits, without the writer thread, which may hang in the engine.
    pub(super) fn fail_all(&self) {
        self.queue.close();
        let queued = self.queue.take(Some(Duration::ZERO)).jobs;
        self.finish(&Err(self.closed()));
        for job in queued {
            job.finish(Err(self.closed()));
        }
    }
}

impl Job {
    pub(super) fn finish(self, outcome: io::Result<()>) {
        match self {
            Self::Write { .. } => {}
            Self::Sync(done) | Self::Swap(_, done) => done(outcome),
        }
    }
}

/// What a write costs in the queue.
fn weight(rows: &[RowChange], bodies: &[BodyChange]) -> usize {
    let of_body = |(_, bytes): &BodyChange| body_weight(bytes.as_ref().map_or(0, |b| b.len()));
    rows.iter().map(row_weight).sum::<usize>() + bodies.iter().map(of_body).sum::<usize>()
}

/// What a row costs that waits for the disk, with something for its containers.
pub(super) fn row_weight((key, value): &RowChange) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len()) + CONTAINER_BYTES
}

/// What a body of so many bytes costs that waits for the disk.
pub(super) fn body_weight(bytes: usize) -> usize {
    size_of::<Hash>() + bytes * BODY_WEIGHT + CONTAINER_BYTES
}
