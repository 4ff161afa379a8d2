//! How the roles and the spare nodes of a cluster are put into words.

use crate::probe::{NodeStatus, Role};

/// What a node says that it is.
pub(crate) fn of_status(status: &NodeStatus) -> &'static str {
    match status.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Unknown => "unknown",
    }
}

/// What a member is: `leader`, `follower` or `learner`.
pub(crate) const fn of_member(is_leader: bool, is_voter: bool) -> &'static str {
    match (is_leader, is_voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    }
}

/// "One node can fail." or, with `more` = " more", "One more node can fail."
pub(crate) fn can_fail(count: usize, more: &str) -> String {
    let number = match count {
        0 => "No".to_owned(),
        1 => "One".to_owned(),
        2 => "Two".to_owned(),
        3 => "Three".to_owned(),
        4 => "Four".to_owned(),
        _ => count.to_string(),
    };
    let nodes = if count > 1 { "nodes" } else { "node" };
    format!("{number}{more} {nodes} can fail.")
}

/// A count and what is counted: "1 node", "3 nodes".
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// "n2", "n2 or n3", "n2, n3 or n4".
pub(crate) fn listed(names: &[String], last: &str) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    //! Words for numbers.
    use super::*;

    #[test]
    fn sentences() {
        assert_eq!(can_fail(0, ""), "No node can fail.");
        assert_eq!(can_fail(1, ""), "One node can fail.");
        assert_eq!(can_fail(1, " more"), "One more node can fail.");
        assert_eq!(can_fail(2, " more"), "Two more nodes can fail.");
        let names = |n: usize| (1..=n).map(|i| format!("n{i}")).collect::<Vec<_>>();
        assert_eq!(listed(&names(1), "or"), "n1");
        assert_eq!(listed(&names(3), "or"), "n1, n2 or n3");
        assert_eq!(counted(1, "node"), "1 node");
    }
}
