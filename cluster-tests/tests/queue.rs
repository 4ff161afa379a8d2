//! Waiting for a change source: first come, first served, and told at once.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{
    Awaited, Claimed, Client, Event, Instance, Lease, LeaseHolder, Opened, OpenedLease, Watch,
    WatchFilter, WatchOptions,
};
use holdfast_cluster_tests::{Cluster, Percentiles, bound, millis, report, scale, wait_for};
use tokio::time::Instant;

/// Outlives every test.
const LONG: Duration = Duration::from_secs(3600);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// From a release to the grant at the next in line.
const PUSHED_MAX: Duration = millis(100);
const PUSHED_MEDIAN_MAX: Duration = millis(20);

// C6 C5 W1
#[tokio::test(flavor = "multi_thread")]
async fn waiters_are_served_in_order_and_the_dead_are_skipped() -> anyhow::Result<()> {
    let waiters = scale(500, 60);
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let sources = client.change_sources();
    let source = sources.find_id("wanted").await?;
    let owner = lease(&client, "owner").await?;
    let Claimed::Granted { mut token } = sources.claim(owner.id, source).await? else {
        bail!("nobody else is there")
    };
    let mut line = Vec::new();
    for nth in 0..waiters {
        let waiter = lease(&client, &format!("waiter-{nth}")).await?;
        let awaited = sources.await_claim(waiter.id, source).await?;
        ensure!(awaited == Awaited::Waiting { ahead: line.len().try_into()? }, "{awaited:?}");
        line.push(waiter);
    }
    // Asking again changes nothing.
    let again = sources.await_claim(line[1].id, source).await?;
    ensure!(again == Awaited::Waiting { ahead: 1 }, "{again:?}");
    // Every tenth dies, every tenth leaves.
    let mut expected = Vec::new();
    for (nth, waiter) in line.iter().enumerate() {
        match nth % 10 {
            3 => drop(client.masters().close_lease(waiter.id).await?),
            7 => ensure!(sources.stop_awaiting(waiter.id, source).await?, "it waited"),
            _ => expected.push(*waiter),
        }
    }

    // The one who waits is at another node than the one who releases.
    let watching = cluster.client_on(cluster.follower().await?);
    let mut watch = watch(&watching, source).await?;
    let mut took = Vec::new();
    for waiter in &expected {
        let began = Instant::now();
        ensure!(sources.release(source, token).await?, "it was ours");
        let (master, next) = granted(&mut watch).await?;
        took.push(began.elapsed());
        ensure!(master == waiter.master, "master {master} instead of {}", waiter.master);
        ensure!(next > token, "the fence went from {token} to {next}");
        token = next;
        // Nobody overtakes, not even for a moment.
        let claimed = sources.claim(owner.id, source).await?;
        ensure!(matches!(claimed, Claimed::AlreadyClaimed(_)), "{claimed:?}");
    }
    ensure!(sources.release(source, token).await?, "it was the last one's");
    let claimed = sources.claim(owner.id, source).await?;
    ensure!(matches!(claimed, Claimed::Granted { .. }), "nobody waits any more: {claimed:?}");
    let took = Percentiles::of(took);
    report(&format!("{waiters} in line: release to the next one's grant, at another node"), &took);
    ensure!(took.median() < bound(PUSHED_MEDIAN_MAX), "{took}");
    ensure!(took.worst() < bound(PUSHED_MAX), "{took}");
    cluster.finish().await
}

// C6 M4 M7
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_what_a_dead_owner_held() -> anyhow::Result<()> {
    const TTL: Duration = Duration::from_secs(1);
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let sources = client.change_sources();
    let source = sources.find_id("wanted").await?;
    let began = Instant::now();
    let OpenedLease::Granted(dying) =
        client.masters().open_lease("dying", &Instance::random(), TTL).await?
    else {
        bail!("nobody else is called so")
    };
    sources.claim(dying.id, source).await?;
    let heir = holder(&client, "heir").await?;
    let token = tokio::time::timeout(WAIT_MAX, heir.await_claim(source)).await??;
    let took = began.elapsed();
    report(
        "a 1 s lease that is not renewed: opened to the waiting heir's grant",
        format!("{} ms", took.as_millis()),
    );
    ensure!(took >= TTL, "{took:?}: the lease was cut short");
    ensure!(took <= TTL + bound(millis(350)), "{took:?}");
    ensure!(heir.release(source, token).await?, "it was ours");

    // Who does not wait any more gets nothing.
    let owner = holder(&client, "owner").await?;
    let Claimed::Granted { token } = owner.claim(source).await? else { bail!("it was free") };
    let given_up = tokio::time::timeout(millis(300), heir.await_claim(source)).await;
    ensure!(given_up.is_err(), "it was owned: {given_up:?}");
    wait_for("the line is empty", WAIT_MAX, || async {
        let probe = holder(&client, &format!("probe-{}", rand::random::<u32>())).await.ok()?;
        let awaited = sources.await_claim(probe.lease().id, source).await.ok()?;
        probe.close().await.ok()?;
        (awaited == Awaited::Waiting { ahead: 0 }).then_some(())
    })
    .await?;
    ensure!(owner.release(source, token).await?, "it was ours");
    let found = sources.get(source).await?.context("it is there")?;
    ensure!(found.claimant.is_none(), "{found:?}");
    cluster.finish().await
}

/// Whoever waits goes on waiting while the cluster cannot answer, however long that takes, and so does
/// who begins meanwhile.
// C6 G3
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_outlasts_a_cluster_without_a_leader() -> anyhow::Result<()> {
    const CALL_TIMEOUT: Duration = millis(500);
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let source = client.change_sources().find_id("wanted").await?;
    let owner = holder(&client, "owner").await?;
    let Claimed::Granted { mut token } = owner.claim(source).await? else { bail!("it was free") };
    let impatient = cluster.client_with(|config| config.call_timeout = CALL_TIMEOUT);
    let (early, late) = (holder(&impatient, "early").await?, holder(&impatient, "late").await?);
    let early = tokio::spawn(async move { (early.await_claim(source).await, early) });
    let probe = holder(&client, "probe").await?;
    wait_for("one waits", WAIT_MAX, || async {
        let sources = client.change_sources();
        let awaited = sources.await_claim(probe.lease().id, source).await.ok()?;
        sources.stop_awaiting(probe.lease().id, source).await.ok()?;
        (awaited == Awaited::Waiting { ahead: 1 }).then_some(())
    })
    .await?;

    let (leader, follower) = (cluster.leader().await?, cluster.follower().await?);
    cluster.kill(leader);
    cluster.kill(follower);
    let late = tokio::spawn(async move { (late.await_claim(source).await, late) });
    // Not a wait for something: the time that nobody is to give up in.
    tokio::time::sleep(CALL_TIMEOUT * 4).await;
    ensure!(!early.is_finished() && !late.is_finished(), "they gave up");
    cluster.start_node(leader)?;
    cluster.start_node(follower)?;
    ensure!(owner.release(source, token).await?, "it was ours");
    for (name, waiting) in [("early", early), ("late", late)] {
        let waited = tokio::time::timeout(WAIT_MAX, waiting).await;
        let (granted, heir) = waited.context(name)??;
        let next = granted.with_context(|| format!("{name} waits on"))?;
        ensure!(next > token, "the fence went from {token} to {next}");
        token = next;
        ensure!(heir.release(source, token).await?, "it was {name}'s");
    }
    cluster.finish().await
}

async fn lease(client: &Client, name: &str) -> anyhow::Result<Lease> {
    match client.masters().open_lease(name, &Instance::random(), LONG).await? {
        OpenedLease::Granted(lease) => Ok(lease),
        held => bail!("{held:?}"),
    }
}

async fn holder(client: &Client, name: &str) -> anyhow::Result<LeaseHolder> {
    match LeaseHolder::open(client, name, &Instance::random(), LONG).await? {
        Opened::Granted(holder) => Ok(holder),
        Opened::HeldBy(by) => bail!("{by:?}"),
    }
}

async fn watch(client: &Client, source: i64) -> anyhow::Result<Watch> {
    let filters = vec![WatchFilter::ChangeSource(Some(source))];
    Ok(client.watch(WatchOptions { filters, ..WatchOptions::default() }).await?)
}

/// The next grant: the master's id and the token.
async fn granted(watch: &mut Watch) -> anyhow::Result<(i64, u64)> {
    loop {
        let change = tokio::time::timeout(WAIT_MAX, watch.next()).await??;
        if let Event::ChangeSource { owner: Some(owner), .. } = change.event {
            return Ok(owner);
        }
    }
}
