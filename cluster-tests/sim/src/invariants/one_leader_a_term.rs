//! Raft's election safety (dissertation, section 3.2): a term has at most one leader, since a vote
//! that was given is never forgotten (G1).

use std::collections::BTreeMap;

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    let mut broken = Vec::new();
    for seen in history.leads.keys() {
        if let Some(other) = leaders.insert(seen.term, seen.node) {
            broken.push(format!("n{other} and n{} both led term {}", seen.node, seen.term));
        }
    }
    broken
}
