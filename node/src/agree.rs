//! Whether the nodes have the same state.
//!
//! Every node remembers the digest of its state at the same indexes and compares with the voters.
//! A node that a majority of the voters contradicts stops: its state is wrong. Without such a
//! majority nobody knows who is wrong: writes are refused and an alarm stays until they agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::alarm;
use crate::leadership::Leader;
use crate::node::Node;
use crate::runtime;

/// How often nodes compare.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// How long one peer may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// What the digest covers and how; digests of different versions are not compared.
pub(crate) const DIGEST_VERSION: u32 = 1;

/// What a comparison says about this node.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agree,
    /// Some voter differs, and no majority says who is right.
    Unclear,
    /// A majority of the voters has another state.
    Wrong,
}

/// Compares for ever; returns when this node's state is wrong, with what was seen.
pub(crate) async fn watch(node: Arc<Node>) -> String {
    loop {
        runtime::sleep(COMPARE_EVERY).await;
        let Some((index, own, others)) = collect(&node).await else { continue };
        let voters = node.raft.voter_ids().count();
        match judge(own, &others, voters) {
            Verdict::Agree => node.alarms.clear(alarm::DIVERGED),
            Verdict::Unclear => {
                let text = format!("voters have different states at index {index}");
                node.alarms.raise(alarm::DIVERGED, text);
            }
            Verdict::Wrong => {
                if matches!(node.lead.borrow().leader, Leader::Me(_)) {
                    let deadline = runtime::now() + Duration::from_secs(1);
                    if let Err(refused) = node.move_lead(None, deadline).await {
                        tracing::error!("hand over the lead: {refused}");
                    }
                }
                return format!("a majority of the voters has another state at index {index}");
            }
        }
    }
}

type Digests = BTreeMap<u64, Vec<u8>>;

/// This node's newest digest that others remember too, and theirs.
async fn collect(node: &Node) -> Option<(u64, [u8; 32], Digests)> {
    let own_id = node.peers.own().node_id;
    let voters: Vec<u64> = node.raft.voter_ids().collect();
    if !voters.contains(&own_id) {
        return None;
    }
    for (index, own) in node.applied.digests().into_iter().rev().take(4) {
        let mut others = Digests::new();
        for voter in voters.iter().copied().filter(|voter| *voter != own_id) {
            let deadline = runtime::now() + ANSWER_MAX;
            let Ok(answer) = node.peers.digest(voter, index, deadline).await else { continue };
            if let Some(digest) = answer.digest.filter(|_| answer.version == DIGEST_VERSION) {
                others.insert(voter, digest.to_vec());
            }
        }
        if !others.is_empty() {
            return Some((index, own, others));
        }
    }
    None
}

fn judge(own: [u8; 32], others: &Digests, voters: usize) -> Verdict {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for digest in others.values() {
        *counts.entry(digest.as_slice()).or_default() += 1;
    }
    let against = counts.iter().filter(|(digest, _)| **digest != own.as_slice());
    match against.map(|(_, count)| *count).max() {
        None => Verdict::Agree,
        Some(most) if 2 * most > voters => Verdict::Wrong,
        Some(_) => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(digests: &[u8]) -> Digests {
        (1_u64..).zip(digests).map(|(node, digest)| (node, vec![*digest; 32])).collect()
    }

    // G8
    #[test]
    fn only_a_majority_of_the_voters_proves_a_node_wrong() {
        assert_eq!(judge([1; 32], &others(&[1, 1]), 3), Verdict::Agree);
        assert_eq!(judge([1; 32], &others(&[1]), 3), Verdict::Agree);
        assert_eq!(judge([1; 32], &others(&[2, 2]), 3), Verdict::Wrong);
        assert_eq!(judge([1; 32], &others(&[1, 2]), 3), Verdict::Unclear);
        assert_eq!(judge([1; 32], &others(&[2]), 3), Verdict::Unclear);
        assert_eq!(judge([1; 32], &others(&[2, 3]), 3), Verdict::Unclear);
        assert_eq!(judge([1; 32], &others(&[2, 2, 1, 1]), 5), Verdict::Unclear);
        assert_eq!(judge([1; 32], &others(&[2, 2, 2, 1]), 5), Verdict::Wrong);
    }
}
