//! The newest entries of the log, in memory, and which indexes the log has.
//!
//! Replication and apply read from here; the database is read only for entries that are older.
//!
//! Invariants:
//! - An entry that the writer thread has not yet written is here.
//! - Entries are contiguous, from `first` to the end of the log.
//! - An entry below `first` that is in the log is in the database, as it should read.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

/// How much of the log stays in memory: with batches of 1 MiB, the last 4 of them, which is what is on
/// its way to a follower that keeps up. A large upload goes through all of it.
pub(super) const TAIL_BYTES_MAX: usize = 4 << 20;

/// The indexes and newest entries of a log.
pub(super) struct Tail {
    /// What the log has: from the first readable index to one past the last.
    log: Range<u64>,
    /// The index of the first entry here.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// Counts the jobs given to the writer thread.
    job: u64,
    /// The last job that the writer thread has written.
    written_job: u64,
}

struct Entry {
    /// The job that writes it.
    job: u64,
    bytes: Bytes,
}

impl Tail {
    /// A tail for a log that has the indexes `log`, all of them in the database.
    pub(super) fn new(log: Range<u64>, bytes_max: usize) -> Self {
        let first = log.end;
        let entries = VecDeque::new();
        Self { log, first, entries, bytes: 0, bytes_max, job: 0, written_job: 0 }
    }

    /// The indexes the log has.
    pub(super) fn log(&self) -> Range<u64> {
        self.log.clone()
    }

    /// The index of the first entry that is in memory.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Numbers the next job for the writer thread.
    pub(super) fn next_job(&mut self) -> u64 {
        self.job += 1;
        self.job
    }

    /// Puts an entry of the database before the others, while the log is being opened.
    pub(super) fn prepend(&mut self, bytes: Bytes) {
        self.first -= 1;
        self.bytes += bytes.len();
        self.entries.push_front(Entry { job: 0, bytes });
    }

    /// Adds an entry; refuses one that does not follow the last, or the purge mark.  Only a log that
    /// never had entries may begin anywhere.
    pub(super) fn append(&mut self, index: u64, bytes: Bytes, job: u64) -> Result<(), String> {
        if self.log == (0..0) {
            self.log = index..index;
            self.first = index;
        }
        if index != self.log.end {
            return Err(format!("entry {index} does not follow the log, which has {:?}", self.log));
        }
        self.log.end += 1;
        self.bytes += bytes.len();
        self.entries.push_back(Entry { job, bytes });
        Ok(())
    }

    /// Forgets the entries from `index` on.
    pub(super) fn truncate_from(&mut self, index: u64) -> Result<(), String> {
        if index < self.log.start {
            return Err(format!("cannot truncate from {index}, the log has {:?}", self.log));
        }
        while self.log.end > index {
            self.log.end -= 1;
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry.bytes.len();
            }
        }
        self.first = self.first.min(self.log.end);
        Ok(())
    }

    /// Forgets the entries up to `index`, which may be beyond the last.
    pub(super) fn purge_to(&mut self, index: u64) {
        let start = index + 1;
        self.log.start = self.log.start.max(start);
        self.log.end = self.log.end.max(start);
        while self.first < self.log.start {
            self.pop_front();
        }
    }

    /// Notes that the writer thread has written `job`, and drops the oldest entries if there are
    /// too many.
    pub(super) fn written(&mut self, job: u64) {
        self.written_job = job;
        while self.bytes > self.bytes_max
            && self.entries.front().is_some_and(|entry| entry.job <= job)
        {
            self.pop_front();
        }
    }

    /// Adds the entries of `range` that are here to `found`, until `bytes_max` is used up; always
    /// at least one if `found` is empty.
    pub(super) fn read(
        &self,
        range: Range<u64>,
        bytes_max: &mut u64,
        found: &mut Vec<(u64, Bytes)>,
    ) {
        let from = usize::try_from(range.start - self.first).unwrap_or(usize::MAX);
        for (index, entry) in range.zip(self.entries.iter().skip(from)) {
            let bytes = entry.bytes.len() as u64;
            if bytes > *bytes_max && !found.is_empty() {
                return;
            }
            *bytes_max = bytes_max.saturating_sub(bytes);
            found.push((index, entry.bytes.clone()));
        }
    }

    fn pop_front(&mut self) {
        self.first += 1;
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(index: u64) -> Bytes {
        Bytes::from(vec![u8::try_from(index % 256).expect("small"); 10])
    }

    fn read(tail: &Tail, range: Range<u64>) -> Vec<u64> {
        let (mut budget, mut found) = (u64::MAX, Vec::new());
        tail.read(range, &mut budget, &mut found);
        found.into_iter().map(|(index, _)| index).collect()
    }

    #[test]
    fn an_entry_stays_until_its_own_job_is_written() {
        let mut tail = Tail::new(0..0, 25);
        for index in 0..4 {
            let job = tail.next_job();
            tail.append(index, bytes(index), job).expect("append");
        }
        tail.written(1);
        assert_eq!(tail.first(), 1, "one may go, the others are not written");
        tail.truncate_from(2).expect("truncate");
        tail.next_job();
        let job = tail.next_job();
        tail.append(2, bytes(2), job).expect("append");
        tail.written(4);
        // The job that wrote the first entry 2 is done, the one that replaces it is not.
        assert_eq!((tail.first(), read(&tail, 1..3)), (1, vec![1, 2]));
        tail.append(3, bytes(3), job).expect("append");
        tail.written(6);
        assert_eq!((tail.first(), read(&tail, 2..4)), (2, vec![2, 3]));
    }

    #[test]
    fn a_gap_is_refused_but_a_new_log_may_begin_anywhere() {
        let mut tail = Tail::new(0..0, 100);
        tail.append(3, bytes(3), 1).expect("a new log");
        assert!(tail.append(5, bytes(5), 1).is_err());
        assert!(tail.append(3, bytes(3), 1).is_err(), "not without truncation");
        tail.purge_to(10);
        assert_eq!(tail.log(), 11..11);
        assert!(tail.append(10, bytes(10), 1).is_err());
        assert!(tail.append(12, bytes(12), 1).is_err());
        tail.append(11, bytes(11), 1).expect("after the purge");
        assert!(tail.truncate_from(5).is_err(), "below the purge mark");
    }

    #[test]
    fn a_read_is_bounded_but_never_empty() {
        let mut tail = Tail::new(0..0, 1000);
        for index in 0..9 {
            tail.append(index, bytes(index), 1).expect("append");
        }
        for (budget, count) in [(0, 1), (9, 1), (10, 1), (25, 2), (30, 3), (1000, 9)] {
            let (mut budget, mut found) = (budget, Vec::new());
            tail.read(0..9, &mut budget, &mut found);
            assert_eq!(found.len(), count);
        }
    }
}
