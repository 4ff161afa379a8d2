//! How the log is laid out in its database, and how it is read after a crash.
//!
//! ```text
//! 00 name                 vote, committed, purged
//! 01 index:u64 part:u16   an entry; part 0 is its head (see `rows`)
//!                         or, if it is in a file: 02 crc:u32 length:u64 number:u64
//! large/<index>-<number>  a large entry (see `files`); both numbers in hex
//! ```
//!
//! Invariants:
//! - Rows are written in an order in which every prefix is a valid log: parts before their head,
//!   the purge mark before the rows it purges, truncation from the end.
//! - An entry without a head was never acknowledged, and is removed when the log is opened.
//! - A file is durable before its head is written, and goes only once its head is durably gone.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::db::{Db, Sizes};
use super::files::Files;
use super::generation::ReadError;
use super::rows::{self, Head, LARGE_BYTES, RowError};
use super::tail::Tail;
use super::{Fault, StoreError, locked};

/// Small, since what is read often is in the tail, and the keys are short.
const SIZES: Sizes = Sizes { segment: 2 << 20, cache: 2 << 20 };
/// How much of the log is read into memory at the start, for followers that lag a little.
const PRELOAD_BYTES_MAX: usize = 4 << 20;

const META: u8 = 0x00;
const ENTRIES: u8 = 0x01;
pub(super) const VOTE: &[u8] = b"\x00vote";
pub(super) const COMMITTED: &[u8] = b"\x00committed";
pub(super) const PURGED: &[u8] = b"\x00purged";

/// What the log held when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStart {
    /// The vote as last saved.
    pub vote: Option<Vec<u8>>,
    /// The committed position as last written; may be older than what was last saved.
    pub committed: Option<Vec<u8>>,
    /// What `LogStore::purge_to` was given last.
    pub purged: Option<Vec<u8>>,
    /// The index that purge was made to.
    pub purged_index: Option<u64>,
    /// The first index the log has.
    pub first_index: Option<u64>,
    /// The last index the log has.
    pub last_index: Option<u64>,
    /// The last entry.
    pub last_entry: Option<Bytes>,
}

/// The open database and its files.
pub(super) struct Entries {
    db: Db,
    files: Files,
    /// The number of the next file: none is used twice, so that an entry that replaces another of its
    /// index has a file of its own.
    next_file: AtomicU64,
    /// Files whose heads are removed, but not yet durably.
    gone: Mutex<Vec<String>>,
}

/// An amount of rows.
#[derive(Default)]
pub(super) struct Amount {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Entries {
    /// Makes an empty log in `path`, durably; removes what is there.
    pub(super) fn create(path: &Path, fault: Fault) -> Result<Self, StoreError> {
        Self::new(Db::create(path, SIZES, fault.clone())?, fault)
    }

    /// Opens the log in `path`; [`Entries::recover`] comes next.
    pub(super) fn open(path: &Path, fault: Fault) -> Result<Self, StoreError> {
        Self::new(Db::open(path, SIZES, fault.clone())?, fault)
    }

    fn new(db: Db, fault: Fault) -> Result<Self, StoreError> {
        let files = Files::open(db.path(), fault)?;
        Ok(Self { db, files, next_file: AtomicU64::new(0), gone: Mutex::default() })
    }

    pub(super) fn fault(&self) -> &Fault {
        self.db.fault()
    }

    /// How often [`Entries::sync`] has succeeded.
    pub(super) fn syncs(&self) -> u64 {
        self.db.syncs()
    }

    /// Writes a row that is never large.
    pub(super) fn write_meta(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        debug_assert_eq!(key.first(), Some(&META));
        let cut = rows::cut(value);
        assert_eq!(cut.parts.len(), 0, "{} bytes in a row of the log's own", value.len());
        self.db.insert(key, &cut.head)
    }

    /// Writes entries, those for files first; returns in how many rows, of how many bytes.
    pub(super) fn write(&self, entries: &[(u64, Bytes)]) -> io::Result<Amount> {
        let mut in_files = Vec::new();
        for (index, bytes) in entries.iter().filter(|(_, bytes)| bytes.len() > LARGE_BYTES) {
            let head = InFile::new(bytes, self.next_file.fetch_add(1, Ordering::Relaxed));
            self.files.write(&head.name(*index), bytes)?;
            in_files.push(head.to_row());
        }
        if !in_files.is_empty() {
            self.files.sync()?;
        }
        let mut in_files = in_files.into_iter();
        let mut written = Amount::default();
        for (index, bytes) in entries {
            if bytes.len() > LARGE_BYTES {
                let head = in_files.next().expect("each large entry has a file");
                self.db.insert(&entry_key(*index, 0), &head)?;
                written.rows += 1;
                written.bytes += head.len();
            } else {
                written.rows += self.write_rows(*index, bytes)?;
                written.bytes += bytes.len();
            }
        }
        Ok(written)
    }

    /// Writes an entry, its head last; returns in how many rows.
    fn write_rows(&self, index: u64, bytes: &[u8]) -> io::Result<usize> {
        let cut = rows::cut(bytes);
        let rows = 1 + cut.parts.len();
        for (part, row) in (1..).zip(cut.parts) {
            self.db.insert(&entry_key(index, part), row)?;
        }
        self.db.insert(&entry_key(index, 0), &cut.head)?;
        Ok(rows)
    }

    /// Removes the entries from `index` on, the last one first.
    pub(super) fn truncate(&self, index: u64) -> io::Result<()> {
        for row in self.db.range(&entry_key(index, 0), &[ENTRIES + 1]).rev() {
            let (key, row) = row?;
            self.remove(&key, &row)?;
        }
        Ok(())
    }

    /// Removes the rows of entries in `range` from the first on, until `most` are removed.
    ///
    /// Returns the entry from which on rows may be left.
    pub(super) fn purge(&self, range: Range<u64>, most: &Amount) -> io::Result<u64> {
        let mut purged = Amount::default();
        for row in self.db.range(&entry_key(range.start, 0), &entry_key(range.end, 0)) {
            let (key, row) = row?;
            self.remove(&key, &row)?;
            purged.rows += 1;
            purged.bytes += row.len();
            if purged.rows >= most.rows || purged.bytes >= most.bytes {
                return Ok(entry_of(&key).map_or(range.start, |(index, _)| index));
            }
        }
        Ok(range.end)
    }

    /// Removes a row; if it is the head of an entry in a file, that goes with the next sync.
    fn remove(&self, key: &[u8], row: &[u8]) -> io::Result<()> {
        self.db.remove(key)?;
        if let Some((index, 0)) = entry_of(key)
            && let Some(head) = InFile::parse(row)
        {
            locked(&self.gone).push(head.name(index));
        }
        Ok(())
    }

    /// Makes everything durable that was done before this call.
    pub(super) fn sync(&self) -> io::Result<()> {
        let gone = std::mem::take(&mut *locked(&self.gone));
        self.db.sync()?;
        // One that comes back after a power cut is removed when the log is opened.
        gone.iter().try_for_each(|name| self.files.remove(name))
    }

    /// Whether files wait for a sync to be removed.
    pub(super) fn has_gone(&self) -> bool {
        !locked(&self.gone).is_empty()
    }

    /// Reads an entry; `None` if it has no head.
    pub(super) fn read(&self, index: u64) -> Result<Option<Bytes>, ReadError> {
        let Some(row) = self.db.get(&entry_key(index, 0))? else { return Ok(None) };
        let value = if let Some(head) = InFile::parse(&row) {
            let value = self.files.read(&head.name(index))?;
            let value = value.ok_or(RowError::NoFile(head.number))?;
            head.check(&value)?;
            value
        } else {
            let part = |part| -> Result<_, ReadError> { Ok(self.db.get(&entry_key(index, part))?) };
            Head::parse(&row)?.join(part)?
        };
        Ok(Some(value.into()))
    }

    /// Reads what the log holds, and removes what a crash left of entries without their heads.
    pub(super) fn recover(&self, tail_bytes_max: usize) -> Result<(LogStart, Tail), StoreError> {
        let recovery = Recovery { entries: self };
        let mut start = LogStart {
            vote: recovery.meta(VOTE)?,
            committed: recovery.meta(COMMITTED)?,
            ..LogStart::default()
        };
        if let Some(purged) = recovery.meta(PURGED)? {
            let (index, purged) = purged
                .split_first_chunk::<8>()
                .ok_or_else(|| recovery.corrupt("the purge mark is too short"))?;
            start.purged_index = Some(u64::from_be_bytes(*index));
            start.purged = Some(purged.to_vec());
        }
        let from = start.purged_index.map_or(0, |index| index + 1);
        let log = recovery.range(from)?;
        if start.purged_index.is_some() && log.start != from {
            return Err(recovery.corrupt(&format!("log entry {from} is missing")));
        }
        recovery.remove_files_without_head(&log)?;
        let mut tail = Tail::new(log.clone(), tail_bytes_max);
        let mut bytes = 0;
        for index in log.clone().rev() {
            let entry = recovery.entry(index)?;
            bytes += entry.len();
            start.last_entry.get_or_insert_with(|| entry.clone());
            tail.prepend(entry);
            if bytes >= PRELOAD_BYTES_MAX.min(tail_bytes_max) {
                break;
            }
        }
        if !log.is_empty() {
            start.first_index = Some(log.start);
            start.last_index = Some(log.end - 1);
        }
        Ok((start, tail))
    }
}

fn entry_key(index: u64, part: u16) -> [u8; 11] {
    let mut key = [ENTRIES; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

fn entry_of(key: &[u8]) -> Option<(u64, u16)> {
    let (index, part) = key.strip_prefix(&[ENTRIES])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u16::from_be_bytes(part.try_into().ok()?)))
}

/// The head of an entry that is in a file.
struct InFile {
    crc: u32,
    bytes: u64,
    number: u64,
}

impl InFile {
    /// Where other heads have their version.
    const VERSION: u8 = 2;
    const BYTES: usize = 1 + 4 + 8 + 8;

    fn new(entry: &[u8], number: u64) -> Self {
        Self { crc: crc32fast::hash(entry), bytes: entry.len() as u64, number }
    }

    fn parse(row: &[u8]) -> Option<Self> {
        let row: &[u8; Self::BYTES] = row.try_into().ok()?;
        let (version, row) = row.split_first()?;
        let (crc, row) = row.split_first_chunk::<4>()?;
        let (bytes, number) = row.split_first_chunk::<8>()?;
        let (crc, bytes) = (u32::from_le_bytes(*crc), u64::from_le_bytes(*bytes));
        let number = u64::from_le_bytes(number.try_into().ok()?);
        (*version == Self::VERSION).then_some(Self { crc, bytes, number })
    }

    fn to_row(&self) -> Vec<u8> {
        let mut row = vec![Self::VERSION];
        row.extend_from_slice(&self.crc.to_le_bytes());
        row.extend_from_slice(&self.bytes.to_le_bytes());
        row.extend_from_slice(&self.number.to_le_bytes());
        row
    }

    fn check(&self, entry: &[u8]) -> Result<(), RowError> {
        rows::check(entry, usize::try_from(self.bytes).unwrap_or(usize::MAX), self.crc)
    }

    fn name(&self, index: u64) -> String {
        format!("{index:016x}-{:016x}", self.number)
    }

    /// The index and the number in a name.
    fn of_name(name: &str) -> Option<(u64, u64)> {
        let (index, number) = name.split_once('-')?;
        Some((u64::from_str_radix(index, 16).ok()?, u64::from_str_radix(number, 16).ok()?))
    }
}

struct Recovery<'a> {
    entries: &'a Entries,
}

impl Recovery<'_> {
    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        debug_assert_eq!(key.first(), Some(&META));
        let Some(row) =
            self.entries.db.get(key).map_err(StoreError::io("read", self.entries.db.path()))?
        else {
            return Ok(None);
        };
        let value = Head::parse(&row).and_then(|head| head.join(|_| Ok(None)));
        value.map(Some).map_err(|error| self.row_error(&error))
    }

    /// The indexes the log has from `from` on.
    fn range(&self, from: u64) -> Result<Range<u64>, StoreError> {
        let read = StoreError::io("read", self.entries.db.path());
        let first = self.entries.db.range(&entry_key(from, 0), &[ENTRIES + 1]).next().transpose();
        let Some((first, _)) = first.map_err(read)? else { return Ok(from..from) };
        let first = self.index_of(&first)?.0;
        let Some(last) = self.last_whole(from)? else { return Ok(from..from) };
        Ok(first..last + 1)
    }

    /// The last entry with a head; removes parts without one, which a crash has left.
    fn last_whole(&self, from: u64) -> Result<Option<u64>, StoreError> {
        let io = || StoreError::io("read", self.entries.db.path());
        loop {
            let last =
                self.entries.db.range(&entry_key(from, 0), &[ENTRIES + 1]).next_back().transpose();
            let Some((key, _)) = last.map_err(io())? else { return Ok(None) };
            let (index, _) = self.index_of(&key)?;
            if self.entries.db.get(&entry_key(index, 0)).map_err(io())?.is_some() {
                return Ok(Some(index));
            }
            self.entries.truncate(index).map_err(io())?;
        }
    }

    fn entry(&self, index: u64) -> Result<Bytes, StoreError> {
        match self.entries.read(index) {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(self.corrupt(&format!("log entry {index} is missing"))),
            Err(ReadError::Io(error)) => Err(StoreError::io("read", self.entries.db.path())(error)),
            Err(ReadError::Row(error)) => Err(self.row_error(&error)),
        }
    }

    /// Removes the files of entries that are not in the log, and numbers new ones behind the others.
    fn remove_files_without_head(&self, log: &Range<u64>) -> Result<(), StoreError> {
        let Entries { db, files, next_file, .. } = self.entries;
        let io = || StoreError::io("read", db.path());
        for name in files.names().map_err(io())? {
            let Some((index, number)) = InFile::of_name(&name) else { continue };
            next_file.fetch_max(number + 1, Ordering::Relaxed);
            let row = db.get(&entry_key(index, 0)).map_err(io())?;
            let head = row.and_then(|row| InFile::parse(&row));
            if !log.contains(&index) || head.is_none_or(|head| head.number != number) {
                files.remove(&name).map_err(StoreError::io("remove files in", db.path()))?;
            }
        }
        Ok(())
    }

    fn index_of(&self, key: &[u8]) -> Result<(u64, u16), StoreError> {
        entry_of(key).ok_or_else(|| self.corrupt(&format!("key {key:02x?} is not an entry's")))
    }

    fn corrupt(&self, cause: &str) -> StoreError {
        StoreError::Corrupt { path: self.entries.db.path().to_owned(), cause: cause.to_owned() }
    }

    fn row_error(&self, error: &RowError) -> StoreError {
        error.at(self.entries.db.path())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LARGE: usize = LARGE_BYTES + 1;

    fn fault() -> Fault {
        Fault::new(Arc::new(|fault| panic!("{fault}")))
    }

    fn made(temp: &tempfile::TempDir) -> Entries {
        Entries::create(&temp.path().join("log"), fault()).expect("create")
    }

    fn entry(index: u64, bytes: usize) -> (u64, Bytes) {
        (index, vec![u8::try_from(index).expect("small"); bytes].into())
    }

    fn files(entries: &Entries) -> usize {
        entries.files.names().expect("names").len()
    }

    #[test]
    fn parts_that_a_crash_left_without_their_head_are_removed() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        let large = entry(0, 3 * rows::ROW_BYTES_MAX);
        log.write(std::slice::from_ref(&large)).expect("write");
        for part in 1..3 {
            log.db.insert(&entry_key(1, part), b"a part").expect("insert");
        }
        let (start, tail) = log.recover(0).expect("recover");
        assert_eq!((start.last_index, tail.log()), (Some(0), 0..1));
        assert_eq!(start.last_entry, Some(large.1));
        assert_eq!(log.db.range(&entry_key(1, 0), &[ENTRIES + 1]).count(), 0);
    }

    // Purging once ran ahead of its mark, so that a crash could leave a hole after the old one.
    #[test]
    fn a_hole_after_the_purge_mark_is_damage() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        log.write_meta(PURGED, &2_u64.to_be_bytes()).expect("write");
        let entries: Vec<_> = (3..6).map(|index| entry(index, 5)).collect();
        log.write(&entries).expect("write");
        log.recover(0).expect("no hole");
        log.db.remove(&entry_key(3, 0)).expect("remove");
        let error = log.recover(0).err().expect("refused");
        assert_eq!(error.code(), "store-damaged");
        assert!(error.to_string().contains("entry 3 is missing"), "{error}");
    }

    #[test]
    fn rows_below_the_purge_mark_do_not_count() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        let entries: Vec<_> = (0..6).map(|index| entry(index, 5)).collect();
        log.write(&entries).expect("write");
        log.write_meta(PURGED, &3_u64.to_be_bytes()).expect("write");
        assert_eq!(log.recover(0).expect("recover").1.log(), 4..6);
        log.write_meta(PURGED, &9_u64.to_be_bytes()).expect("write");
        let (start, tail) = log.recover(0).expect("recover");
        assert_eq!((start.first_index, start.last_index, tail.log()), (None, None, 10..10));
    }

    #[test]
    fn a_large_entry_is_in_a_file_from_one_byte_above_the_limit_on() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        let entries = [entry(0, LARGE_BYTES), entry(1, LARGE), entry(2, 5), entry(3, 1 << 20)];
        log.write(&entries).expect("write");
        log.sync().expect("sync");
        drop(log);
        let log = Entries::open(&temp.path().join("log"), fault()).expect("open");
        assert_eq!(log.recover(0).expect("recover").1.log(), 0..4);
        assert_eq!(files(&log), 2);
        for (index, bytes) in entries {
            assert!(log.read(index).is_ok_and(|read| read == Some(bytes)), "entry {index}");
        }
    }

    #[test]
    fn a_file_goes_once_its_head_is_durably_gone() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        let entries: Vec<_> = (0..4).map(|index| entry(index, LARGE)).collect();
        log.write(&entries).expect("write");
        log.truncate(2).expect("truncate");
        // The one that replaces it has a file of its own.
        log.write(&[entry(2, LARGE + 1)]).expect("write");
        assert_eq!((files(&log), log.has_gone()), (5, true));
        log.sync().expect("sync");
        assert_eq!((files(&log), log.has_gone()), (3, false));
        let most = Amount { rows: 1, bytes: 1 };
        let mut from = 0;
        while from < 2 {
            from = log.purge(from..2, &most).expect("purge");
        }
        log.sync().expect("sync");
        assert_eq!(files(&log), 1);
        assert!(log.read(2).is_ok_and(|read| read.is_some_and(|read| read.len() == LARGE + 1)));
    }

    #[test]
    fn files_that_a_crash_left_without_their_head_are_removed() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        log.write(&[entry(0, LARGE), entry(1, LARGE)]).expect("write");
        // Its head was not written; it was replaced by the one there is; it is of a log before.
        let names = [(2, 7), (1, 9), (5, 0)].map(|(index, number)| {
            let head = InFile { crc: 0, bytes: 0, number };
            head.name(index)
        });
        for name in &names {
            log.files.write(name, b"bytes").expect("write");
        }
        log.recover(0).expect("recover");
        assert_eq!(files(&log), 2);
        log.write(&[entry(2, LARGE)]).expect("write");
        let name = InFile { crc: 0, bytes: 0, number: 10 }.name(2);
        assert!(log.files.read(&name).expect("read").is_some(), "no number is used twice");
    }

    #[test]
    fn a_head_without_its_file_or_with_another_is_damage() {
        let temp = tempfile::tempdir().expect("a directory");
        let log = made(&temp);
        log.write(&[entry(0, LARGE)]).expect("write");
        let names = log.files.names().expect("names");
        log.files.remove(&names[0]).expect("remove");
        let error = log.recover(0).err().expect("refused");
        assert_eq!((error.code(), error.to_string().contains("file 0")), ("store-damaged", true));
        log.files.write(&names[0], &entry(1, LARGE).1).expect("write");
        let error = log.recover(0).err().expect("refused");
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
