//! What a start prints: the nodes, how long it took, what can fail, and what to do next.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::state_file::LocalNode;
use crate::names::{LocalName, node_name};
use crate::output::Output;
use crate::probe::NodeStatus;
use crate::roles;
use crate::units::{human, millis};

/// A node as a start shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeLine {
    /// Its number.
    pub(crate) id: u64,
    /// Where clients reach it.
    pub(crate) endpoint: String,
    /// Where other nodes reach it.
    pub(crate) peer: String,
    /// Its process.
    pub(crate) pid: Option<i32>,
    /// What it is in the cluster.
    pub(crate) role: &'static str,
    /// Its data.
    pub(crate) data_dir: PathBuf,
    /// Its output.
    pub(crate) log: PathBuf,
}

/// A start that came to its end.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The cluster's name.
    pub(crate) name: LocalName,
    /// What commands need so that they mean this cluster.
    pub(crate) name_flag: String,
    /// Where its data is.
    pub(crate) data_dir: PathBuf,
    /// All its nodes.
    pub(crate) nodes: Vec<NodeLine>,
    /// How many vote.
    pub(crate) voters: usize,
    /// From the beginning to the write that reached all of them.
    pub(crate) took: Duration,
}

impl NodeLine {
    /// The line of a node, given what the nodes say.
    pub(crate) fn of(node: &LocalNode, seen: &[NodeStatus]) -> Self {
        let status = seen.iter().find(|status| status.header.node_id == node.id);
        Self {
            id: node.id,
            endpoint: node.endpoint.clone(),
            peer: node.peer.clone(),
            pid: node.pid(),
            role: status.map_or("unreachable", |status| roles::of_status(status)),
            data_dir: node.data_dir.clone(),
            log: node.log.clone(),
        }
    }

    /// As text, two blanks before it.
    pub(crate) fn text(&self) -> String {
        let pid = self.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let name = node_name(self.id);
        format!("  {name}  {}  pid {pid}  {}", self.endpoint, self.role)
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "node": node_name(self.id),
            "endpoint": self.endpoint,
            "peer": self.peer,
            "pid": self.pid,
            "role": self.role,
            "data_dir": self.data_dir,
            "log": self.log,
        })
    }
}

impl Report {
    /// How many of the voters can fail while the rest can still write.
    pub(crate) fn can_lose(&self) -> usize {
        self.voters.saturating_sub(1) / 2
    }

    /// "Ready in 1.3 s: a write committed on 3 of 3 nodes. One node can fail."
    pub(crate) fn sentence(&self) -> String {
        format!(
            "Ready in {}: a write committed on {voters} of {voters} {}. {}",
            human(self.took),
            if self.voters == 1 { "node" } else { "nodes" },
            roles::can_fail(self.can_lose(), ""),
            voters = self.voters,
        )
    }

    /// The nodes and the sentence.
    pub(crate) fn head(&self) -> String {
        let mut lines: Vec<String> = self.nodes.iter().map(NodeLine::text).collect();
        lines.push(self.sentence());
        lines.join("\n")
    }

    fn text(&self) -> String {
        let flag = &self.name_flag;
        let stop = format!("holdfast down{flag}");
        format!(
            "{head}\n\n  Look    holdfast status --watch{flag}\n  Try     holdfast state set demo \
             greeting '\"hello\"'{flag}\n  Break   holdfast local kill leader{flag} && holdfast \
             status{flag}\n  Stop    {stop:<29}(data stays in {data})",
            head = self.head(),
            data = self.data_dir.display(),
        )
    }

    fn json(&self) -> Value {
        json!({
            "schema": "holdfast.up/v1",
            "name": self.name.as_str(),
            "nodes": self.nodes.iter().map(NodeLine::json).collect::<Vec<_>>(),
            "ready_ms": millis(self.took),
            "voters": self.voters,
            "can_lose": self.can_lose(),
            "data_dir": self.data_dir,
        })
    }

    /// Prints it all.
    pub(crate) fn print(&self, output: Output) {
        output.answer(&self.text(), || self.json());
    }
}

#[cfg(test)]
mod tests {
    //! What `up` prints, to the letter.
    use super::*;

    fn report() -> Report {
        let node = |id: u64, role| NodeLine {
            id,
            endpoint: format!("127.0.0.1:{}", 7470 + 10 * id),
            peer: format!("127.0.0.1:{}", 7471 + 10 * id),
            pid: Some(4119 + i32::try_from(id).unwrap()),
            role,
            data_dir: format!("/data/n{id}").into(),
            log: format!("/logs/n{id}.log").into(),
        };
        Report {
            name: LocalName::default_name(),
            name_flag: String::new(),
            data_dir: "/data".into(),
            nodes: vec![node(1, "follower"), node(2, "leader"), node(3, "follower")],
            voters: 3,
            took: Duration::from_millis(1_310),
        }
    }

    #[test]
    fn text_is_what_people_were_promised() {
        let expected = r#"  n1  127.0.0.1:7480  pid 4120  follower
  n2  127.0.0.1:7490  pid 4121  leader
  n3  127.0.0.1:7500  pid 4122  follower
Ready in 1.3 s: a write committed on 3 of 3 nodes. One node can fail.

  Look    holdfast status --watch
  Try     holdfast state set demo greeting '"hello"'
  Break   holdfast local kill leader && holdfast status
  Stop    holdfast down                (data stays in /data)"#;
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn json_has_nodes_and_ready_ms() {
        let mut one = report();
        one.nodes.truncate(1);
        one.voters = 1;
        assert_eq!(
            one.json().to_string(),
            "{\"can_lose\":0,\"data_dir\":\"/data\",\"name\":\"default\",\"nodes\":[{\"data_dir\":\
             \"/data/n1\",\"endpoint\":\"127.0.0.1:7480\",\"log\":\"/logs/n1.log\",\"node\":\"n1\",\
             \"peer\":\"127.0.0.1:7481\",\"pid\":4120,\"role\":\"follower\"}],\"ready_ms\":1310,\
             \"schema\":\"holdfast.up/v1\",\"voters\":1}"
        );
        assert_eq!(
            one.sentence(),
            "Ready in 1.3 s: a write committed on 1 of 1 node. No node can fail."
        );
    }
}
