//! What a state knows about itself, kept in a row of its own.
//!
//! # Invariants
//!
//! - The header row is stored in the same batch as the changes that led to it, so that rows and header never
//!   tell of different entries.
//! - It is not part of the digest, which it contains, and not among the changes.

use serde::{Deserialize, Serialize};

use crate::Bytes;
use crate::digest::Digest;
use crate::encoding::{self, CodecError};
use crate::fault::{Fault, spell_key};
use crate::level;

/// The key of the header row. No table has this prefix.
pub(crate) const KEY: [u8; 1] = [0x00];
const VERSION: u8 = 1;
/// Largest membership, in bytes: more than a thousand nodes with their addresses take.
const MEMBERSHIP_BYTES_MAX: usize = 1 << 19;
/// Largest header row, in bytes: the largest membership, and then some.
const ROW_BYTES_MAX: usize = 1 << 20;

/// Where an entry is in the log. Ordered by index first; in one log no two entries share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// Its place in the log. The first entry has 0.
    pub index: u64,
    /// The term in which it was proposed; a term has one leader.
    pub term: u64,
}

/// What a state knows about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The last applied entry.
    pub applied: Option<LogPosition>,
    /// The members of the cluster in the caller's encoding, and the entry that set them.
    pub membership: Option<(Option<LogPosition>, Bytes)>,
    /// Rises by one with each request, and each ended lease, that changed rows.
    pub revision: u64,
    /// The cluster clock, in milliseconds. Only rises.
    pub clock_ms: u64,
    /// The feature level that the rows are written at.
    pub level: u32,
    /// The digest of all rows but the header's.
    pub digest: Digest,
}

impl Header {
    /// That of the state before the first entry.
    pub(crate) fn first() -> Header {
        Header {
            applied: None,
            membership: None,
            revision: 0,
            clock_ms: 0,
            level: level::FIRST,
            digest: Digest::default(),
        }
    }

    /// Faults unless `at` is the position that comes next.
    pub(crate) fn check_next(&self, at: LogPosition) -> Result<(), Fault> {
        let (expected, term) =
            self.applied.map_or((0, 0), |applied| (applied.index + 1, applied.term));
        if at.index != expected {
            return Err(Fault::OutOfOrder { expected, actual: at.index });
        }
        if at.term < term {
            return Err(Fault::TermWentBack { applied: term, actual: at.term });
        }
        Ok(())
    }

    /// Sets the members of the cluster.
    pub(crate) fn set_membership(&mut self, at: LogPosition, members: &[u8]) -> Result<(), Fault> {
        let (actual, allowed) = (members.len(), MEMBERSHIP_BYTES_MAX);
        if actual > allowed {
            let source = CodecError::TooLong { actual, allowed };
            return Err(Fault::UnstorableRow { key: spell_key(&KEY), source });
        }
        self.membership = Some((Some(at), members.into()));
        Ok(())
    }

    pub(crate) fn encode(&self) -> Bytes {
        encoding::encode(VERSION, self, ROW_BYTES_MAX)
            .expect("a header is plain numbers and a membership whose size was checked")
            .into()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Header, Fault> {
        let header: Header = encoding::decode(VERSION, value, ROW_BYTES_MAX)
            .map_err(|source| Fault::CorruptRow { key: spell_key(&KEY), source })?;
        level::check(header.level)?;
        Ok(header)
    }
}
