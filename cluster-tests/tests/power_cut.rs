//! The power of all nodes is cut at once, under load, again and again: every write that was
//! acknowledged before is there afterwards, and every stored object with its body. // G1, N3, P2
//!
//! Each node keeps its data on an ext4 of its own, which is shut down without a log flush: what was
//! not synced is gone, as after a power cut. Snapshots and purges are frequent, and in some of the
//! cuts a follower has just been sent a snapshot, or is being sent one.
//!
//! `HOLDFAST_POWER_CUT_UNSAFE=1` leaves the syncs out, and then the same test must fail: it shows
//! that the test can see a loss.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::Client;
use holdfast_client::persistence::{ClusterStore, Id, Object, Store as _};
use holdfast_cluster_tests::loopfs::{self, LoopFs};
use holdfast_cluster_tests::{Cluster, Options, report, scale, wait_for};
use tokio::sync::watch;

const NODES: usize = 3;
/// Sparse: only what is written takes space.
const DISK_BYTES: u64 = 6 << 30;
/// Acknowledgements between two cuts, at least.
const ACKS_PER_CUT: u64 = 1_000;
const WRITERS: u64 = 24;
/// Those who save objects, some small and some by uploads.
const KEEPERS: u64 = 2;
/// Objects that are read back after each cut: the last ones that were acknowledged.
const OBJECTS_CHECKED: usize = 200;
/// Clients, and so sessions and connections, that the writers share.
const CLIENTS: u64 = 6;
/// Values above this size go to a few keys of their writer in turn; smaller ones each to a new key.
const KEPT_BYTES_MAX: usize = 4096;
const LARGE_KEYS: u64 = 3;
/// What a round may take until it is ready for its cut, far above what it takes.
const ROUND_MAX: Duration = Duration::from_secs(120);

/// What the writers know: for each key the number of the last acknowledged write, and of one that
/// was sent later and not answered.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    acked: Option<u64>,
    maybe: Option<u64>,
}

type Ledger = BTreeMap<String, Known>;

/// Acknowledged objects, and the numbers that their bodies follow from, in the order in which they were saved.
type Objects = Vec<(Id, u64)>;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_power_cuts_of_all_nodes() -> anyhow::Result<()> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if let Some(why) = loopfs::unavailable(base) {
        report("power cut", format!("SKIPPED: {why}"));
        // Past the test runner's capture: nobody shall believe that this was tested.
        writeln!(std::io::stderr(), "\nSKIPPED the power cuts: {why}\n")?;
        return Ok(());
    }
    let is_unsafe = std::env::var_os("HOLDFAST_POWER_CUT_UNSAFE").is_some();
    let cuts = scale(20, 2);
    let mut failures = Vec::new();
    let mut bed = None;
    let mut totals = Totals::default();
    for cut in 0..cuts {
        let ready = match bed.take() {
            Some(ready) => ready,
            None => Bed::make(base, is_unsafe).await?,
        };
        match ready.round(cut, &mut totals).await {
            Ok(again) => bed = Some(again),
            // The next round begins with new disks.
            Err(error) => failures.push(format!("cut {}: {error:#}", cut + 1)),
        }
    }
    if let Some(bed) = bed {
        bed.cluster.finish().await?;
        bed.end();
    }
    let survived = cuts - failures.len();
    let name = if is_unsafe { "power cut, syncs switched off" } else { "power cut" };
    report(name, format!("{survived} of {cuts} cuts lost nothing; {totals}"));
    for failure in &failures {
        println!("{failure}");
    }
    ensure!(failures.is_empty(), "{} of {cuts} cuts: {}", failures.len(), failures[0]);
    ensure!(totals.installs > 0, "no snapshot was installed before any of the cuts");
    ensure!(totals.purges > 0, "no log was purged before any of the cuts");
    Ok(())
}

#[derive(Debug, Default)]
struct Totals {
    acks: u64,
    checked: usize,
    objects: usize,
    bytes: u64,
    installs: u64,
    purges: u64,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} acknowledged writes ({} MiB), {} values and {} objects compared, {} snapshots \
             installed, logs purged in {} rounds",
            self.acks,
            self.bytes >> 20,
            self.checked,
            self.objects,
            self.installs,
            self.purges
        )
    }
}

/// A cluster on disks that can lose their power.
struct Bed {
    // Before the disks: its processes must be gone when they are unmounted.
    cluster: Cluster,
    disks: Vec<LoopFs>,
    object: i64,
    ledger: Ledger,
    objects: Objects,
    /// Numbers of writes, never given twice, so that a value tells which write it is of.
    next: Arc<AtomicU64>,
}

impl Bed {
    async fn make(base: &Path, is_unsafe: bool) -> anyhow::Result<Bed> {
        let mut disks = Vec::new();
        for _ in 0..NODES {
            disks.push(LoopFs::create(base, DISK_BYTES)?);
        }
        // Entries hold many requests under load: these are a few snapshots and purges a second.
        let mut args = vec!["--snapshot-every-entries=20", "--log-keep-entries=5"];
        if is_unsafe {
            args.push("--unsafe-no-sync");
        }
        let options = Options {
            args: args.into_iter().map(str::to_owned).collect(),
            data_dirs: Some(disks.iter().map(|disk| disk.path().join("data")).collect()),
            ..Options::default()
        };
        let cluster = Cluster::start(NODES, options).await?;
        let object = cluster.client().state().get_object_id("power", "cut").await?;
        let (ledger, objects, next) = (Ledger::default(), Objects::new(), Arc::default());
        Ok(Bed { cluster, disks, object, ledger, objects, next })
    }

    /// Load, cut, restart, comparison.
    async fn round(mut self, cut: usize, totals: &mut Totals) -> anyhow::Result<Bed> {
        let load = Load::start(&self.cluster, self.object, &self.next);
        let prepared = self.until_the_cut(cut, &load, totals).await;
        if prepared.is_ok() {
            tokio::task::block_in_place(|| loopfs::cut(&self.disks))?;
        }
        self.cluster.kill_all();
        let (acks, bytes) = load.stop(&mut self.ledger, &mut self.objects).await;
        prepared?;
        totals.acks += acks;
        totals.bytes += bytes;
        for disk in &mut self.disks {
            disk.reboot()?;
        }
        for index in 0..NODES {
            self.cluster.start_node(index)?;
        }
        self.cluster.settled().await.context("the cluster does not come back")?;
        totals.checked += self.compare().await?;
        totals.objects += self.compare_objects().await?;
        println!("cut {}: {acks} acknowledgements, all of them there", cut + 1);
        Ok(self)
    }

    /// Returns at a moment with enough acknowledgements since the last cut, which in every other
    /// round is one at which a follower gets, or has just got, a snapshot.
    async fn until_the_cut(
        &self,
        cut: usize,
        load: &Load,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        let leader = self.cluster.leader().await?;
        let begin = self.cluster.status(leader).await?;
        let enough = async || (load.acks() >= ACKS_PER_CUT).then_some(());
        if cut.is_multiple_of(2) {
            wait_for("enough acknowledgements", ROUND_MAX, enough).await?;
            let purged = self.cluster.status(leader).await?.purged_index;
            totals.purges += u64::from(purged > begin.purged_index);
            return Ok(());
        }
        let follower = self.cluster.follower().await?;
        self.cluster.kill(follower);
        wait_for("enough acknowledgements", ROUND_MAX, enough).await?;
        wait_for("the log that the follower needs is gone", ROUND_MAX, async || {
            let now = self.cluster.status(leader).await.ok()?;
            (now.purged_index > begin.last_log_index).then_some(())
        })
        .await?;
        totals.purges += 1;
        self.cluster.start_node(follower)?;
        if cut % 4 == 1 {
            wait_for("the follower gets a snapshot", ROUND_MAX, async || {
                let status = self.cluster.status(follower).await.ok()?;
                (status.snapshots_installed > 0).then_some(())
            })
            .await?;
            totals.installs += 1;
        } else {
            // Somewhere in the follower's start, its first votes, or the snapshot.
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..800))).await;
        }
        Ok(())
    }

    /// Compares every key with what the writers know; settles what they did not.
    async fn compare(&mut self) -> anyhow::Result<usize> {
        let state = self.cluster.client().state();
        let items = state.list(self.object).await.context("read everything back")?;
        let mut found: BTreeMap<String, Vec<u8>> =
            items.into_iter().map(|item| (item.name, item.bytes)).collect();
        let (mut lost, mut checked) = (Vec::new(), 0);
        for (key, known) in &mut self.ledger {
            let number = found.get(key).and_then(|value| number_of(value));
            let is_whole = number.is_none_or(|number| found[key] == value_of(number));
            let is_known = number == known.acked || (number.is_some() && number == known.maybe);
            if !is_whole || !is_known {
                lost.push(format!("{key}: {known:?}, and there is {number:?}"));
            }
            checked += usize::from(number.is_some());
            // From now on what stands is as good as acknowledged: it was read.
            *known = Known { acked: number, maybe: None };
            found.remove(key);
        }
        if let Some(key) = found.keys().next() {
            bail!("{} keys that nobody wrote, {key} for one", found.len());
        }
        let (count, all) = (lost.len(), self.ledger.len());
        ensure!(lost.is_empty(), "{count} of {all} keys lost their write: {}", lost[0]);
        Ok(checked)
    }

    /// Reads the objects back that were acknowledged last.
    async fn compare_objects(&self) -> anyhow::Result<usize> {
        let store = ClusterStore::of_client(&self.cluster.client());
        let late = &self.objects[self.objects.len().saturating_sub(OBJECTS_CHECKED)..];
        for (id, number) in late {
            let found = store.load_alone(*id).await.with_context(|| format!("load {id}"))?;
            ensure!(found.body == body_of(*number), "object {id} has another body");
        }
        Ok(late.len())
    }

    /// Ends the processes before the disks go.
    fn end(self) {
        self.cluster.kill_all();
    }
}

/// Writers that write until they are stopped.
struct Load {
    acks: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    ledger: Arc<Mutex<Ledger>>,
    objects: Arc<Mutex<Objects>>,
    stop: watch::Sender<bool>,
    writers: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(cluster: &Cluster, object: i64, next: &Arc<AtomicU64>) -> Load {
        let clients: Vec<Client> = (0..CLIENTS).map(|_| cluster.client()).collect();
        let mut load = Load {
            acks: Arc::default(),
            bytes: Arc::default(),
            ledger: Arc::default(),
            objects: Arc::default(),
            stop: watch::channel(false).0,
            writers: tokio::task::JoinSet::new(),
        };
        for client in clients.iter().take(usize::try_from(KEEPERS).expect("a few")) {
            let store = ClusterStore::of_client(client);
            let (next, objects) = (Arc::clone(next), Arc::clone(&load.objects));
            load.writers.spawn(keep(store, next, objects, load.stop.subscribe()));
        }
        for writer in 0..WRITERS {
            let writer = Writer {
                writer,
                object,
                client: clients[usize::try_from(writer % CLIENTS).expect("a few")].clone(),
                next: Arc::clone(next),
                acks: Arc::clone(&load.acks),
                bytes: Arc::clone(&load.bytes),
                ledger: Arc::clone(&load.ledger),
                stop: load.stop.subscribe(),
            };
            load.writers.spawn(writer.run());
        }
        load
    }

    fn acks(&self) -> u64 {
        self.acks.load(Ordering::SeqCst)
    }

    /// Ends the writers, and adds what they know to the ledger.
    async fn stop(mut self, ledger: &mut Ledger, objects: &mut Objects) -> (u64, u64) {
        self.stop.send_replace(true);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer panicked");
        }
        objects.append(&mut self.objects.lock().expect("no writer panicked"));
        for (key, known) in self.ledger.lock().expect("no writer panicked").iter() {
            let before = ledger.entry(key.clone()).or_default();
            *before = Known { acked: known.acked.or(before.acked), maybe: known.maybe };
        }
        (self.acks(), self.bytes.load(Ordering::SeqCst))
    }
}

struct Writer {
    writer: u64,
    object: i64,
    client: Client,
    next: Arc<AtomicU64>,
    acks: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Receiver<bool>,
}

impl Writer {
    async fn run(mut self) {
        let state = self.client.state();
        let mut turn = 0;
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let value = value_of(number);
            let length = value.len();
            let key = if length <= KEPT_BYTES_MAX {
                format!("w{}-small-{number}", self.writer)
            } else {
                turn += 1;
                format!("w{}-large-{}", self.writer, turn % LARGE_KEYS)
            };
            self.note(&key, |known| known.maybe = Some(number));
            let answer = tokio::select! {
                answer = state.set(self.object, &key, value) => answer,
                // Sent, and never answered: it may be there or not.
                _ = self.stop.wait_for(|stop| *stop) => return,
            };
            match answer {
                Ok(written) if written.written => {
                    self.acks.fetch_add(1, Ordering::SeqCst);
                    self.bytes.fetch_add(length as u64, Ordering::SeqCst);
                    self.note(&key, |known| *known = Known { acked: Some(number), maybe: None });
                }
                Ok(lost) => panic!("nobody else writes {key}, and it lost to {lost:?}"),
                // Its outcome is open, and another write to the key would confuse two of them.
                Err(_) => return,
            }
        }
    }

    fn note(&self, key: &str, change: impl FnOnce(&mut Known)) {
        let mut ledger = self.ledger.lock().expect("no writer panics while it holds this lock");
        change(ledger.entry(key.to_owned()).or_default());
    }
}

/// Saves objects until it is stopped.
async fn keep(
    store: ClusterStore,
    next: Arc<AtomicU64>,
    objects: Arc<Mutex<Objects>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let object = Object::new("Power", body_of(number));
        let saved = tokio::select! {
            saved = store.save(&object) => saved,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        // Whether it is there is open.
        let Ok(id) = saved else { return };
        objects.lock().expect("no writer panics while it holds this lock").push((id, number));
    }
}

/// The body of an object: a value, or for one in eight several, which take more than a save may have.
fn body_of(number: u64) -> Vec<u8> {
    let value = value_of(number);
    match number % 8 {
        0 => value.repeat((2 << 20) / value.len() + 1),
        _ => value,
    }
}

/// The value of a write: its number, and bytes that follow from it; 200 bytes to 1 MiB, most of
/// them small.
fn value_of(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let length = match random.next() % 100 {
        0..70 => 200 + random.next() % 1_800,
        70..90 => 2_000 + random.next() % 62_000,
        90..98 => 64_000 + random.next() % 200_000,
        _ => (256 << 10) + random.next() % (768 << 10) + 1,
    };
    let mut value = number.to_be_bytes().to_vec();
    let length = usize::try_from(length).expect("at most 1 MiB");
    while value.len() < length {
        value.extend(random.next().to_be_bytes());
    }
    value.truncate(length);
    value
}

/// Which write a value is of.
fn number_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|number| u64::from_be_bytes(*number))
}

/// SplitMix64: bytes that follow from a seed, fast.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
