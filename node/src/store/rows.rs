//! How a value of any size becomes rows of at most 16 KiB, and how it is read back.
//!
//! A large value becomes rows of 1 KiB. The engine's cache does not count well: it keeps the last page
//! of each of 256 parts of it whatever its size, and looks at the sizes only after 64 accesses to a
//! part. Pages of large rows made a database take as much memory as was written to it.
//!
//! A larger row would make a tree node of the engine (17 rows with their keys, before it is split)
//! larger than a quarter of the smallest segment, and such nodes go to files of their own that the engine
//! never syncs.
//!
//! The first row of a value, its *head*, is a version, the CRC-32 of the whole value, the number of
//! rows and the value's length, then the first bytes.  The rows after it, its *parts*, are bytes
//! only.
//!
//! Invariant: the head of a value says how many parts it has, and is written after them or in one
//! batch with them; so where there is a head, there is all of the value.

use std::path::Path;

use super::StoreError;

/// The largest row that is written: with the engine's count in front of it, a size that allocators
/// have. One byte more would take a fifth more.
pub(super) const ROW_BYTES_MAX: usize = (16 << 10) - 8;
/// The largest value: 60 MiB, far beyond any limit of the layers above.
pub(super) const VALUE_BYTES_MAX: usize = 60 << 20;
/// A value that is larger is cut into small rows, or goes to a file. Most entries of the log are smaller,
/// as a batch of many requests is: few rows cost less time than many, and a file costs two syncs.
pub(super) const LARGE_BYTES: usize = 128 << 10;
/// How large the rows of a large value are; as above.
const SMALL_ROW_BYTES: usize = (1 << 10) - 8;
/// The only version there is, dated 2026-11.
const VERSION: u8 = 1;
/// Version, CRC-32, number of rows, length.
const HEAD_BYTES: usize = 1 + 4 + 2 + 4;

/// A value cut into rows.
pub(super) struct Cut<'a> {
    pub(super) head: Vec<u8>,
    /// Numbered from one.
    pub(super) parts: std::slice::Chunks<'a, u8>,
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    crc: u32,
    /// How many rows follow the head.
    pub(super) parts: u16,
    bytes: usize,
    data: &'a [u8],
}

/// Why rows are not a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RowError {
    #[error("a row of {0} bytes has no head")]
    Short(usize),
    #[error("a row has format {0}, newer than {VERSION}")]
    Newer(u8),
    #[error("part {0} of a value is missing")]
    Missing(u16),
    #[error("file {0} of a value is missing")]
    NoFile(u64),
    #[error("a value should have {expected} bytes and has {found}")]
    Length { expected: usize, found: usize },
    #[error("a value has checksum {found:08x} instead of {expected:08x}")]
    Checksum { expected: u32, found: u32 },
}

impl RowError {
    /// The same, for the database in `path`.
    pub(super) fn at(&self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Newer(found) => {
                StoreError::NewerFormat { path, found: *found, supported: VERSION }
            }
            Self::Short(_)
            | Self::Missing(_)
            | Self::NoFile(_)
            | Self::Length { .. }
            | Self::Checksum { .. } => StoreError::Corrupt { path, cause: self.to_string() },
        }
    }
}

/// Cuts `value` into rows.
///
/// # Panics
/// If `value` is larger than [`VALUE_BYTES_MAX`], which callers check.
pub(super) fn cut(value: &[u8]) -> Cut<'_> {
    assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
    let row_bytes = if value.len() > LARGE_BYTES { SMALL_ROW_BYTES } else { ROW_BYTES_MAX };
    let (first, rest) = value.split_at(value.len().min(row_bytes - HEAD_BYTES));
    let parts = u16::try_from(rest.len().div_ceil(row_bytes)).expect("bounded by the assert");
    let bytes = u32::try_from(value.len()).expect("bounded by the assert");
    let mut head = Vec::with_capacity(HEAD_BYTES + first.len());
    head.push(VERSION);
    head.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    head.extend_from_slice(&parts.to_le_bytes());
    head.extend_from_slice(&bytes.to_le_bytes());
    head.extend_from_slice(first);
    Cut { head, parts: rest.chunks(row_bytes) }
}

impl<'a> Head<'a> {
    pub(super) fn parse(row: &'a [u8]) -> Result<Self, RowError> {
        let (fixed, data) =
            row.split_first_chunk::<HEAD_BYTES>().ok_or(RowError::Short(row.len()))?;
        let [version, c0, c1, c2, c3, p0, p1, b0, b1, b2, b3] = *fixed;
        if version != VERSION {
            return Err(RowError::Newer(version));
        }
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        let parts = u16::from_le_bytes([p0, p1]);
        let bytes = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
        Ok(Self { crc, parts, bytes, data })
    }

    /// The value, if it is all in the head.
    pub(super) fn whole(self) -> Result<Option<&'a [u8]>, RowError> {
        if self.parts > 0 { Ok(None) } else { self.check(self.data).map(|()| Some(self.data)) }
    }

    /// Puts the value together; `part` fetches rows by number.
    pub(super) fn join<E: From<RowError>>(
        self,
        mut part: impl FnMut(u16) -> Result<Option<sled::IVec>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut value = Vec::with_capacity(self.data.len().max(self.bytes.min(VALUE_BYTES_MAX)));
        value.extend_from_slice(self.data);
        for number in 1..=self.parts {
            value.extend_from_slice(&part(number)?.ok_or(RowError::Missing(number))?);
        }
        self.check(&value)?;
        Ok(value)
    }

    fn check(&self, value: &[u8]) -> Result<(), RowError> {
        check(value, self.bytes, self.crc)
    }
}

/// Checks that a value is what was written.
pub(super) fn check(value: &[u8], bytes: usize, crc: u32) -> Result<(), RowError> {
    if value.len() != bytes {
        return Err(RowError::Length { expected: bytes, found: value.len() });
    }
    let found = crc32fast::hash(value);
    if found != crc {
        return Err(RowError::Checksum { expected: crc, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect()
    }

    fn join(head: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, RowError> {
        Head::parse(head)?.join(|number| {
            Ok(parts.get(usize::from(number) - 1).map(|part| sled::IVec::from(*part)))
        })
    }

    #[test]
    fn values_of_every_critical_size_come_back_in_rows_that_are_small_enough() {
        let full = ROW_BYTES_MAX - HEAD_BYTES;
        let sizes = [0, 1, full - 1, full, full + 1, full + ROW_BYTES_MAX]
            .into_iter()
            .chain([ROW_BYTES_MAX - 1, ROW_BYTES_MAX, ROW_BYTES_MAX + 1])
            .chain([LARGE_BYTES, LARGE_BYTES + 1, 1 << 20, 9 << 20, VALUE_BYTES_MAX]);
        for bytes in sizes {
            let value = value(bytes);
            let cut = cut(&value);
            let parts: Vec<&[u8]> = cut.parts.collect();
            let most = if bytes > LARGE_BYTES { SMALL_ROW_BYTES } else { ROW_BYTES_MAX };
            assert!(cut.head.len() <= most);
            assert!(parts.iter().all(|part| part.len() <= most && !part.is_empty()));
            assert_eq!(parts.len(), bytes.saturating_sub(most - HEAD_BYTES).div_ceil(most));
            assert_eq!(join(&cut.head, &parts), Ok(value));
        }
    }

    #[test]
    fn what_is_missing_or_changed_is_noticed() {
        let value = value(LARGE_BYTES + 1);
        let cut = cut(&value);
        let parts: Vec<&[u8]> = cut.parts.collect();
        assert_eq!(join(&cut.head, &parts[..2]), Err(RowError::Missing(3)));
        let mut swapped = parts.clone();
        swapped.swap(0, 1);
        assert!(matches!(join(&cut.head, &swapped), Err(RowError::Checksum { .. })));
        let mut short = parts.clone();
        short[0] = &parts[0][1..];
        assert!(matches!(join(&cut.head, &short), Err(RowError::Length { .. })));
        let newer = [&[VERSION + 1], &cut.head[1..]].concat();
        assert_eq!(join(&newer, &parts), Err(RowError::Newer(VERSION + 1)));
        assert_eq!(join(&cut.head[..5], &parts), Err(RowError::Short(5)));
    }
}
