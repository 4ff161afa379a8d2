//! 32 clients on all nodes race to create the same keys and to claim the same change sources, while
//! the leader is killed again and again: there is one winner each time, and nobody notices more
//! than a delay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{Claimed, Client, Instance, OpenedLease};
use holdfast_cluster_tests::{Chaos, Cluster, Kill, Options, Percentiles, millis, report, scale};
use tokio::sync::{Barrier, watch};
use tokio::time::Instant;

const CLIENTS: usize = 32;
/// A race opens every so often.
const OPEN_EVERY: Duration = millis(300);
const KILL_EVERY: Duration = Duration::from_secs(2);
const DOWN_FOR: Duration = millis(500);
/// Outlives every run: no lease of this test may lapse.
const TTL: Duration = Duration::from_secs(3600);
/// Ends a run in which races hardly ever meet an election.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What one client saw of one race, all of it answers.
#[derive(Debug, Clone)]
struct Seen {
    client: usize,
    race: usize,
    began: Instant,
    ended: Instant,
    created: bool,
    value: Vec<u8>,
    mod_revision: u64,
    source: i64,
    /// First and second round; the winner of the first gives the source back in between.
    rounds: [Round; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    granted: bool,
    master: i64,
    token: u64,
}

struct Racer {
    number: usize,
    client: Client,
    object: i64,
    master: i64,
    lease: u64,
}

/// A race that has opened, and when it may come to its second round.
#[derive(Debug)]
struct Race {
    number: usize,
    between: Barrier,
    released: Barrier,
}

// S4 C4 C5 C6 G1 G2 G3 G4 G5 G12
#[tokio::test(flavor = "multi_thread")]
async fn one_value_and_one_owner_while_leaders_die() -> anyhow::Result<()> {
    let kills_min = scale(25, 4);
    let overlaps_min = scale(100, 8);
    // With hidden endpoints the clients stay spread over the nodes, so that two thirds of the calls
    // are forwarded.
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Arc::new(Cluster::start(3, options).await?);
    let racers = racers(&cluster).await?;

    let chaos = Chaos::start(cluster.clone(), KILL_EVERY, DOWN_FOR);
    let started = Instant::now();
    let (open, opened) = watch::channel(Vec::<Arc<Race>>::new());
    let over = Arc::new(AtomicBool::new(false));
    let runs: Vec<_> = racers
        .into_iter()
        .map(|racer| tokio::spawn(run(racer, opened.clone(), over.clone())))
        .collect();

    let mut ticks = tokio::time::interval(OPEN_EVERY);
    let mut opened_at = Vec::new();
    loop {
        ticks.tick().await;
        let kills = chaos.kills();
        if kills.len() >= kills_min && overlapping(&opened_at, &kills) >= overlaps_min {
            break;
        }
        ensure!(started.elapsed() < RUN_MAX, "{} kills, too few overlap", kills.len());
        ensure!(chaos.is_running(), "the killing stopped: {:#}", chaos.stop().await.unwrap_err());
        if let Some(failed) = runs.iter().position(tokio::task::JoinHandle::is_finished) {
            bail!(
                "client {failed} ended early: {:?}",
                runs.into_iter().nth(failed).unwrap().await?
            );
        }
        let race = Race {
            number: opened_at.len(),
            between: Barrier::new(CLIENTS),
            released: Barrier::new(CLIENTS),
        };
        opened_at.push(Instant::now());
        open.send_modify(|races| races.push(Arc::new(race)));
    }
    over.store(true, Ordering::Relaxed);
    open.send_modify(|_| {});
    let mut seen = Vec::new();
    for (number, run) in runs.into_iter().enumerate() {
        seen.extend(run.await?.with_context(|| format!("client {number}"))?);
    }
    let kills = chaos.stop().await?;
    cluster.settled().await?;

    let races = opened_at.len();
    let by_race = group(&seen, races)?;
    let overlapped = by_race.iter().filter(|race| meets(race, &kills)).count();
    for race in &by_race {
        check_race(race)?;
    }
    check_durable(&cluster, &by_race).await?;
    ensure!(kills.len() >= kills_min && overlapped >= overlaps_min, "{overlapped} overlapped");

    let outages = Percentiles::of(kills.iter().map(Kill::outage));
    let waits = Percentiles::of(seen.iter().map(|seen| seen.ended - seen.began));
    report(
        "races under leader kills",
        format!(
            "{races} keys and {} claims raced for by {CLIENTS} clients, {overlapped} races \
             overlapping an election, {} kills; one value and one owner each, no error",
            2 * races,
            kills.len()
        ),
    );
    report("races: outage seen by a writer", outages);
    report("races: time for a whole race", waits);
    cluster.finish().await
}

/// A quick count while the races run, from when they opened: each takes some milliseconds at least.
fn overlapping(opened_at: &[Instant], kills: &[Kill]) -> usize {
    let meets = |at: &Instant| kills.iter().any(|kill| kill.overlaps(*at, *at + millis(5)));
    opened_at.iter().filter(|at| meets(at)).count()
}

fn meets(race: &[&Seen], kills: &[Kill]) -> bool {
    kills.iter().any(|kill| race.iter().any(|seen| kill.overlaps(seen.began, seen.ended)))
}

async fn racers(cluster: &Cluster) -> anyhow::Result<Vec<Racer>> {
    let object = cluster.client().state().get_object_id("races", "Test").await?;
    let mut racers = Vec::new();
    for number in 0..CLIENTS {
        let client = cluster.client_on(number % cluster.size());
        let opened = client
            .masters()
            .open_lease(&format!("master-{number}"), &Instance::random(), TTL)
            .await?;
        let OpenedLease::Granted(lease) = opened else { bail!("lease of {number}: {opened:?}") };
        racers.push(Racer { number, client, object, master: lease.master, lease: lease.id });
    }
    Ok(racers)
}

/// Takes part in every race, each in a task of its own: one that is held up by an election does not
/// keep its client from the next.
async fn run(
    racer: Racer,
    mut opened: watch::Receiver<Vec<Arc<Race>>>,
    over: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Seen>> {
    let racer = Arc::new(racer);
    let mut tasks = tokio::task::JoinSet::new();
    let mut all = Vec::new();
    let mut next = 0;
    loop {
        let races: Vec<Arc<Race>> = opened.borrow_and_update()[next..].to_vec();
        next += races.len();
        for race in races {
            tasks.spawn(take_part(racer.clone(), race));
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
        tokio::select! {
            changed = opened.changed() => changed?,
            Some(seen) = tasks.join_next(), if !tasks.is_empty() => all.push(seen??),
        }
    }
    while let Some(seen) = tasks.join_next().await {
        all.push(seen??);
    }
    Ok(all)
}

async fn take_part(racer: Arc<Racer>, race: Arc<Race>) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let state = racer.client.state();
    let own = format!("{}", racer.number);
    let created = state
        .atomic_create(racer.object, &format!("key-{}", race.number), || own.clone())
        .await
        .with_context(|| format!("create of key {}", race.number))?;
    let read = state.get(racer.object, &format!("key-{}", race.number)).await.context("a read")?;
    let read = read.context("a key that was there is gone: a stale read")?;
    ensure!(read.bytes == created.value && read.mod_revision == created.mod_revision, "{read:?}");
    let sources = racer.client.change_sources();
    let source = sources
        .find_id(&format!("source-{}", race.number))
        .await
        .with_context(|| format!("id of source {}", race.number))?;
    let first = claim(&racer, source).await?;
    race.between.wait().await;
    if first.granted {
        let released = sources.release(source, first.token).await.context("release")?;
        ensure!(released, "source {source} was not held under token {}", first.token);
    }
    race.released.wait().await;
    let second = claim(&racer, source).await?;
    Ok(Seen {
        client: racer.number,
        race: race.number,
        began,
        ended: Instant::now(),
        created: created.created,
        value: created.value,
        mod_revision: created.mod_revision,
        source,
        rounds: [first, second],
    })
}

async fn claim(racer: &Racer, source: i64) -> anyhow::Result<Round> {
    let claimed = racer.client.change_sources().claim(racer.lease, source).await;
    Ok(match claimed.with_context(|| format!("claim of source {source}"))? {
        Claimed::Granted { token } => Round { granted: true, master: racer.master, token },
        Claimed::AlreadyClaimed(by) => {
            ensure!(by.master != racer.master, "a claim of our own reads as somebody else's");
            Round { granted: false, master: by.master, token: by.token }
        }
    })
}

fn group(seen: &[Seen], races: usize) -> anyhow::Result<Vec<Vec<&Seen>>> {
    let mut by_race = vec![Vec::new(); races];
    for one in seen {
        by_race[one.race].push(one);
    }
    for (number, race) in by_race.iter().enumerate() {
        let clients: std::collections::BTreeSet<usize> = race.iter().map(|s| s.client).collect();
        ensure!(clients.len() == CLIENTS, "race {number} was run by {} clients", clients.len());
    }
    Ok(by_race)
}

fn check_race(race: &[&Seen]) -> anyhow::Result<()> {
    let first = race[0];
    let number = first.race;
    let creators: Vec<&&Seen> = race.iter().filter(|seen| seen.created).collect();
    ensure!(creators.len() == 1, "key {number} was created {} times", creators.len());
    ensure!(creators[0].value == creators[0].client.to_string().into_bytes());
    for seen in race {
        ensure!(seen.value == first.value, "key {number} has two values: {seen:?}, {first:?}");
        ensure!(seen.mod_revision == first.mod_revision, "key {number}: two revisions");
        ensure!(seen.source == first.source, "source {number} has two ids");
    }
    for round in 0..2 {
        let owners = race.iter().filter(|seen| seen.rounds[round].granted).count();
        ensure!(owners == 1, "source {number} was granted {owners} times in round {round}");
        let owner = |seen: &Seen| (seen.rounds[round].master, seen.rounds[round].token);
        for seen in race {
            ensure!(owner(seen) == owner(first), "source {number}: two owners in round {round}");
        }
    }
    let [before, after] = [first.rounds[0].token, first.rounds[1].token];
    ensure!(before < after, "the fence of source {number} went from {before} to {after}");
    Ok(())
}

/// Every acknowledged write is there, as every node tells it by itself.
async fn check_durable(cluster: &Cluster, by_race: &[Vec<&Seen>]) -> anyhow::Result<()> {
    cluster.same_state().await?;
    let object = cluster.client().state().get_object_id("races", "Test").await?;
    for node in cluster.running() {
        let client = cluster.client_only(node);
        let items = client.state().list(object).await?;
        let values: BTreeMap<String, (Vec<u8>, u64)> =
            items.into_iter().map(|item| (item.name, (item.bytes, item.mod_revision))).collect();
        let sources = client.change_sources().list(None, None).await?;
        let owners: BTreeMap<i64, _> =
            sources.into_iter().map(|source| (source.id, source.claimant)).collect();
        for race in by_race {
            let seen = race[0];
            let stands = values.get(&format!("key-{}", seen.race));
            let acknowledged = (seen.value.clone(), seen.mod_revision);
            ensure!(
                stands == Some(&acknowledged),
                "key {} on n{}: {stands:?}",
                seen.race,
                node + 1
            );
            let owner =
                owners.get(&seen.source).and_then(Option::as_ref).map(|o| (o.master, o.token));
            let last = &seen.rounds[1];
            ensure!(
                owner == Some((last.master, last.token)),
                "source {} on n{}: {owner:?}, acknowledged {last:?}",
                seen.source,
                node + 1
            );
        }
        ensure!(values.len() == by_race.len(), "keys that nobody created");
    }
    Ok(())
}
