//! Reasons to stop: what must not happen to a state, and cannot be answered with a refusal.
//!
//! A fault is not deterministic (one node's disk lies, one node runs an older build), so going on would
//! let nodes part ways. The caller reports it once and stops. After a fault the state must not be used.

use crate::digest::Digest;
use crate::encoding::CodecError;

/// Why a state cannot be used any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The entry is not the one that comes next.
    #[error("log entry {actual} cannot be applied where {expected} comes next")]
    OutOfOrder {
        /// The index that comes next.
        expected: u64,
        /// The index that came.
        actual: u64,
    },
    /// The entry's term is below that of the entry before it.
    #[error("log entry of term {actual} cannot follow one of term {applied}")]
    TermWentBack {
        /// The term of the last applied entry.
        applied: u64,
        /// The term that came.
        actual: u64,
    },
    /// A stored row cannot be read.
    #[error("row {key} cannot be read: {source}")]
    CorruptRow {
        /// The row's key in hexadecimal digits.
        key: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A row to be stored cannot be encoded.
    #[error("row {key} cannot be stored: {source}")]
    UnstorableRow {
        /// The row's key in hexadecimal digits.
        key: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// Two rows that belong together contradict each other.
    #[error("rows contradict each other: {what} {id}")]
    Contradiction {
        /// The rule that does not hold.
        what: &'static str,
        /// The thing it does not hold for.
        id: u64,
    },
    /// A set of rows without a header row.
    #[error("the rows have no header row")]
    NoHeader,
    /// The rows are not those that the header was written for.
    #[error("the rows have digest {computed}, the header says {stored}")]
    DigestMismatch {
        /// The digest in the header.
        stored: Digest,
        /// The digest of the rows.
        computed: Digest,
    },
    /// The state is at a feature level that this build does not know.
    #[error("the state is at feature level {level}, this build knows up to {known}")]
    UnknownLevel {
        /// The state's level.
        level: u32,
        /// The highest level that this build knows.
        known: u32,
    },
    /// A counter has reached its end.
    #[error("counter {counter} is exhausted")]
    CounterExhausted {
        /// Which counter.
        counter: &'static str,
    },
}

/// Spells a row key for a message.
pub(crate) fn spell_key(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
