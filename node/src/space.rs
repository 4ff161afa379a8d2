//! Looks at the disk and the quota from time to time, raises alarms, and moves the lead to where
//! there is room.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::alarm;
use crate::leadership::Leader;
use crate::members;
use crate::node::Node;
use crate::room::{QuotaLevel, Space};
use crate::runtime;

/// How often. What a disk of 100 MB/s takes in meanwhile is well below the default floor.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one peer may take to tell about its disk.
const ANSWER_MAX: Duration = Duration::from_millis(300);
/// How long handing over the lead may take.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// Looks for ever; also at once when the lead changes, or much was admitted since the last look.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut lead = node.lead.clone();
    let mut quota = QuotaLevel::default();
    let mut refused = 0;
    loop {
        lead.mark_unchanged();
        look_at_disks(&node).await;
        (quota, refused) = look_at_quota(&node, quota, refused);
        let early = async {
            runtime::select! {
                changed = lead.changed() => changed.is_ok(),
                () = node.room.look_is_due() => true,
            }
        };
        if runtime::until(runtime::now() + LOOK_EVERY, early).await == Some(false) {
            return;
        }
    }
}

impl Node {
    /// Looks at the disk of this node's data.
    pub(crate) async fn look_at_disk(&self) -> io::Result<Space> {
        let dir = self.dir.clone();
        let free_bytes = runtime::blocking(move || dir.free_bytes()).await?;
        Ok(self.room.note_free(self.peers.own().node_id, free_bytes))
    }
}

async fn look_at_disks(node: &Arc<Node>) {
    let own = match node.look_at_disk().await {
        Ok(own) => own,
        Err(error) => {
            let text = format!("how much of the disk is free cannot be told: {error}");
            node.alarms.raise(alarm::DISK_LOW, text);
            return;
        }
    };
    if own.is_low {
        let (free, floor) = (own.free_bytes, own.floor_bytes);
        let text = format!("{free} bytes of disk are left, and {floor} are to stay free");
        node.alarms.raise(alarm::DISK_LOW, text);
    } else {
        node.alarms.clear(alarm::DISK_LOW);
    }
    if !matches!(node.lead.borrow().leader, Leader::Me(_)) {
        return node.room.note_voters(None);
    }
    let voters: Vec<u64> = node.raft.voter_ids().collect();
    let mut spaces = ask(node, voters.iter().copied().filter(|voter| *voter != own.node)).await;
    if own.is_low && hand_over(node, &spaces).await {
        return node.room.note_voters(None);
    }
    spaces.push(own);
    node.room.note_voters(Some((&spaces, voters.len())));
}

/// What other voters say of their disks; those that do not answer are left out.
async fn ask(node: &Node, voters: impl Iterator<Item = u64>) -> Vec<Space> {
    let deadline = runtime::now() + ANSWER_MAX;
    let asked = voters.map(|voter| async move {
        let answer = node.peers.space(voter, deadline).await.ok()?;
        let (free_bytes, floor_bytes) = (answer.free_bytes, answer.floor_bytes);
        Some(Space { node: voter, free_bytes, floor_bytes, is_low: answer.low })
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Hands the lead to a voter that has room, if there is one; false if this node goes on leading.
async fn hand_over(node: &Node, spaces: &[Space]) -> bool {
    let has_room = |id| spaces.iter().any(|space| space.node == id && !space.is_low);
    let Some(heir) = members::best_heir(&node.raft, has_room) else { return false };
    let deadline = runtime::now() + HAND_OVER_MAX;
    match node.move_lead(Some(heir), deadline).await {
        Ok(()) => {
            tracing::info!("n{heir} has room on its disk, and takes the lead");
            true
        }
        Err(refused) => {
            tracing::warn!("hand over the lead for want of disk: {refused}");
            false
        }
    }
}

/// The leader speaks of the quota: the state is everybody's.
fn look_at_quota(node: &Node, before: QuotaLevel, refused: u64) -> (QuotaLevel, u64) {
    let (refused_now, _) = node.room.refused();
    let level = match node.lead.borrow().leader {
        Leader::Me(_) => {
            let (used, quota) = (node.applied.state().bytes(), node.room.quota_bytes());
            let level = before.next(used, quota, refused_now > refused);
            let percent = u128::from(used) * 100 / u128::from(quota.max(1));
            let text = format!("the state has {used} of {quota} bytes ({percent} %)");
            if level.is_full {
                node.alarms.raise(alarm::QUOTA_FULL, format!("{text}; growth is refused"));
            } else if level.is_near {
                node.alarms.raise(alarm::QUOTA_NEAR, text);
            }
            level
        }
        Leader::None | Leader::Other(_) => QuotaLevel::default(),
    };
    if !level.is_full {
        node.alarms.clear(alarm::QUOTA_FULL);
    }
    if level.is_full || !level.is_near {
        node.alarms.clear(alarm::QUOTA_NEAR);
    }
    (level, refused_now)
}
