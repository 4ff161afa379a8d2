//! Transactions while the leader is killed again and again: money that clients move between accounts is
//! neither lost nor made, no transfer is counted twice, and philosophers who need two forks each all eat.
//! // T2 T3 T4

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::Client;
use holdfast_client::stm::{
    CommitError, Interrupt, Isolation, Key, Store, TransactError, TransactOptions, Writes,
};
use holdfast_cluster_tests::{
    Chaos, Cluster, Kill, Options, Percentiles, millis, report, scale, wait_for,
};
use tokio::sync::watch;

const ACCOUNTS: usize = 10;
const CLIENTS: usize = 16;
const AT_FIRST: i64 = 1_000;
const PHILOSOPHERS: usize = 5;
const KILL_EVERY: Duration = Duration::from_secs(2);
const DOWN_FOR: Duration = millis(500);
/// One transfer of each client, or one meal of each philosopher, every so often.
const PACE: Duration = millis(40);
/// Ends a run in which the killing makes no progress, or nobody does.
const RUN_MAX: Duration = Duration::from_secs(300);

fn account(number: usize) -> Key {
    Key::new(("account", number)).expect("a short key")
}

/// How many transfers a client has made: written with each of them.
fn transfers(number: usize) -> Key {
    Key::new(("transfers", number)).expect("a short key")
}

fn fork(number: usize) -> Key {
    Key::new(("fork", number % PHILOSOPHERS)).expect("a short key")
}

fn meals(number: usize) -> Key {
    Key::new(("meals", number)).expect("a short key")
}

/// A cluster whose leader is killed, and those who do something meanwhile.
struct Trouble {
    cluster: Arc<Cluster>,
    chaos: Chaos,
    over: watch::Sender<bool>,
}

impl Trouble {
    async fn begin(cluster: Arc<Cluster>) -> Trouble {
        let chaos = Chaos::start(cluster.clone(), KILL_EVERY, DOWN_FOR);
        Trouble { cluster, chaos, over: watch::channel(false).0 }
    }

    /// Ends once there were enough kills; returns what each client has done, and the kills.
    async fn end<T: 'static>(
        self,
        clients: Vec<tokio::task::JoinHandle<anyhow::Result<T>>>,
    ) -> anyhow::Result<(Vec<T>, Vec<Kill>)> {
        let kills_min = scale(20, 4);
        wait_for("enough kills", RUN_MAX, || async {
            let is_over = self.chaos.kills().len() >= kills_min || !self.chaos.is_running();
            (is_over || clients.iter().any(|client| client.is_finished())).then_some(())
        })
        .await?;
        self.over.send_replace(true);
        let done = tokio::time::timeout(RUN_MAX, futures::future::try_join_all(clients)).await;
        let done = done.context("somebody hangs")??;
        let kills = self.chaos.stop().await?;
        self.cluster.settled().await?;
        let done: anyhow::Result<Vec<T>> = done
            .into_iter()
            .enumerate()
            .map(|(number, done)| done.with_context(|| format!("client {number}")))
            .collect();
        Ok((done?, kills))
    }
}

/// Snapshots and purges all the time, so that kills meet them, and nodes that come back need one.
fn options() -> Options {
    let args = ["--snapshot-every-entries", "300", "--log-keep-entries", "50"];
    Options { args: args.map(str::to_owned).to_vec(), ..Options::default() }
}

// T2 T3 T4
#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_lost_nor_made() -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start(3, options()).await?);
    let mut accounts = cluster.client().stm().using((0..ACCOUNTS).map(account)).await?;
    accounts.iter_mut().try_for_each(|account| account.set(&AT_FIRST))?;
    accounts.commit().await?;

    let trouble = Trouble::begin(cluster.clone()).await;
    let clients = (0..CLIENTS)
        .map(|number| {
            let is_over = trouble.over.subscribe();
            tokio::spawn(move_money(cluster.client_on(number), number, is_over))
        })
        .collect();
    let (done, kills) = trouble.end(clients).await?;

    for node in cluster.running() {
        let store = cluster.client_only(node).stm();
        let accounts = store.using((0..ACCOUNTS).map(account)).await?;
        let mut sum = 0;
        for account in accounts.iter() {
            sum += account.get::<i64>()?.context("an account is gone")?;
        }
        let all = AT_FIRST * i64::try_from(ACCOUNTS)?;
        ensure!(sum == all, "n{}: {sum} instead of {all}", node + 1);
        for (number, (made, _)) in done.iter().enumerate() {
            let counted = store.usevar(&transfers(number)).await?;
            ensure!(
                counted.get::<u64>()?.unwrap_or(0) == *made,
                "client {number}: {counted:?}, {made}"
            );
            ensure!(counted.version() == *made, "client {number}: {counted:?}, {made}");
        }
    }
    let made: u64 = done.iter().map(|(made, _)| made).sum();
    let runs: u64 = done.iter().map(|(_, runs)| runs).sum();
    report(
        "money under leader kills",
        format!(
            "{made} transfers in {runs} runs by {CLIENTS} clients between {ACCOUNTS} accounts, {} \
             kills; the sum is kept, each transfer counted once",
            kills.len()
        ),
    );
    report("money: outage seen by a writer", Percentiles::of(kills.iter().map(Kill::outage)));
    cluster.finish().await
}

/// Moves money until told to stop, at each isolation level that forbids lost updates, by transactions and by
/// copies in turn; returns how many transfers were made, and in how many runs.
async fn move_money(
    client: Client,
    number: usize,
    is_over: watch::Receiver<bool>,
) -> anyhow::Result<(u64, u64)> {
    let store = client.stm();
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut made, mut runs) = (0, 0);
    while !*is_over.borrow() {
        ticks.tick().await;
        let from = rand::random_range(0..ACCOUNTS);
        let to = (from + rand::random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = rand::random_range(1..100);
        let isolation = match made % 4 {
            0 => Isolation::SerializableSnapshot,
            1 => Isolation::Serializable,
            2 => Isolation::RepeatableReads,
            _ => {
                runs += transfer_by_copies(&store, number, (from, to), amount).await?;
                made += 1;
                continue;
            }
        };
        let options = TransactOptions { isolation, ..TransactOptions::default() };
        let moved = store.transact_with(options, |transaction| {
            runs += 1;
            async move {
                let had: i64 = transaction.get(&account(from)).await?.unwrap_or(0);
                let has: i64 = transaction.get(&account(to)).await?.unwrap_or(0);
                let counted: u64 = transaction.get(&transfers(number)).await?.unwrap_or(0);
                transaction.put(&account(from), &(had - amount))?;
                transaction.put(&account(to), &(has + amount))?;
                transaction.put(&transfers(number), &(counted + 1))?;
                Ok::<_, Interrupt>(())
            }
        });
        made += u64::from(is_applied(moved).await?);
    }
    Ok((made, runs))
}

/// One transfer by copies; returns how often they were taken.
async fn transfer_by_copies(
    store: &Store,
    number: usize,
    (from, to): (usize, usize),
    amount: i64,
) -> anyhow::Result<u64> {
    for runs in 1.. {
        let keys = [account(from), account(to), transfers(number)];
        let mut copies = store.using(keys).await?;
        for (key, change) in
            [(account(from), -amount), (account(to), amount), (transfers(number), 1)]
        {
            let copy = copies.get_mut(&key).context("it was asked for")?;
            copy.set(&(copy.get::<i64>()?.unwrap_or(0) + change))?;
        }
        loop {
            match copies.commit().await {
                Ok(_) => return Ok(runs),
                Err(CommitError::ConcurrentUpdate(_)) => break,
                // Nothing was written, or committing again settles it.
                Err(CommitError::BusyRetry { .. } | CommitError::CommitUncertain { .. }) => {}
                Err(error @ CommitError::Refused(_)) => return Err(error.into()),
            }
        }
    }
    unreachable!("the loop ends by itself")
}

/// Waits until it is certain whether a transaction was applied.
async fn is_applied(
    applied: impl Future<Output = Result<(), TransactError<Interrupt>>>,
) -> anyhow::Result<bool> {
    let mut commit = match applied.await {
        Err(TransactError::Uncertain { commit, .. }) => commit,
        other => return Ok(other.map(|()| true)?),
    };
    loop {
        match commit.commit().await {
            Ok(_) => return Ok(true),
            Err(CommitError::ConcurrentUpdate(_)) => return Ok(false),
            Err(CommitError::BusyRetry { .. } | CommitError::CommitUncertain { .. }) => {}
            Err(error @ CommitError::Refused(_)) => return Err(error.into()),
        }
    }
}

// T4: nobody starves, nobody waits for ever, and no fork is in two hands.
#[tokio::test(flavor = "multi_thread")]
async fn philosophers_all_eat() -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start(3, options()).await?);
    let trouble = Trouble::begin(cluster.clone()).await;
    let philosophers = (0..PHILOSOPHERS)
        .map(|number| {
            let is_over = trouble.over.subscribe();
            tokio::spawn(dine(cluster.client_on(number), number, is_over))
        })
        .collect();
    let (eaten, kills) = trouble.end(philosophers).await?;

    let store = cluster.client().stm();
    for (number, eaten) in eaten.iter().enumerate() {
        let counted = store.usevar(&meals(number)).await?.get::<u64>()?.unwrap_or(0);
        ensure!(counted == *eaten, "philosopher {number} ate {eaten} times, counted {counted}");
        ensure!(*eaten > 0, "philosopher {number} starved");
        let fork = store.usevar(&fork(number)).await?;
        ensure!(fork.version() == 0, "a fork was not put back: {fork:?}");
    }
    report(
        "philosophers under leader kills",
        format!("meals {eaten:?}, {} kills; nobody starved", kills.len()),
    );
    cluster.finish().await
}

async fn dine(
    client: Client,
    number: usize,
    is_over: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let store = client.stm();
    let options = TransactOptions { writes: Writes::Changed, ..TransactOptions::default() };
    let mut eaten = 0;
    while !*is_over.borrow() {
        let taken = store.transact_with(options, |transaction| async move {
            for fork in [fork(number), fork(number + 1)] {
                if transaction.get::<usize>(&fork).await?.is_some() {
                    // Until a neighbour has put one back.
                    return Err(transaction.retry());
                }
                transaction.put(&fork, &number)?;
            }
            Ok::<_, Interrupt>(())
        });
        if !is_applied(taken).await? {
            continue;
        }
        tokio::time::sleep(PACE.mul_f64(rand::random_range(0.0..1.0))).await;
        let put_back = || {
            store.transact_with(options, |transaction| async move {
                for fork in [fork(number), fork(number + 1)] {
                    let holder = transaction.get::<usize>(&fork).await?;
                    // A panic fails the test; an error would be tried again.
                    assert_eq!(holder, Some(number), "a fork is in two hands");
                    transaction.delete(&fork);
                }
                let meals = meals(number);
                let counted = transaction.get::<u64>(&meals).await?.unwrap_or(0);
                transaction.put(&meals, &(counted + 1))?;
                Ok::<_, Interrupt>(())
            })
        };
        while !is_applied(put_back()).await? {}
        eaten += 1;
    }
    Ok(eaten)
}
