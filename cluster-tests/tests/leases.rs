//! A master that dies, freezes or is cut off loses its change sources in time: to its heir soon, and
//! to its own knowledge before that.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{
    BootTime, Claimed, Client, Fence, Instance, LeaseHolder, Loss, Opened, OpenedLease,
};
use holdfast_cluster_tests::{
    Cluster, Event, Options, Percentiles, Proxy, StandIn, StandInOptions, bound, millis, report,
    scale, wait_for,
};

/// A waiting master tries as often.
const CLAIM_EVERY: Duration = millis(50);
/// How much later than the end of its lease everything of a dead master may be in other hands.
const TAKE_OVER_MAX: Duration = millis(350);
/// Ends a test that hangs.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A lease that no test outlives.
const LONG: Duration = Duration::from_secs(600);

// M4 M7 C4 C5 C6
#[tokio::test(flavor = "multi_thread")]
async fn heir_of_a_killed_master_holds_all_in_time() -> anyhow::Result<()> {
    const SOURCES: usize = 100;
    const TTL: Duration = Duration::from_secs(3);
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let sources = sources(&client, SOURCES).await?;
    let mut fences: BTreeMap<i64, u64> = BTreeMap::new();
    let mut took = Vec::new();
    for round in 0..scale(20, 2) {
        let options =
            StandInOptions { ttl: TTL, sources: sources.clone(), ..stand_in(&cluster, round) };
        let mut owner = StandIn::start(&options)?;
        owner.next("all granted", WAIT_MAX, all_granted).await?;
        rise(&mut fences, grants_of(owner.seen()))?;
        let heir = heir(&client, "heir", LONG).await?;
        let claims = claim_all(&heir, &sources);
        let kill = async {
            owner.next("renewed", WAIT_MAX, renewed).await?;
            // Anywhere before the next renewal, which comes a third of the ttl after the last.
            tokio::time::sleep(millis(rand::random_range(0..800))).await;
            owner.kill_and_hear().await;
            owner.last_renewal_us().context("it was renewed")
        };
        let (last_renewal_us, grants) = tokio::try_join!(kill, claims)?;
        let at_us = grants.iter().map(|grant| grant.at_us).max().context("no grants")?;
        rise(&mut fences, grants.iter().map(|grant| (grant.source, grant.token)))?;
        took.push(Duration::from_micros(at_us - last_renewal_us));
        let freed = heir.close().await?;
        ensure!(usize::try_from(freed)? == SOURCES, "{freed} claims were freed");
    }
    let took = Percentiles::of(took);
    report("kill -9 of a master, 3 s lease, 100 sources: last renewal to all held", &took);
    let most = TTL + bound(TAKE_OVER_MAX);
    ensure!(took.worst() <= most, "{took}, at most {most:?}");
    ensure!(took.best() >= TTL, "{took}: the lease was cut short");
    cluster.finish().await
}

// M5 S8 C5
#[tokio::test(flavor = "multi_thread")]
async fn frozen_owner_wakes_up_to_a_loss() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let object = client.state().get_object_id("work", "Test").await?;
    for round in 0..scale(3, 1) {
        let sources = vec![client.change_sources().find_id(&format!("frozen-{round}")).await?];
        let options = StandInOptions {
            sources: sources.clone(),
            write_object: Some(object),
            ..stand_in(&cluster, round)
        };
        let mut owner = StandIn::start(&options)?;
        owner.next("a write", WAIT_MAX, |event| wrote(event).filter(|w| w.2 == "ok")).await?;
        let old = grants_of(owner.seen()).pop().context("it wrote under a fence")?;
        let heir = heir(&client, &format!("heir-{round}"), LONG).await?;
        owner.pause()?;
        let paused_us = now_us();
        let grant = claim_all(&heir, &sources).await?.pop().context("no grant")?;
        ensure!(old.1 < grant.token, "the fence went from {} to {}", old.1, grant.token);
        let fence = Fence { change_source: grant.source, token: grant.token };
        heir.set_fenced(object, "work", "the heir's", fence).await?;
        // Not a wait for something: the time it is frozen.
        let frozen = Duration::from_secs(scale(10, 5));
        tokio::time::sleep(frozen.saturating_sub(Duration::from_micros(now_us() - paused_us)))
            .await;
        let resumed_us = now_us();
        owner.resume()?;
        owner.next("its loss", WAIT_MAX, lost).await?;
        let stale = owner.next("a stale write", WAIT_MAX, stale_write).await?;
        ensure!(stale == "STALE_FENCE", "a write under the old fence: {stale}");
        let calls: Vec<(u64, u64, String)> = owner.seen().iter().filter_map(wrote).collect();
        let after: Vec<_> = calls.iter().filter(|call| call.0 >= resumed_us).collect();
        ensure!(!after.is_empty(), "it made no call after it was resumed");
        let all_say_so = after.iter().all(|call| call.2 == "LEASE_LOST");
        ensure!(all_say_so, "calls after it was resumed: {after:?}");
        let value = client.state().get(object, "work").await?.context("no value")?;
        ensure!(value.bytes == b"the heir's", "the stale write changed something: {value:?}");
        heir.close().await?;
    }
    report(
        "SIGSTOP of an owner, SIGCONT",
        format!("first call says lost, old fence refused in apply, {} of {0}", scale(3, 1)),
    );
    cluster.finish().await
}

// M5 C4
#[tokio::test(flavor = "multi_thread")]
async fn owner_cut_off_knows_before_its_heir_has_it() -> anyhow::Result<()> {
    const TTL: Duration = Duration::from_secs(2);
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let client = cluster.client();
    let rounds = scale(20, 2);
    let mut leads = Vec::new();
    for round in 0..rounds {
        let sources = vec![client.change_sources().find_id(&format!("cut-{round}")).await?];
        let proxies = proxies(&cluster).await?;
        let options = StandInOptions {
            endpoints: addresses(&proxies),
            ttl: TTL,
            sources: sources.clone(),
            ..stand_in(&cluster, round)
        };
        let mut owner = StandIn::start(&options)?;
        owner.next("all granted", WAIT_MAX, all_granted).await?;
        let heir = heir(&client, &format!("heir-{round}"), LONG).await?;
        tokio::time::sleep(millis(rand::random_range(0..600))).await;
        for proxy in &proxies {
            // Both ways to be cut off: refused, and into nothing.
            if round % 2 == 0 { proxy.cut().await? } else { proxy.stall() }
        }
        let (lost_us, grants) =
            tokio::try_join!(owner.next("its loss", WAIT_MAX, lost), claim_all(&heir, &sources))?;
        let grant = grants.first().context("no grant")?;
        ensure!(
            lost_us < grant.at_us,
            "round {round}: told {} µs after its heir had the grant",
            lost_us - grant.at_us
        );
        leads.push(Duration::from_micros(grant.at_us - lost_us));
        heir.close().await?;
    }
    report(
        "owner cut off from all nodes",
        format!("lost stamped before the heir's grant {rounds} of {rounds}"),
    );
    report("owner cut off: time from lost to the heir's grant", Percentiles::of(leads));
    cluster.finish().await
}

/// The plain call, held up on its way: what the cluster says when it arrives.
// M3
#[tokio::test(flavor = "multi_thread")]
async fn late_renewal_is_refused_and_revives_nothing() -> anyhow::Result<()> {
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let client = cluster.client();
    let source = client.change_sources().find_id("late").await?;
    let proxy = Proxy::start(&cluster.endpoint(cluster.follower().await?)).await?;
    let patient = cluster.client_with(|config| {
        config.endpoints = vec![proxy.address()];
        config.attempt_timeout = WAIT_MAX;
        config.keepalive_interval = WAIT_MAX;
        config.keepalive_timeout = WAIT_MAX;
    });
    let opened =
        patient.masters().open_lease("late", &Instance::random(), Duration::from_secs(1)).await?;
    let OpenedLease::Granted(lease) = opened else { bail!("{opened:?}") };
    let claimed = patient.change_sources().claim(lease.id, source).await?;
    let Claimed::Granted { token } = claimed else { bail!("{claimed:?}") };

    proxy.up(holdfast_cluster_tests::Flow::Stall);
    let masters = patient.masters();
    let renewal = tokio::spawn(async move { masters.keep_alive(lease.id).await });
    wait_for("the renewal is held", WAIT_MAX, || async { (proxy.held_up() > 0).then_some(()) })
        .await?;
    let heir = heir(&client, "heir", LONG).await?;
    let grant = claim_all(&heir, &[source]).await?.pop().context("no grant")?;
    ensure!(token < grant.token, "the fence went from {token} to {}", grant.token);
    ensure!(!renewal.is_finished(), "the renewal was not held");
    proxy.pass();

    let refused = renewal.await?.err().context("a lease that had ended was renewed")?;
    ensure!(refused.reason() == Some("LEASE_LOST"), "{refused}");
    nothing_revived(&client, lease.master, source, grant.token).await?;
    let claimed = patient.change_sources().claim(lease.id, source).await;
    let refused = claimed.err().context("a claim under a lease that had ended")?;
    ensure!(refused.reason() == Some("LEASE_LOST"), "{refused}");
    report("renewal delayed beyond its lease", "refused, nothing revived");
    heir.close().await?;
    cluster.finish().await
}

/// The holder, with its renewals held up on the way there, then their answers on the way back.
// M3 M5
#[tokio::test(flavor = "multi_thread")]
async fn holder_stays_lost_whatever_arrives_late() -> anyhow::Result<()> {
    const TTL: Duration = Duration::from_secs(1);
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let client = cluster.client();
    for held_up in [true, false] {
        let name = if held_up { "requests" } else { "answers" };
        let source = client.change_sources().find_id(name).await?;
        let proxies = proxies(&cluster).await?;
        let behind = cluster.client_with(|config| config.endpoints = addresses(&proxies));
        let owner = heir(&behind, name, TTL).await?;
        let Claimed::Granted { token } = owner.claim(source).await? else { bail!("not free") };
        for proxy in &proxies {
            let stall = holdfast_cluster_tests::Flow::Stall;
            if held_up { proxy.up(stall) } else { proxy.down(stall) }
        }
        let held = || proxies.iter().map(|p| p.held_up() + p.held_down()).sum::<usize>();
        wait_for("something is held", WAIT_MAX, || async { (held() > 0).then_some(()) }).await?;
        let loss = tokio::time::timeout(WAIT_MAX, owner.lost()).await?;
        ensure!(loss == Loss::Expired, "{loss:?}");
        let heir = heir(&client, &format!("heir-{name}"), LONG).await?;
        let grant = claim_all(&heir, &[source]).await?.pop().context("no grant")?;
        ensure!(token < grant.token, "the fence went from {token} to {}", grant.token);
        for proxy in &proxies {
            proxy.pass();
        }
        wait_for("nothing is held", WAIT_MAX, || async { (held() == 0).then_some(()) }).await?;
        // Whatever was let go has been applied before a write that comes after it.
        cluster.written_everywhere().await?;
        ensure!(!owner.is_live(), "a late {name} revived the holder");
        let claimed = owner.claim(source).await;
        ensure!(claimed.is_err_and(|error| error.reason() == Some("LEASE_LOST")));
        nothing_revived(&client, owner.master(), source, grant.token).await?;
        heir.close().await?;
    }
    cluster.finish().await
}

async fn nothing_revived(
    client: &Client,
    master: i64,
    source: i64,
    token: u64,
) -> anyhow::Result<()> {
    let master = client.masters().get(master).await?.context("the master is gone")?;
    ensure!(master.lease.is_none() && !master.active && master.claims == 0, "{master:?}");
    let source = client.change_sources().get(source).await?.context("the source is gone")?;
    let owner = source.claimant.context("nobody owns the source")?;
    ensure!(owner.token == token, "{owner:?}, granted under {token}");
    Ok(())
}

async fn sources(client: &Client, count: usize) -> anyhow::Result<Vec<i64>> {
    let sources = client.change_sources();
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(sources.find_id(&format!("source-{number}")).await?);
    }
    Ok(ids)
}

fn stand_in(cluster: &Cluster, round: usize) -> StandInOptions {
    StandInOptions::new(&format!("owner-{round}"), cluster.endpoints())
}

async fn proxies(cluster: &Cluster) -> anyhow::Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    for endpoint in cluster.endpoints() {
        proxies.push(Proxy::start(&endpoint).await?);
    }
    Ok(proxies)
}

fn addresses(proxies: &[Proxy]) -> Vec<String> {
    proxies.iter().map(Proxy::address).collect()
}

async fn heir(client: &Client, name: &str, ttl: Duration) -> anyhow::Result<LeaseHolder> {
    match LeaseHolder::open(client, name, &Instance::random(), ttl).await? {
        Opened::Granted(holder) => Ok(holder),
        Opened::HeldBy(by) => bail!("the lease of {name} is taken: {by:?}"),
    }
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    source: i64,
    token: u64,
    at_us: u64,
}

/// Tries all sources every 50 ms until it has them all.
async fn claim_all(holder: &LeaseHolder, sources: &[i64]) -> anyhow::Result<Vec<Grant>> {
    let mut wanted = sources.to_vec();
    let mut grants = Vec::new();
    // At any phase of the owner's renewals, which come a third of its ttl apart.
    let phase = CLAIM_EVERY.mul_f64(rand::random_range(0.0..1.0));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + phase, CLAIM_EVERY);
    let claim = async |source: i64| {
        let claimed = holder.claim(source).await?;
        Ok::<_, anyhow::Error>((source, claimed, now_us()))
    };
    let work = async {
        while !wanted.is_empty() {
            ticks.tick().await;
            let claims = wanted.iter().map(|source| claim(*source));
            for (source, claimed, at_us) in futures::future::try_join_all(claims).await? {
                if let Claimed::Granted { token } = claimed {
                    grants.push(Grant { source, token, at_us });
                }
            }
            wanted.retain(|source| grants.iter().all(|grant| grant.source != *source));
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(WAIT_MAX, work).await.context("the heir gets what it wants")??;
    Ok(grants)
}

/// Every grant of a source has a higher token than the one before.
fn rise(
    fences: &mut BTreeMap<i64, u64>,
    grants: impl IntoIterator<Item = (i64, u64)>,
) -> anyhow::Result<()> {
    for (source, token) in grants {
        let before = fences.insert(source, token).unwrap_or(0);
        ensure!(before < token, "the fence of {source} went from {before} to {token}");
    }
    Ok(())
}

fn now_us() -> u64 {
    u64::try_from(BootTime::now().since_boot().as_micros()).expect("no machine runs that long")
}

fn grants_of(events: &[Event]) -> Vec<(i64, u64)> {
    let grant = |event: &Event| match event {
        Event::Granted { source, token, .. } => Some((*source, *token)),
        _ => None,
    };
    events.iter().filter_map(grant).collect()
}

fn all_granted(event: &Event) -> Option<()> {
    matches!(event, Event::AllGranted { .. }).then_some(())
}

fn renewed(event: &Event) -> Option<()> {
    matches!(event, Event::Renewed { .. }).then_some(())
}

fn lost(event: &Event) -> Option<u64> {
    match event {
        Event::Lost { at_us, .. } => Some(*at_us),
        _ => None,
    }
}

fn wrote(event: &Event) -> Option<(u64, u64, String)> {
    match event {
        Event::Wrote { began_us, at_us, result } => Some((*began_us, *at_us, result.clone())),
        _ => None,
    }
}

fn stale_write(event: &Event) -> Option<String> {
    match event {
        Event::StaleWrite { result } => Some(result.clone()),
        _ => None,
    }
}
