//! Every response names cluster, node, revision, term and leader; errors do so too. // G6

use anyhow::ensure;
use holdfast_cluster_tests::Cluster;
use tonic_types::StatusExt as _;

use crate::raw::Raw;

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_errors_say_who_answers_and_who_leads() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let mut seen = Vec::new();
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let object = raw.object("headers", "test").await?;
        raw.set(object, "key", b"1").await?;
        let found = raw.get(object, "key").await?;
        let Some(header) = found.header else { anyhow::bail!("a response without a header") };
        ensure!(header.revision >= found.mod_revision, "the read is not older than the write");
        ensure!(header.node_id > 0 && header.leader_id > 0 && header.term > 0, "{header:?}");
        ensure!(header.leader_endpoint.starts_with("127.0.0.1:"), "{header:?}");

        let Err(refused) = raw.set(object + 1000, "key", b"1").await else {
            anyhow::bail!("an unknown object was written to");
        };
        let info = refused.get_details_error_info();
        let Some(info) = info else { anyhow::bail!("an error without details: {refused:?}") };
        for (field, value) in [
            ("cluster_id", header.cluster_id.clone()),
            ("node_id", header.node_id.to_string()),
            ("term", header.term.to_string()),
            ("leader_id", header.leader_id.to_string()),
            ("leader_endpoint", header.leader_endpoint.clone()),
            ("applied", "no".to_owned()),
        ] {
            ensure!(info.metadata.get(field) == Some(&value), "{field} in {:?}", info.metadata);
        }
        seen.push(header);
    }
    let [leader, follower] = &seen[..] else { anyhow::bail!("two nodes were asked") };
    ensure!(leader.node_id == leader.leader_id && follower.node_id != follower.leader_id);
    ensure!(leader.cluster_id == follower.cluster_id && leader.leader_id == follower.leader_id);
    cluster.finish().await
}
