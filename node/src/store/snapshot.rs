//! Building a state from the rows of a snapshot.
//!
//! The rows go into a directory of their own, `state-<n + 1>`, which counts for nothing until
//! CURRENT names it: a crash at any point leaves the old state, or the new one complete.
//!
//! Invariants:
//! - What is handed back was synced, and every row was read back and compared with what came in.
//! - If anything fails, the directory is removed, here or at the next open.

use std::io;
use std::sync::Arc;

use super::generation::{Generation, check_row};
use super::state::Row;
use super::{DataDir, StoreError};

/// Builds the next generation of the state in `dir`, without putting it in use.
pub(super) fn build(
    dir: &DataDir,
    rows: impl Iterator<Item = io::Result<Row>>,
    header_row: Row,
    applied_index: u64,
) -> io::Result<Generation> {
    let number = dir.layout().generation + 1;
    let built = fill(dir, number, rows, header_row, applied_index);
    if built.is_err() {
        let path = dir.state_path(number);
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "a refused snapshot is left behind");
        }
    }
    built
}

fn fill(
    dir: &DataDir,
    number: u64,
    rows: impl Iterator<Item = io::Result<Row>>,
    header_row: Row,
    applied_index: u64,
) -> io::Result<Generation> {
    let mut generation = Generation::create(dir, number).map_err(StoreError::into_io)?;
    let mut came_in = Tally::default();
    for row in rows.chain([Ok(header_row)]) {
        let (key, value) = row?;
        came_in.add(&key, &value);
        check_row(&key, value.len()).map_err(io::Error::other)?;
        generation.put(&key, Some(&value))?;
    }
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
    Ok(generation)
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
