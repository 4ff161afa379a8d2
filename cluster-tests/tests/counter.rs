//! A counter that clients increment by comparing and setting, while the leader is killed again and
//! again, ends at exactly the number of increments that were acknowledged.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::Client;
use holdfast_cluster_tests::{Chaos, Cluster, Kill, Options, Percentiles, millis, report, scale};
use tokio::sync::watch;

const CLIENTS: usize = 8;
const KILL_EVERY: Duration = Duration::from_secs(2);
const DOWN_FOR: Duration = millis(500);
/// One increment of each client every so often.
const PACE: Duration = millis(50);
/// Ends a run in which the killing makes no progress.
const RUN_MAX: Duration = Duration::from_secs(300);

// S3 G4 G5
#[tokio::test(flavor = "multi_thread")]
async fn counter_ends_at_the_acknowledged_count() -> anyhow::Result<()> {
    let kills_min = scale(20, 4);
    // Snapshots and purges all the time, so that kills meet them, and nodes that come back need one.
    let args = ["--snapshot-every-entries", "300", "--log-keep-entries", "50"];
    let options = Options { args: args.map(str::to_owned).to_vec(), ..Options::default() };
    let cluster = Arc::new(Cluster::start(3, options).await?);
    let object = cluster.client().state().get_object_id("counter", "Test").await?;
    let chaos = Chaos::start(cluster.clone(), KILL_EVERY, DOWN_FOR);
    let (over, is_over) = watch::channel(false);
    let runs: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(count(cluster.client_on(number), object, is_over.clone())))
        .collect();

    cluster_kills(&chaos, kills_min).await?;
    over.send_replace(true);
    let mut acknowledged = 0;
    let mut tries = 0;
    for (number, run) in runs.into_iter().enumerate() {
        let (increments, runs) = run.await?.with_context(|| format!("client {number}"))?;
        acknowledged += increments;
        tries += runs;
    }
    let kills = chaos.stop().await?;
    cluster.settled().await?;

    for node in cluster.running() {
        let value = cluster.client_only(node).state().get(object, "counter").await?;
        let value: u64 = String::from_utf8(value.context("no counter")?.bytes)?.parse()?;
        ensure!(value == acknowledged, "n{}: {value}, acknowledged {acknowledged}", node + 1);
    }
    report(
        "counter under leader kills",
        format!(
            "{acknowledged} acknowledged increments in {tries} tries by {CLIENTS} clients, {} \
             kills, ends at {acknowledged}",
            kills.len()
        ),
    );
    report("counter: outage seen by a writer", Percentiles::of(kills.iter().map(Kill::outage)));
    cluster.finish().await
}

async fn cluster_kills(chaos: &Chaos, enough: usize) -> anyhow::Result<()> {
    holdfast_cluster_tests::wait_for("enough kills", RUN_MAX, || async {
        (chaos.kills().len() >= enough || !chaos.is_running()).then_some(())
    })
    .await
}

/// Increments until told to stop; returns the acknowledged increments, and how often the new value
/// was worked out.
async fn count(
    client: Client,
    object: i64,
    is_over: watch::Receiver<bool>,
) -> anyhow::Result<(u64, u64)> {
    let state = client.state();
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut acknowledged, mut tries) = (0, 0);
    while !*is_over.borrow() {
        ticks.tick().await;
        let plus_one = |old: Option<&[u8]>| {
            tries += 1;
            let old: u64 = old.map_or(0, |old| {
                std::str::from_utf8(old).ok().and_then(|text| text.parse().ok()).expect("a number")
            });
            (old + 1).to_string()
        };
        state.update(object, "counter", plus_one).await?;
        acknowledged += 1;
    }
    Ok((acknowledged, tries))
}
