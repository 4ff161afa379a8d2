//! G8: no node has a reason to stop by itself, and nothing in a node panics.

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    history.ended.faults.clone()
}
