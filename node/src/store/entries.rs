//! How the log is laid out in its database, and how it is read after a crash.
//!
//! ```text
//! 00 name                 vote, committed, purged
//! 01 index:u64 part:u16   an entry; part 0 is its head (see `rows`)
//! ```
//!
//! Invariants:
//! - Rows are written in an order in which every prefix is a valid log: parts before their head,
//!   the purge mark before the rows it purges, truncation from the end.
//! - An entry without a head was never acknowledged, and is removed when the log is opened.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::StoreError;
use super::db::Db;
use super::rows::{self, Head, RowError};
use super::tail::Tail;

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

/// Writes a row that is never large.
pub(super) fn write_meta(db: &Db, key: &[u8], value: &[u8]) -> io::Result<()> {
    debug_assert_eq!(key.first(), Some(&META));
    let cut = rows::cut(value);
    assert_eq!(cut.parts.len(), 0, "{} bytes in a row of the log's own", value.len());
    db.insert(key, &cut.head)
}

/// Writes an entry, its head last; returns in how many rows.
pub(super) fn write_entry(db: &Db, index: u64, bytes: &[u8]) -> io::Result<usize> {
    let cut = rows::cut(bytes);
    let rows = 1 + cut.parts.len();
    for (part, row) in (1..).zip(cut.parts) {
        db.insert(&entry_key(index, part), row)?;
    }
    db.insert(&entry_key(index, 0), &cut.head)?;
    Ok(rows)
}

/// Removes the entries from `index` on, the last one first.
pub(super) fn truncate(db: &Db, index: u64) -> io::Result<()> {
    for row in db.range(&entry_key(index, 0), &[ENTRIES + 1]).rev() {
        db.remove(&row?.0)?;
    }
    Ok(())
}

pub(super) fn entry_key(index: u64, part: u16) -> [u8; 11] {
    let mut key = [ENTRIES; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

pub(super) fn entry_of(key: &[u8]) -> Option<(u64, u16)> {
    let (index, part) = key.strip_prefix(&[ENTRIES])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*index), u16::from_be_bytes(part.try_into().ok()?)))
}

/// Reads an entry; `None` if it has no head.
pub(super) fn read_entry(db: &Db, index: u64) -> Result<Option<Bytes>, ReadError> {
    let Some(row) = db.get(&entry_key(index, 0))? else { return Ok(None) };
    let value = Head::parse(&row)?
        .join(|part| -> Result<_, ReadError> { Ok(db.get(&entry_key(index, part))?) })?;
    Ok(Some(value.into()))
}

/// Reads what the log holds, and removes what a crash left of an entry without its head.
pub(super) fn recover(db: &Db, tail_bytes_max: usize) -> Result<(LogStart, Tail), StoreError> {
    let recovery = Recovery { db };
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

struct Recovery<'a> {
    db: &'a Db,
}

impl Recovery<'_> {
    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        debug_assert_eq!(key.first(), Some(&META));
        let Some(row) = self.db.get(key).map_err(StoreError::io("read", self.db.path()))? else {
            return Ok(None);
        };
        let value = Head::parse(&row).and_then(|head| head.join(|_| Ok(None)));
        value.map(Some).map_err(|error| self.row_error(&error))
    }

    /// The indexes the log has from `from` on.
    fn range(&self, from: u64) -> Result<Range<u64>, StoreError> {
        let read = StoreError::io("read", self.db.path());
        let first = self.db.range(&entry_key(from, 0), &[ENTRIES + 1]).next().transpose();
        let Some((first, _)) = first.map_err(read)? else { return Ok(from..from) };
        let first = self.index_of(&first)?.0;
        let Some(last) = self.last_whole(from)? else { return Ok(from..from) };
        Ok(first..last + 1)
    }

    /// The last entry with a head; removes parts without one, which a crash has left.
    fn last_whole(&self, from: u64) -> Result<Option<u64>, StoreError> {
        let io = || StoreError::io("read", self.db.path());
        loop {
            let last = self.db.range(&entry_key(from, 0), &[ENTRIES + 1]).next_back().transpose();
            let Some((key, _)) = last.map_err(io())? else { return Ok(None) };
            let (index, _) = self.index_of(&key)?;
            if self.db.get(&entry_key(index, 0)).map_err(io())?.is_some() {
                return Ok(Some(index));
            }
            truncate(self.db, index).map_err(io())?;
        }
    }

    fn entry(&self, index: u64) -> Result<Bytes, StoreError> {
        match read_entry(self.db, index) {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(self.corrupt(&format!("log entry {index} is missing"))),
            Err(ReadError::Io(error)) => Err(StoreError::io("read", self.db.path())(error)),
            Err(ReadError::Row(error)) => Err(self.row_error(&error)),
        }
    }

    fn index_of(&self, key: &[u8]) -> Result<(u64, u16), StoreError> {
        entry_of(key).ok_or_else(|| self.corrupt(&format!("key {key:02x?} is not an entry's")))
    }

    fn corrupt(&self, cause: &str) -> StoreError {
        StoreError::Corrupt { path: self.db.path().to_owned(), cause: cause.to_owned() }
    }

    fn row_error(&self, error: &RowError) -> StoreError {
        error.at(self.db.path())
    }
}

/// Why an entry could not be read.
pub(super) enum ReadError {
    Io(io::Error),
    Row(RowError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<RowError> for ReadError {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Fault;
    use super::super::db::Sizes;
    use super::*;

    fn made(temp: &tempfile::TempDir) -> Db {
        let fault = Fault::new(Arc::new(|fault| panic!("{fault}")));
        let sizes = Sizes { segment: 2 << 20, cache: 1 << 20 };
        Db::create(&temp.path().join("log"), sizes, fault).expect("create")
    }

    #[test]
    fn parts_that_a_crash_left_without_their_head_are_removed() {
        let temp = tempfile::tempdir().expect("a directory");
        let db = made(&temp);
        let large = vec![7; 3 * rows::ROW_BYTES_MAX];
        write_entry(&db, 0, &large).expect("write");
        for part in 1..3 {
            db.insert(&entry_key(1, part), b"a part").expect("insert");
        }
        let (start, tail) = recover(&db, 0).expect("recover");
        assert_eq!((start.last_index, tail.log()), (Some(0), 0..1));
        assert_eq!(start.last_entry.as_deref(), Some(large.as_slice()));
        assert_eq!(db.range(&entry_key(1, 0), &[ENTRIES + 1]).count(), 0);
    }

    // Purging once ran ahead of its mark, so that a crash could leave a hole after the old one.
    #[test]
    fn a_hole_after_the_purge_mark_is_damage() {
        let temp = tempfile::tempdir().expect("a directory");
        let db = made(&temp);
        write_meta(&db, PURGED, &2_u64.to_be_bytes()).expect("write");
        for index in 3..6 {
            write_entry(&db, index, b"entry").expect("write");
        }
        recover(&db, 0).expect("no hole");
        db.remove(&entry_key(3, 0)).expect("remove");
        let error = recover(&db, 0).err().expect("refused");
        assert_eq!(error.code(), "store-damaged");
        assert!(error.to_string().contains("entry 3 is missing"), "{error}");
    }

    #[test]
    fn rows_below_the_purge_mark_do_not_count() {
        let temp = tempfile::tempdir().expect("a directory");
        let db = made(&temp);
        for index in 0..6 {
            write_entry(&db, index, b"entry").expect("write");
        }
        write_meta(&db, PURGED, &3_u64.to_be_bytes()).expect("write");
        assert_eq!(recover(&db, 0).expect("recover").1.log(), 4..6);
        write_meta(&db, PURGED, &9_u64.to_be_bytes()).expect("write");
        let (start, tail) = recover(&db, 0).expect("recover");
        assert_eq!((start.first_index, start.last_index, tail.log()), (None, None, 10..10));
    }
}
