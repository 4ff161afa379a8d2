//! What a million keys cost: memory, disk, the time of a restart, and what those who write notice
//! of a node that joins or comes back from far behind. // N3

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::{Client, Role};
use holdfast_cluster_tests::{Cluster, Options, Percentiles, bound, report, scale};
use tokio::task::JoinSet;
use tokio::time::Instant;

const VALUE_BYTES: usize = 200;
const CLIENTS: usize = 8;
const WRITERS: usize = 256;
/// How often the probe writes, whether or not its last write has been answered.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// The longest that a write may wait while a snapshot is streamed.
const STALL_MAX: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys() -> anyhow::Result<()> {
    let keys = scale(1_000_000, 50_000);
    // What joins or comes back needs a snapshot, and what is written while it takes that in is
    // several times what is kept otherwise.
    let args = ["--snapshot-every-entries", "500", "--log-keep-entries", "50"];
    let args = args.map(str::to_owned).to_vec();
    let cluster = Cluster::start(3, Options { args, ..Options::default() }).await?;
    let began = Instant::now();
    load(&cluster, keys, 0).await?;
    let took = began.elapsed();
    let of = format!("{keys} keys of {VALUE_BYTES} bytes");
    report(&format!("{of}: loaded"), format!("{:.0} keys/s", keys as f64 / took.as_secs_f64()));

    cluster.written_everywhere().await?;
    let leader = cluster.leader().await?;
    for index in cluster.running() {
        let role = if index == leader { "leader" } else { "follower" };
        let memory = Memory::of(cluster.pid(index).context("it runs")?)?;
        report(&format!("{of}: memory of n{}, {role}", index + 1), memory);
        let bytes = bytes_below(&cluster.data_dir(index))?;
        report(&format!("{of}: directory of n{}, {role}", index + 1), mib(bytes));
    }

    let follower = cluster.follower().await?;
    cluster.kill(follower);
    let began = Instant::now();
    cluster.start_node(follower)?;
    cluster.settled().await?;
    report(&format!("{of}: a node is killed: start to applying writes"), seconds(began.elapsed()));

    let probe = Probe::start(&cluster, "joins").await?;
    let began = Instant::now();
    let joined = cluster.join()?;
    caught_up(&cluster, joined, began, probe, &format!("{of}: a node joins")).await?;
    ensure!(cluster.status(joined).await?.role != Role::Learner, "it votes");

    cluster.kill(joined);
    // It cannot have more.
    let had = cluster.status(cluster.leader().await?).await?.last_log_index;
    load(&cluster, keys, 1).await?;
    outgrow_log(&cluster, had).await?;
    let probe = Probe::start(&cluster, "comes back").await?;
    let began = Instant::now();
    cluster.start_node(joined)?;
    let back = format!("{of}: a node comes back {keys} writes behind");
    caught_up(&cluster, joined, began, probe, &back).await?;

    cluster.kill_all();
    let began = Instant::now();
    for index in 0..cluster.size() {
        cluster.start_node(index)?;
    }
    cluster.settled().await?;
    let took = seconds(began.elapsed());
    report(&format!("{of}: all nodes are killed: start to applying writes"), took);
    cluster.same_state().await?;
    cluster.finish().await
}

/// Waits until a node holds what the others hold, and says how long that took and what those who
/// wrote meanwhile noticed.
async fn caught_up(
    cluster: &Cluster,
    node: usize,
    began: Instant,
    probe: Probe,
    what: &str,
) -> anyhow::Result<()> {
    cluster.settled().await?;
    let took = began.elapsed();
    let stalls = probe.stop().await?;
    report(&format!("{what}: start to applying writes"), seconds(took));
    report(&format!("{what}: writes meanwhile"), &stalls);
    // It is counted once what it has replaced is gone, some time after it is there.
    let counted = async || {
        let installed = cluster.status(node).await.ok()?.snapshots_installed;
        (installed > 0).then_some(installed)
    };
    let installed = cluster.wait("a snapshot is counted", counted).await?;
    ensure!(installed == 1, "one snapshot, and the log from there, not {installed}");
    ensure!(stalls.worst() < bound(STALL_MAX), "{what}: {stalls}");
    cluster.same_state().await
}

/// Writes all keys, from many writers at once; each time other values.
async fn load(cluster: &Cluster, keys: usize, time: u32) -> anyhow::Result<()> {
    let clients: Vec<Client> = (0..CLIENTS).map(|_| cluster.client()).collect();
    let object = clients[0].state().get_object_id("million", "Load").await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (state, next) = (clients[writer % CLIENTS].state(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let key = next.fetch_add(1, Ordering::Relaxed);
                if key >= keys {
                    return Ok::<(), holdfast_client::Error>(());
                }
                let value = format!("{:0VALUE_BYTES$}", key as u64 + u64::from(time));
                state.set(object, &format!("key-{key:07}"), value).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Writes until the log does not go back to this index any more: the faster nodes are, the fewer entries
/// many writes share.
async fn outgrow_log(cluster: &Cluster, index: u64) -> anyhow::Result<()> {
    let state = cluster.client().state();
    let object = state.get_object_id("million", "Log").await?;
    let purged = async || {
        for number in 0..16 {
            state.set(object, "entry", number.to_string()).await.ok()?;
        }
        let leader = cluster.leader_now().await?;
        (cluster.status(leader).await.ok()?.purged_index > index).then_some(())
    };
    cluster.wait("the log has outgrown an index", purged).await
}

/// A client that begins a write every few milliseconds and notes how long each took.
struct Probe {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Probe {
    async fn start(cluster: &Cluster, name: &str) -> anyhow::Result<Probe> {
        let state = cluster.client().state();
        let object = state.get_object_id(name, "Probe").await?;
        // Its session is open and its connections are made.
        state.set(object, "probe", "0").await?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut writes = JoinSet::new();
            let begin = Instant::now();
            for number in 0_u32.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // Measured from when it was to begin: what a stall holds up counts too.
                let due = begin + PROBE_EVERY * number;
                tokio::time::sleep_until(due).await;
                let state = state.clone();
                writes.spawn(async move {
                    state.set(object, "probe", number.to_string()).await?;
                    Ok::<_, holdfast_client::Error>(due.elapsed())
                });
            }
            let mut took = Vec::new();
            while let Some(write) = writes.join_next().await {
                took.push(write??);
            }
            Ok(took)
        });
        Ok(Probe { stop, task })
    }

    async fn stop(self) -> anyhow::Result<Percentiles> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(Percentiles::of(self.task.await??))
    }
}

/// What the kernel says that a process takes.
struct Memory {
    now_kib: u64,
    most_kib: u64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            Ok(kib.with_context(|| format!("{name} in {status}"))?.parse()?)
        };
        Ok(Memory { now_kib: field("VmRSS:")?, most_kib: field("VmHWM:")? })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, at most {}", mib(self.now_kib << 10), mib(self.most_kib << 10))
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// What the files below a directory take on disk.
fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { bytes_below(&entry.path())? } else { about.blocks() * 512 };
    }
    Ok(bytes)
}
