//! `holdfast ps`: the nodes of the local cluster, what their processes are up to, and whom they hear.

use holdfast_network::Rules;
use serde_json::{Value, json};

use super::network;
use super::network::text::{node_json, of_node};
use super::places::Places;
use super::state_file::{Links, LocalCluster, LocalNode};
use crate::errors::Outcome;
use crate::output::{Output, table};

/// Prints the nodes.
pub(crate) async fn run(places: &Places, output: Output) -> Outcome<()> {
    let cluster = LocalCluster::require(places)?;
    let rules = network::rules(places, &cluster).await;
    let all: Vec<u64> = cluster.nodes.iter().map(|node| node.id).collect();
    let mut nodes = table(&["NODE", "ENDPOINT", "PID", "STATE", "NETWORK"]);
    for node in &cluster.nodes {
        let pid = node.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let network = match (&rules, cluster.links) {
            (Some(rules), _) => of_node(rules, node.id, &all),
            (None, Links::Direct) => "direct".to_owned(),
            (None, Links::Network) => "stopped".to_owned(),
        };
        let state = node.state().name().to_owned();
        nodes.add_row([node.name(), node.endpoint.clone(), pid, state, network]);
    }
    let rows = cluster.nodes.iter().map(|node| row(node, rules.as_ref(), &all)).collect();
    output.list("holdfast.ps/v1", "nodes", &nodes, rows);
    Ok(())
}

/// `network` is null without a network, and while it does not answer.
fn row(node: &LocalNode, rules: Option<&Rules>, all: &[u64]) -> Value {
    json!({
        "node": node.name(),
        "pid": node.pid(),
        "state": node.state().name(),
        "endpoint": node.endpoint,
        "peer": node.peer,
        "data_dir": node.data_dir,
        "log": node.log,
        "network": rules.map(|rules| node_json(rules, node.id, all)),
    })
}

#[cfg(test)]
mod tests {
    //! The rows that scripts read.
    use super::*;
    use crate::local::process::ProcessId;

    #[test]
    fn rows_have_node_pid_state_and_endpoint() {
        let places = Places::under(std::path::Path::new("/none"));
        let mut cluster = LocalCluster::new(&places, "/d".into());
        cluster.add(&places, 7480, 7481);
        assert_eq!(
            row(&cluster.nodes[0], None, &[1]).to_string(),
            "{\"data_dir\":\"/d/n1\",\"endpoint\":\"127.0.0.1:7480\",\"log\":\
             \"/none/state/logs/n1.log\",\"network\":null,\"node\":\"n1\",\"peer\":\"127.0.0.1:7481\",\"pid\":null,\
             \"state\":\"stopped\"}"
        );
        cluster.nodes[0].process = ProcessId::of(std::process::id());
        let row = row(&cluster.nodes[0], Some(&Rules::default()), &[1]);
        assert_eq!(row["state"], "running");
        assert_eq!(row["pid"], std::process::id());
        assert_eq!(row["network"]["delay_ms"], 0);
    }
}
