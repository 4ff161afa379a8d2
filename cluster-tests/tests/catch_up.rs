//! A node that was away, or is new, comes to hold what the others hold, from the log or from a
//! snapshot, and writes go on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use holdfast_client::{Client, Role};
use holdfast_cluster_tests::{Cluster, Options, Percentiles, bound, report};
use tokio::sync::watch;
use tokio::time::Instant;

const SNAPSHOT_EVERY: u64 = 400;
const LOG_KEEP: u64 = 100;
/// Far longer than a write may wait while another node catches up, and far shorter than an election
/// that fails.
const WRITE_MAX: Duration = Duration::from_secs(1);

// N3
#[tokio::test(flavor = "multi_thread")]
async fn node_that_was_away_comes_back_from_the_log() -> anyhow::Result<()> {
    let cluster = Arc::new(small_logs().await?);
    let away = cluster.follower().await?;
    let leader = cluster.leader().await?;
    let writer = Writer::start(&cluster).await?;
    cluster.kill(away);
    let gone_at = cluster.status(leader).await?.last_log_index;
    write_entries(&cluster.client(), "few", 20).await?;
    cluster.start_node(away)?;
    cluster.settled().await?;
    let status = cluster.status(away).await?;
    ensure!(status.applied_index > gone_at + 10, "{status:?}");
    ensure!(status.snapshots_installed == 0, "the log was enough: {status:?}");
    writer.stop("a node came back from the log").await?;
    cluster.finish().await
}

// N3
#[tokio::test(flavor = "multi_thread")]
async fn node_that_was_away_long_comes_back_from_a_snapshot() -> anyhow::Result<()> {
    let cluster = Arc::new(small_logs().await?);
    let away = cluster.follower().await?;
    let writer = Writer::start(&cluster).await?;
    let had = cluster.status(away).await?.last_log_index;
    cluster.kill(away);
    let client = cluster.client();
    cluster
        .wait("the log is purged beyond what the node has", || async {
            write_entries(&client, "many", 200).await.ok()?;
            let leader = cluster.leader_now().await?;
            let status = cluster.status(leader).await.ok()?;
            (status.purged_index > had + LOG_KEEP).then_some(())
        })
        .await?;
    let started = Instant::now();
    cluster.start_node(away)?;
    cluster.settled().await?;
    let took = started.elapsed();
    let status = cluster.status(away).await?;
    ensure!(status.snapshots_installed >= 1, "no snapshot was installed: {status:?}");
    let leader = cluster.leader().await?;
    ensure!(cluster.status(leader).await?.snapshots_sent >= 1, "and none was sent");
    writer.stop("a node came back from a snapshot").await?;
    report("node back from a snapshot", format!("{:.2} s", took.as_secs_f64()));

    // It was the snapshot that it keeps: a restart finds it, and what came after.
    cluster.same_state().await?;
    cluster.kill(away);
    cluster.start_node(away)?;
    cluster.settled().await?;
    let status = cluster.status(away).await?;
    ensure!(status.snapshots_installed == 0, "it needed another one: {status:?}");
    cluster.finish().await
}

// N2 N3
#[tokio::test(flavor = "multi_thread")]
async fn new_node_joins_as_learner_and_becomes_a_voter() -> anyhow::Result<()> {
    let cluster = Arc::new(small_logs().await?);
    let client = cluster.client();
    let writer = Writer::start(&cluster).await?;
    cluster
        .wait("the log does not go back to its beginning", || async {
            write_entries(&client, "many", 200).await.ok()?;
            let leader = cluster.leader_now().await?;
            (cluster.status(leader).await.ok()?.purged_index > 0).then_some(())
        })
        .await?;
    let started = Instant::now();
    let joined = cluster.join()?;
    cluster.settled().await?;
    let took = started.elapsed();
    let status = cluster.status(joined).await?;
    ensure!(status.snapshots_installed >= 1, "it began without a snapshot: {status:?}");
    ensure!(status.role != Role::Learner, "{status:?}");
    report("a fourth node joins: start to voter", format!("{:.2} s", took.as_secs_f64()));
    writer.stop("a fourth node joined").await?;

    // Its vote counts: with one of the others down it takes three of four.
    let leader = cluster.leader().await?;
    let old = cluster.running().into_iter().find(|node| *node != leader && *node != joined);
    cluster.kill(old.context("four nodes run")?);
    write_entries(&client, "with its vote", 10).await?;
    cluster.start_node(old.context("four nodes run")?)?;

    // Joining again, as a restart does, changes nothing.
    cluster.kill(joined);
    cluster.start_node(joined)?;
    cluster.settled().await?;
    ensure!(client.cluster().members().await?.members.len() == 4);
    cluster.finish().await
}

async fn small_logs() -> anyhow::Result<Cluster> {
    let args = [
        "--snapshot-every-entries".to_owned(),
        SNAPSHOT_EVERY.to_string(),
        "--log-keep-entries".to_owned(),
        LOG_KEEP.to_string(),
    ];
    Cluster::start(3, Options { args: args.to_vec(), ..Options::default() }).await
}

/// Writes so many values one after another from each of two clients: an entry holds at most one of
/// each, so there are at least `count` entries.
async fn write_entries(client: &Client, name: &str, count: usize) -> anyhow::Result<()> {
    let state = client.state();
    let object = state.get_object_id(name, "Test").await?;
    let value = vec![b'x'; 500];
    let writes = futures::stream::iter(0..2 * count).map(|number| {
        let (state, value) = (&state, value.clone());
        async move {
            let unique = rand::random::<u64>().to_string().into_bytes();
            state.set(object, &format!("key-{number}"), [value, unique].concat()).await
        }
    });
    let done: Vec<_> = writes.buffer_unordered(2).collect().await;
    done.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

/// A client that goes on writing, and remembers how long each write took.
struct Writer {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Writer {
    async fn start(cluster: &Cluster) -> anyhow::Result<Writer> {
        let state = cluster.client().state();
        let object = state.get_object_id("meanwhile", "Test").await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut took = Vec::new();
            for number in 0_u64.. {
                if *stopped.borrow() {
                    break;
                }
                let began = Instant::now();
                state.set(object, "counter", number.to_string()).await?;
                took.push(began.elapsed());
            }
            Ok(took)
        });
        Ok(Writer { stop, task })
    }

    async fn stop(self, meanwhile: &str) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let took = Percentiles::of(self.task.await??);
        report(&format!("writes while {meanwhile}"), &took);
        ensure!(took.worst() < bound(WRITE_MAX), "{took}");
        Ok(())
    }
}
