//! What must hold in every run, one file each, with the rule that it proves; and `tenure`, which two
//! of them share.
//!
//! An invariant looks at nothing but the [`History`]: what clients and watchers saw, and how it
//! ended. It says what it found wrong, or nothing.

mod acknowledged_writes_survive;
mod ended_leases_stay_ended;
mod exclusive_claims;
mod fenced_writes_are_the_owners;
mod fences_rise;
mod groups_are_one;
mod lapsed_leases_are_over;
mod linearizable;
mod nodes_stay_up;
mod one_creator_at_a_time;
mod one_leader_a_term;
mod one_value_per_create;
mod progress_after_heal;
mod reads_are_fresh;
mod replicas_agree;
mod stored_objects_are_whole;
mod tenure;
mod transactions_are_isolated;
mod watches_complete;
mod writes_take_effect_once;

use std::fmt;

use crate::History;

/// Something that must hold.
#[derive(Clone, Copy)]
pub struct Invariant {
    /// Its file.
    pub name: &'static str,
    /// What does not hold of a history.
    pub check: fn(&History) -> Vec<String>,
}

/// Something that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was found.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// Makes the table of invariants from the names of their files.
macro_rules! invariants {
    ($($name:ident),* $(,)?) => {
        /// All of them.
        pub const ALL: &[Invariant] =
            &[$(Invariant { name: stringify!($name), check: $name::check }),*];
    };
}

invariants![
    acknowledged_writes_survive,
    ended_leases_stay_ended,
    exclusive_claims,
    fenced_writes_are_the_owners,
    fences_rise,
    groups_are_one,
    lapsed_leases_are_over,
    linearizable,
    nodes_stay_up,
    one_creator_at_a_time,
    one_leader_a_term,
    one_value_per_create,
    progress_after_heal,
    reads_are_fresh,
    replicas_agree,
    stored_objects_are_whole,
    transactions_are_isolated,
    watches_complete,
    writes_take_effect_once,
];

/// Everything that does not hold of a history.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let checked = ALL.iter().flat_map(|invariant| {
        let found = (invariant.check)(history);
        found.into_iter().map(|text| Violation { invariant: invariant.name, text })
    });
    checked.collect()
}
