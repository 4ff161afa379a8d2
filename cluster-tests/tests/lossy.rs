//! Commits through a network that loses one request in ten and one reply in ten, and is gone now and then: a
//! variable's version is exactly the number of commits that were said to have succeeded. // T2 T3 G5
//!
//! So a commit that was said to be busy was not applied, one that was uncertain and was committed again was
//! applied once, and no conflict was one with oneself.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::Client;
use holdfast_client::stm::{CommitError, Key, Store, Value};
use holdfast_cluster_tests::{Cluster, Options, Proxy, is_full, millis, report, scale};
use tokio::sync::watch;

use crate::lossy_calls::LossyCalls;

const CLIENTS: usize = 16;
/// One in so many commits is of the variable that all clients write.
const SHARED_IN: usize = 8;
/// All connections break so often, for so long: longer than the budget of a commit.
const CUT_EVERY: Duration = millis(600);
const CUT_FOR: Duration = millis(400);
/// Longest pause of a client before its next commit, so that some begin while nobody can be reached.
const PAUSE_MAX: Duration = millis(20);
/// Ends a test that hangs.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What became of one client's commits.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    own: u64,
    shared: u64,
    busy: u64,
    uncertain: u64,
    conflicts: u64,
}

// T2 T3 G5
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_the_number_of_successes() -> anyhow::Result<()> {
    let commits: usize = scale(10_000, 800);
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let (mut losses, mut cuts) = (Vec::new(), Vec::new());
    for endpoint in cluster.endpoints() {
        let lossy = LossyCalls::start(&endpoint).await?;
        cuts.push(Proxy::start(lossy.address()).await?);
        losses.push(lossy);
    }
    let endpoints: Vec<String> = cuts.iter().map(Proxy::address).collect();

    let (over, is_over) = watch::channel(false);
    let cutting = tokio::spawn(cut_now_and_then(cuts, is_over));
    let clients = (0..CLIENTS).map(|number| {
        let client = cluster.client_with(|config| {
            config.endpoints.clone_from(&endpoints);
            config.endpoints.rotate_left(number % endpoints.len());
            // Short, so that some commits are uncertain at their deadline.
            config.call_timeout = CUT_FOR;
            config.attempt_timeout = millis(100);
        });
        tokio::spawn(commit_often(client, number, commits / CLIENTS))
    });
    let clients = tokio::time::timeout(RUN_MAX, futures::future::join_all(clients)).await;
    over.send_replace(true);
    let cuts = cutting.await??;

    let store = cluster.client().stm();
    let mut sum = Told::default();
    for (number, client) in clients.context("the clients hang")?.into_iter().enumerate() {
        let told = client?.with_context(|| format!("client {number}"))?;
        let version = store.usevar(&own_key(number)?).await?.version();
        ensure!(version == told.own, "client {number}: version {version}, {told:?}");
        sum = Told {
            own: sum.own + told.own,
            shared: sum.shared + told.shared,
            busy: sum.busy + told.busy,
            uncertain: sum.uncertain + told.uncertain,
            conflicts: sum.conflicts + told.conflicts,
        };
    }
    let shared = store.usevar(&shared_key()?).await?;
    ensure!(shared.version() == sum.shared, "version {}, {sum:?}", shared.version());
    ensure!(shared.get::<u64>()? == Some(sum.shared), "lost updates: {shared:?}, {sum:?}");
    let (requests, replies) = losses
        .iter()
        .map(LossyCalls::lost)
        .fold((0, 0), |all, lost| (all.0 + lost.0, all.1 + lost.1));
    // Otherwise nothing was proved.
    ensure!(requests > commits / 20 && replies > commits / 20, "{requests} and {replies} lost");
    ensure!(sum.busy > 0 && sum.conflicts > 0, "{sum:?}");
    // Which takes a cut that meets a commit on its way: few do in a short run.
    ensure!(sum.uncertain > 0 || !is_full(), "{sum:?}");
    report(
        "commits through a lossy network",
        format!(
            "{} commits, {} of them of one shared variable, with {requests} requests and {replies} \
             replies lost and {cuts} cuts: {} times busy, {} times uncertain, {} conflicts; all \
             versions equal the successes",
            sum.own + sum.shared,
            sum.shared,
            sum.busy,
            sum.uncertain,
            sum.conflicts
        ),
    );
    cluster.finish().await
}

async fn cut_now_and_then(
    proxies: Vec<Proxy>,
    mut is_over: watch::Receiver<bool>,
) -> anyhow::Result<u32> {
    for cuts in 0.. {
        let over = is_over.wait_for(|over| *over);
        if tokio::time::timeout(CUT_EVERY, over).await.is_ok() {
            return Ok(cuts);
        }
        for proxy in &proxies {
            proxy.cut().await?;
        }
        tokio::time::sleep(CUT_FOR).await;
        for proxy in &proxies {
            proxy.heal().await?;
        }
    }
    unreachable!("the loop ends by itself")
}

fn own_key(number: usize) -> anyhow::Result<Key> {
    Ok(Key::new(("own", number))?)
}

fn shared_key() -> anyhow::Result<Key> {
    Ok(Key::new("shared")?)
}

async fn commit_often(client: Client, number: usize, commits: usize) -> anyhow::Result<Told> {
    let store = client.stm();
    let mut told = Told::default();
    let mut own = take(&store, &own_key(number)?).await?;
    for nth in 1..=commits {
        tokio::time::sleep(PAUSE_MAX.mul_f64(rand::random_range(0.0..1.0))).await;
        if nth % SHARED_IN == 0 {
            commit_shared(&store, &mut told).await?;
            continue;
        }
        own.set(&nth)?;
        while let Err(error) = own.commit().await {
            told.note(&error);
            // Nobody else writes it: a conflict would be with a commit of our own that was applied.
            if matches!(error, CommitError::ConcurrentUpdate(_) | CommitError::Refused(_)) {
                bail!("commit {nth}: {error}");
            }
        }
        told.own += 1;
        ensure!(own.version() == told.own, "the copy does not follow: {own:?}, {told:?}");
    }
    Ok(told)
}

/// One increment of the variable that all clients write.
async fn commit_shared(store: &Store, told: &mut Told) -> anyhow::Result<()> {
    let key = shared_key()?;
    'anew: loop {
        let mut shared = take(store, &key).await?;
        let counted = shared.get::<u64>()?.unwrap_or(0);
        shared.set(&(counted + 1))?;
        while let Err(error) = shared.commit().await {
            told.note(&error);
            match error {
                CommitError::ConcurrentUpdate(_) => continue 'anew,
                CommitError::BusyRetry { .. } | CommitError::CommitUncertain { .. } => {}
                CommitError::Refused(_) => bail!("{error}"),
            }
        }
        told.shared += 1;
        return Ok(());
    }
}

/// A copy of a variable, however often it has to be asked for.
async fn take(store: &Store, key: &Key) -> anyhow::Result<Value> {
    loop {
        match store.usevar(key).await {
            Ok(value) => return Ok(value),
            Err(holdfast_client::Error::Unavailable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Told {
    fn note(&mut self, error: &CommitError) {
        match error {
            CommitError::BusyRetry { .. } => self.busy += 1,
            CommitError::CommitUncertain { .. } => self.uncertain += 1,
            CommitError::ConcurrentUpdate(_) => self.conflicts += 1,
            CommitError::Refused(_) => {}
        }
    }
}
