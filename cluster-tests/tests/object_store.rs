//! The store of objects on a cluster: what every store promises, how many round trips a tree takes, how large
//! and how many objects may be, and what an outage looks like from inside a program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::TryStreamExt as _;
use holdfast_client::ClientConfig;
use holdfast_client::persistence::{ClusterStore, Error, Filter, Id, Object, Store, make_store};
use holdfast_cluster_tests::{Cluster, Options, bound, http, millis, report, scale, wait_for};
use tokio::time::Instant;

#[path = "../../client/tests/contract/mod.rs"]
mod contract;

const MIB: usize = 1 << 20;
/// Ends a test that hangs.
const LONG: Duration = Duration::from_secs(60);

fn store(cluster: &Cluster, namespace: &str) -> ClusterStore {
    let mut config = ClientConfig::new(cluster.endpoints());
    config.namespace = namespace.to_owned();
    config.call_timeout = LONG;
    ClusterStore::new(config)
}

// P1 to P6
#[tokio::test(flavor = "multi_thread")]
async fn cluster_keeps_the_contract() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let endpoints = cluster.endpoints().join(",");
    let open = |place: &str| -> Arc<dyn Store> {
        let uri = format!("holdfast://{endpoints}/{}", place.replace(' ', "%20"));
        make_store(&uri).expect("it names a store")
    };
    contract::all(&open).await;
    cluster.finish().await
}

// P3
#[tokio::test(flavor = "multi_thread")]
async fn tree_is_one_step_and_a_level_one_round_trip() -> anyhow::Result<()> {
    const BRANCHES: usize = 100;
    let leaves = scale(99, 9);
    let cluster = Cluster::start_three().await?;
    let store = store(&cluster, "tree");
    let mut root = Object::new("Root", b"root".to_vec());
    for branch in 0..BRANCHES {
        let mut middle = Object::new("Branch", branch.to_string());
        let leaf = |nth| Arc::new(Object::new("Leaf", format!("{branch} {nth}")));
        middle.children = (0..leaves).map(leaf).collect();
        root.children.push(Arc::new(middle));
    }
    let all = 1 + BRANCHES * (1 + leaves);
    let is_saved = AtomicBool::new(false);
    let save = async {
        let began = Instant::now();
        let id = store.save(&root).await?;
        is_saved.store(true, Ordering::Relaxed);
        anyhow::Ok((id, began.elapsed()))
    };
    let look = async {
        let mut looks = 0;
        while !is_saved.load(Ordering::Relaxed) {
            let seen = store.list(&Filter::default()).await?.len();
            ensure!(seen == 0 || seen == all, "{seen} of {all} objects were seen");
            looks += 1;
        }
        anyhow::Ok(looks)
    };
    let ((id, saving), looks) = tokio::try_join!(save, look)?;
    ensure!(store.list(&Filter::default()).await?.len() == all, "not all of them are there");

    let before = reads(&cluster).await?;
    let began = Instant::now();
    let tree = store.load(id).await?;
    let loading = began.elapsed();
    let round_trips = reads(&cluster).await? - before;
    ensure!(tree.len() == all, "{} of {all} objects came back", tree.len());
    ensure!(round_trips == 3, "three levels took {round_trips} round trips");
    for (branch, id) in tree.root().children.iter().enumerate() {
        let middle = tree.get(*id).context("a branch")?;
        ensure!(middle.body == branch.to_string().as_bytes(), "{middle:?}");
        let last = tree.get(middle.children[leaves - 1]).context("a leaf")?;
        ensure!(last.body == format!("{branch} {}", leaves - 1).as_bytes(), "{last:?}");
    }
    report(
        "a tree of objects",
        format!(
            "{all} objects saved in {:.2} s, {looks} looks meanwhile saw none or all; loaded in {:.2} s \
             with {round_trips} round trips",
            saving.as_secs_f64(),
            loading.as_secs_f64()
        ),
    );
    cluster.finish().await
}

/// Linearizable reads that the nodes that run have served.
pub(crate) async fn reads(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut all = 0;
    for index in cluster.running() {
        let page = http::get(&cluster.endpoint(index), "/metrics").await?.body;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("holdfast_reads_total{outcome=\"linearizable\"} "));
        all += line.map_or(Ok(0), str::parse::<u64>)?;
    }
    Ok(all)
}

// P3 G9
#[tokio::test(flavor = "multi_thread")]
async fn largest_object_comes_back() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let store = store(&cluster, "large");
    let largest = Object::new("Large", bytes(64 * MIB));
    let began = Instant::now();
    let id = store.save(&largest).await?;
    let saving = began.elapsed();
    let began = Instant::now();
    let found = store.load(id).await?.into_root();
    let loading = began.elapsed();
    ensure!(found.body == largest.body, "it came back otherwise");
    report(
        "an object of 64 MiB, by the client library",
        format!("saved in {:.2} s, loaded in {:.2} s", saving.as_secs_f64(), loading.as_secs_f64()),
    );
    cluster.finish().await
}

/// So many bytes, of which no two chunks are the same.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 31 + at / 257) % 256) as u8).collect()
}

// P2
#[tokio::test(flavor = "multi_thread")]
async fn many_ids_list_at_one_revision_while_writes_go_on() -> anyhow::Result<()> {
    let count = scale(100_000, 10_000);
    let within = bound(Duration::from_secs(2));
    let cluster = Cluster::start_three().await?;
    let store = store(&cluster, "many");
    let mut root = Object::new("Root", b"".to_vec());
    root.children = (1..count).map(|_| Arc::new(Object::new("Leaf", b"leaf".to_vec()))).collect();
    store.save(&root).await?;

    let is_over = AtomicBool::new(false);
    // Pairs are made together and removed together: at one revision both are there, or none.
    let write = async {
        let mut written = 0_usize;
        while !is_over.load(Ordering::Relaxed) {
            let partner = Arc::new(Object::new("Pair", b"".to_vec()));
            let mut pair = Object::new("Pair", b"".to_vec());
            pair.children = vec![partner.clone()];
            store.save(&pair).await?;
            written += 1;
        }
        anyhow::Ok(written)
    };
    let list = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let began = Instant::now();
            let ids = store.list(&Filter::default()).await?;
            slowest = slowest.max(began.elapsed());
            ensure!(ids.len() >= count && ids.is_sorted(), "{} ids", ids.len());
            ensure!((ids.len() - count).is_multiple_of(2), "half of a pair was listed");
        }
        is_over.store(true, Ordering::Relaxed);
        anyhow::Ok(slowest)
    };
    let (written, slowest) = tokio::try_join!(write, list)?;
    ensure!(written > 0, "nothing was written meanwhile");
    report(
        "listing ids while writes go on",
        format!("{count} ids in at most {:.2} s, {written} saves meanwhile", slowest.as_secs_f64()),
    );
    ensure!(slowest < within, "{slowest:?}");
    cluster.finish().await
}

// P5 P6
#[tokio::test(flavor = "multi_thread")]
async fn store_that_cannot_be_reached_is_made_at_once_and_named() -> anyhow::Result<()> {
    let began = Instant::now();
    let store = make_store("holdfast://127.0.0.1:1/x?timeout_s=0.5")?;
    ensure!(began.elapsed() < millis(100), "{:?}", began.elapsed());
    let object = Object::new("Job", b"".to_vec());
    for error in [
        store.save(&object).await.map(drop),
        store.load(Id::LOWEST).await.map(drop),
        store.remove(Id::LOWEST).await,
        store.list(&Filter::default()).await.map(drop),
        store.records(Filter::default()).try_collect::<Vec<_>>().await.map(drop),
    ] {
        let error = error.expect_err("nobody is there");
        ensure!(error.is_unavailable() && !error.is_load_error(), "{error:?}");
        let said = error.to_string();
        ensure!(said.contains("127.0.0.1:1") && said.contains("refused"), "{said}");
    }
    let said = make_store("nope://x").expect_err("no such scheme").to_string();
    ensure!(said.contains("file, holdfast"), "{said}");
    Ok(())
}

// P6
#[tokio::test(flavor = "multi_thread")]
async fn loader_outlives_an_outage_and_is_told_of_the_end() -> anyhow::Result<()> {
    let outage = scale(Duration::from_secs(20), Duration::from_secs(4));
    let cluster = Arc::new(Cluster::start_three().await?);
    let store = store(&cluster, "outage");
    let object = Object::new("Job", vec![7; MIB]);
    let id = store.save(&object).await?;
    let loads = Arc::new(AtomicU64::new(0));
    let loader = {
        let (store, loads) = (store.clone(), loads.clone());
        tokio::spawn(async move {
            loop {
                match store.load(id).await {
                    Ok(tree) if tree.root().body == vec![7; MIB] => {
                        loads.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => bail!("it came back otherwise"),
                    Err(error) => return anyhow::Ok(error),
                }
            }
        })
    };
    let going = |beyond: u64| {
        let loads = loads.clone();
        wait_for("the loader goes on", LONG, move || {
            let loads = loads.clone();
            async move { (loads.load(Ordering::Relaxed) > beyond).then_some(()) }
        })
    };
    going(3).await?;
    cluster.kill_all();
    tokio::time::sleep(outage).await;
    let during = loads.load(Ordering::Relaxed);
    ensure!(!loader.is_finished(), "it gave up");
    for index in 0..cluster.size() {
        cluster.start_node(index)?;
    }
    going(during + 3).await?;
    ensure!(!loader.is_finished(), "it gave up");
    loader.abort();

    // For good, and for a program that does not wait for a minute.
    let patient = make_store(&format!("{}?timeout_s=2", store.name()))?;
    patient.load(id).await?;
    cluster.kill_all();
    let began = Instant::now();
    let error = patient.load(id).await.expect_err("nobody is there");
    ensure!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let waited = began.elapsed();
    let limits = Duration::from_secs(2)..bound(Duration::from_secs(4));
    ensure!(limits.contains(&waited), "it took {waited:?}");
    ensure!(error.to_string().contains(&cluster.endpoint(0)), "{error}");
    let error = patient.save(&object).await.expect_err("nobody is there");
    ensure!(error.is_unavailable(), "{error:?}");
    report(
        "outage under a loader",
        format!(
            "waited through {} s without a node; for good: unavailable after {:.1} s",
            outage.as_secs(),
            waited.as_secs_f64()
        ),
    );
    cluster.finish().await
}

// P3: an upload goes on at another node, from what was answered on.
#[tokio::test(flavor = "multi_thread")]
async fn upload_outlives_its_node() -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start_three().await?);
    let store = store(&cluster, "upload");
    let object = Object::new("Large", bytes(24 * MIB));
    let save = store.save(&object);
    let kill = async {
        // The client sends to the leader; it is killed in the middle.
        wait_for("a third of it is there", LONG, || async {
            let (done, total) = store.progress().bytes();
            (total > 0 && done > total / 3).then_some(())
        })
        .await?;
        let leader = cluster.leader().await?;
        cluster.kill(leader);
        anyhow::Ok(leader)
    };
    let (id, killed) = tokio::join!(save, kill);
    let (id, killed) = (id?, killed?);
    ensure!(store.load(id).await?.into_root().body == object.body, "it came back otherwise");
    cluster.start_node(killed)?;
    cluster.settled().await?;
    cluster.finish().await
}

// P1: whatever happens to the cluster, no id comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn ids_come_once_through_restarts_and_snapshots() -> anyhow::Result<()> {
    let args = ["--snapshot-every-entries", "50", "--log-keep-entries", "10"];
    let options = Options { args: args.map(str::to_owned).to_vec(), ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let mut last: Option<Id> = None;
    // Each store leases a block of its own, all of which lie above the earlier ones.
    let mut check = async |when: &str| -> anyhow::Result<()> {
        let store = store(&cluster, when);
        for _ in 0..3 {
            let object = Object::new("Job", when);
            let id = store.save(&object).await?;
            ensure!(Some(id) > last, "{when}: {id} after {last:?}");
            store.remove(id).await?;
            last = Some(id);
        }
        // Before a fork, and after it.
        store.pre_fork();
        store.post_fork();
        let id = store.save(&Object::new("Job", when)).await?;
        ensure!(Some(id) > last, "{when}: {id} after {last:?}");
        last = Some(id);
        Ok(())
    };
    check("first").await?;
    cluster.kill_all();
    for index in 0..cluster.size() {
        cluster.start_node(index)?;
    }
    cluster.settled().await?;
    check("all nodes restarted").await?;

    // A node that gets a snapshot, and leads then.
    let behind = cluster.follower().await?;
    let had = cluster.status(behind).await?.last_log_index;
    cluster.kill(behind);
    let writer = store(&cluster, "writes");
    cluster
        .wait("the log is purged beyond what the node has", || async {
            for _ in 0..20 {
                writer.save(&Object::new("Job", b"".to_vec())).await.ok()?;
            }
            let status = cluster.status(cluster.leader_now().await?).await.ok()?;
            (status.purged_index > had + 10).then_some(())
        })
        .await?;
    cluster.start_node(behind)?;
    cluster.settled().await?;
    let status = cluster.status(behind).await?;
    ensure!(status.snapshots_installed > 0, "no snapshot was installed: {status:?}");
    let id = u64::try_from(behind + 1)?;
    cluster.client().cluster().move_lead(Some(id)).await?;
    cluster
        .wait("it leads", || async { (cluster.leader_now().await == Some(behind)).then_some(()) })
        .await?;
    check("a snapshot installed").await?;
    let last = last.context("some were given out")?;
    report("ids of stored objects", format!("none twice, the last one {last}"));
    cluster.finish().await
}
