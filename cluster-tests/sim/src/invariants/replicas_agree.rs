//! G8: nodes that have applied the same entries have the same rows, and their rows agree with each
//! other.

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut first = None;
    for (node, state) in &history.ended.states {
        for text in state.audit().unwrap() {
            broken.push(format!("n{node}: {text}"));
        }
        let header = state.header();
        let (other, of) = *first.get_or_insert((header, node));
        if header.applied == other.applied && header != other {
            broken.push(format!("n{of} has {other:?}, n{node} has {header:?}"));
        }
    }
    broken
}
