//! What unit tests share: answers of nodes as a cluster would give them.

use holdfast_client::{Header, Member, NodeStatus, Role};

/// A member that nobody leads.
pub(crate) fn member(id: u64, voter: bool) -> Member {
    Member {
        node_id: id,
        client_endpoint: format!("127.0.0.1:{}", 7470 + 10 * id),
        peer_endpoint: format!("127.0.0.1:{}", 7471 + 10 * id),
        voter,
        leader: false,
        matched_index: 0,
        silent: None,
    }
}

/// What a node says in a cluster of these members and this leader; 0 for none.
pub(crate) fn node_status(id: u64, leader: u64, members: &[Member]) -> NodeStatus {
    let mut members = members.to_vec();
    for member in &mut members {
        member.leader = member.node_id == leader;
    }
    NodeStatus {
        header: Header {
            cluster_id: "0197-c".to_owned(),
            node_id: id,
            revision: 40,
            term: 7,
            leader_id: leader,
            leader_endpoint: String::new(),
        },
        role: if id == leader { Role::Leader } else { Role::Follower },
        ready: leader != 0,
        last_log_index: 50,
        applied_index: 50,
        purged_index: 0,
        clock_ms: 0,
        members,
        alarms: Vec::new(),
        change_sources: 14,
        change_sources_owned: 14,
        masters_alive: 3,
        version: "0.1.0".to_owned(),
        state_digest: Vec::new(),
        leader_since_unix_ms: 0,
        log_syncs: 0,
        log_entries: 0,
        requests_proposed: 0,
        snapshots_sent: 0,
        snapshots_installed: 0,
        watches: 0,
    }
}
