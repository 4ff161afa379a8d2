//! What a check finds.

use std::fmt;

/// Why a history does not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot have come about if the rule holds.
    #[error("{rule} does not hold: {what}")]
    Broken {
        /// The rule.
        rule: Rule,
        /// The calls that show it.
        what: String,
    },
    /// The budget ran out before an order was found or all were ruled out.
    #[error("undecided after {steps} steps: {what}")]
    Undecided {
        /// How many steps were taken.
        steps: u64,
        /// What was being checked.
        what: String,
    },
}

impl Error {
    pub(crate) fn broken(rule: Rule, what: impl Into<String>) -> Error {
        Error::Broken { rule, what: what.into() }
    }

    /// The rule that does not hold; none if that was not decided.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Error::Broken { rule, .. } => Some(*rule),
            Error::Undecided { .. } => None,
        }
    }
}

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// G2, G4, S3, S4: the calls on a key fit into one order.
    Linearizable,
    /// G6: an answer's revision is not below one that was seen before the call began, and a change's
    /// is above it.
    RealTime,
    /// One revision writes one value under one key.
    OneWrite,
    /// C4, M5: no two owners believe in the same change source at a time.
    Exclusive,
    /// C5: each grant's token is above all earlier ones of its change source.
    FenceRises,
    /// M5: nobody is told that a change source has moved on while its owner rightly believes in it.
    Held,
    /// S8: nothing is written under a fence after the next grant.
    Fenced,
    /// W1: changes come in order, and none twice.
    InOrder,
    /// W1: no change is missing.
    Complete,
    /// W1: no change was made up, and all watchers see the same.
    True,
    /// G2: what a read found is what the changes up to its revision amount to.
    ReadsAgree,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Linearizable => "linearizability (G2)",
            Rule::RealTime => "order of revisions (G6)",
            Rule::OneWrite => "one write a revision",
            Rule::Exclusive => "one owner at a time (C4)",
            Rule::FenceRises => "rising fences (C5)",
            Rule::Held => "what an owner was told (M5)",
            Rule::Fenced => "writes under a fence (S8)",
            Rule::InOrder => "changes in order (W1)",
            Rule::Complete => "no change missing (W1)",
            Rule::True => "no change made up (W1)",
            Rule::ReadsAgree => "reads as the changes say (G2)",
        })
    }
}
