//! The thread that writes the state: checkpoints, and what nobody reads any more.
//!
//! Invariants:
//! - A checkpoint is everything up to one applied entry, rows and bodies: all of it, or nothing.
//! - A body goes only once nobody sees a state that names it; until then it is marked, in the same
//!   checkpoint that removes its last name, so that it goes after a crash.
//! - A large body is in its file before the checkpoint that names it begins. After a crash in between it
//!   is there without a name, until the log, which has it too, names it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bodies::{Action, Bodies, BodyChange, Hash};
use super::generation::Generation;
use super::redo::Redo;
use super::state::{Job, Row, RowChange, Shared, body_weight, row_weight};
use super::{Done, locked};

/// A checkpoint is made this long after the one before, if there is something to write.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(500);
/// Or as soon as this much is collected, in bytes of rows and weight of bodies.
const CHECKPOINT_BYTES: usize = 32 << 20;
/// How many bodies are removed between two looks at the queue.
const REMOVALS_MAX: usize = 256;

/// The thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    generation: Generation,
    pending: Pending,
    last_checkpoint: Instant,
    marked: Marked,
    /// Generations before this one that somebody may still read bodies from, and the index from which
    /// on nobody does; in order.
    retired: VecDeque<(Generation, u64)>,
}

/// The newest value of each row, unless it was removed.
type PendingRows = BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>;
/// What a checkpoint does with one body.
type BodyAction<'a> = (&'a Hash, Action<'a>);

/// What the next checkpoint will write.
#[derive(Default)]
struct Pending {
    rows: PendingRows,
    bodies: BTreeMap<Hash, Body>,
    bytes: usize,
    applied_index: Option<u64>,
}

/// What becomes of a body.
enum Body {
    Comes(Came),
    /// No row names it from `at` on. How it came, if it did so with this very checkpoint.
    Goes {
        at: u64,
        came: Option<Came>,
    },
}

/// How a body comes.
enum Came {
    /// To be written with the checkpoint.
    Here(Arc<[u8]>),
    InFile,
}

impl Came {
    fn action(&self) -> Action<'_> {
        match self {
            Self::Here(bytes) => Action::Put(bytes),
            Self::InFile => Action::Keep,
        }
    }

    /// How many it holds in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::InFile => 0,
        }
    }
}

/// The marked bodies, and from which index on nobody needs them.
#[derive(Default)]
struct Marked {
    at: HashMap<Hash, u64>,
    /// In order of the indexes; some have been marked anew since, or are in use again.
    order: VecDeque<(u64, Hash)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, generation: Generation) -> Self {
        Self {
            shared,
            generation,
            pending: Pending::default(),
            last_checkpoint: Instant::now(),
            marked: Marked::default(),
            retired: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let mut taken = self.shared.queue.take(self.due());
            let outcome = self.work(&mut taken.jobs);
            let outcome = outcome
                .and_then(|()| self.checkpoint_if_due(taken.closed))
                .and_then(|()| self.remove_unread());
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

    /// When there is something to do, even if nothing comes.
    fn due(&self) -> Option<Duration> {
        let left = || CHECKPOINT_EVERY.saturating_sub(self.last_checkpoint.elapsed());
        if self.pending.applied_index.is_some() {
            return Some(left());
        }
        let is_waiting = !self.marked.order.is_empty() || !self.retired.is_empty();
        is_waiting.then_some(CHECKPOINT_EVERY)
    }

    /// Takes the jobs out one by one; what is left after an error was not looked at.
    fn work(&mut self, jobs: &mut VecDeque<Job>) -> io::Result<()> {
        while let Some(job) = jobs.pop_front() {
            match job {
                Job::Write { rows, bodies, header, applied_index } => {
                    self.check_order(applied_index)?;
                    let bodies = self.put_files(bodies, applied_index)?;
                    self.pending.add(rows, bodies, header, applied_index);
                    if self.pending.bytes >= CHECKPOINT_BYTES {
                        self.checkpoint()?;
                    }
                }
                Job::Sync(done) => locked(&self.shared.in_flight).push(done),
                Job::Swap(generation, done) => self.swap_in(*generation, done)?,
            }
        }
        Ok(())
    }

    /// Brings large bodies into their files, so that they take memory no longer.
    fn put_files(
        &mut self,
        bodies: Vec<BodyChange>,
        applied_index: u64,
    ) -> io::Result<Vec<(Hash, Option<Came>)>> {
        let put = |(hash, bytes): BodyChange| {
            let came = match bytes {
                Some(bytes) if Bodies::is_for_file(&bytes) => {
                    self.generation.bodies.put(&hash, &bytes)?;
                    self.marked.forget(&hash);
                    self.shared.readable.is_in_file(&hash, applied_index);
                    Some(Came::InFile)
                }
                bytes => bytes.map(Came::Here),
            };
            Ok((hash, came))
        };
        bodies.into_iter().map(put).collect()
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
        let pins = &self.shared.pins;
        let actions: Vec<BodyAction<'_>> = pending
            .bodies
            .iter()
            .flat_map(|(hash, body)| {
                let actions = match body {
                    Body::Comes(came) => [Some(came.action()), None],
                    Body::Goes { at, .. } if pins.are_behind(*at) => [Some(Action::Remove), None],
                    Body::Goes { came, .. } => {
                        [came.as_ref().map(Came::action), Some(Action::Mark)]
                    }
                };
                actions.into_iter().flatten().map(move |action| (hash, action))
            })
            .collect();
        let generation = &mut self.generation;
        if !actions.is_empty() {
            generation.bodies.sync_files()?;
        }
        if let Err(error) = copy(&generation.redo, &actions, &pending.rows, applied_index) {
            return Err(self.shared.dir.fault().fail("write the state's redo file", &error));
        }
        for (hash, action) in &actions {
            generation.bodies.carry_out(hash, *action)?;
            self.marked.note(hash, *action, applied_index);
        }
        if !actions.is_empty() {
            generation.bodies.sync()?;
        }
        for (key, value) in &pending.rows {
            generation.put(key, value.as_deref())?;
        }
        generation.put_applied(applied_index)?;
        generation.db.sync()?;
        self.shared.readable.written(applied_index);
        self.shared.synced_index.store(applied_index, Ordering::Release);
        self.shared.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes marked bodies and retired generations that nobody reads any more.
    fn remove_unread(&mut self) -> io::Result<()> {
        let pins = &self.shared.pins;
        let marked = std::iter::from_fn(|| self.marked.next(|at| pins.are_behind(at)));
        let unread: Vec<Hash> = marked.take(REMOVALS_MAX).collect();
        if !unread.is_empty() {
            self.generation.bodies.remove(&unread)?;
        }
        while let Some((generation, at)) = self.retired.front()
            && pins.are_behind(*at)
        {
            self.shared.readable.forget(&generation.bodies);
            // Somebody who reads at this moment holds it for as long.
            if Arc::strong_count(&generation.bodies) > 1 {
                break;
            }
            if let Some((generation, _)) = self.retired.pop_front() {
                discard(generation);
            }
        }
        Ok(())
    }

    fn swap_in(&mut self, generation: Generation, done: Done) -> io::Result<()> {
        match self.swap(generation) {
            Ok(()) => {
                done(Ok(()));
                Ok(())
            }
            Err(error) => {
                done(Err(error));
                self.shared.dir.fault().check()
            }
        }
    }

    /// Puts a finished generation in the place of the present one, which is read from for as long as
    /// somebody sees a state of it.
    fn swap(&mut self, generation: Generation) -> io::Result<()> {
        if !self.pending.bodies.is_empty() {
            // What was written to the old state is part of the new one, or has been undone by it; but
            // those who see the old one read its bodies.
            self.checkpoint()?;
        }
        let (dir, index) = (&self.shared.dir, generation.applied_index);
        if let Err(error) = dir.set_layout(|layout| layout.generation = generation.number) {
            // Nobody can tell which generation CURRENT names now.
            return Err(dir.fault().fail("write CURRENT", &error));
        }
        self.pending = Pending::default();
        self.marked = Marked::default();
        self.shared.readable.prefer(generation.bodies.clone());
        self.shared.synced_index.store(index, Ordering::Release);
        let old = std::mem::replace(&mut self.generation, generation);
        self.retired.push_back((old, index));
        Ok(())
    }
}

/// Copies a checkpoint into the redo file, durably.
fn copy(redo: &Redo, bodies: &[BodyAction<'_>], rows: &PendingRows, index: u64) -> io::Result<()> {
    let mut copy = redo.begin()?;
    for (hash, action) in bodies {
        copy.add_body(hash, *action)?;
    }
    for (key, value) in rows {
        copy.add(key, value.as_deref())?;
    }
    copy.finish(index)
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
    fn add(
        &mut self,
        rows: Vec<RowChange>,
        bodies: Vec<(Hash, Option<Came>)>,
        header: Row,
        applied_index: u64,
    ) {
        self.bytes += rows.iter().map(row_weight).sum::<usize>();
        self.rows.extend(rows);
        self.rows.insert(header.0, Some(header.1));
        for (hash, came) in bodies {
            self.bytes += body_weight(came.as_ref().map_or(0, Came::bytes));
            let body = match came {
                Some(came) => Body::Comes(came),
                None => {
                    let came = match self.bodies.remove(&hash) {
                        Some(Body::Comes(came)) => Some(came),
                        Some(Body::Goes { came, .. }) => came,
                        None => None,
                    };
                    Body::Goes { at: applied_index, came }
                }
            };
            self.bodies.insert(hash, body);
        }
        self.applied_index = Some(applied_index);
    }
}

impl Marked {
    fn note(&mut self, hash: &Hash, action: Action<'_>, applied_index: u64) {
        match action {
            Action::Mark => {
                self.at.insert(*hash, applied_index);
                self.order.push_back((applied_index, *hash));
            }
            Action::Put(_) | Action::Keep | Action::Remove => self.forget(hash),
        }
    }

    /// It is not to go, or has gone.
    fn forget(&mut self, hash: &Hash) {
        self.at.remove(hash);
    }

    /// Takes out a body that nobody needs.
    fn next(&mut self, is_unread: impl Fn(u64) -> bool) -> Option<Hash> {
        while let Some((at, hash)) = self.order.front().copied()
            && is_unread(at)
        {
            self.order.pop_front();
            if self.at.get(&hash) == Some(&at) {
                self.at.remove(&hash);
                return Some(hash);
            }
        }
        None
    }
}
