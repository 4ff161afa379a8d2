//! Links between nodes that carry nothing, in one direction or both, and slow ones.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::{Client, Error, State};
use holdfast_cluster_tests::{Cluster, Options, Percentiles, bound, millis, report, scale};
use tokio::time::Instant;

const CALL_MAX: Duration = Duration::from_secs(30);

async fn start() -> anyhow::Result<Cluster> {
    // Clients that are told of one node stay with it.
    let options = Options { network: true, hide_endpoints: true, ..Options::default() };
    Cluster::start(3, options).await
}

/// A leader that is cut off is replaced, acknowledges nothing more, and follows once it is heard.
// N5 G1 G2
#[tokio::test(flavor = "multi_thread")]
async fn leader_that_is_cut_off_is_replaced_and_then_follows() -> anyhow::Result<()> {
    let cluster = start().await?;
    let state = cluster.client_with(|config| config.call_timeout = CALL_MAX).state();
    let object = state.get_object_id("partition", "Test").await?;
    let (mut took, mut healed) = (Vec::new(), Vec::new());
    for round in 0..scale(10, 2) {
        let (old, key) = (cluster.leader().await?, format!("key-{round}"));
        state.set(object, &key, "\"before\"").await?;
        cluster.partition(&[old]);
        let cut = Instant::now();
        let others = cluster.client_with(|config| {
            config.endpoints.remove(old);
            config.call_timeout = CALL_MAX;
        });
        others.state().set(object, &key, "\"after\"").await?;
        took.push(cut.elapsed());

        let alone = cluster.client_only(old).with_timeout(millis(500)).state();
        let written = alone.set(object, &key, "\"alone\"").await;
        ensure!(written.is_err(), "n{} wrote without a quorum", old + 1);
        let read = alone.get(object, &key).await;
        ensure!(read.is_err(), "n{} read without a quorum: {read:?}", old + 1);

        cluster.heal();
        let heal = Instant::now();
        let patient = cluster.client_only(old).with_timeout(CALL_MAX).state();
        let read = patient.get(object, &key).await?.context("an acknowledged write is gone")?;
        ensure!(read.bytes == b"\"after\"", "{read:?}");
        healed.push(heal.elapsed());
        cluster.settled().await?;
    }
    let (took, healed) = (Percentiles::of(took), Percentiles::of(healed));
    report("leader cut off: cut to first acknowledged write", &took);
    report("leader cut off: heal to its first linearizable read", &healed);
    // Longer than after a kill: nothing breaks, so that whoever waits has to run out of patience.
    ensure!(took.median() < bound(Duration::from_secs(2)), "{took}");
    // The bound that the issue names for progress after the last heal.
    ensure!(healed.worst() < bound(Duration::from_secs(5)), "{healed}");
    cluster.finish().await
}

/// A leader whose words are lost is replaced although it hears everybody; a follower whose words
/// are lost disturbs nobody.
// N5
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_not_heard() -> anyhow::Result<()> {
    let cluster = start().await?;
    let state = cluster.client_with(|config| config.call_timeout = CALL_MAX).state();
    let object = state.get_object_id("partition", "Test").await?;
    let old = cluster.leader().await?;
    cluster.mute(&[old]);
    let cut = Instant::now();
    cluster
        .wait("another node leads", || async {
            cluster.leader_now().await.filter(|leader| *leader != old)
        })
        .await?;
    report("leader not heard: cut to another leader", format!("{:?}", cut.elapsed()));
    ensure!(cut.elapsed() < bound(Duration::from_secs(2)), "{:?}", cut.elapsed());
    cluster.heal();
    cluster.settled().await?;

    // It hears its leader, so that it does not stand; nobody hears its answers, so that it counts
    // for nothing: the other two go on.
    let leader = cluster.leader().await?;
    let term = cluster.status(leader).await?.header.term;
    let mute = (0..3).find(|index| *index != leader).context("three nodes")?;
    cluster.mute(&[mute]);
    let others = cluster.client_with(|config| {
        config.endpoints.remove(mute);
        config.call_timeout = CALL_MAX;
    });
    for round in 0..20 {
        others.state().set(object, "while", round.to_string()).await?;
    }
    ensure!(cluster.status(leader).await?.header.term == term, "an election, for nothing");
    cluster.heal();
    cluster.settled().await?;
    cluster.finish().await
}

/// What one node says to one other is lost, in one direction: whoever leads, the three go on.
// N5
#[tokio::test(flavor = "multi_thread")]
async fn any_single_lost_direction_stops_nothing() -> anyhow::Result<()> {
    let cluster = start().await?;
    let state = cluster.client_with(|config| config.call_timeout = CALL_MAX).state();
    let object = state.get_object_id("partition", "Test").await?;
    let mut took = Vec::new();
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        let lost = [from].into();
        cluster.network().change(|rules| rules.cut(&lost, &[to].into()));
        let begin = Instant::now();
        state.set(object, &format!("{from}-{to}"), "1").await?;
        took.push(begin.elapsed());
        cluster.heal();
        cluster.settled().await?;
    }
    let took = Percentiles::of(took);
    report("one direction lost: to the next acknowledged write", &took);
    ensure!(took.worst() < bound(Duration::from_secs(5)), "{took}");
    cluster.finish().await
}

/// A node 40 ms away is waited for by nobody, unless it leads.
#[tokio::test(flavor = "multi_thread")]
async fn slow_follower_is_not_waited_for() -> anyhow::Result<()> {
    let cluster = start().await?;
    let leader = cluster.leader().await?;
    let slow = (0..3).find(|index| *index != leader).context("three nodes")?;
    let state = cluster.client_only(leader).state();
    let object = state.get_object_id("slow", "Test").await?;
    let quick = writes(&state, object, "before").await?;
    let slow_id = u64::try_from(slow + 1)?;
    let by = millis(40);
    let slowed = cluster.network().change(|rules| rules.slow(slow_id, by));
    ensure!(slowed.is_ok(), "{slowed:?}");
    let beside = writes(&state, object, "beside").await?;
    // Now the leader is the slow one: a write waits for a round trip to another node.
    let leader_id = u64::try_from(leader + 1)?;
    let slowed = cluster
        .network()
        .change(|rules| rules.slow(slow_id, Duration::ZERO).and(rules.slow(leader_id, by)));
    ensure!(slowed.is_ok(), "{slowed:?}");
    let through = writes(&state, object, "through").await?;
    report("writes: nobody slow", &quick);
    report("writes: one follower 40 ms away", &beside);
    report("writes: the leader 40 ms away", &through);
    ensure!(beside.median() < by, "{beside}: it waits for the slow follower");
    ensure!(through.best() >= 2 * by, "{through}: faster than the way there and back");
    cluster.heal();
    cluster.finish().await
}

async fn writes(state: &State, object: i64, key: &str) -> anyhow::Result<Percentiles> {
    let mut took = Vec::new();
    for round in 0..scale(50, 10) {
        let begin = Instant::now();
        state.set(object, key, round.to_string()).await?;
        took.push(begin.elapsed());
    }
    Ok(Percentiles::of(took))
}

/// Writers go on through cuts of whoever leads; no acknowledged write is lost, none is there twice.
// G1 G4
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_partitions() -> anyhow::Result<()> {
    let cluster = Arc::new(start().await?);
    let client = cluster.client_with(|config| config.call_timeout = CALL_MAX);
    let object = client.state().get_object_id("survive", "Test").await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let stopped = stopped.clone();
            let client = cluster.client_with(|config| config.call_timeout = CALL_MAX);
            tokio::spawn(write_until(client, object, writer, stopped))
        })
        .collect();
    for _ in 0..scale(10, 3) {
        let leader = cluster.leader().await?;
        cluster.partition(&[leader]);
        cluster
            .wait("another node leads", || async {
                cluster.leader_now().await.filter(|now| *now != leader)
            })
            .await?;
        cluster.heal();
        cluster.written_everywhere().await?;
    }
    stop.send_replace(true);
    let mut acknowledged = 0;
    for (writer, task) in writers.into_iter().enumerate() {
        let last = task.await??;
        acknowledged += last;
        let value = client.state().get(object, &format!("writer-{writer}")).await?;
        let value = value.context("an acknowledged write is gone")?;
        ensure!(value.bytes == last.to_string().as_bytes(), "{value:?}, acknowledged: {last}");
    }
    report("writes through partitions, acknowledged and there", acknowledged);
    ensure!(acknowledged > 0, "nothing was written");
    cluster.finish().await
}

async fn write_until(
    client: Client,
    object: i64,
    writer: usize,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<u64, Error> {
    let state = client.state();
    let mut count = 0;
    while !*stopped.borrow() {
        state.set(object, &format!("writer-{writer}"), (count + 1).to_string()).await?;
        count += 1;
    }
    Ok(count)
}
