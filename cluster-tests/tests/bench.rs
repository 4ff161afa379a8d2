//! `holdfast bench`: its figures add up, it leaves nothing behind, and it can be interrupted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use holdfast_client::{Client, ClientConfig, State};
use holdfast_cluster_tests::{Cluster, Ended, Options, bound, holdfast, serve_until_end, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(90);

fn bench(home: &Path, args: &[&str]) -> anyhow::Result<Ended> {
    let home = home.to_string_lossy();
    let places = [("XDG_STATE_HOME", home.as_ref()), ("XDG_DATA_HOME", home.as_ref())];
    let mut all = vec!["bench"];
    all.extend(args);
    serve_until_end(&all, &places, LONG)
}

fn number(value: &Value) -> anyhow::Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

#[test]
fn figures_of_a_cluster_of_its_own_add_up() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let csv = home.path().join("figures.csv");
    let file = csv.to_string_lossy();
    let quick = ["--duration", "600ms", "--warm-up", "100ms", "-o", "json"];
    for workload in ["state", "mixed", "claim", "stm", "object"] {
        let local = [workload, "--local", "-n", "1", "--clients", "1,4", "--csv", &file];
        let ended = bench(home.path(), &[&local[..], &quick[..]].concat())?;
        ensure!(ended.code == Some(0), "{ended:?}");
        let json: Value = serde_json::from_str(&ended.stdout)?;
        let runs = json["runs"].as_array().context("runs")?;
        ensure!(runs.len() == 2 && json["workload"] == workload, "{json}");
        for run in runs {
            let ops = number(&run["ops"])?;
            let rate = number(&run["ops_per_s"])? * number(&run["elapsed_ms"])? / 1000.0;
            ensure!(ops > 0.0 && (rate / ops - 1.0).abs() < 0.05, "{run}");
            ensure!(run["errors"] == serde_json::json!({}) && run["unfinished"] == 0, "{run}");
            let latency = &run["latency_us"];
            let mut last = 0.0;
            for quantile in ["p50", "p90", "p99", "p99_9", "max"] {
                let now = number(&latency[quantile])?;
                ensure!(now > 0.0 && now >= last, "{latency}");
                last = now;
            }
            ensure!(number(&run["node_cpu_us_per_op"])? > 0.0, "{run}");
            ensure!(number(&run["client_cpu_us_per_op"])? > 0.0, "{run}");
        }
    }
    let text = std::fs::read_to_string(&csv)?;
    ensure!(text.lines().count() == 1 + 5 * 2, "{text}");
    ensure!(nothing_is_left(home.path())?, "it leaves files behind");
    Ok(())
}

/// A stalled node makes no fewer calls due: each of them waits, and is measured from when it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_leaves_out_no_call_that_had_to_wait() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, Options::default()).await?;
    let home = tempfile::tempdir()?;
    let endpoint = cluster.endpoint(0);
    let path = home.path().to_owned();
    let measured = tokio::task::spawn_blocking(move || {
        let args = ["state", "--endpoints", &endpoint, "--clients", "2", "--rate", "100"];
        let window = ["--warm-up", "0ms", "--duration", "3s", "-o", "json"];
        bench(&path, &[&args[..], &window[..]].concat())
    });
    // Once it is calling: its clients have sessions, and its first writes are there.
    let state = cluster.client_with(|config| config.namespace = "_bench".to_owned()).state();
    cluster.wait("the first calls", || has_written(&state, 2)).await?;
    cluster.pause(0)?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    cluster.resume(0)?;
    let ended = measured.await??;
    ensure!(ended.code == Some(0), "{ended:?}");
    let json: Value = serde_json::from_str(&ended.stdout)?;
    let run = &json["runs"][0];
    ensure!(run["ops"] == 300, "{run}: 3 s at 100 calls/s");
    // A fifth of the calls fell into the stall, and waited for what was left of it. A closed loop
    // would show two slow calls, below its p99.
    let (p50, p90) = (number(&run["latency_us"]["p50"])?, number(&run["latency_us"]["p90"])?);
    ensure!(p90 > 100_000.0, "{run}");
    ensure!(p50 < p90, "{run}");
    // What it wrote is deleted again.
    let object = state.find_object_id("client-0", "bench").await?.context("an object")?;
    ensure!(state.list(object).await?.is_empty(), "it leaves keys behind");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_prints_its_figures_so_far() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let mut child = Command::new(holdfast()?)
        .args(["bench", "state", "--local", "-n", "1", "--clients", "2,2", "--duration", "60s"])
        .args(["--warm-up", "0ms", "-o", "json"])
        .env("XDG_STATE_HOME", home.path())
        .env("XDG_DATA_HOME", home.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let calling = wait_for("it is calling", LONG, || is_calling(home.path())).await;
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let interrupted = Instant::now();
    let (mut said, mut stdout) = (String::new(), child.stdout.take().context("its output")?);
    std::io::Read::read_to_string(&mut stdout, &mut said)?;
    let status = child.wait()?;
    calling?;
    ensure!(status.code() == Some(130), "{status:?}: {said}");
    ensure!(interrupted.elapsed() < bound(Duration::from_secs(6)), "{:?}", interrupted.elapsed());
    let json: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(json["interrupted"] == true, "{json}");
    ensure!(json["runs"].as_array().is_some_and(|runs| runs.len() == 1), "{json}");
    ensure!(number(&json["runs"][0]["ops"])? > 0.0, "{json}");
    ensure!(number(&json["runs"][0]["elapsed_ms"])? < 60_000.0, "{json}");
    ensure!(nothing_is_left(home.path())?, "it leaves files behind");
    Ok(())
}

/// Whether a run with its files there has made more calls than it takes to be ready.
async fn is_calling(home: &Path) -> Option<()> {
    let dir = std::fs::read_dir(home.join("holdfast/local")).ok()?.next()?.ok()?.path();
    let cluster = std::fs::read(dir.join("state/cluster.json")).ok()?;
    let cluster: Value = serde_json::from_slice(&cluster).ok()?;
    let mut config = ClientConfig::new([cluster["nodes"][0]["endpoint"].as_str()?]);
    config.namespace = "_bench".to_owned();
    has_written(&Client::connect(config).state(), 2).await
}

/// Whether the first client of a run has written so many keys.
async fn has_written(state: &State, keys: usize) -> Option<()> {
    let object = state.find_object_id("client-0", "bench").await.ok()??;
    (state.list(object).await.ok()?.len() >= keys).then_some(())
}

fn nothing_is_left(home: &Path) -> anyhow::Result<bool> {
    Ok(std::fs::read_dir(home.join("holdfast/local"))?.next().is_none())
}
