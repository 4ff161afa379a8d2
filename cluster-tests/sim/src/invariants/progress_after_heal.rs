//! N5: a cluster whose nodes all run and reach each other takes writes again, soon.

use std::time::Duration;

use crate::History;

/// From the end of the last fault to the first acknowledged write. Nodes that have just been started
/// elect, and the slowest clocks are a third too slow.
const MAX: Duration = Duration::from_secs(5);

pub(super) fn check(history: &History) -> Vec<String> {
    match history.ended.wrote {
        Some(wrote) if wrote > history.ended.healed + MAX => {
            vec![format!("the first write took {:?}", wrote - history.ended.healed)]
        }
        Some(_) | None => Vec::new(),
    }
}
