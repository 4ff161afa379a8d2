//! The digest of a state: 32 bytes that are equal on two nodes exactly if their rows are.
//!
//! # Model
//!
//! Each row is hashed with BLAKE3; the digest is the sum of all hashes, taken as four lanes of 64 bits that
//! wrap around on their own. A sum does not depend on order and can be undone, so a changed row costs two
//! hashes, however many rows there are. It detects nodes that went apart; it is no defence against somebody
//! who forges rows to collide.
//!
//! # Invariants
//!
//! - The header row is not part of it (it contains it).
//! - Adding a row and removing it again gives the digest from before.

use serde::{Deserialize, Serialize};

/// Which way of computing the digest this is. Digests of different versions cannot be compared.
pub const VERSION: u32 = 1;

/// Rows up to this many bytes are hashed from one buffer, in one call.
const SMALL_ROW_BYTES: usize = 1024;

/// The digest of a set of rows. The default is that of no rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest([u64; 4]);

impl Digest {
    /// Takes a row in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        for (lane, hash) in self.0.iter_mut().zip(row_hash(key, value)) {
            *lane = lane.wrapping_add(hash);
        }
    }

    /// Takes a row out again.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        for (lane, hash) in self.0.iter_mut().zip(row_hash(key, value)) {
            *lane = lane.wrapping_sub(hash);
        }
    }

    /// The digest as bytes, to be compared with that of another node.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The hash of one row. The key's length comes first, so that no byte can move from key to value.
fn row_hash(key: &[u8], value: &[u8]) -> [u64; 4] {
    let key_len = (key.len() as u64).to_le_bytes();
    let (key_end, end) = (8 + key.len(), 8 + key.len() + value.len());
    let hash = if end <= SMALL_ROW_BYTES {
        let mut row = [0; SMALL_ROW_BYTES];
        row[..8].copy_from_slice(&key_len);
        row[8..key_end].copy_from_slice(key);
        row[key_end..end].copy_from_slice(value);
        blake3::hash(&row[..end])
    } else {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key_len).update(key).update(value);
        hasher.finalize()
    };
    let mut lanes = [0; 4];
    for (lane, chunk) in lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *lane = chunk.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_undoes_adding_in_any_order() {
        let mut digest = Digest::default();
        digest.add(b"a", b"1");
        let one = digest;
        digest.add(b"b", b"2");
        digest.add(b"c", &[7; 5000]);
        digest.remove(b"b", b"2");
        digest.remove(b"c", &[7; 5000]);
        assert_eq!(digest, one);
    }

    #[test]
    fn a_byte_that_moves_from_key_to_value_changes_it() {
        let (mut left, mut right) = (Digest::default(), Digest::default());
        left.add(b"ab", b"c");
        right.add(b"a", b"bc");
        assert_ne!(left, right);
    }

    #[test]
    fn small_and_large_rows_hash_alike() {
        // The two ways of hashing must agree at the seam, or an edit of the constant would split a cluster.
        for value_len in [SMALL_ROW_BYTES - 10, SMALL_ROW_BYTES - 9, SMALL_ROW_BYTES - 8] {
            let value = vec![5; value_len];
            let mut hasher = blake3::Hasher::new();
            hasher.update(&1u64.to_le_bytes()).update(b"k").update(&value);
            let mut digest = Digest::default();
            digest.add(b"k", &value);
            assert_eq!(digest.to_bytes(), *hasher.finalize().as_bytes());
        }
    }

    #[test]
    fn golden() {
        let mut digest = Digest::default();
        digest.add(b"key", b"value");
        digest.add(b"", b"");
        assert_eq!(
            digest.to_string(),
            "b8c7047aa217710050c3098a34ef1f454e6425270a5b6cc11f58cecc56341153"
        );
    }
}
