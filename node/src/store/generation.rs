//! One generation of the state: a database of rows, one of bodies, the redo file of both, and how rows
//! are laid out.
//!
//! ```text
//! 00 applied                        the index of the last entry whose changes are in
//! 01 key                            the head of a row's value (see `rows`)
//! 02 len:u16 key part:u16           the parts of a large value, from part 1 on
//! ```
//!
//! Bodies (see `bodies`) are apart for the sake of memory: their keys are short, so that their database
//! can do with small segments, and large objects go through them only.
//!
//! Invariants:
//! - A crash may leave a checkpoint half written; opening repeats it before any row is read.
//! - The applied index is written after the rows and bodies it stands for.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::bodies::Bodies;
use super::db::{Db, Sizes};
use super::redo::{Change, Redo};
use super::rows::{self, Head, RowError};
use super::state::Row;
use super::{DataDir, StoreError};

/// The cache is small, since all rows are in memory anyway and writes in key order bear it.
const ROWS: Sizes = Sizes { segment: 8 << 20, cache: 4 << 20 };
/// Where the bodies are, in the directory of the rows.
const BODIES_NAME: &str = "bodies";
/// The longest key: far above any name, and 257 of them are a quarter of a segment.
const KEY_BYTES_MAX: usize = 8 << 10;

const APPLIED: &[u8] = b"\x00applied";
const HEADS: u8 = 0x01;
const PARTS: u8 = 0x02;

/// An open database of rows.
pub(super) struct Generation {
    pub(super) db: Db,
    /// Shared with those who read them.
    pub(super) bodies: Arc<Bodies>,
    pub(super) redo: Redo,
    pub(super) number: u64,
    pub(super) applied_index: u64,
    /// How many parts each large row has, so that a smaller value can remove them.
    large: HashMap<Arc<[u8]>, u16>,
}

impl Generation {
    /// Makes an empty one.
    pub(super) fn create(dir: &DataDir, number: u64) -> Result<Self, StoreError> {
        let path = dir.state_path(number);
        let db = Db::create(&path, ROWS, dir.fault().clone())?;
        let bodies = Bodies::create(&path.join(BODIES_NAME), dir.fault().clone())?;
        let redo = Redo::open(&path).map_err(StoreError::io("create redo file in", &path))?;
        let (bodies, large) = (Arc::new(bodies), HashMap::new());
        Ok(Self { db, bodies, redo, number, applied_index: 0, large })
    }

    /// Opens one, ends the checkpoint that a crash may have interrupted, removes the bodies that
    /// nobody can read any more, and reads all rows.
    pub(super) fn open(dir: &DataDir, number: u64) -> Result<(Self, Vec<Row>), StoreError> {
        let path = dir.state_path(number);
        let db = Db::open(&path, ROWS, dir.fault().clone())?;
        let bodies = Bodies::open(&path.join(BODIES_NAME), dir.fault().clone())?;
        let redo = Redo::open(&path).map_err(StoreError::io("open redo file in", &path))?;
        let (bodies, large) = (Arc::new(bodies), HashMap::new());
        let mut generation = Self { db, bodies, redo, number, applied_index: 0, large };
        generation.read_applied()?;
        generation.repeat().map_err(StoreError::io("repeat a checkpoint in", &path))?;
        let removed = generation.bodies.remove_marked();
        removed.map_err(StoreError::io("remove bodies in", &path))?;
        let mut rows = Vec::new();
        let mut large = HashMap::new();
        let read = generation.read(|key, value, parts| {
            if parts > 0 {
                large.insert(key.clone(), parts);
            }
            rows.push((key, value));
        });
        read.map_err(|error| error.into_store(&path))?;
        generation.large = large;
        Ok((generation, rows))
    }

    fn read_applied(&mut self) -> Result<(), StoreError> {
        let path = self.db.path();
        let row = self.db.get(APPLIED).map_err(StoreError::io("read", path))?;
        if let Some(row) = row {
            let bytes = row.as_ref().try_into().map_err(|_| StoreError::Corrupt {
                path: path.to_owned(),
                cause: "the applied index is not eight bytes".to_owned(),
            })?;
            self.applied_index = u64::from_be_bytes(bytes);
        }
        Ok(())
    }

    /// Writes the last checkpoint again, whatever was written of it.
    fn repeat(&mut self) -> io::Result<()> {
        let Some(found) = self.redo.read()? else { return Ok(()) };
        if found.applied_index < self.applied_index {
            return Ok(());
        }
        for change in found.changes() {
            match change? {
                Change::Body(hash, action) => self.bodies.carry_out(&hash, action)?,
                Change::Row(key, value) => {
                    // The old value may have been half replaced, so its head cannot tell its parts.
                    for row in self.db.range(&part_key(key, 0), &part_key(key, u16::MAX)) {
                        self.db.remove(&row?.0)?;
                    }
                    self.put(&Arc::from(key), value)?;
                }
            }
        }
        self.bodies.sync()?;
        self.put_applied(found.applied_index)?;
        self.db.sync()
    }

    /// Calls `each` with every row, in key order, and the number of its parts.
    pub(super) fn read(
        &self,
        mut each: impl FnMut(Arc<[u8]>, Arc<[u8]>, u16),
    ) -> Result<(), ReadError> {
        for row in self.db.range(&[HEADS], &[HEADS + 1]) {
            let (key, row) = row?;
            let head = Head::parse(&row)?;
            let key = &key[1..];
            let value = match head.whole()? {
                Some(value) => Arc::from(value),
                None => Arc::from(head.join(|part| -> Result<_, ReadError> {
                    Ok(self.db.get(&part_key(key, part))?)
                })?),
            };
            each(Arc::from(key), value, head.parts);
        }
        Ok(())
    }

    /// Writes a row, parts before the head, and removes the parts that its old value had in excess.
    pub(super) fn put(&mut self, key: &Arc<[u8]>, value: Option<&[u8]>) -> io::Result<()> {
        let mut parts = 0;
        if let Some(value) = value {
            let cut = rows::cut(value);
            for (part, row) in (1..).zip(cut.parts) {
                self.db.insert(&part_key(key, part), row)?;
                parts = part;
            }
            self.db.insert(&head_key(key), &cut.head)?;
        } else {
            self.db.remove(&head_key(key))?;
        }
        let old =
            if parts > 0 { self.large.insert(key.clone(), parts) } else { self.large.remove(key) };
        for part in parts + 1..=old.unwrap_or(0) {
            self.db.remove(&part_key(key, part))?;
        }
        Ok(())
    }

    /// Notes the applied index of the rows and bodies.
    pub(super) fn put_applied(&mut self, applied_index: u64) -> io::Result<()> {
        self.applied_index = applied_index;
        self.db.insert(APPLIED, &applied_index.to_be_bytes())
    }
}

/// Why a row could not be read.
pub(super) enum ReadError {
    Io(io::Error),
    Row(RowError),
}

impl ReadError {
    fn into_store(self, path: &Path) -> StoreError {
        match self {
            Self::Io(error) => StoreError::io("read", path)(error),
            Self::Row(error) => error.at(path),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error,
            ReadError::Row(error) => io::Error::other(error.to_string()),
        }
    }
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

pub(super) fn check_row(key: &[u8], value_bytes: usize) -> Result<(), String> {
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("a key of {} bytes, the most is {KEY_BYTES_MAX}", key.len()));
    }
    if value_bytes > rows::VALUE_BYTES_MAX {
        return Err(format!("{value_bytes} bytes, the most is {}", rows::VALUE_BYTES_MAX));
    }
    Ok(())
}

fn head_key(key: &[u8]) -> Vec<u8> {
    [&[HEADS], key].concat()
}

fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    let length = u16::try_from(key.len()).expect("keys are checked to be short");
    [&[PARTS], &length.to_be_bytes()[..], key, &part.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::RowChange;
    use super::*;

    const LARGE: usize = 3 * rows::ROW_BYTES_MAX;

    fn open(path: &Path) -> DataDir {
        DataDir::open(path, Arc::new(|fault| panic!("{fault}"))).expect("open")
    }

    fn key(number: u8) -> Arc<[u8]> {
        Arc::from([number])
    }

    /// The rows of checkpoint `index`: some large, some gone, each different from the one before.
    fn checkpoint(index: u8) -> Vec<RowChange> {
        (0..10)
            .map(|number| {
                let value = match (number + index) % 4 {
                    0 => None,
                    1 => Some(vec![index; LARGE + usize::from(index) * 70_000]),
                    _ => Some(vec![index; 30]),
                };
                (key(number), value.map(Arc::from))
            })
            .collect()
    }

    fn expected(index: u8) -> Vec<Row> {
        let rows = checkpoint(index).into_iter();
        rows.filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Writes a checkpoint like the state's thread, but stops after `changes` rows.
    fn write(generation: &mut Generation, index: u8, changes: usize) {
        let rows = checkpoint(index);
        let mut copy = generation.redo.begin().expect("begin");
        for (key, value) in &rows {
            copy.add(key, value.as_deref()).expect("add");
        }
        copy.finish(u64::from(index)).expect("redo");
        for (key, value) in rows.iter().take(changes) {
            generation.put(key, value.as_deref()).expect("put");
        }
        if changes > rows.len() {
            generation.put_applied(u64::from(index)).expect("applied");
            generation.db.sync().expect("sync");
        }
    }

    #[test]
    fn a_checkpoint_that_was_interrupted_anywhere_is_ended_at_the_next_open() {
        for changes in 0..=11 {
            let temp = tempfile::tempdir().expect("a directory");
            let dir = open(temp.path());
            let mut generation = Generation::create(&dir, 1).expect("create");
            write(&mut generation, 1, usize::MAX);
            write(&mut generation, 2, changes);
            drop(generation);
            for _ in 0..2 {
                let (again, rows) = Generation::open(&dir, 1).expect("open");
                assert_eq!(again.applied_index, 2, "after {changes} changes");
                assert!(rows == expected(2), "after {changes} changes");
            }
        }
    }

    #[test]
    fn a_value_cut_off_between_its_rows_is_written_again() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = open(temp.path());
        let mut generation = Generation::create(&dir, 1).expect("create");
        write(&mut generation, 1, usize::MAX);
        write(&mut generation, 2, 0);
        // Parts of new values under old heads.
        for number in 0..10 {
            generation.db.insert(&part_key(&key(number), 1), b"new").expect("insert");
            generation.db.insert(&part_key(&key(number), 9), b"new").expect("insert");
        }
        drop(generation);
        let (generation, rows) = Generation::open(&dir, 1).expect("open");
        assert!(rows == expected(2));
        let parts = generation.db.range(&[PARTS], &[PARTS + 1]).count();
        let large = generation.large.values().map(|parts| usize::from(*parts)).sum::<usize>();
        assert_eq!(parts, large, "no part is left without a head");
    }

    #[test]
    fn a_checkpoint_torn_in_the_redo_file_leaves_the_one_before() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = open(temp.path());
        let mut generation = Generation::create(&dir, 1).expect("create");
        write(&mut generation, 1, usize::MAX);
        write(&mut generation, 2, 0);
        drop(generation);
        let redo = dir.state_path(1).join("redo");
        let mut bytes = std::fs::read(&redo).expect("read");
        bytes[5000] ^= 1;
        std::fs::write(&redo, bytes).expect("write");
        let (generation, rows) = Generation::open(&dir, 1).expect("open");
        assert_eq!(generation.applied_index, 1);
        assert!(rows == expected(1));
    }
}
