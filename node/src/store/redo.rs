//! What makes a checkpoint of many rows and bodies atomic: a copy of it, made durable first.
//!
//! The engine's own batches would do, but they stop every write of the process while they are
//! applied, those of the log too: at 20,000 rows a second that held up the log for 170 ms.
//! So the state's thread writes all of a checkpoint to this file, syncs it, and only then
//! changes the database, one by one.  After a crash in between, all is written once more.
//!
//! ```text
//! "hfredo" version:u16 crc:u32 applied:u64 bytes:u64, then for each change:
//! kind:u8 key:u32 value:u32 (ffffffff: removed), key, value
//! ```
//!
//! Kinds are 0 row, 1 body (the key is its hash), 2 mark of a body, 3 body in a file.  The changes go into the file as
//! they are added, the head behind them: of a checkpoint with bodies there is no second copy in memory.
//!
//! Invariants:
//! - The file is overwritten only after the checkpoint in it is durable in the database; so where
//!   the file is torn, the database holds the checkpoint before, and where it is whole, writing
//!   its rows again ends at its applied index.
//! - It is never older than the database: there is one before the first row is changed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::bodies::{Action, Hash};
use super::{record, sync};

const NAME: &str = "redo";
const MAGIC: [u8; 8] = *b"hfredo\x00\x02";
/// Magic, CRC-32 of the rest, applied index, bytes of rows.
const HEAD_BYTES: usize = 8 + 4 + 8 + 8;
const REMOVED: u32 = u32::MAX;
/// Small changes share a write of so many bytes; what is larger goes without a copy.
const BUFFER_BYTES: usize = 64 << 10;
/// Kind and two lengths.
const CHANGE_BYTES: usize = 1 + 4 + 4;
const ROW: u8 = 0;
const BODY: u8 = 1;
const MARK: u8 = 2;
const KEEP: u8 = 3;

/// The open file.
pub(super) struct Redo {
    file: File,
}

/// A checkpoint on its way into the file, whose content is torn until [`Copy::finish`].
pub(super) struct Copy<'a> {
    file: BufWriter<&'a File>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

/// One change of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// A row; `None` in place of a removed one's value.
    Row(&'a [u8], Option<&'a [u8]>),
    Body(Hash, Action<'a>),
}

/// What a whole file says.
pub(super) struct Found {
    pub(super) applied_index: u64,
    bytes: Vec<u8>,
}

impl Redo {
    /// Opens the file in the database directory `dir`, or makes it, durably.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path)?;
        if is_new {
            file.sync_all()?;
            record::sync_dir(dir)?;
        }
        Ok(Self { file })
    }

    /// Begins to replace the content.
    pub(super) fn begin(&self) -> io::Result<Copy<'_>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Copy { file, crc: crc32fast::Hasher::new(), bytes: 0 })
    }

    /// The checkpoint in the file, if it is whole.
    pub(super) fn read(&self) -> io::Result<Option<Found>> {
        let file_bytes = self.file.metadata()?.len();
        let mut head = [0; HEAD_BYTES];
        if file_bytes < HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, 0)?;
        let length = u64_at(&head, 20);
        if head[..8] != MAGIC || length > file_bytes - HEAD_BYTES as u64 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, HEAD_BYTES as u64)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[12..]);
        crc.update(&bytes);
        let is_whole = head[8..12] == crc.finalize().to_le_bytes();
        Ok(is_whole.then(|| Found { applied_index: u64_at(&head, 12), bytes }))
    }
}

impl Copy<'_> {
    /// Adds a row, or its removal.
    ///
    /// # Panics
    /// If key or value reach 4 GiB; the store's limits are far below.
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        self.put(ROW, key, value)
    }

    /// Adds what is to be done with a body.
    pub(super) fn add_body(&mut self, hash: &Hash, action: Action<'_>) -> io::Result<()> {
        match action {
            Action::Put(bytes) => self.put(BODY, hash, Some(bytes)),
            Action::Remove => self.put(BODY, hash, None),
            Action::Mark => self.put(MARK, hash, None),
            Action::Keep => self.put(KEEP, hash, None),
        }
    }

    /// Makes the content whole, durably.
    pub(super) fn finish(self, applied_index: u64) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        head[12..20].copy_from_slice(&applied_index.to_le_bytes());
        head[20..28].copy_from_slice(&self.bytes.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[12..]);
        crc.combine(&self.crc);
        head[8..12].copy_from_slice(&crc.finalize().to_le_bytes());
        file.write_all_at(&head, 0)?;
        sync::data(file)
    }

    fn put(&mut self, kind: u8, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("limited by the store");
        let mut fixed = [kind; CHANGE_BYTES];
        fixed[1..5].copy_from_slice(&length(key).to_le_bytes());
        fixed[5..].copy_from_slice(&value.map_or(REMOVED, length).to_le_bytes());
        for bytes in [&fixed, key, value.unwrap_or_default()] {
            self.file.write_all(bytes)?;
            self.crc.update(bytes);
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

impl Found {
    /// The changes in the order in which they were added. An error if one is none that this release
    /// knows: the checksum says that it was written so.
    pub(super) fn changes(&self) -> impl Iterator<Item = io::Result<Change<'_>>> {
        self.raw().map(|(kind, key, value)| match (kind, value) {
            (ROW, value) => Ok(Change::Row(key, value)),
            (BODY | MARK | KEEP, value) => {
                let hash = key.try_into().map_err(|_| unknown(kind))?;
                let action = match (kind, value) {
                    (BODY, Some(bytes)) => Action::Put(bytes),
                    (BODY, None) => Action::Remove,
                    (KEEP, _) => Action::Keep,
                    (_, _) => Action::Mark,
                };
                Ok(Change::Body(hash, action))
            }
            (_, _) => Err(unknown(kind)),
        })
    }

    fn raw(&self) -> impl Iterator<Item = (u8, &[u8], Option<&[u8]>)> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (fixed, after) = rest.split_first_chunk::<CHANGE_BYTES>()?;
            let [kind, k0, k1, k2, k3, v0, v1, v2, v3] = *fixed;
            let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]);
            let is_removed = value_bytes == REMOVED;
            let value_bytes = if is_removed { 0 } else { value_bytes as usize };
            let (key, after) = after.split_at(u32::from_le_bytes([k0, k1, k2, k3]) as usize);
            let (value, after) = after.split_at(value_bytes);
            rest = after;
            Some((kind, key, (!is_removed).then_some(value)))
        })
    }
}

fn unknown(kind: u8) -> io::Error {
    io::Error::other(format!("a change of kind {kind} in the redo file"))
}

fn u64_at(bytes: &[u8; HEAD_BYTES], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(redo: &Redo, applied_index: u64, count: u8) {
        let mut copy = redo.begin().expect("begin");
        for number in 0..count {
            copy.add(&[number], (number % 3 != 0).then_some(&[number; 40])).expect("add");
        }
        copy.finish(applied_index).expect("finish");
    }

    #[test]
    fn the_last_checkpoint_comes_back_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let redo = Redo::open(dir.path()).expect("open");
        assert!(redo.read().expect("read").is_none());
        write(&redo, 7, 100);
        // A shorter one over it.
        write(&redo, 8, 10);
        let found = Redo::open(dir.path()).expect("open").read().expect("read").expect("whole");
        assert_eq!(found.applied_index, 8);
        assert_eq!(found.changes().count(), 10);
        for (number, change) in (0_u8..).zip(found.changes()) {
            let bytes = [number; 40];
            let value = (number % 3 != 0).then_some(&bytes[..]);
            assert_eq!(change.expect("known"), Change::Row(&[number], value));
        }
    }

    #[test]
    fn bodies_come_back_with_what_is_to_be_done() {
        let dir = tempfile::tempdir().expect("a directory");
        let redo = Redo::open(dir.path()).expect("open");
        let puts = [Action::Put(b"bytes"), Action::Put(b"")];
        let actions = [puts[0], puts[1], Action::Keep, Action::Remove, Action::Mark];
        let mut copy = redo.begin().expect("begin");
        for (number, action) in (0..).zip(actions) {
            copy.add_body(&[number; 32], action).expect("add");
        }
        copy.finish(7).expect("finish");
        let found = redo.read().expect("read").expect("whole");
        let changes: Vec<_> = found.changes().map(|change| change.expect("known")).collect();
        let expected = (0..).zip(actions).map(|(n, action)| Change::Body([n; 32], action));
        assert_eq!(changes, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_checkpoint_that_was_begun_and_not_finished_is_no_checkpoint() {
        let dir = tempfile::tempdir().expect("a directory");
        let redo = Redo::open(dir.path()).expect("open");
        write(&redo, 7, 100);
        let mut copy = redo.begin().expect("begin");
        let body = vec![9; BUFFER_BYTES];
        copy.add_body(&[9; 32], Action::Put(&body)).expect("add");
        drop(copy);
        assert!(redo.read().expect("read").is_none());
        write(&redo, 8, 10);
        assert_eq!(redo.read().expect("read").expect("whole").applied_index, 8);
    }

    #[test]
    fn a_torn_checkpoint_is_no_checkpoint() {
        let dir = tempfile::tempdir().expect("a directory");
        let redo = Redo::open(dir.path()).expect("open");
        write(&redo, 8, 10);
        let whole = std::fs::read(dir.path().join(NAME)).expect("bytes");
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 0x10;
            std::fs::write(dir.path().join(NAME), &torn).expect("write");
            assert!(redo.read().expect("read").is_none(), "byte {at}");
            std::fs::write(dir.path().join(NAME), &whole[..at]).expect("write");
            assert!(redo.read().expect("read").is_none(), "cut at {at}");
        }
    }
}
