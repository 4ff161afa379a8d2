//! What a recorder notes of calls on object state.

use std::sync::Arc;

/// A value, byte for byte.
pub type Value = Arc<[u8]>;

/// One call on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who made it. All calls of one client belong to one session; it may make several at a time.
    pub client: usize,
    /// The key: object and name, however they are spelt.
    pub key: Arc<str>,
    /// Before it was sent for the first time, in microseconds on the clock of the history.
    pub invoked_us: u64,
    /// What was asked.
    pub op: Op,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was asked of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A linearizable read.
    Get,
    /// Overwrite, unless another session's write came between.
    Set {
        /// The new value.
        value: Value,
    },
    /// Overwrite if the key's revision is this one.
    SetIf {
        /// The new value.
        value: Value,
        /// 0: if the key is absent.
        if_revision: u64,
    },
    /// Write if the key is absent.
    Create {
        /// The new value.
        value: Value,
    },
    /// Remove.
    Delete,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was an answer.
    Returned {
        /// When it was there, in microseconds on the clock of the history.
        at_us: u64,
        /// The answer.
        answer: Answer,
    },
    /// Definitely not carried out, now or later.
    NotApplied,
    /// No answer: it may have taken effect at any moment since it was sent, may yet, or never.
    Unknown,
}

/// A value that stands, and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The value.
    pub value: Value,
    /// The revision that wrote it.
    pub mod_revision: u64,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Op::Get`]: there is nothing.
    Absent,
    /// To [`Op::Get`].
    Found {
        /// What stands.
        held: Held,
        /// The revision at which it does.
        revision: u64,
    },
    /// To [`Op::Set`], [`Op::SetIf`] and [`Op::Create`]: the value given stands.
    Written {
        /// The revision that wrote it; an earlier one if the same value was there already.
        mod_revision: u64,
        /// The revision at which this was decided.
        revision: u64,
    },
    /// To the same: nothing changed.
    Lost {
        /// What stands instead; none if the key is absent.
        held: Option<Held>,
        /// The revision at which this was decided.
        revision: u64,
    },
    /// To [`Op::Delete`]: whether there was a value.
    Deleted(bool),
}

impl Call {
    /// When its answer was there; `u64::MAX` if it never was.
    #[must_use]
    pub fn returned_us(&self) -> u64 {
        match &self.outcome {
            Outcome::Returned { at_us, .. } => *at_us,
            Outcome::NotApplied | Outcome::Unknown => u64::MAX,
        }
    }

    /// Its answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Returned { answer, .. } => Some(answer),
            Outcome::NotApplied | Outcome::Unknown => None,
        }
    }

    /// Whether it may have changed its key, as far as its client knows.
    #[must_use]
    pub fn may_have_written(&self) -> bool {
        match (&self.op, &self.outcome) {
            (Op::Get, _) | (_, Outcome::NotApplied) => false,
            (_, Outcome::Unknown) => true,
            (_, Outcome::Returned { answer, .. }) => match answer {
                Answer::Written { .. } => true,
                Answer::Deleted(was_there) => *was_there,
                Answer::Absent | Answer::Found { .. } | Answer::Lost { .. } => false,
            },
        }
    }

    /// The value that it was to write.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match &self.op {
            Op::Set { value } | Op::SetIf { value, .. } | Op::Create { value } => Some(value),
            Op::Get | Op::Delete => None,
        }
    }
}

impl Answer {
    /// The revision at which it is true; none where the API tells none.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match self {
            Answer::Found { revision, .. }
            | Answer::Written { revision, .. }
            | Answer::Lost { revision, .. } => Some(*revision),
            Answer::Absent | Answer::Deleted(_) => None,
        }
    }
}
