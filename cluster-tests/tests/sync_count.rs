//! Many writers share the syncs of the log: with 256 of them the leader's log database syncs at
//! most once for every 20 acknowledged writes. Counted by the leader, not inferred. // G1

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use holdfast_client::Client;
use holdfast_cluster_tests::{Cluster, report, scale};

const WRITERS: usize = 256;
const CLIENTS: usize = 8;
const VALUE_BYTES: usize = 200;
/// Acknowledged writes for each sync, at least.
const WRITES_PER_SYNC_MIN: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_share_syncs() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let object = cluster.client().state().get_object_id("sync", "count").await?;
    let clients: Vec<Client> = (0..CLIENTS).map(|_| cluster.client()).collect();
    let (stop, acks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let state = clients[writer % CLIENTS].state();
        let (stop, acks) = (Arc::clone(&stop), Arc::clone(&acks));
        writers.spawn(async move {
            let key = format!("writer-{writer}");
            let mut turn = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let value = format!("{turn:0VALUE_BYTES$}");
                assert!(state.set(object, &key, value).await?.written);
                acks.fetch_add(1, Ordering::SeqCst);
                turn += 1;
            }
            Ok::<(), holdfast_client::Error>(())
        });
    }
    // Sessions are open and connections made once each has written.
    let warm = u64::try_from(4 * WRITERS)?;
    cluster
        .wait("the writers are at work", async || {
            (acks.load(Ordering::SeqCst) > warm).then_some(())
        })
        .await?;

    let leader = cluster.leader().await?;
    let (before, acks_before, begin) =
        (cluster.status(leader).await?, acks.load(Ordering::SeqCst), Instant::now());
    tokio::time::sleep(Duration::from_secs(scale(20, 3))).await;
    // The later count of syncs and the earlier one of writes: the bound holds against us.
    let (acks_after, took) = (acks.load(Ordering::SeqCst), begin.elapsed());
    let after = cluster.status(leader).await?;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended??;
    }

    ensure!(after.header.term == before.header.term, "the leader changed meanwhile");
    let writes = acks_after - acks_before;
    let syncs = after.log_syncs - before.log_syncs;
    let rate = writes as f64 / took.as_secs_f64();
    let per_sync = writes as f64 / syncs.max(1) as f64;
    report(
        "syncs of the leader's log, 256 writers of 200 bytes",
        format!("{syncs} for {writes} writes, {per_sync:.1} writes a sync ({rate:.0} writes/s)"),
    );
    ensure!(syncs > 0, "writes were acknowledged without any sync");
    ensure!(
        syncs * WRITES_PER_SYNC_MIN <= writes,
        "{syncs} syncs for {writes} writes: more than one for {WRITES_PER_SYNC_MIN}"
    );
    cluster.finish().await
}
