//! Building a state from a snapshot: bodies as they arrive, then all rows.
//!
//! They go into a directory of their own, `state-<n>`, which counts for nothing until CURRENT names
//! it: a crash at any point leaves the old state, or the new one complete.
//!
//! Invariants:
//! - What is handed back was synced, and every row and body was read back and compared with what came
//!   in.
//! - If anything fails, or the building is dropped, the directory is removed, here or at the next open.
//! - A body that is being built with takes memory for as long as it is written.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::bodies::{Bodies, Hash};
use super::generation::{Generation, check_row};
use super::state::Row;
use super::{DataDir, StoreError};

/// How much is written before it is synced, in bytes.  What one sync has to write keeps the disk from
/// those of the other nodes on the machine, and from this node's log.
const SYNC_EVERY_BYTES: usize = 2 << 20;

/// A generation of the state in the making.
pub struct Building {
    path: PathBuf,
    /// None once it is finished.
    generation: Option<Generation>,
    bodies: BTreeSet<Hash>,
    /// How many bytes were written since the last sync.
    unsynced: usize,
}

impl Building {
    pub(super) fn begin(dir: &DataDir, number: u64) -> io::Result<Building> {
        let path = dir.state_path(number);
        let generation = Generation::create(dir, number).map_err(StoreError::into_io)?;
        let (generation, bodies) = (Some(generation), BTreeSet::new());
        Ok(Building { path, generation, bodies, unsynced: 0 })
    }

    /// Takes a body in, and gives its hash.  Blocks for the disk.
    pub fn put_body(&mut self, bytes: &[u8]) -> io::Result<Hash> {
        let hash = *blake3::hash(bytes).as_bytes();
        if self.bodies.insert(hash) {
            check_row(&hash, bytes.len()).map_err(io::Error::other)?;
            self.generation()?.bodies.put(&hash, bytes)?;
            // A large one is on disk already; its name will be when the snapshot is.
            if !Bodies::is_for_file(bytes) {
                self.pace(bytes.len())?;
            }
        }
        Ok(hash)
    }

    /// Notes what was written, and syncs it if it is time to.
    fn pace(&mut self, bytes: usize) -> io::Result<()> {
        self.unsynced += bytes;
        if self.unsynced >= SYNC_EVERY_BYTES {
            let generation = self.generation()?;
            generation.bodies.sync()?;
            generation.db.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// The hashes of the bodies that were taken in.
    pub fn bodies(&self) -> &BTreeSet<Hash> {
        &self.bodies
    }

    /// Adds the rows, and makes all of it durable.
    pub(super) fn finish(
        mut self,
        rows: impl Iterator<Item = io::Result<Row>>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<Generation> {
        self.fill(rows, header_row, applied_index)?;
        self.generation.take().ok_or_else(finished)
    }

    fn fill(
        &mut self,
        rows: impl Iterator<Item = io::Result<Row>>,
        header_row: Row,
        applied_index: u64,
    ) -> io::Result<()> {
        let mut came_in = Tally::default();
        for row in rows.chain([Ok(header_row)]) {
            let (key, value) = row?;
            came_in.add(&key, &value);
            check_row(&key, value.len()).map_err(io::Error::other)?;
            self.generation()?.put(&key, Some(&value))?;
            self.pace(key.len() + value.len())?;
        }
        let generation = self.generation()?;
        generation.bodies.sync()?;
        generation.put_applied(applied_index)?;
        generation.db.sync()?;
        let mut read_back = Tally::default();
        generation.read(|key: Arc<[u8]>, value: Arc<[u8]>, _| {
            read_back.add(&key, &value);
        })?;
        if came_in != read_back {
            return Err(io::Error::other(format!(
                "snapshot at index {applied_index}: {came_in:?} came in, {read_back:?} was read back"
            )));
        }
        for hash in &self.bodies {
            let generation = self.generation.as_ref().ok_or_else(finished)?;
            if generation.bodies.read(hash)?.is_none() {
                return Err(io::Error::other(format!(
                    "snapshot at index {applied_index}: a body is not read back"
                )));
            }
        }
        Ok(())
    }

    fn generation(&mut self) -> io::Result<&mut Generation> {
        self.generation.as_mut().ok_or_else(finished)
    }
}

fn finished() -> io::Error {
    io::Error::other("the state is built already")
}

impl Drop for Building {
    fn drop(&mut self) {
        let Some(generation) = self.generation.take() else { return };
        drop(generation);
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a refused snapshot is left behind");
        }
    }
}

/// Counts rows, and sums their checksums in a way that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    rows: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        let pair = u64::from(crc32fast::hash(key)) << 32 | u64::from(crc32fast::hash(value));
        self.sum = self.sum.wrapping_add(pair);
    }
}
