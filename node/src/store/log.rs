//! The raft log on disk: the vote and the entries.
//!
//! One database, one thread that writes it.  Callers put jobs in a queue and return; the thread
//! takes all that wait, writes them, makes *one* sync and calls them all back: group commit.
//!
//! Invariants:
//! - `done` is called with success only after a sync that began after the job was written (but for
//!   a purge, which nothing waits for).
//! - Jobs are written in the order of the calls, so that a crash leaves a prefix of them.
//! - What [`LogStore::append`] was given can be read at once, before it is durable.
//! - Purging removes rows between groups of writes, a few at a time, yet faster than they come.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::entries::{Amount, COMMITTED, Entries, LogStart, PURGED, VOTE};
use super::generation::ReadError;
use super::queue::{Queue, Thread};
use super::rows::{self, RowError};
use super::tail::{TAIL_BYTES_MAX, Tail};
use super::{DataDir, Done, GroupCommits, StoreError, locked};

/// What is purged between two groups of writes, in rows and in bytes, whichever is reached first:
/// some milliseconds.  It is more after a large group, so that purging keeps up with appending.
const PURGE_MIN: Amount = Amount { rows: 128, bytes: 1 << 20 };

/// A handle to the log; clones share it, and dropping the last one is a [`LogStore::shutdown`].
#[derive(Clone)]
pub struct LogStore(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<Thread>>,
}

struct Shared {
    entries: Entries,
    queue: Queue<Job>,
    /// Locked before the queue, so that jobs are queued in the order in which they change the tail.
    /// A short section: nothing in it waits.
    tail: Mutex<Tail>,
    /// Callbacks of the group that is being written; taken by whoever ends it first, the writer or
    /// a fault.
    in_flight: Mutex<Vec<Done>>,
    /// Of entries, since the log was opened.
    appended_bytes: AtomicU64,
    group_commits: GroupCommits,
    /// Keeps the data directory locked.
    _dir: DataDir,
}

struct Job {
    number: u64,
    work: Work,
    done: Option<Done>,
}

enum Work {
    Append(Vec<(u64, Bytes)>),
    Vote(Vec<u8>),
    Committed(Vec<u8>),
    Truncate(u64),
    Purge(u64, Vec<u8>),
}

impl LogStore {
    /// Opens the log of a data directory, or makes it if the directory never had one.
    ///
    /// Blocks for reading and for some syncs.
    pub fn open(dir: &DataDir) -> Result<(Self, LogStart), StoreError> {
        Self::open_with(dir, TAIL_BYTES_MAX)
    }

    pub(super) fn open_with(
        dir: &DataDir,
        tail_bytes_max: usize,
    ) -> Result<(Self, LogStart), StoreError> {
        let path = dir.log_path();
        let fault = dir.fault().clone();
        let entries = if dir.layout().has_log {
            Entries::open(&path, fault)?
        } else {
            let entries = Entries::create(&path, fault)?;
            dir.set_layout(|layout| layout.has_log = true)
                .map_err(StoreError::io("write CURRENT for", &path))?;
            entries
        };
        let (start, tail) = entries.recover(tail_bytes_max)?;
        let shared = Arc::new(Shared {
            entries,
            queue: Queue::new(),
            tail: Mutex::new(tail),
            in_flight: Mutex::new(Vec::new()),
            appended_bytes: AtomicU64::new(0),
            group_commits: GroupCommits::default(),
            _dir: dir.clone(),
        });
        let weak = Arc::downgrade(&shared);
        dir.fault().listen(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.fail_all();
            }
        }));
        let writer = Writer {
            shared: shared.clone(),
            purged: 0,
            // Rows may be left below the mark.
            purge_until: start.purged_index.map_or(0, |index| index + 1),
            appended: Amount::default(),
        };
        let writer = Thread::spawn("store-log", dir.fault().clone(), move || writer.run())
            .map_err(StoreError::io("start a thread for", &path))?;
        let handle = Handle { shared, writer: Mutex::new(Some(writer)) };
        Ok((Self(Arc::new(handle)), start))
    }

    /// Adds entries, which must follow the log; returns at once.
    ///
    /// They can be read when this returns, and are durable when `done` is called with success.
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) {
        let bytes = entries.iter().map(|(_, bytes)| bytes.len()).sum();
        self.0.shared.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.submit(Work::Append(entries), Some(done), bytes);
    }

    /// Replaces the vote; it is durable when `done` is called with success.
    pub fn save_vote(&self, vote: Vec<u8>, done: Done) {
        self.submit(Work::Vote(vote), Some(done), 0);
    }

    /// Replaces the committed position; written with the next other job, without a sync of its own.
    pub fn save_committed(&self, committed: Vec<u8>) {
        self.submit(Work::Committed(committed), None, 0);
    }

    /// Removes the entries from `index` on; durable when `done` is called with success.
    pub fn truncate_from(&self, index: u64, done: Done) {
        self.submit(Work::Truncate(index), Some(done), 0);
    }

    /// Removes the entries up to `index`, which may be beyond the last, and keeps `purged` as the
    /// position of the last one removed.
    ///
    /// `done` is called once the mark is written; it becomes durable with the next sync, and the
    /// space is freed little by little.
    pub fn purge_to(&self, index: u64, purged: Vec<u8>, done: Done) {
        self.submit(Work::Purge(index, purged), Some(done), 0);
    }

    /// The entries of `range` that the log has, from the first one on, until `bytes_max` is used
    /// up; at least one if there is any.
    ///
    /// May block for reading if the range is older than what is in memory.
    pub fn read(&self, range: Range<u64>, bytes_max: u64) -> io::Result<Vec<(u64, Bytes)>> {
        let shared = &self.0.shared;
        let mut found = Vec::new();
        let mut budget = bytes_max;
        let mut next = range.start;
        loop {
            shared.entries.fault().check()?;
            let until = {
                let tail = locked(&shared.tail);
                let log = tail.log();
                if found.is_empty() {
                    next = next.max(log.start);
                }
                let until = range.end.min(log.end);
                if next >= until {
                    return Ok(found);
                }
                if next >= tail.first() {
                    tail.read(next..until, &mut budget, &mut found);
                    return Ok(found);
                }
                until.min(tail.first())
            };
            while next < until {
                let Some(entry) = shared.read_entry(next)? else { break };
                let bytes = entry.len() as u64;
                if bytes > budget && !found.is_empty() {
                    return Ok(found);
                }
                budget = budget.saturating_sub(bytes);
                found.push((next, entry));
                next += 1;
            }
            if next < until {
                shared.check_gone(next)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
    }

    /// The first index the log has.
    pub fn first_index(&self) -> Option<u64> {
        let log = locked(&self.0.shared.tail).log();
        (!log.is_empty()).then_some(log.start)
    }

    /// The last index the log has, durable or not.
    pub fn last_index(&self) -> Option<u64> {
        let log = locked(&self.0.shared.tail).log();
        (!log.is_empty()).then(|| log.end - 1)
    }

    /// How many bytes of entries were appended since the log was opened.
    pub fn appended_bytes(&self) -> u64 {
        self.0.shared.appended_bytes.load(Ordering::Relaxed)
    }

    /// How many syncs the log has made since it was opened.
    pub fn syncs(&self) -> u64 {
        self.0.shared.entries.syncs()
    }

    /// How long those syncs took, and how much each of them made durable.
    pub fn group_commits(&self) -> &GroupCommits {
        &self.0.shared.group_commits
    }

    /// Writes what is queued, syncs, and ends the thread; later calls fail.  Blocks.
    ///
    /// The database is closed when the last clone is dropped.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// Changes the tail and queues the job, as one step.
    fn submit(&self, work: Work, done: Option<Done>, bytes: usize) {
        let shared = &self.0.shared;
        if let Err(error) = shared.entries.fault().check() {
            return finish(done, Err(error));
        }
        if let Err((done, error)) = self.queue_job(work, done, bytes) {
            finish(done, Err(error));
        } else if shared.entries.fault().text().is_some() {
            // The fault may have come between the check and the push.
            shared.fail_all();
        }
    }

    fn queue_job(
        &self,
        work: Work,
        done: Option<Done>,
        bytes: usize,
    ) -> Result<(), (Option<Done>, io::Error)> {
        let shared = &self.0.shared;
        let is_lazy = matches!(work, Work::Committed(_));
        let mut tail = locked(&shared.tail);
        let number = tail.next_job();
        if let Err(cause) = change_tail(&mut tail, &work, number) {
            // A caller's mistake that would corrupt the log: nothing goes on.
            drop(tail);
            return Err((done, shared.entries.fault().fail("change the log", &cause)));
        }
        let job = Job { number, work, done };
        let pushed = if is_lazy {
            shared.queue.push_lazily(job, bytes)
        } else {
            shared.queue.push(job, bytes)
        };
        pushed.map_err(|job| (job.done, io::Error::other("the log is closed")))
    }
}

impl Handle {
    fn shutdown(&self) {
        self.shared.queue.close();
        if let Some(writer) = locked(&self.writer).take() {
            writer.join(self.shared.entries.fault());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn change_tail(tail: &mut Tail, work: &Work, number: u64) -> Result<(), String> {
    match work {
        Work::Append(entries) => {
            for (index, bytes) in entries {
                if bytes.len() > rows::VALUE_BYTES_MAX {
                    return Err(format!("entry {index} has {} bytes", bytes.len()));
                }
                tail.append(*index, bytes.clone(), number)?;
            }
            Ok(())
        }
        Work::Truncate(index) => tail.truncate_from(*index),
        Work::Purge(index, _) => {
            tail.purge_to(*index);
            Ok(())
        }
        Work::Vote(_) | Work::Committed(_) => Ok(()),
    }
}

impl Shared {
    /// Reads an entry from the database.
    fn read_entry(&self, index: u64) -> io::Result<Option<Bytes>> {
        match self.entries.read(index) {
            Ok(entry) => Ok(entry),
            Err(ReadError::Io(error)) => Err(error),
            // It may have been purged between its head and what its head tells of.
            Err(ReadError::Row(RowError::Missing(_) | RowError::NoFile(_))) => Ok(None),
            Err(ReadError::Row(error)) => {
                Err(self.entries.fault().fail(&format!("read log entry {index}"), &error))
            }
        }
    }

    /// Checks that an entry that was not found has been purged or truncated since: else it is lost.
    fn check_gone(&self, index: u64) -> io::Result<()> {
        let should_be_there = {
            let tail = locked(&self.tail);
            tail.log().contains(&index) && index < tail.first()
        };
        // A second look, since it may have been replaced between the two.
        if should_be_there && self.read_entry(index)?.is_none() {
            return Err(self
                .entries
                .fault()
                .fail(&format!("read log entry {index}"), &"it is missing"));
        }
        Ok(())
    }

    /// Ends a group: everyone in it gets the same answer.
    fn finish_group(&self, outcome: &io::Result<()>) {
        // Under the lock, so that a fault raised before this line cannot be overtaken.
        let waiting = {
            let mut in_flight = locked(&self.in_flight);
            std::mem::take(&mut *in_flight)
        };
        for done in waiting {
            let outcome = match outcome {
                Ok(()) => self.entries.fault().check(),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            done(outcome);
        }
    }

    /// Fails all that waits, without the writer thread, which may hang in the engine.
    fn fail_all(&self) {
        self.queue.close();
        let queued: VecDeque<Job> = self.queue.take(Some(Duration::ZERO)).jobs;
        let error = io::Error::other(self.entries.fault().text().unwrap_or_default());
        self.finish_group(&Err(io::Error::other(error.to_string())));
        for job in queued {
            finish(job.done, Err(io::Error::other(error.to_string())));
        }
    }
}

fn finish(done: Option<Done>, outcome: io::Result<()>) {
    if let Some(done) = done {
        done(outcome);
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    /// No row is left below this index.  Purging goes on from here, as looking from the start would
    /// walk through the engine's empty nodes each time.
    purged: u64,
    /// Rows below this index are to be removed: one past the purge mark in the database, which is
    /// written before any of them goes.
    purge_until: u64,
    /// What was appended since some was purged.
    appended: Amount,
}

impl Writer {
    fn run(mut self) {
        loop {
            let wait = (self.purged < self.purge_until).then_some(Duration::ZERO);
            let taken = self.shared.queue.take(wait);
            let outcome = self
                .write_group(taken.jobs)
                .and_then(|()| if taken.closed { Ok(()) } else { self.purge_some() });
            if outcome.is_err() {
                self.shared.fail_all();
                return;
            }
            if taken.closed {
                return;
            }
        }
    }

    /// Writes a group of jobs in order, syncs once, and calls everyone back.
    fn write_group(&mut self, jobs: VecDeque<Job>) -> io::Result<()> {
        let Some(last) = jobs.back().map(|job| job.number) else { return Ok(()) };
        let mut needs_sync = false;
        let mut works = Vec::with_capacity(jobs.len());
        {
            let mut in_flight = locked(&self.shared.in_flight);
            for job in jobs {
                in_flight.extend(job.done);
                works.push(job.work);
            }
        }
        let mut outcome = Ok(());
        let mut entries = 0;
        for work in works {
            needs_sync |= work.needs_sync();
            entries += work.entries();
            outcome = outcome.and_then(|()| self.write(work));
        }
        if needs_sync {
            let began = Instant::now();
            outcome = outcome.and_then(|()| self.shared.entries.sync());
            self.shared.group_commits.observe(entries, began.elapsed());
        }
        if outcome.is_ok() {
            locked(&self.shared.tail).written(last);
        }
        self.shared.finish_group(&outcome);
        outcome
    }

    fn write(&mut self, work: Work) -> io::Result<()> {
        let log = &self.shared.entries;
        match work {
            Work::Append(entries) => {
                let written = log.write(&entries)?;
                self.appended.rows += written.rows;
                self.appended.bytes += written.bytes;
                Ok(())
            }
            Work::Vote(vote) => log.write_meta(VOTE, &vote),
            Work::Committed(committed) => log.write_meta(COMMITTED, &committed),
            Work::Truncate(index) => log.truncate(index),
            Work::Purge(index, purged) => {
                let mut value = index.to_be_bytes().to_vec();
                value.extend_from_slice(&purged);
                log.write_meta(PURGED, &value)?;
                self.purge_until = self.purge_until.max(index + 1);
                Ok(())
            }
        }
    }

    /// Removes some rows below the purge mark.
    fn purge_some(&mut self) -> io::Result<()> {
        let appended = std::mem::take(&mut self.appended);
        if self.purged >= self.purge_until {
            return Ok(());
        }
        let most = Amount {
            rows: PURGE_MIN.rows.max(2 * appended.rows),
            bytes: PURGE_MIN.bytes.max(2 * appended.bytes),
        };
        let log = &self.shared.entries;
        self.purged = log.purge(self.purged..self.purge_until, &most)?;
        // Else the space would be free only after the next write.
        if self.purged == self.purge_until && log.has_gone() { log.sync() } else { Ok(()) }
    }
}

impl Work {
    fn needs_sync(&self) -> bool {
        match self {
            Self::Append(_) | Self::Vote(_) | Self::Truncate(_) => true,
            Self::Committed(_) | Self::Purge(..) => false,
        }
    }

    fn entries(&self) -> usize {
        match self {
            Self::Append(entries) => entries.len(),
            Self::Vote(_) | Self::Committed(_) | Self::Truncate(_) | Self::Purge(..) => 0,
        }
    }
}
