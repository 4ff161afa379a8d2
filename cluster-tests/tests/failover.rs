//! How long writes stop when the leader goes: killed, stopped in good order, or with all the others.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::Client;
use holdfast_cluster_tests::{Cluster, Percentiles, bound, millis, report, scale};
use tokio::sync::watch;
use tokio::time::Instant;

/// A call is given far more time than it may take, so that a long one is seen as long.
const CALL_MAX: Duration = Duration::from_secs(30);

// N5 G1 G3
#[tokio::test(flavor = "multi_thread")]
async fn writes_work_again_soon_after_a_leader_is_killed() -> anyhow::Result<()> {
    let kills = scale(50, 5);
    let cluster = Cluster::start_three().await?;
    let state = patient(&cluster).state();
    let object = state.get_object_id("failover", "Test").await?;
    let mut took = Vec::new();
    for round in 0..kills {
        let leader = cluster.leader().await?;
        // The writer talks to the leader, as any client does after a while.
        state.set(object, &format!("before-{round}"), "1").await?;
        let killed = Instant::now();
        cluster.kill(leader);
        state.set(object, &format!("after-{round}"), "1").await?;
        took.push(killed.elapsed());
        cluster.start_node(leader)?;
        cluster.settled().await?;
    }
    let keys = state.list(object).await?.len();
    ensure!(keys == 2 * kills, "{keys} of {} acknowledged writes are there", 2 * kills);
    let took = Percentiles::of(took);
    report("leader kill -9: kill to first acknowledged write", &took);
    ensure!(took.median() < bound(Duration::from_secs(1)), "{took}");
    ensure!(took.worst() < bound(Duration::from_secs(3)), "{took}");
    cluster.finish().await
}

// N5 G3
#[tokio::test(flavor = "multi_thread")]
async fn writes_go_around_a_leader_that_is_frozen() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let state = patient(&cluster).state();
    let object = state.get_object_id("frozen", "Test").await?;
    let mut took = Vec::new();
    for round in 0..scale(10, 2) {
        let leader = cluster.leader().await?;
        state.set(object, "before", round.to_string()).await?;
        let frozen = Instant::now();
        cluster.pause(leader)?;
        state.set(object, "after", round.to_string()).await?;
        took.push(frozen.elapsed());
        // It believes that it leads: what it is asked now must not come from its old state.
        cluster.resume(leader)?;
        let read = cluster.client_only(leader).state().get(object, "after").await?;
        let read = read.context("an acknowledged write is gone")?.bytes;
        ensure!(read == round.to_string().into_bytes(), "a stale read from the old leader");
        cluster.settled().await?;
    }
    let took = Percentiles::of(took);
    report("leader frozen (SIGSTOP): to first acknowledged write", &took);
    ensure!(took.worst() < bound(Duration::from_secs(3)), "{took}");
    cluster.finish().await
}

// N4 G5
#[tokio::test(flavor = "multi_thread")]
async fn leader_hands_over_when_told_to_end() -> anyhow::Result<()> {
    const WRITERS: usize = 8;
    let rounds = scale(20, 3);
    let cluster = Arc::new(Cluster::start_three().await?);
    let object = patient(&cluster).state().get_object_id("hand-over", "Test").await?;
    let mut gaps = Vec::new();
    let mut calls = Vec::new();
    for round in 0..rounds {
        let leader = cluster.leader().await?;
        let (over, is_over) = watch::channel(false);
        let (acknowledged, seen) = watch::channel(0_u64);
        let acknowledged = Arc::new(acknowledged);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let key = format!("{round}-{number}");
                let client = patient(&cluster);
                let noted = acknowledged.clone();
                tokio::spawn(write_all_the_time(client, object, key, noted, is_over.clone()))
            })
            .collect();
        more(&seen, 200).await?;
        let told = Instant::now();
        cluster.term(leader)?;
        let status = cluster.wait_end(leader, Duration::from_secs(5)).await?;
        ensure!(status.code() == Some(0), "it ended with {status}");
        more(&seen, 200).await?;
        over.send_replace(true);
        let mut acks = vec![told];
        for writer in writers {
            let done = writer.await?.context("a call failed")?;
            acks.extend(done.iter().map(|(_, ended)| *ended));
            let around = done.iter().filter(|(_, ended)| *ended >= told);
            calls.extend(around.map(|(began, ended)| *ended - *began));
        }
        acks.retain(|ack| *ack >= told);
        acks.sort_unstable();
        let gap = acks.windows(2).map(|pair| pair[1] - pair[0]).max();
        gaps.push(gap.context("nothing was written")?);
        cluster.start_node(leader)?;
        cluster.settled().await?;
    }
    let (gaps, calls) = (Percentiles::of(gaps), Percentiles::of(calls));
    report("SIGTERM of the leader: longest time without an acknowledged write", &gaps);
    report("SIGTERM of the leader: calls around it, none failed", &calls);
    ensure!(gaps.worst() < bound(millis(200)), "{gaps}");
    cluster.finish().await
}

// G1 N4
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_down_and_up_again() -> anyhow::Result<()> {
    let rounds = scale(10, 2);
    let cluster = Cluster::start_three().await?;
    let object = patient(&cluster).state().get_object_id("all-down", "Test").await?;
    let mut took = Vec::new();
    for round in 0..rounds {
        let state = patient(&cluster).state();
        for key in 0..20 {
            state.set(object, &format!("{round}-{key}"), "1").await?;
        }
        cluster.kill_all();
        let started = Instant::now();
        for node in 0..cluster.size() {
            cluster.start_node(node)?;
        }
        // A client of its own: one that was there before avoids nodes that were gone for a while.
        let state = patient(&cluster).state();
        state.set(object, &format!("{round}-again"), "1").await?;
        took.push(started.elapsed());
        let keys = state.list(object).await?.len();
        ensure!(keys == 21 * (round + 1), "{keys} keys of {}", 21 * (round + 1));
        cluster.settled().await?;
    }
    let took = Percentiles::of(took);
    report("all nodes killed and started: start to first acknowledged write", &took);
    ensure!(took.worst() < bound(Duration::from_secs(3)), "{took}");
    cluster.finish().await
}

fn patient(cluster: &Cluster) -> Client {
    cluster.client_with(|config| config.call_timeout = CALL_MAX)
}

/// Writes until told to stop; returns when each write began and when it was acknowledged.
async fn write_all_the_time(
    client: Client,
    object: i64,
    key: String,
    acknowledged: Arc<watch::Sender<u64>>,
    is_over: watch::Receiver<bool>,
) -> anyhow::Result<Vec<(Instant, Instant)>> {
    let state = client.state();
    let mut done = Vec::new();
    for number in 0_u64.. {
        if *is_over.borrow() {
            break;
        }
        let began = Instant::now();
        let written = state.set(object, &key, number.to_string()).await?;
        ensure!(written.written, "a key with one writer was raced for: {written:?}");
        done.push((began, Instant::now()));
        acknowledged.send_modify(|count| *count += 1);
    }
    Ok(done)
}

/// Waits until so many more writes have been acknowledged.
async fn more(seen: &watch::Receiver<u64>, count: u64) -> anyhow::Result<()> {
    let mut seen = seen.clone();
    let goal = *seen.borrow() + count;
    let reached = seen.wait_for(|seen| *seen >= goal);
    tokio::time::timeout(CALL_MAX, reached).await.context("writes go on")??;
    Ok(())
}
