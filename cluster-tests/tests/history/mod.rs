//! What clients are told while nodes die, freeze and lose each other is what one correct store
//! could have told them; and if it were not, it would be noticed.

mod masters;
mod watchers;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::Client;
use holdfast_cluster_tests::{
    Cluster, Faults, Options, Percentiles, Record, Recorder, boot_us, bound, millis, recorder,
    report, scale, wait_for,
};
use holdfast_history::{Answer, Op, Outcome, Rule};
use tokio::sync::watch;
use tokio::task::JoinSet;

use masters::{Master, Observer};
use watchers::Watcher;
use writers::Writer;

const WRITERS: usize = 8;
const MASTERS: usize = 4;
const WATCHERS: usize = 3;
const SOURCES: usize = 4;
/// So many of them, the first ones, are a group.
const GROUPED: usize = 2;
/// After the last fault is mended a write goes through within this time.
const PROGRESS_MAX: Duration = Duration::from_secs(5);
/// And every client is served again within this time: calls that were on their way have to be given
/// up first.
const ALL_PROGRESS_MAX: Duration = Duration::from_secs(10);
/// How long a call may take: short, so that some get no answer.
const CALL_MAX: Duration = Duration::from_secs(3);
/// And of one client in so many, which does not even wait for an election.
const IMPATIENT_IN: usize = 4;
const IMPATIENT_MAX: Duration = millis(300);
/// Ends a test that hangs.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The keys that are written first and last, and by whom.
const BEGIN: &str = "begin";
const BEGINNER: usize = 200;
const END: &str = "end";
const ENDER: usize = 201;

/// A client that tells something else than it was told, or does not do what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Reads are answered by a node that is cut off.
    StaleReads,
    /// Some writes are undone as soon as they are acknowledged.
    LostWrites,
    /// Owners go on for a while after their lease has run out.
    LateOwners,
    /// Watchers leave a change out now and then.
    MissedChanges,
}

/// What all clients of a run share.
#[derive(Clone)]
struct Run {
    cluster: Arc<Cluster>,
    /// Where clients reach the nodes.
    endpoints: Vec<String>,
    namespace: String,
    recorder: Arc<Recorder>,
    object: i64,
    sources: Vec<i64>,
    seed: u64,
    lie: Option<Lie>,
    over: watch::Receiver<bool>,
}

// G1 G2 G4 G5 G6 S3 S4 C4 C5 C6 M5 C7 S8 W1
#[tokio::test(flavor = "multi_thread")]
async fn history_under_random_faults_holds() -> anyhow::Result<()> {
    // Faults go on for a round, then the cluster is given a moment to recover.
    let (rounds, round) = scale((40, Duration::from_secs(15)), (3, Duration::from_secs(12)));
    let seed = seed()?;
    let options = Options { hide_endpoints: true, network: true, ..Options::default() };
    let cluster = Arc::new(Cluster::start(3, options).await?);
    let mut faults = Faults::new(cluster.clone(), seed).await?;
    let (mut run, stop) = Run::new(cluster.clone(), "faults", seed, None).await?;
    run.endpoints = faults.endpoints();
    let mut clients = run.start(None).await?;

    let (mut first, mut all) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        faults.go_on_for(round).await?;
        let (to_first, to_all) = run.progress().await?;
        first.push(to_first);
        all.push(to_all);
        clients.check()?;
    }
    let record = run.finish(stop, clients).await?;
    cluster.settled().await?;

    let steps = record.check().with_context(|| format!("HOLDFAST_SEED={seed}, after {faults}"))?;
    let (first, all) = (Percentiles::of(first), Percentiles::of(all));
    report(
        "history under random faults",
        format!(
            "{} calls ({} without an answer), {} tenures, {} sightings, {} fenced writes and {} \
             changes seen by watchers hold; {steps} steps; {} s of {faults}",
            record.calls.len(),
            record.unanswered(),
            record.tenures.len(),
            record.sightings.len(),
            record.fenced.len(),
            record.streams.iter().map(|stream| stream.events.len()).sum::<usize>(),
            (round * rounds).as_secs(),
        ),
    );
    report("random faults: last one mended to first answered call", &first);
    report("random faults: last one mended to every client served", &all);
    ensure!(first.worst() <= bound(PROGRESS_MAX), "{first}");
    ensure!(all.worst() <= bound(ALL_PROGRESS_MAX), "{all}");
    ensure!(record.calls.len() > 500 * usize::try_from(rounds)?, "too few calls");
    ensure!(record.tenures.len() > 10 * usize::try_from(rounds)?, "too few tenures");
    cluster.finish().await
}

/// A real run with a client that lies: the rule that it breaks is named.
#[tokio::test(flavor = "multi_thread")]
async fn lies_of_clients_are_caught() -> anyhow::Result<()> {
    let options = Options { hide_endpoints: true, network: true, ..Options::default() };
    let cluster = Arc::new(Cluster::start(3, options).await?);
    let lies: [(Option<Lie>, &[Rule]); 5] = [
        (None, &[]),
        (Some(Lie::StaleReads), &[Rule::Linearizable]),
        (Some(Lie::LostWrites), &[Rule::Linearizable]),
        (Some(Lie::LateOwners), &[Rule::Exclusive, Rule::Held]),
        (Some(Lie::MissedChanges), &[Rule::Complete]),
    ];
    let mut caught = Vec::new();
    for (lie, rules) in lies {
        let namespace = format!("{lie:?}");
        let (run, stop) = Run::new(cluster.clone(), &namespace, seed()?, lie).await?;
        let mut stale = None;
        if lie == Some(Lie::StaleReads) {
            let node = cluster.follower().await?;
            cluster.partition(&[node]);
            stale = Some(node);
        }
        let clients = run.start(stale).await?;
        // Long enough for every kind of lie to be told.
        let told = |record: &Record| record.calls.len() > 400 && record.tenures.len() > 12;
        let enough = "there is enough to judge";
        wait_for(enough, WAIT_MAX, || async { run.recorder.look(told).then_some(()) }).await?;
        cluster.heal();
        let record = run.finish(stop, clients).await?;
        let judged = judge(&record, lie);
        match judged.as_ref().err().map(holdfast_history::Error::rule) {
            None => ensure!(lie.is_none(), "{lie:?} was not caught"),
            Some(rule) => {
                let rule = rule.filter(|rule| rules.contains(rule));
                let rule = rule.with_context(|| format!("{lie:?}: {judged:?}"))?;
                caught.push(format!("{lie:?} by {rule:?}"));
            }
        }
    }
    report("lies of clients that the history check caught", caught.join(", "));
    cluster.settled().await?;
    cluster.finish().await
}

/// By the rule that the lie breaks: others may be broken as well.
fn judge(record: &Record, lie: Option<Lie>) -> Result<u64, holdfast_history::Error> {
    use holdfast_history::{STEPS_MAX, check_keys, check_sightings, check_streams, check_tenures};
    match lie {
        None => record.check(),
        Some(Lie::StaleReads | Lie::LostWrites) => check_keys(&record.calls, STEPS_MAX),
        Some(Lie::LateOwners) => {
            check_tenures(&record.tenures)?;
            check_sightings(&record.tenures, &record.sightings).map(|()| 0)
        }
        Some(Lie::MissedChanges) => check_streams(&record.calls, &record.streams).map(|()| 0),
    }
}

/// Given by hand to repeat a run, else drawn.
fn seed() -> anyhow::Result<u64> {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(given) => given.parse().context("HOLDFAST_SEED is a number")?,
        Err(_) => rand::random(),
    };
    println!("HOLDFAST_SEED={seed} brings about a similar run");
    Ok(seed)
}

impl Run {
    async fn new(
        cluster: Arc<Cluster>,
        namespace: &str,
        seed: u64,
        lie: Option<Lie>,
    ) -> anyhow::Result<(Run, watch::Sender<bool>)> {
        let client = cluster.client_with(|config| config.namespace = namespace.to_owned());
        let object = client.state().get_object_id("history", "Test").await?;
        let mut sources = Vec::new();
        for nth in 0..SOURCES {
            let source = client.change_sources().find_id(&format!("source-{nth}")).await?;
            if nth < GROUPED {
                client.change_sources().set_group(source, Some("group")).await?;
            }
            sources.push(source);
        }
        let (stop, over) = watch::channel(false);
        let (namespace, recorder) = (namespace.to_owned(), Arc::default());
        let endpoints = cluster.endpoints();
        let run = Run { cluster, endpoints, namespace, recorder, object, sources, seed, lie, over };
        Ok((run, stop))
    }

    /// A client of its own session that begins with one node and stays there while that answers.
    fn client(&self, number: usize) -> Client {
        self.cluster.client_with(|config| {
            config.endpoints.clone_from(&self.endpoints);
            config.endpoints.rotate_left(number % self.endpoints.len());
            config.namespace.clone_from(&self.namespace);
            let is_impatient = number % IMPATIENT_IN == IMPATIENT_IN - 1;
            config.call_timeout = if is_impatient { IMPATIENT_MAX } else { CALL_MAX };
        })
    }

    /// What is claimed with this source, itself included.
    fn with(&self, source: i64) -> &[i64] {
        let index = self.sources.iter().position(|one| *one == source).expect("it is ours");
        if index < GROUPED { &self.sources[..GROUPED] } else { &self.sources[index..=index] }
    }

    async fn start(&self, stale: Option<usize>) -> anyhow::Result<Clients> {
        let begin = self.mark(BEGIN, BEGINNER).await?;
        let mut clients = Clients { workers: JoinSet::new(), watchers: JoinSet::new() };
        for number in 0..WATCHERS {
            clients.watchers.spawn(Watcher::new(self, number, begin - 1).go_on());
        }
        for number in 0..WRITERS {
            clients.workers.spawn(Writer::new(self, number, stale).go_on());
        }
        for number in 0..MASTERS {
            clients.workers.spawn(Master::new(self, number).go_on());
        }
        clients.workers.spawn(Observer::new(self, 0).go_on());
        Ok(clients)
    }

    /// Writes something, as a client of this number; returns its revision.
    async fn mark(&self, key: &str, number: usize) -> anyhow::Result<u64> {
        let op = Op::Set { value: key.as_bytes().into() };
        let invoked_us = boot_us();
        let state = self.client(number).with_timeout(WAIT_MAX).state();
        let outcome = recorder::ask(&state, self.object, key, &op).await;
        self.recorder.call(number, key, op, invoked_us, outcome.clone());
        match outcome {
            Outcome::Returned { answer: Answer::Written { mod_revision, .. }, .. } => {
                Ok(mod_revision)
            }
            Outcome::Returned { .. } | Outcome::NotApplied | Outcome::Unknown => {
                bail!("{key}: {outcome:?}")
            }
        }
    }

    /// Waits until calls are answered that begin from now on: how long it takes the first client,
    /// and how long all of them.
    async fn progress(&self) -> anyhow::Result<(Duration, Duration)> {
        let mended_us = boot_us();
        let before = self.recorder.look(|record| record.calls.len());
        let mut served = BTreeMap::new();
        wait_for("every client is served again", WAIT_MAX, || {
            self.recorder.look(|record| {
                for call in &record.calls[before..] {
                    if call.client < WRITERS
                        && call.invoked_us >= mended_us
                        && call.answer().is_some()
                    {
                        served.entry(call.client).or_insert(call.returned_us() - mended_us);
                    }
                }
            });
            std::future::ready((served.len() == WRITERS).then_some(()))
        })
        .await?;
        let took = |us: Option<&u64>| Duration::from_micros(us.copied().unwrap_or_default());
        Ok((took(served.values().min()), took(served.values().max())))
    }

    /// Waits until all clients have come to their ends; returns all that was noted.
    async fn finish(
        &self,
        stop: watch::Sender<bool>,
        mut clients: Clients,
    ) -> anyhow::Result<Record> {
        stop.send_replace(true);
        ended("workers", &mut clients.workers).await?;
        self.mark(END, ENDER).await?;
        ended("watchers", &mut clients.watchers).await?;
        Ok(self.recorder.take())
    }
}

/// What runs.
struct Clients {
    workers: JoinSet<anyhow::Result<()>>,
    /// They end by themselves once they have seen the last write.
    watchers: JoinSet<anyhow::Result<()>>,
}

impl Clients {
    /// Whether all of them still go on, as they should.
    fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.workers.try_join_next().or_else(|| self.watchers.try_join_next());
        match ended {
            None => Ok(()),
            Some(ended) => ended?.and_then(|()| bail!("a client ended early")),
        }
    }
}

async fn ended(what: &str, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    loop {
        let next = tokio::time::timeout(WAIT_MAX, tasks.join_next()).await;
        match next.with_context(|| format!("{what} do not end"))? {
            Some(ended) => ended?.with_context(|| format!("one of the {what}"))?,
            None => return Ok(()),
        }
    }
}
