//! `holdfast ps`: the nodes of the local cluster and what their processes are up to.

use serde_json::{Value, json};

use super::places::Places;
use super::state_file::{LocalCluster, LocalNode};
use crate::errors::Outcome;
use crate::output::{Output, table};

/// Prints the nodes.
pub(crate) fn run(places: &Places, output: Output) -> Outcome<()> {
    let cluster = LocalCluster::require(places)?;
    let mut nodes = table(&["NODE", "ENDPOINT", "PID", "STATE"]);
    for node in &cluster.nodes {
        let pid = node.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        nodes.add_row([node.name(), node.endpoint.clone(), pid, node.state().name().to_owned()]);
    }
    output.list("holdfast.ps/v1", "nodes", &nodes, cluster.nodes.iter().map(row).collect());
    Ok(())
}

fn row(node: &LocalNode) -> Value {
    json!({
        "node": node.name(),
        "pid": node.pid(),
        "state": node.state().name(),
        "endpoint": node.endpoint,
        "peer": node.peer,
        "data_dir": node.data_dir,
        "log": node.log,
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
            row(&cluster.nodes[0]).to_string(),
            "{\"data_dir\":\"/d/n1\",\"endpoint\":\"127.0.0.1:7480\",\"log\":\
             \"/none/state/logs/n1.log\",\"node\":\"n1\",\"peer\":\"127.0.0.1:7481\",\"pid\":null,\
             \"state\":\"stopped\"}"
        );
        cluster.nodes[0].process = ProcessId::of(std::process::id());
        assert_eq!(row(&cluster.nodes[0])["state"], "running");
        assert_eq!(row(&cluster.nodes[0])["pid"], std::process::id());
    }
}
