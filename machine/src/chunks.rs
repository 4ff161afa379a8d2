//! The bodies of stored objects: chunks of bytes, each kept once and named by its hash.
//!
//! # Model
//!
//! A body is cut into chunks. A chunk's row says how long it is and how often it is named: once for each time
//! that an object's row has its hash, and once for each upload that has staged it, whatever their namespaces. The
//! bytes themselves are in no row. They come in with a request, go out beside the changes of the step that
//! first named them, and whoever stores the changes stores them too; when a chunk is named no more, its row
//! goes, and that its bytes are not needed any more goes out in the same way.
//!
//! # Invariants
//!
//! - The hash of a chunk is the BLAKE3 hash of its bytes, computed here: no request can claim another one.
//! - There is a chunk for every hash that a row has, and as many names as its row counts.
//! - Bytes go out with the change that writes their chunk's row, and a removal with the one that removes it.

use serde::{Deserialize, Serialize};

use crate::Bytes;
use crate::encoding::{CodecError, DecodeKey, EncodeKey};
use crate::fault::Fault;
use crate::table::{Table, Touched, Txn, Value, View};

/// Chunks by hash.
const CHUNKS: Table<Hash, Chunk> = Table::new(0x64, "chunk");

/// The BLAKE3 hash of a chunk's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    /// Its beginning, which is enough to tell a few apart.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl EncodeKey for Hash {
    type Owned = Hash;
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl DecodeKey for Hash {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        crate::encoding::take(input).map(Hash)
    }
}

/// What is kept of a chunk beside its bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    /// How many bytes it has. Never changes.
    bytes: u64,
    /// How often rows name it. Whether its bytes are kept depends on it.
    names: u64,
}

impl Value for Chunk {
    const VERSION: u8 = 1;
    type At<'a> = Chunk;
}

/// Bytes that are to be kept from here on, or if none not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyChange {
    /// The chunk's hash.
    pub hash: Hash,
    /// Its bytes.
    pub bytes: Option<Bytes>,
}

/// Names a chunk once more, or brings it in; gives its hash.
pub(crate) fn keep(txn: &mut Txn<'_>, bytes: &Bytes) -> Result<Hash, Fault> {
    let hash = Hash::of(bytes);
    let names = CHUNKS.get(txn.view(), hash)?.map_or(0, |chunk| chunk.names);
    CHUNKS.put(txn, hash, &Chunk { bytes: bytes.len() as u64, names: names + 1 })?;
    txn.keep_body(hash, bytes);
    Ok(hash)
}

/// Names a chunk once more that is here.
pub(crate) fn name(txn: &mut Txn<'_>, hash: Hash) -> Result<(), Fault> {
    let chunk = named(txn.view(), hash)?;
    CHUNKS.put(txn, hash, &Chunk { names: chunk.names + 1, ..chunk })
}

/// Names a chunk once less; it goes with its last name.
pub(crate) fn release(txn: &mut Txn<'_>, hash: Hash) -> Result<(), Fault> {
    let chunk = named(txn.view(), hash)?;
    match chunk.names.saturating_sub(1) {
        0 => {
            CHUNKS.delete(txn, hash);
            Ok(())
        }
        names => CHUNKS.put(txn, hash, &Chunk { names, ..chunk }),
    }
}

fn named(view: View<'_>, hash: Hash) -> Result<Chunk, Fault> {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    let id = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let missing = Fault::Contradiction { what: "a chunk that is named is not there", id };
    CHUNKS.get(view, hash)?.ok_or(missing)
}

/// How many bytes are kept beside a row: a chunk's own; 0 for any other row.
pub(crate) fn body_bytes(key: &[u8], value: &[u8]) -> Result<u64, Fault> {
    match CHUNKS.row(key, Some(value)) {
        None => Ok(0),
        Some(row) => Ok(row?.1.map_or(0, |chunk| chunk.bytes)),
    }
}

/// The chunk that comes or goes with a changed row, and whether it comes.
pub(crate) fn comes_or_goes(key: &[u8], row: &Touched) -> Result<Option<(Hash, bool)>, Fault> {
    let Some(parts) = CHUNKS.row(key, None) else { return Ok(None) };
    let (hash, _) = parts?;
    Ok(match (&row.before, &row.after) {
        (None, Some(_)) => Some((hash, true)),
        (Some(_), None) => Some((hash, false)),
        (Some(_), Some(_)) | (None, None) => None,
    })
}

/// All chunks in order of their hashes, with their sizes in bytes.
pub(crate) fn all(view: View<'_>) -> impl Iterator<Item = Result<(Hash, u64), Fault>> {
    CHUNKS.scan_all(view).map(|row| row.map(|(hash, chunk)| (hash, chunk.bytes)))
}

/// How often each chunk is named, by its row.
pub(crate) fn names(view: View<'_>) -> impl Iterator<Item = Result<(Hash, u64), Fault>> {
    CHUNKS.scan_all(view).map(|row| row.map(|(hash, chunk)| (hash, chunk.names)))
}

/// Spells a row of this file's table.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    CHUNKS.describe(key, value)
}
