//! Who gets in whose way: nobody with other variables, nobody who only reads with `Writes::Changed`, and at
//! each isolation level those whom that level says. // T1 T2 T3 T4

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::Client;
use holdfast_client::stm::{
    Codec, CommitError, Content, Interrupt, Isolation, Key, Plan, Prefix, Store, TransactError,
    TransactOptions, Value, Writes,
};
use holdfast_cluster_tests::{Cluster, bound, millis, report, scale};
use tokio::sync::Barrier;

const ISOLATIONS: [Isolation; 4] = [
    Isolation::SerializableSnapshot,
    Isolation::Serializable,
    Isolation::RepeatableReads,
    Isolation::ReadCommitted,
];
const WAIT_MAX: Duration = Duration::from_secs(10);

fn key(name: &str) -> Key {
    Key::new(name).expect("a short key")
}

async fn put(store: &Store, name: &str, value: i64) -> anyhow::Result<u64> {
    let plan = Plan::new().put(key(name), Content::json(&value)?);
    Ok(store.prepare(plan).commit().await?)
}

async fn value(store: &Store, name: &str) -> anyhow::Result<Option<i64>> {
    Ok(store.usevar(&key(name)).await?.get()?)
}

// T1 T2 T3
#[tokio::test(flavor = "multi_thread")]
async fn copies_follow_and_conflicts_say_what_is_there() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let (store, other) = (cluster.client().stm(), cluster.client().stm());

    // A variable that is not there reads as version 0, and reading it writes nothing.
    let before = cluster.status(0).await?.header.revision;
    let mut x = store.usevar(&key("x")).await?;
    ensure!((x.version(), x.mod_revision(), x.content()) == (0, 0, None), "{x:?}");
    ensure!(cluster.status(0).await?.header.revision == before, "a read was written");

    x.set(&1)?;
    let first = x.commit().await?;
    ensure!((x.version(), x.mod_revision()) == (1, first), "{x:?}");
    // The same value once more is another version.
    let second = x.commit().await?;
    ensure!((x.version(), x.mod_revision()) == (2, second) && second > first, "{x:?}");

    // Somebody else writes: the copy is out of date, and is told what there is.
    let mut theirs = other.usevar(&key("x")).await?;
    theirs.set(&"theirs")?;
    let third = other.set(&mut theirs).await?;
    x.set(&3)?;
    let conflict = conflict(x.commit().await)?;
    ensure!(conflict.total == 1, "{conflict:?}");
    let found = conflict.variables.first().context("it names the variable")?;
    ensure!(
        found.key == key("x") && (found.version, found.mod_revision) == (3, third),
        "{found:?}"
    );
    let content = found.content.as_ref().context("it carries what there is")?;
    ensure!(content.parse::<String>()? == "theirs", "{content:?}");
    // The copy stays as it was, and stays out of date.
    ensure!(x.version() == 2 && x.get::<i64>()? == Some(3), "{x:?}");

    // Deleted and created again, a variable has the same version and is not the same.
    let mut gone = store.usevar(&key("x")).await?;
    let stale = [store.usevar(&key("x")).await?, store.usevar(&key("x")).await?];
    gone.clear();
    gone.commit().await?;
    ensure!((gone.version(), gone.mod_revision()) == (0, 0), "{gone:?}");
    for n in 0..3 {
        gone.set(&n)?;
        gone.commit().await?;
    }
    for mut stale in stale {
        ensure!(stale.version() == gone.version(), "{stale:?}");
        stale.set(&9)?;
        self::conflict(stale.commit().await)?;
    }

    // A version that a variable has never had is no conflict: it is refused.
    let from_future = Plan::new().expect_version(key("x"), 99).delete(key("x"));
    match store.prepare(from_future).commit().await {
        Err(CommitError::Refused(error)) => {
            ensure!(error.reason() == Some("VERSION_FROM_FUTURE"), "{error}");
        }
        other => bail!("{other:?}"),
    }
    ensure!(store.delete(&key("x")).await? && !store.delete(&key("x")).await?, "gone once");
    cluster.finish().await
}

fn conflict(committed: Result<u64, CommitError>) -> anyhow::Result<holdfast_client::stm::Conflict> {
    match committed {
        Err(CommitError::ConcurrentUpdate(conflict)) => Ok(conflict),
        other => bail!("no conflict: {other:?}"),
    }
}

// T2: all or none, and one snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn collections_are_written_whole() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let store = cluster.client().stm();
    let keys = || ["a", "b", "c"].map(key);
    let mut one = store.using(keys()).await?;
    let mut two = store.using(keys()).await?;
    for member in one.iter_mut().chain(two.iter_mut()) {
        member.set(&1)?;
    }
    let revision = store.set_values(&mut one).await?;
    ensure!(one.iter().all(|m| (m.version(), m.mod_revision()) == (1, revision)), "{one:?}");
    let lost = conflict(store.set_values(&mut two).await)?;
    ensure!(lost.total == 3 && lost.variables.len() == 3, "{lost:?}");
    ensure!(lost.to_string().contains("'a', 'b', 'c'"), "{lost}");

    // One member that others have written spoils it for all.
    put(&store, "b", 2).await?;
    one.iter_mut().try_for_each(|member| member.set(&3))?;
    let lost = conflict(one.commit().await)?;
    ensure!(lost.total == 1 && lost.variables[0].key == key("b"), "{lost:?}");
    ensure!(value(&store, "a").await? == Some(1) && value(&store, "c").await? == Some(1));

    // With `Writes::All` each version rises, with `Writes::Changed` that of what has changed.
    let mut all = store.using(keys()).await?;
    all.get_mut(&key("a")).context("a member")?.set(&7)?;
    let mut changed = store.with_writes(Writes::Changed).using(keys()).await?;
    all.commit().await?;
    ensure!(all.iter().map(|m| m.version()).eq([2, 3, 2]), "{all:?}");
    changed.get_mut(&key("a")).context("a member")?.set(&8)?;
    conflict(changed.commit().await)?;
    let mut changed = store.with_writes(Writes::Changed).using(keys()).await?;
    changed.get_mut(&key("a")).context("a member")?.set(&8)?;
    changed.commit().await?;
    ensure!(changed.iter().map(|m| m.version()).eq([3, 3, 2]), "{changed:?}");

    // T4 T5: all of it, and part of it, at one revision.
    let dump = store.dump().await?;
    ensure!(
        dump.variables.len() == 3
            && dump.revision >= changed.get(&key("a")).context("a")?.mod_revision()
    );
    ensure!(store.keys(&Prefix::all()).await? == keys());
    ensure!(store.keys(&Prefix::of("b")?).await? == [key("b")]);
    ensure!(store.snapshot(&Prefix::of("b")?).await?.variables == dump.variables[1..2]);
    cluster.finish().await
}

// T3: different variables, no conflict; a common one that is only read, none with `Writes::Changed`.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_common_and_written_conflicts() -> anyhow::Result<()> {
    let rounds: u64 = scale(1_000, 100);
    let cluster = Cluster::start_three().await?;
    let store = cluster.client().stm();
    put(&store, "common", 1).await?;
    let clients: Vec<Store> = (0..4).map(|n| cluster.client_on(n).stm()).collect();

    let disjoint = clients.iter().enumerate().map(|(n, store)| async move {
        let mut own = store.usevar(&key(&format!("own-{n}"))).await?;
        for round in 0..rounds {
            own.set(&round)?;
            certainly(&mut own).await?;
        }
        ensure!(own.version() == rounds, "{own:?}");
        Ok(())
    });
    futures::future::try_join_all(disjoint).await?;

    let readers = clients.iter().enumerate().map(|(n, store)| async move {
        let store = store.with_writes(Writes::Changed);
        let own = key(&format!("reader-{n}"));
        let mut both = store.using([key("common"), own.clone()]).await?;
        for round in 0..rounds {
            both.get_mut(&own).context("a member")?.set(&round)?;
            while let Err(error) = both.commit().await {
                ensure!(is_passing(&error), "reader {n}, round {round}: {error}");
            }
        }
        Ok(())
    });
    futures::future::try_join_all(readers).await?;
    ensure!(store.usevar(&key("common")).await?.version() == 1, "nobody wrote it");

    // The same of transactions: none of them runs twice.
    let options = TransactOptions { writes: Writes::Changed, ..TransactOptions::default() };
    let transactions = clients.iter().enumerate().map(|(n, store)| async move {
        let (own, common) = (key(&format!("transaction-{n}")), key("common"));
        let mut runs = 0;
        for _ in 0..rounds {
            store
                .transact_with(options, |transaction| {
                    runs += 1;
                    let (own, common) = (&own, &common);
                    async move {
                        let common = transaction.get::<u64>(common).await?.unwrap_or(0);
                        let counted = transaction.get::<u64>(own).await?.unwrap_or(0);
                        transaction.put(own, &(counted + common))?;
                        Ok::<_, Interrupt>(())
                    }
                })
                .await?;
        }
        ensure!(store.usevar(&own).await?.get::<u64>()? == Some(rounds), "{own}");
        Ok::<u64, anyhow::Error>(runs)
    });
    let runs: u64 = futures::future::try_join_all(transactions).await?.into_iter().sum();
    ensure!(runs == 4 * rounds, "{runs} runs of {} transactions", 4 * rounds);
    report(
        "conflicts of disjoint variables and common reads",
        format!("0 in {} commits", 12 * rounds),
    );
    cluster.finish().await
}

/// Commits, however busy the machine is; but never over a conflict.
async fn certainly(value: &mut Value) -> anyhow::Result<()> {
    while let Err(error) = value.commit().await {
        ensure!(is_passing(&error), "{error}");
    }
    Ok(())
}

fn is_passing(error: &CommitError) -> bool {
    matches!(error, CommitError::BusyRetry { .. } | CommitError::CommitUncertain { .. })
}

/// Two transactions of two clients at one level, both of which read before either writes: each reads `reads`,
/// and writes the sum plus one to the variable `writes[n]`. Returns in how many runs each.
async fn race(
    clients: &[Client; 2],
    isolation: Isolation,
    reads: &[&str],
    writes: [&str; 2],
) -> anyhow::Result<u64> {
    let options = TransactOptions { isolation, ..TransactOptions::default() };
    let barrier = Arc::new(Barrier::new(2));
    let both = clients.iter().zip(writes).map(|(client, writes)| {
        let barrier = barrier.clone();
        async move {
            let mut runs = 0;
            client
                .stm()
                .transact_with(options, |transaction| {
                    runs += 1;
                    let is_first = runs == 1;
                    let barrier = barrier.clone();
                    async move {
                        let mut sum = 0;
                        for name in reads {
                            sum += transaction.get::<i64>(&key(name)).await?.unwrap_or(0);
                        }
                        if is_first {
                            barrier.wait().await;
                        }
                        transaction.put(&key(writes), &(sum + 1))?;
                        Ok::<_, Interrupt>(())
                    }
                })
                .await?;
            Ok::<u64, anyhow::Error>(runs)
        }
    });
    Ok(futures::future::try_join_all(both).await?.into_iter().sum())
}

// T4: lost updates, write skew, blind writes: what each level forbids, and what it allows.
#[tokio::test(flavor = "multi_thread")]
async fn each_level_forbids_what_it_says() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    // Two clients of their own: those of one process would go one after the other.
    let clients = [cluster.client_on(0), cluster.client_on(1)];
    let store = cluster.client().stm();
    for isolation in ISOLATIONS {
        let (is_compared, is_snapshot) =
            (isolation != Isolation::ReadCommitted, isolation == Isolation::SerializableSnapshot);
        // Lost update: both read x and write x.
        put(&store, "x", 0).await?;
        race(&clients, isolation, &["x"], ["x", "x"]).await?;
        let expected = if is_compared { 2 } else { 1 };
        ensure!(value(&store, "x").await? == Some(expected), "{isolation:?}: lost update");

        // Write skew: both read x and y, and write one of them each.
        put(&store, "x", 0).await?;
        put(&store, "y", 0).await?;
        race(&clients, isolation, &["x", "y"], ["x", "y"]).await?;
        let written = (value(&store, "x").await?, value(&store, "y").await?);
        let in_order = [(Some(1), Some(2)), (Some(2), Some(1))].contains(&written);
        ensure!(in_order == is_compared, "{isolation:?}: write skew, {written:?}");

        // Blind writes: nothing is read; only a snapshot's writes are compared.
        let runs = race(&clients, isolation, &[], ["z", "z"]).await?;
        ensure!(is_snapshot || runs == 2, "{isolation:?}: {runs} runs of blind writes");
        ensure!(value(&store, "z").await? == Some(1), "{isolation:?}");
    }
    cluster.finish().await
}

// T4: at the serializable levels no run ever sees what was never there at one time.
#[tokio::test(flavor = "multi_thread")]
async fn serializable_runs_see_one_revision() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let (client, store) = (cluster.client(), cluster.client().stm());
    for isolation in ISOLATIONS {
        let mut pair = store.using([key("x"), key("y")]).await?;
        pair.iter_mut().try_for_each(|member| member.set(&0))?;
        pair.commit().await?;
        let options = TransactOptions { isolation, ..TransactOptions::default() };
        let mut seen = Vec::new();
        let sum = client
            .stm()
            .transact_with(options, |transaction| {
                let is_first = seen.is_empty();
                seen.push(());
                let store = store.clone();
                async move {
                    let x = transaction.get::<i64>(&key("x")).await?.unwrap_or(0);
                    if is_first {
                        // Between the reads, both are written by others.
                        let mut pair =
                            store.using([key("x"), key("y")]).await.map_err(Interrupt::Read)?;
                        pair.iter_mut().try_for_each(|member| member.set(&1))?;
                        pair.commit().await.expect("nobody else writes");
                    }
                    let y = transaction.get::<i64>(&key("y")).await?.unwrap_or(0);
                    Ok::<_, Interrupt>((x, y))
                }
            })
            .await?;
        let runs = seen.len();
        match isolation {
            // The first run was given up when it read y.
            Isolation::SerializableSnapshot | Isolation::Serializable => {
                ensure!(sum == (1, 1) && runs == 2, "{isolation:?}: {sum:?} in {runs} runs");
            }
            // It ran to its end with what was never there, and was then not applied.
            Isolation::RepeatableReads => {
                ensure!(sum == (1, 1) && runs == 2, "{isolation:?}: {sum:?} in {runs} runs");
            }
            Isolation::ReadCommitted => {
                ensure!(sum == (0, 1) && runs == 1, "{isolation:?}: {sum:?} in {runs} runs");
            }
        }
    }
    cluster.finish().await
}

// T4: what a run reads may be more than one answer holds; it is of one revision all the same.
#[tokio::test(flavor = "multi_thread")]
async fn large_reads_are_of_one_revision() -> anyhow::Result<()> {
    const LARGE: usize = 9;
    let cluster = Cluster::start_three().await?;
    let store = cluster.client().stm();
    let large = |n: usize| key(&format!("large-{n}"));
    let write = |n: usize, of: u8| {
        let content = Content::new(Codec::Bytes, vec![of; 1 << 20]);
        store.prepare(Plan::new().put(large(n), content))
    };
    for n in 0..LARGE {
        write(n, 0).commit().await?;
    }
    let mut runs = 0;
    let reader = cluster.client().stm();
    let sum = reader.transact(|transaction| {
        runs += 1;
        let run = runs;
        async move {
            let mut sum = 0;
            for n in 0..LARGE {
                if run == 1 && n == LARGE - 1 {
                    // It was not so when the others were read, but they are still what they were.
                    write(n, 1).commit().await.expect("nobody else writes");
                }
                let content = transaction.get_content(&large(n)).await?;
                sum += content.map_or(0, |content| u64::from(content.bytes()[0]));
            }
            if run == 1 {
                // The run was of one revision, and is in vain.
                write(0, 1).commit().await.expect("nobody else writes");
            }
            transaction.put(&key("sum"), &sum)?;
            Ok::<_, Interrupt>(sum)
        }
    });
    let sum = sum.await?;
    ensure!(sum == 2 && runs == 2, "{sum} in {runs} runs");
    cluster.finish().await
}

// T4: many transactions of one program that touch one variable go one after the other, and do not fight.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_program_stand_in_line() -> anyhow::Result<()> {
    let (tasks, rounds): (u64, u64) = (16, scale(100, 20));
    let cluster = Cluster::start_three().await?;
    let client = cluster.client();
    let counting = (0..tasks).map(|_| {
        let store = client.stm();
        async move {
            let mut runs = 0;
            for _ in 0..rounds {
                store
                    .transact(|transaction| {
                        runs += 1;
                        async move {
                            let counted = transaction.get::<u64>(&key("n")).await?.unwrap_or(0);
                            transaction.put(&key("n"), &(counted + 1))?;
                            Ok::<_, Interrupt>(())
                        }
                    })
                    .await?;
            }
            Ok::<u64, anyhow::Error>(runs)
        }
    });
    let runs: u64 = futures::future::try_join_all(counting).await?.into_iter().sum();
    let transactions = tasks * rounds;
    ensure!(value(&client.stm(), "n").await? == Some(i64::try_from(transactions)?), "lost updates");
    // In vain runs who finds nobody in the line, but others who do not either.
    ensure!(runs <= transactions * 3 / 2, "{runs} runs of {transactions} transactions");
    report(
        "transactions of one program on one variable",
        format!("{transactions} by {tasks} tasks, {runs} runs"),
    );
    cluster.finish().await
}

// T4
#[tokio::test(flavor = "multi_thread")]
async fn retry_waits_for_a_change_of_what_was_read() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let store = cluster.client().stm();
    put(&store, "other", 0).await?;
    let mut runs = 0;
    let taking = store.transact(|transaction| {
        runs += 1;
        async move {
            let Some(found) = transaction.get::<i64>(&key("box")).await? else {
                return Err(transaction.retry());
            };
            transaction.delete(&key("box"));
            Ok::<_, Interrupt>(found)
        }
    });
    let giving = async {
        // What it has not read does not wake it; and it waits for longer than a commit may take.
        for n in 0..5 {
            tokio::time::sleep(millis(100)).await;
            put(&store, "other", n).await?;
        }
        put(&store, "box", 7).await
    };
    let (taken, given) =
        tokio::time::timeout(bound(WAIT_MAX), async { tokio::join!(taking, giving) })
            .await
            .context("it was not woken")?;
    given?;
    ensure!(taken? == 7 && runs == 2, "{runs} runs");
    ensure!(value(&store, "box").await?.is_none(), "it was taken");

    let nothing = store.transact(|transaction| async move { Err::<(), _>(transaction.retry()) });
    ensure!(matches!(nothing.await, Err(TransactError::NothingRead)), "it would wait for ever");
    cluster.finish().await
}
