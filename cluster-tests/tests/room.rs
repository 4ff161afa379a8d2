//! A full quota and a full disk: growth is refused with the reason and the numbers, everything that
//! keeps masters alive goes on, and there is room again without anybody's help. // G9

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{Claimed, Client, Error, Instance, LeaseHolder, Opened};
use holdfast_cluster_tests::loopfs::{self, LoopFs};
use holdfast_cluster_tests::{
    Cluster, Options, bound, millis, report, scale, serve_until_end, wait_for,
};
use tokio::time::Instant;
use tonic_types::StatusExt as _;

use crate::metrics::Exposition;
use crate::raw::Raw;

/// A quota of four of the longest values.
const QUOTA: u64 = 4 << 20;
/// A twentieth of what fits in.
const VALUE_BYTES: usize = 200 << 10;
/// Short, so that a master whose keep-alives are held up is lost within a test.
const TTL: Duration = Duration::from_secs(2);
/// What is kept free of a disk for three nodes, 128 MiB for each: when growth is refused, up to 32 MiB
/// of rows wait at each node for a checkpoint, which writes them twice.
const FLOOR: u64 = 3 * (128 << 20);
const DISK: u64 = 2 << 30;
/// How long the node may take to notice that there is room again: two looks.
const NOTICED_WITHIN: Duration = millis(2_500);

/// A master at work: it holds a lease and a change source, and neither may be lost.
struct AtWork {
    client: Client,
    holder: LeaseHolder,
    source: i64,
    token: u64,
    object: i64,
    spare: i64,
}

impl AtWork {
    async fn start(cluster: &Cluster) -> anyhow::Result<AtWork> {
        let client = cluster.client();
        let object = client.state().get_object_id("poller", "Test").await?;
        client.state().set(object, "last", "00000000").await?;
        let source = client.change_sources().find_id("owned").await?;
        let spare = client.change_sources().find_id("spare").await?;
        // A master that is known: with its name comes growth.
        let opened = LeaseHolder::open(&client, "at-work", &Instance::random(), TTL).await?;
        let Opened::Granted(holder) = opened else { bail!("it is taken: {opened:?}") };
        let Claimed::Granted { token } = holder.claim(source).await? else { bail!("it is free") };
        Ok(AtWork { client, holder, source, token, object, spare })
    }

    /// Everything that must go on when nothing may grow.
    async fn goes_on(&self, round: u32) -> anyhow::Result<()> {
        let (state, sources) = (self.client.state(), self.client.change_sources());
        self.holder.check().context("the lease")?;
        state.set(self.object, "last", format!("{round:08}")).await.context("an overwrite")?;
        let Claimed::Granted { token } = self.holder.claim(self.spare).await.context("a claim")?
        else {
            bail!("nobody else wants it");
        };
        ensure!(self.holder.release(self.spare, token).await.context("a release")?);
        // A session of its own, a lease of a known master, and its end.
        let opened = LeaseHolder::open(&self.client, "known", &Instance::random(), TTL).await;
        let Opened::Granted(known) = opened.context("a lease")? else { bail!("it is free") };
        known.close().await.context("the end of a lease")?;
        let owner = sources.get(self.source).await?.and_then(|source| source.claimant);
        ensure!(owner.context("it is owned")?.token == self.token, "it has changed hands");
        Ok(())
    }
}

/// Values of one object, until one is refused.
struct Pile {
    client: Client,
    object: i64,
    values: u32,
}

impl Pile {
    async fn start(client: &Client) -> anyhow::Result<Pile> {
        let object = client.state().get_object_id("pile", "Test").await?;
        Ok(Pile { client: client.clone(), object, values: 0 })
    }

    async fn grow(&mut self) -> Result<(), Error> {
        let name = format!("value-{}", self.values);
        self.client.state().set(self.object, &name, vec![b'7'; VALUE_BYTES]).await?;
        self.values += 1;
        Ok(())
    }

    /// Grows until that is refused, for this reason; returns what the refusal says.
    async fn grow_until(&mut self, reason: &str, most: u32) -> anyhow::Result<Error> {
        while self.values < most {
            match self.grow().await {
                Ok(()) => {}
                Err(error) if error.reason() == Some(reason) => return Ok(error),
                Err(error) => return Err(error).context("not refused, but failed"),
            }
        }
        bail!("{most} values, and nothing was refused")
    }

    async fn shrink(&mut self) -> anyhow::Result<()> {
        self.values -= 1;
        let name = format!("value-{}", self.values);
        ensure!(self.client.state().delete(self.object, &name).await.context("a delete")?);
        Ok(())
    }
}

/// A field of a refusal, as a number.
fn number(error: &Error, name: &str) -> anyhow::Result<u64> {
    let Error::Refused { fields, .. } = error else { bail!("not refused: {error}") };
    Ok(fields.get(name).with_context(|| format!("no {name} in {fields:?}"))?.parse()?)
}

/// What `holdfast status` ends with, and prints.
fn status(cluster: &Cluster) -> anyhow::Result<(Option<i32>, String)> {
    let endpoints = cluster.endpoints().join(",");
    let args = ["status", "--endpoints", &endpoints];
    let ended = serve_until_end(&args, &[], Duration::from_secs(30))?;
    Ok((ended.code, ended.stdout))
}

async fn alarms(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut alarms = Vec::new();
    for index in cluster.running() {
        alarms.extend(cluster.status(index).await?.alarms);
    }
    Ok(alarms)
}

async fn wait_for_alarm(cluster: &Cluster, name: &str, count: usize) -> anyhow::Result<()> {
    let what = format!("{count} alarms {name}");
    wait_for(&what, bound(NOTICED_WITHIN), || async {
        let alarms = alarms(cluster).await.ok()?;
        let raised = alarms.iter().filter(|alarm| alarm.starts_with(&format!("{name}: ")));
        (raised.count() == count).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_full_quota_masters_live_and_growth_waits_for_room() -> anyhow::Result<()> {
    let args = ["--quota-bytes", &QUOTA.to_string()].map(str::to_owned).to_vec();
    let cluster = Cluster::start(3, Options { args, ..Options::default() }).await?;
    let at_work = AtWork::start(&cluster).await?;
    at_work.client.masters().find_id("known").await?;
    let mut pile = Pile::start(&at_work.client).await?;
    let refused = pile.grow_until("QUOTA_FULL", 30).await?;
    let (actual, asked) = (number(&refused, "actual")?, number(&refused, "asked")?);
    let allowed = number(&refused, "allowed")?;
    ensure!(allowed == QUOTA && actual <= QUOTA && actual + asked > QUOTA, "{refused}");
    ensure!(asked < (VALUE_BYTES + 256) as u64, "{refused}");
    for told in [actual, asked, allowed] {
        ensure!(refused.to_string().contains(&told.to_string()), "{refused}");
    }
    wait_for_alarm(&cluster, "quota-full", 1).await?;

    // For longer than the lease would live by itself.
    let until = Instant::now() + scale(5 * TTL, 2 * TTL);
    let mut round = 0;
    while Instant::now() < until {
        at_work.goes_on(round).await.with_context(|| format!("round {round}"))?;
        let refused = pile.grow().await.err().context("there is no room")?;
        ensure!(refused.reason() == Some("QUOTA_FULL"), "{refused}");
        round += 1;
    }
    let leader = cluster.leader().await?;
    let now = Exposition::of(&cluster, leader).await?;
    ensure!(now.value(r#"holdfast_alarm{name="quota-full"}"#) == Some(1.0));
    ensure!(now.value("holdfast_quota_bytes") == Some(QUOTA as f64));
    ensure!(now.value("holdfast_state_bytes").is_some_and(|bytes| bytes <= QUOTA as f64));
    let counted = now.value(r#"holdfast_growth_refused_total{reason="quota"}"#);
    ensure!(counted.is_some_and(|count| count >= f64::from(round)), "{counted:?}");
    let (code, text) = status(&cluster)?;
    ensure!(code == Some(6) && text.contains("quota-full: "), "{code:?} {text}");

    // Room for one value is room for one value, at once.
    pile.shrink().await?;
    pile.grow().await.context("as much as was deleted")?;
    ensure!(pile.grow().await.is_err(), "and no more");
    while pile.values > 2 {
        pile.shrink().await?;
    }
    pile.grow().await.context("there is room")?;
    wait_for_alarm(&cluster, "quota-full", 0).await?;
    wait_for_alarm(&cluster, "quota-near", 0).await?;
    let (code, text) = status(&cluster)?;
    ensure!(code == Some(0), "{text}");
    at_work.goes_on(round).await?;
    report("full quota", format!("{round} rounds of a master at work, none of them disturbed"));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_quota_and_one_byte_beyond() -> anyhow::Result<()> {
    let args = ["--quota-bytes", &QUOTA.to_string()].map(str::to_owned).to_vec();
    let cluster = Cluster::start(3, Options { args, ..Options::default() }).await?;
    // A follower passes the leader's refusal on, numbers and all.
    let mut both = Raw::on_leader_and_follower(&cluster).await?;
    for raw in &mut both {
        let object = raw.object("edge", "Test").await?;
        let mut number_of_values = 0;
        let refused = loop {
            let name = format!("value-{number_of_values}");
            match raw.set(object, &name, &vec![b'7'; VALUE_BYTES]).await {
                Ok(()) => number_of_values += 1,
                Err(status) => break status,
            }
            ensure!(number_of_values < 30, "nothing was refused");
        };
        ensure!(refused.code() == tonic::Code::ResourceExhausted, "{refused:?}");
        let info = refused.get_details_error_info().context("the reason")?;
        ensure!(info.reason == "QUOTA_FULL" && info.metadata["applied"] == "no", "{info:?}");
        let told = |name: &str| info.metadata[name].parse::<u64>();
        // Nothing else is written, and a refusal changes nothing; so what is left is known.
        let (left, asked) = (QUOTA - told("actual")?, told("asked")?);
        // What comes with a value whose name is as long.
        let beside = asked - VALUE_BYTES as u64;
        let name = format!("value-{}", "x".repeat(number_of_values.to_string().len()));
        let fits = usize::try_from(left - beside)?;
        let beyond = raw.set(object, &name, &vec![b'7'; fits + 1]).await;
        ensure!(beyond.is_err(), "one byte beyond {left} was taken");
        raw.set(object, &name, &vec![b'7'; fits]).await.context("as much as is left")?;
        // Make room for the other one.
        for value in 0..number_of_values {
            ensure!(raw.delete(object, &format!("value-{value}")).await?);
        }
        ensure!(raw.delete(object, &name).await?);
    }
    cluster.finish().await
}

/// Says loudly that nothing was tested, if file systems cannot be mounted here.
fn is_skipped(what: &str, base: &Path) -> anyhow::Result<bool> {
    let Some(why) = loopfs::unavailable(base) else { return Ok(false) };
    report(what, format!("SKIPPED: {why}"));
    // Past the test runner's capture: nobody shall believe that this was tested.
    writeln!(std::io::stderr(), "\nSKIPPED {what}: {why}\n")?;
    Ok(true)
}

fn free(path: &Path) -> anyhow::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Takes space until only so much is left.
fn fill(path: &Path, leave: u64) -> anyhow::Result<PathBuf> {
    let ballast = path.join("ballast");
    let file = std::fs::File::create(&ballast)?;
    let take = free(path)?.checked_sub(leave).context("less is left already")?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take)?;
    file.sync_all()?;
    Ok(ballast)
}

fn floor() -> Vec<String> {
    ["--disk-floor-bytes", &FLOOR.to_string()].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_masters_live_and_growth_waits_for_room() -> anyhow::Result<()> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if is_skipped("full disk", base)? {
        return Ok(());
    }
    let disk = LoopFs::create(base, DISK)?;
    let data_dirs = Some((1..=3).map(|node| disk.path().join(format!("n{node}"))).collect());
    let options = Options { args: floor(), data_dirs, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let at_work = AtWork::start(&cluster).await?;
    at_work.client.masters().find_id("known").await?;
    let mut pile = Pile::start(&at_work.client).await?;
    pile.grow().await.context("there is room")?;

    let ballast = fill(&disk.path(), FLOOR + (32 << 20))?;
    let refused = pile.grow_until("DISK_FULL", 1000).await?;
    let (actual, allowed) = (number(&refused, "actual")?, number(&refused, "allowed")?);
    ensure!(allowed == FLOOR && actual < FLOOR, "{refused}");
    for told in [actual, allowed] {
        ensure!(refused.to_string().contains(&told.to_string()), "{refused}");
    }
    wait_for_alarm(&cluster, "disk-low", 3).await?;
    let until = Instant::now() + scale(10 * TTL, 2 * TTL);
    let mut round = 0;
    while Instant::now() < until {
        at_work.goes_on(round).await.with_context(|| format!("round {round}"))?;
        let refused = pile.grow().await.err().context("there is no room")?;
        ensure!(refused.reason() == Some("DISK_FULL"), "{refused}");
        round += 1;
    }
    pile.shrink().await?;
    let (code, text) = status(&cluster)?;
    ensure!(code == Some(6) && text.contains("disk-low: "), "{code:?} {text}");
    report(
        "full disk",
        format!("{round} rounds of a master at work, {} MiB left", free(&disk.path())? >> 20),
    );

    std::fs::remove_file(ballast)?;
    let freed = Instant::now();
    wait_for("it grows again", bound(NOTICED_WITHIN), || async {
        let client = at_work.client.state();
        client.set(pile.object, "again", vec![b'7'; VALUE_BYTES]).await.ok()
    })
    .await?;
    report("a disk has room again, and it is used", format!("{} ms", freed.elapsed().as_millis()));
    wait_for_alarm(&cluster, "disk-low", 0).await?;
    at_work.goes_on(round).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_full_disk_hands_over_the_lead() -> anyhow::Result<()> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if is_skipped("full disk of a leader", base)? {
        return Ok(());
    }
    let disk = LoopFs::create(base, DISK)?;
    let others = tempfile::tempdir()?;
    let data_dirs =
        vec![disk.path().join("n1"), others.path().join("n2"), others.path().join("n3")];
    let options = Options { args: floor(), data_dirs: Some(data_dirs), ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let at_work = AtWork::start(&cluster).await?;
    at_work.client.masters().find_id("known").await?;
    let mut pile = Pile::start(&at_work.client).await?;
    let admin = cluster.client().cluster();
    admin.move_lead(Some(1)).await?;
    ensure!(cluster.leader().await? == 0, "n1 leads");

    let ballast = fill(&disk.path(), FLOOR - (1 << 20))?;
    wait_for("another node leads", bound(NOTICED_WITHIN), || async {
        cluster.leader_now().await.filter(|leader| *leader != 0)
    })
    .await?;
    wait_for_alarm(&cluster, "disk-low", 1).await?;
    for round in 0..10 {
        pile.grow().await.context("the other two have room")?;
        at_work.goes_on(round).await.with_context(|| format!("round {round}"))?;
    }
    // It is given the lead once more, and does not keep it.
    admin.move_lead(Some(1)).await?;
    wait_for("another node leads again", bound(NOTICED_WITHIN), || async {
        cluster.leader_now().await.filter(|leader| *leader != 0)
    })
    .await?;
    std::fs::remove_file(ballast)?;
    wait_for_alarm(&cluster, "disk-low", 0).await?;
    admin.move_lead(Some(1)).await?;
    pile.grow().await.context("n1 has room")?;
    at_work.goes_on(11).await?;
    cluster.finish().await
}
