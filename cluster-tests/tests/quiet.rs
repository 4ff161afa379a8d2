//! An idle cluster is quiet, also with one follower down.
//!
//! Regression: openraft 0.10 awaits its back-off inside the stream of requests, so a transport that
//! fails before it takes one from that stream is called again at once, for ever: 0.8 of a core with
//! one follower down.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{Cluster, report, scale};
use tokio::time::Instant;

/// Of one core, for all live nodes together.
const SHARE_MAX: f64 = 0.05;
/// Clock ticks a second in proc_pid_stat(5): the same on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_without_one_follower_is_quiet() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let follower = cluster.follower().await?;
    cluster.kill(follower);
    cluster.written_everywhere().await?;

    let leader = cluster.leader().await?;
    let term = cluster.status(leader).await?.header.term;
    let pids: Vec<u32> = cluster.running().into_iter().filter_map(|i| cluster.pid(i)).collect();
    ensure!(pids.len() == 2, "two nodes are alive");
    // What the start has left to do is done, and reconnecting has come to its usual pace.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (before, begin) = (ticks(&pids)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(scale(20, 4))).await;
    let (used, took) = (ticks(&pids)? - before, begin.elapsed());
    let share = used / TICKS_PER_SECOND / took.as_secs_f64();
    report(
        "idle, one follower down",
        format!("{:.1} % of one core over {:.0} s", 100.0 * share, took.as_secs_f64()),
    );
    // A tick is 10 ms, and a short measurement has few of them.
    let share_max = scale(SHARE_MAX, 2.0 * SHARE_MAX);
    ensure!(share < share_max, "{:.1} % of one core", 100.0 * share);
    let status = cluster.status(leader).await?;
    ensure!(status.header.term == term, "there was an election in an idle cluster");
    cluster.finish().await
}

/// User and system time of these processes, in clock ticks: fields 14 and 15.
fn ticks(pids: &[u32]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field, the name, is in brackets and may hold blanks.
        let (_, rest) = text.rsplit_once(')').context("no name in stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        for field in [11, 12] {
            sum += fields.get(field).context("a short stat")?.parse::<f64>()?;
        }
    }
    Ok(sum)
}
