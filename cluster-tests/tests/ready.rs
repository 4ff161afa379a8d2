//! A node that cannot reach a leader says so at `/readyz` within one election time-out, and why;
//! `/livez` speaks of the process alone. // N5, G3

use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::http::{self, Page};
use holdfast_cluster_tests::{Cluster, Options, bound, millis, report, wait_for};
use serde_json::Value;
use tokio::time::Instant;

use crate::metrics::Exposition;

/// The longest election time-out by default, and time for a look every 10 ms.
const NOT_READY_WITHIN: Duration = millis(300 + 50);

async fn ready(cluster: &Cluster, index: usize) -> anyhow::Result<Page> {
    http::get(&cluster.endpoint(index), "/readyz").await
}

/// Waits until a node says that it is ready, or that it is not.
async fn becomes(cluster: &Cluster, index: usize, status: u16) -> anyhow::Result<Page> {
    let what = format!("n{} answers {status}", index + 1);
    cluster
        .wait(&what, || async {
            ready(cluster, index).await.ok().filter(|page| page.status == status)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lost_its_leader_is_not_ready() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let leader = cluster.leader().await?;
    for index in 0..3 {
        let page = becomes(&cluster, index, 200).await?;
        let said = format!("ready: n{} leads in term ", leader + 1);
        ensure!(page.body.starts_with(&said), "n{}: {page:?}", index + 1);
    }
    let left = (0..3).find(|index| *index != leader).context("there are three")?;
    let other = (0..3).find(|index| ![leader, left].contains(index)).context("there are three")?;
    cluster.kill(other);
    becomes(&cluster, left, 200).await?;

    cluster.kill(leader);
    let lost = Instant::now();
    let page = wait_for("it is not ready", bound(NOT_READY_WITHIN), || async {
        ready(&cluster, left).await.ok().filter(|page| page.status == 503)
    })
    .await?;
    report("not ready after the leader was killed", format!("{} ms", lost.elapsed().as_millis()));
    let reasons = ["the leader, n", "no leader is known in term "];
    let begins = |reason: &&str| page.body.starts_with(&format!("not ready: {reason}"));
    ensure!(reasons.iter().any(begins), "{page:?}");
    let alive = http::get(&cluster.endpoint(left), "/livez").await?;
    ensure!((alive.status, alive.body.as_str()) == (200, "alive\n"), "{alive:?}");

    // What it is asked meanwhile is held, and seen to be.
    let state = cluster.client_only(left).with_timeout(Duration::from_secs(30)).state();
    let held = tokio::spawn(async move { state.get_object_id("held", "Test").await });
    cluster
        .wait("a call is held", || async {
            let now = Exposition::of(&cluster, left).await.ok()?;
            (now.value(r#"holdfast_waiting_calls{queue="held"}"#)? > 0.0).then_some(())
        })
        .await?;
    let now = Exposition::of(&cluster, left).await?;
    ensure!(now.value("holdfast_ready") == Some(0.0));
    ensure!(now.value("holdfast_raft_is_leader") == Some(0.0));

    cluster.start_node(leader)?;
    cluster.start_node(other)?;
    for index in 0..3 {
        becomes(&cluster, index, 200).await?;
    }
    held.await?.context("the call that was held")?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_quorum_is_not_ready() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let leader = cluster.leader().await?;
    becomes(&cluster, leader, 200).await?;
    for index in (0..3).filter(|index| *index != leader) {
        cluster.kill(index);
    }
    let page = wait_for("it is not ready", bound(NOT_READY_WITHIN), || async {
        ready(&cluster, leader).await.ok().filter(|page| page.status == 503)
    })
    .await?;
    ensure!(page.body.starts_with("not ready: "), "{page:?}");
    for index in (0..3).filter(|index| *index != leader) {
        cluster.start_node(index)?;
    }
    becomes(&cluster, leader, 200).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_page_and_no_method_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let endpoint = cluster.endpoint(0);
    for path in ["/", "/ready", "/metrics/x"] {
        let page = http::get(&endpoint, path).await?;
        ensure!(page.status == 404, "{path}: {page:?}");
    }
    let page = http::ask(&endpoint, "POST", "/readyz").await?;
    ensure!(page.status == 405, "{page:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_json_where_that_is_asked_for() -> anyhow::Result<()> {
    let args = ["--log-format", "json"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(1, Options { args, ..Options::default() }).await?;
    let log = cluster.log(0)?;
    // The harness notes each start in a line of its own.
    let lines = log.lines().filter(|line| !line.starts_with("--- "));
    let events: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect::<anyhow::Result<_>>()?;
    for event in &events {
        for field in ["timestamp", "level", "target", "message"] {
            ensure!(event[field].is_string(), "{field} of {event}");
        }
    }
    let leads = events.iter().find(|event| event["message"] == "n1 leads");
    ensure!(leads.context("it leads")?["term"].is_u64(), "the term is a field: {leads:?}");
    cluster.finish().await
}
