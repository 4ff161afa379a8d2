//! The local cluster of the command line: its network cut, slowed and healed, as people do it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{
    Ended, Percentiles, bound, holdfast, millis, report, serve_until_end, wait_for,
};
use serde_json::{Value, json};

/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(60);

/// A local cluster with places of its own. Dropping it deletes it.
struct Local {
    dir: tempfile::TempDir,
}

impl Local {
    fn up(args: &[&str]) -> anyhow::Result<Local> {
        let local = Local { dir: tempfile::tempdir()? };
        let mut all = vec!["up", "--base-port", "0", "-o", "json"];
        all.extend(args);
        local.run(&all)?;
        Ok(local)
    }

    fn try_run(&self, args: &[&str]) -> anyhow::Result<Ended> {
        let dir = self.dir.path().to_string_lossy();
        let places = [("XDG_STATE_HOME", dir.as_ref()), ("XDG_DATA_HOME", dir.as_ref())];
        serve_until_end(args, &places, LONG)
    }

    /// Runs a command that is to succeed, and returns its answer.
    fn run(&self, args: &[&str]) -> anyhow::Result<Value> {
        let ended = self.try_run(args)?;
        ensure!(ended.code == Some(0), "holdfast {}: {ended:?}", args.join(" "));
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))
    }

    /// Runs `scripts/cluster`, which is to succeed, and returns what it said.
    fn script(&self, args: &[&str]) -> anyhow::Result<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cluster");
        let ended = Command::new(script)
            .args(args)
            .env("HOLDFAST_BIN", holdfast()?)
            .env("XDG_STATE_HOME", self.dir.path())
            .env("XDG_DATA_HOME", self.dir.path())
            .output()?;
        ensure!(ended.status.success(), "scripts/cluster {}: {ended:?}", args.join(" "));
        Ok(String::from_utf8(ended.stdout)?)
    }

    fn status(&self) -> anyhow::Result<Value> {
        let ended = self.try_run(&["status", "-o", "json"])?;
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))
    }

    async fn leader(&self, what: &str, is_meant: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        wait_for(what, LONG, || async {
            let status = self.status().ok()?;
            status["leader"].as_str().filter(|leader| is_meant(leader)).map(str::to_owned)
        })
        .await
    }

    async fn healthy(&self) -> anyhow::Result<()> {
        wait_for("the cluster is healthy", LONG, || async {
            (self.status().ok()?["verdict"] == "healthy").then_some(())
        })
        .await
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Err(error) = self.try_run(&["down", "--purge"]) {
            eprintln!("down: {error:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_cluster_is_cut_and_healed() -> anyhow::Result<()> {
    let local = Local::up(&[])?;
    let old = local.leader("a leader", |_| true).await?;
    let cut = local.run(&["local", "partition", "leader", "-o", "json"])?;
    ensure!(cut["cuts"].as_array().is_some_and(|cuts| cuts.len() == 4), "{cut}");
    local.leader("another leader", |leader| leader != old).await?;
    let status = local.status()?;
    ensure!(status["network"]["cuts"] == cut["cuts"], "{status}");
    ensure!(status["verdict"] == "degraded" && status["can_lose"] == 0, "{status}");
    let ps = local.run(&["ps", "-o", "json"])?;
    let nodes = ps["nodes"].as_array().context("nodes")?;
    let away = nodes.iter().find(|node| node["node"] == old.as_str()).context("the old leader")?;
    ensure!(away["network"]["deaf_to"].as_array().is_some_and(|n| n.len() == 2), "{ps}");
    let shown = local.try_run(&["local", "status"])?;
    ensure!(shown.stdout.contains("cut off from"), "{shown:?}");
    ensure!(local.run(&["local", "heal", "-o", "json"])?["cuts"] == json!([]), "cuts");
    local.healthy().await?;

    // The same through the script, and the demonstration of a fail-over in one line.
    let cut = local.script(&["partition", "n1/n2,n3"])?;
    ensure!(cut.contains("cut: n1 | n2, n1 | n3"), "{cut}");
    let whole = local.script(&["heal"])?;
    ensure!(whole == "network  whole\n", "{whole}");
    local.healthy().await?;
    let told = local.script(&["failover", "--ttl", "500ms"])?;
    ensure!(told.lines().count() == 1 && told.contains("was refused"), "{told}");

    // One way: what the first says is lost, and nothing else.
    let lost = local.run(&["local", "partition", "--one-way", "n1", "/", "n2", "-o", "json"])?;
    ensure!(lost["cuts"] == json!([{ "from": "n1", "to": "n2" }]), "{lost}");
    let slow = local.run(&["local", "slow", "n3", "50ms", "-o", "json"])?;
    ensure!(slow["slow"] == json!([{ "node": "n3", "delay_ms": 50 }]), "{slow}");
    let refused = local.try_run(&["local", "slow", "n3", "11s"])?;
    ensure!(refused.code == Some(2), "{refused:?}");

    // A node that joins is in the network too.
    local.run(&["local", "heal", "-o", "json"])?;
    local.healthy().await?;
    local.run(&["local", "join", "-o", "json"])?;
    let cut = local.run(&["local", "partition", "n4", "-o", "json"])?;
    ensure!(cut["cuts"].as_array().is_some_and(|cuts| cuts.len() == 6), "{cut}");
    wait_for("n4 is missed", LONG, || async {
        let status = local.status().ok()?;
        (status["verdict"] == "degraded" && status["can_lose"] == 0).then_some(())
    })
    .await?;
    let mut took = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        local.run(&["local", "heal", "-o", "json"])?;
        took.push(begin.elapsed());
    }
    let took = Percentiles::of(took);
    report("local heal: command from start to end", &took);
    ensure!(took.median() < bound(millis(50)), "{took}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_gone_comes_back_and_one_that_is_not_there_says_so() -> anyhow::Result<()>
{
    let local = Local::up(&["-n", "1"])?;
    let file = local.dir.path().join("holdfast/local/default/cluster.json");
    let network = |file: &std::path::Path| -> anyhow::Result<Option<i64>> {
        let cluster: Value = serde_json::from_slice(&std::fs::read(file)?)?;
        Ok(cluster["network"]["pid"].as_i64())
    };
    let pid = network(&file)?.context("a network")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
    // Started by a child of ours that has ended: it is nobody else's as long as it runs.
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    wait_for("the network is gone", LONG, || async {
        (local.try_run(&["local", "heal"]).ok()?.code == Some(1)).then_some(())
    })
    .await?;
    local.run(&["up", "-o", "json"])?;
    local.run(&["local", "heal", "-o", "json"])?;
    ensure!(local.try_run(&["up"])?.code == Some(9), "it is up already");

    local.run(&["down", "-o", "json"])?;
    ensure!(network(&file)?.is_none(), "down leaves the network running");
    local.run(&["up", "--direct", "-o", "json"])?;
    ensure!(network(&file)?.is_none(), "a network in spite of --direct");
    let refused = local.try_run(&["local", "heal"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("[no-network]"), "{refused:?}");
    Ok(())
}
