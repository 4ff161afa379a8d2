//! Who hears whom, and how late.
//!
//! Rules are about *links*: a link leads from one node to another, so that two nodes have two. A cut
//! link carries nothing. A slow node delays all that it sends and all that it is sent; between two
//! slow nodes both delays add up. What is not mentioned passes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::relay::Flow;

/// Longest delay of a node. More is not slow but away: cut it off instead.
pub const DELAY_MAX: Duration = Duration::from_secs(10);

/// What is in force; by default everything passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Links that carry nothing: from, to.
    cuts: BTreeSet<(u64, u64)>,
    /// Nodes that are slow, and by how much: milliseconds, never 0.
    slow_ms: BTreeMap<u64, u64>,
}

impl Rules {
    /// Cuts every link from one of `from` to one of `to`; the links back stay as they are.
    pub fn cut(&mut self, from: &BTreeSet<u64>, to: &BTreeSet<u64>) {
        let links = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        self.cuts.extend(links.filter(|(from, to)| from != to));
    }

    /// Cuts every link between nodes of different groups, in both directions.
    pub fn partition(&mut self, groups: &[BTreeSet<u64>]) {
        for from in groups {
            for to in groups.iter().filter(|to| *to != from) {
                self.cut(from, to);
            }
        }
    }

    /// Delays all that this node sends and is sent; zero ends that.
    ///
    /// # Errors
    /// With the longest delay that is allowed, if this one is longer.
    pub fn slow(&mut self, node: u64, by: Duration) -> Result<(), Duration> {
        if by > DELAY_MAX {
            return Err(DELAY_MAX);
        }
        match u64::try_from(by.as_millis()).unwrap_or(u64::MAX) {
            0 => self.slow_ms.remove(&node),
            ms => self.slow_ms.insert(node, ms),
        };
        Ok(())
    }

    /// What becomes of bytes from one node to another.
    #[must_use]
    pub fn flow(&self, from: u64, to: u64) -> Flow {
        if self.cuts.contains(&(from, to)) {
            return Flow::Stall;
        }
        match self.delay_of(from) + self.delay_of(to) {
            Duration::ZERO => Flow::Pass,
            delay => Flow::Delay(delay),
        }
    }

    /// Whether everything passes at once.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty() && self.slow_ms.is_empty()
    }

    /// The links that carry nothing: from, to.
    #[must_use]
    pub fn cuts(&self) -> &BTreeSet<(u64, u64)> {
        &self.cuts
    }

    /// By how much a node is slow.
    #[must_use]
    pub fn delay_of(&self, node: u64) -> Duration {
        Duration::from_millis(self.slow_ms.get(&node).copied().unwrap_or(0))
    }

    /// The nodes that are slow, and by how much.
    pub fn slow_nodes(&self) -> impl Iterator<Item = (u64, Duration)> + '_ {
        self.slow_ms.iter().map(|(node, ms)| (*node, Duration::from_millis(*ms)))
    }

    /// Forgets what was said of a node that is no more.
    pub fn forget(&mut self, node: u64) {
        self.cuts.retain(|(from, to)| *from != node && *to != node);
        self.slow_ms.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    //! What rules make of each link.
    use super::*;

    fn set(nodes: &[u64]) -> BTreeSet<u64> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn a_one_way_cut_leaves_the_way_back() {
        let mut rules = Rules::default();
        assert!(rules.is_whole());
        rules.cut(&set(&[1]), &set(&[2, 3]));
        assert_eq!(rules.flow(1, 2), Flow::Stall);
        assert_eq!(rules.flow(1, 3), Flow::Stall);
        assert_eq!(rules.flow(2, 1), Flow::Pass);
        assert_eq!(rules.flow(2, 3), Flow::Pass);
        assert!(!rules.is_whole());
    }

    #[test]
    fn a_partition_cuts_between_groups_and_not_within_them() {
        let mut rules = Rules::default();
        rules.partition(&[set(&[1, 2]), set(&[3]), set(&[4])]);
        let stalled = |from, to| rules.flow(from, to) == Flow::Stall;
        assert!(!stalled(1, 2) && !stalled(2, 1));
        for (a, b) in [(1, 3), (2, 4), (3, 4)] {
            assert!(stalled(a, b) && stalled(b, a), "{a} {b}");
        }
        assert!(!stalled(1, 5), "who is in no group is not cut off");
    }

    #[test]
    fn nobody_is_cut_off_from_itself() {
        let mut rules = Rules::default();
        rules.cut(&set(&[1, 2]), &set(&[1, 2]));
        assert_eq!(rules.flow(1, 1), Flow::Pass);
        assert_eq!(rules.flow(1, 2), Flow::Stall);
    }

    #[test]
    fn delays_add_up_and_end_with_zero() {
        let ms = Duration::from_millis;
        let mut rules = Rules::default();
        rules.slow(2, ms(50)).unwrap();
        assert_eq!(rules.flow(1, 2), Flow::Delay(ms(50)));
        assert_eq!(rules.flow(2, 1), Flow::Delay(ms(50)));
        assert_eq!(rules.flow(1, 3), Flow::Pass);
        rules.slow(1, ms(20)).unwrap();
        assert_eq!(rules.flow(1, 2), Flow::Delay(ms(70)));
        rules.slow(1, ms(0)).unwrap();
        rules.slow(2, ms(0)).unwrap();
        assert!(rules.is_whole());
        assert_eq!(rules.slow(1, DELAY_MAX), Ok(()));
        assert_eq!(rules.slow(1, DELAY_MAX + ms(1)), Err(DELAY_MAX));
    }

    #[test]
    fn a_cut_beats_a_delay_and_a_removed_node_leaves_nothing() {
        let mut rules = Rules::default();
        rules.slow(2, Duration::from_millis(5)).unwrap();
        rules.partition(&[set(&[1]), set(&[2])]);
        assert_eq!(rules.flow(1, 2), Flow::Stall);
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(text, r#"{"cuts":[[1,2],[2,1]],"slow_ms":{"2":5}}"#);
        assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
        rules.forget(2);
        assert!(rules.is_whole());
    }
}
