//! Exclusive create: what makes a value runs in one place of the cluster at a time, and once for each value that
//! comes of it.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::{Client, Created, ExclusiveError, ExclusiveOptions};
use holdfast_cluster_tests::{
    Cluster, CreatorProcess, Percentiles, bound, holdfast, millis, report, scale,
};
use tokio::time::Instant;

use crate::raw::Raw;

/// Callers of one value, the one in a process of its own included.
const CALLERS: usize = 64;
const TTL: Duration = millis(1000);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// From the end of the killed creator's right to the next one's callback.
const TAKEN_OVER_MAX: Duration = millis(350);

/// What the callbacks of one value did.
#[derive(Debug, Default)]
struct Effects {
    began: Vec<(Instant, u64)>,
    done: Vec<u64>,
}

// S5 G4
#[tokio::test(flavor = "multi_thread")]
async fn callback_takes_effect_once_though_its_first_creator_dies() -> anyhow::Result<()> {
    let rounds = scale(20, 3);
    let cluster = Cluster::start_three().await?;
    let object = cluster.client().state().get_object_id("exclusive", "Test").await?;
    let clients: Vec<Client> =
        (1..CALLERS).map(|nth| cluster.client_on(nth % cluster.size())).collect();
    let mut probe = Raw::on_leader_and_follower(&cluster).await?.remove(0);
    let (mut took, mut once) = (Vec::new(), 0);
    for round in 0..rounds {
        let key = format!("key-{round}");
        let mut dying = CreatorProcess::start(&cluster.endpoints(), object, &key, TTL, false)?;
        let token: u64 = dying.says("creating").await?.parse()?;
        let effects = Arc::new(Mutex::new(Effects::default()));
        let crowd: Vec<_> = clients
            .iter()
            .map(|client| tokio::spawn(call(client.clone(), object, key.clone(), effects.clone())))
            .collect();
        let deadline = Instant::now() + WAIT_MAX;
        while probe.line_to_create(object, &key).await? < CALLERS as u64 {
            ensure!(Instant::now() < deadline, "not all stand in line");
        }

        let killed = Instant::now();
        let rest = dying.kill().await;
        ensure!(rest.is_empty(), "the killed one went on: {rest:?}");
        let mut all = Vec::new();
        for caller in crowd {
            all.push(caller.await??);
        }
        let effects = std::mem::take(&mut *effects.lock().expect("no panics"));
        let [(began, heir)] = effects.began[..] else {
            anyhow::bail!("round {round}: {effects:?}")
        };
        ensure!(effects.done == [heir] && heir > token, "round {round}: {effects:?}");
        took.push(began - killed);
        let creators = all.iter().filter(|created| created.created).count();
        let values: BTreeSet<_> = all.iter().map(|c| (c.value.clone(), c.mod_revision)).collect();
        ensure!(creators == 1 && values.len() == 1, "{creators} created it: {values:?}");
        let stands = cluster.client().state().get(object, &key).await?.context("a value")?;
        ensure!(values.contains(&(stands.bytes.clone(), stands.mod_revision)), "{stands:?}");
        ensure!(stands.bytes == heir.to_string().into_bytes(), "{stands:?}");
        once += 1;
    }
    let took = Percentiles::of(took);
    report(
        "exclusive create, 64 callers, the creating one killed",
        format!("one effect and one value {once} of {rounds} times"),
    );
    report("exclusive create: kill of the creator to the next one's callback, 1 s right", &took);
    ensure!(took.worst() < TTL + bound(TAKEN_OVER_MAX), "{took}");
    cluster.finish().await
}

async fn call(
    client: Client,
    object: i64,
    key: String,
    effects: Arc<Mutex<Effects>>,
) -> anyhow::Result<Created> {
    let options = ExclusiveOptions { ttl: TTL, ..ExclusiveOptions::default() };
    let lock = || effects.lock().expect("no panics");
    let state = client.state();
    let created = state.create_exclusive(object, &key, options, async |creator| {
        lock().began.push((Instant::now(), creator.token()));
        // Longer than the right lasts without a renewal.
        let lost = tokio::time::timeout(TTL * 3 / 2, creator.lost()).await;
        if let Ok(loss) = lost {
            anyhow::bail!("{loss:?}");
        }
        lock().done.push(creator.token());
        Ok(creator.token().to_string())
    });
    Ok(created.await?)
}

// S5: a creator that was frozen does nothing once it goes on; if it does not listen, its value is refused.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_creator_is_told_and_its_late_value_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let object = cluster.client().state().get_object_id("exclusive", "Test").await?;
    let start = |key: &str, is_stubborn| {
        CreatorProcess::start(&cluster.endpoints(), object, key, TTL, is_stubborn)
    };

    let mut frozen = start("polite", false)?;
    let first: u64 = frozen.says("creating").await?.parse()?;
    let mut heir = start("polite", false)?;
    frozen.pause()?;
    let second: u64 = heir.says("creating").await?.parse()?;
    ensure!(second > first, "{second} behind {first}");
    frozen.resume()?;
    frozen.says("lost").await?;
    frozen.says("failed LOST").await?;
    heir.go_on()?;
    heir.says("effect").await?;
    let value = format!("true made under {second}");
    ensure!(heir.says("created").await? == value);
    frozen.is_silent()?;

    let mut frozen = start("stubborn", true)?;
    frozen.says("creating").await?;
    let mut heir = start("stubborn", false)?;
    frozen.pause()?;
    let third: u64 = heir.says("creating").await?.parse()?;
    frozen.resume()?;
    frozen.go_on()?;
    frozen.says("effect").await?;
    frozen.says("failed CREATION_LOST").await?;
    heir.go_on()?;
    heir.says("effect").await?;
    ensure!(heir.says("created").await? == format!("true made under {third}"));
    cluster.finish().await
}

// S5 S4: who fails passes the right on at once; a plain write wins; whoever waits for too long is told.
#[tokio::test(flavor = "multi_thread")]
async fn failures_plain_writes_and_waits() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let [client, other] = [cluster.client_on(0), cluster.client_on(1)];
    let object = client.state().get_object_id("exclusive", "Test").await?;
    let long = ExclusiveOptions { ttl: Duration::from_secs(60), ..ExclusiveOptions::default() };
    let began = Instant::now();
    let failed = client
        .state()
        .create_exclusive(object, "failing", long, async |_| Err::<Vec<u8>, _>("no luck"))
        .await;
    ensure!(matches!(failed, Err(ExclusiveError::Callback("no luck"))), "{failed:?}");
    let made = async |_| Ok::<_, ()>("made");
    let created = other.state().create_exclusive(object, "failing", long, made).await;
    ensure!(created.is_ok_and(|created| created.created), "the right was free");
    ensure!(began.elapsed() < bound(millis(1000)), "it was not passed on at once");

    // The creator is told that there is a value, and gets it.
    let created = client
        .state()
        .create_exclusive(object, "overtaken", long, async |creator| {
            let short = ExclusiveOptions { wait: millis(200), ..long };
            let waited = other.state().create_exclusive(object, "overtaken", short, made).await;
            assert!(matches!(waited, Err(ExclusiveError::Waited(_))), "{waited:?}");
            let plain = other.state().create(object, "overtaken", "plain").await;
            assert!(plain.is_ok_and(|plain| plain.created), "nobody waits for the right");
            assert!(creator.is_live(), "it does not know yet");
            Ok::<_, ()>("exclusive")
        })
        .await;
    let created = created.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    ensure!(!created.created && created.value == b"plain", "{created:?}");

    // A given up call gives up the right.
    let begun = Arc::new(tokio::sync::Notify::new());
    let holding = tokio::spawn({
        let (state, begun) = (client.state(), begun.clone());
        async move {
            let forever = async |_| {
                begun.notify_one();
                std::future::pending::<Result<Vec<u8>, ()>>().await
            };
            state.create_exclusive(object, "given up", long, forever).await
        }
    });
    begun.notified().await;
    holding.abort();
    let began = Instant::now();
    let created = other.state().create_exclusive(object, "given up", long, made).await;
    ensure!(created.is_ok_and(|created| created.created), "the right was free");
    ensure!(began.elapsed() < bound(millis(1000)), "it was not passed on at once");
    cluster.finish().await
}

// S5 G11: the same from the command line.
#[tokio::test(flavor = "multi_thread")]
async fn commands_make_a_value_once() -> anyhow::Result<()> {
    const COMMANDS: usize = 8;
    let cluster = Cluster::start_three().await?;
    let log = cluster.dir().join("effects");
    let make = format!("echo effect >> {}; sleep 0.3; echo '\"made\"'", log.display());
    let runs = (0..COMMANDS).map(|_| create(&cluster, "built", &make));
    let outputs: Vec<Output> =
        futures::future::join_all(runs).await.into_iter().collect::<anyhow::Result<_>>()?;
    let said: Vec<_> = outputs
        .iter()
        .map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        .collect();
    let created = said
        .iter()
        .filter(|(code, text)| *code == Some(0) && text.starts_with("created  revision "));
    let exists = said.iter().filter(|(code, text)| {
        *code == Some(1) && text.starts_with("exists  revision ") && text.ends_with("\"made\"\n")
    });
    ensure!((created.count(), exists.count()) == (1, COMMANDS - 1), "{outputs:?}");
    ensure!(std::fs::read_to_string(&log)? == "effect\n", "it ran more than once");

    let failing = create(&cluster, "failing", "exit 3").await?;
    let told = String::from_utf8_lossy(&failing.stderr).into_owned();
    ensure!(failing.status.code() == Some(1) && told.contains("error[command-failed]"), "{told}");
    let bad = create(&cluster, "failing", "echo made").await?;
    let told = String::from_utf8_lossy(&bad.stderr).into_owned();
    ensure!(bad.status.code() == Some(2) && told.contains("error[not-json]"), "{told}");
    let good = create(&cluster, "failing", "echo $HOLDFAST_TOKEN").await?;
    ensure!(good.status.code() == Some(0), "{good:?}");
    cluster.finish().await
}

async fn create(cluster: &Cluster, key: &str, command: &str) -> anyhow::Result<Output> {
    let endpoints = cluster.endpoints().join(",");
    let output = tokio::process::Command::new(holdfast()?)
        .args(["state", "create", "demo", key, "--exclusive", "--exec", command])
        .args(["--endpoints", &endpoints])
        .stdin(Stdio::null())
        .output();
    output.await.context("run holdfast")
}
