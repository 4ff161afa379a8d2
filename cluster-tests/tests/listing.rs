//! A listing of stored objects whose node is killed: it is begun anew, goes on at its revision, or says
//! how far it came; it is never of two revisions.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, poll};
use holdfast_client::ClientConfig;
use holdfast_client::persistence::{ClusterStore, Error, Filter, Id, Listed, Object, Store as _};
use holdfast_cluster_tests::Cluster;

use crate::object_store::reads;

/// With their metadata about 14 MB: far more than is on its way at once, so that a node that is killed
/// takes the rest of a listing with it.
const COUNT: usize = 2000;
const SAVED_AT_ONCE: usize = 100;
const METADATA_ENTRIES: usize = 7;
const METADATA_VALUE_BYTES: usize = 1000;

/// A cluster, a store on it, and the ids of what is there.
async fn filled() -> anyhow::Result<(Cluster, ClusterStore, Vec<Id>)> {
    let cluster = Cluster::start_three().await?;
    let mut config = ClientConfig::new(cluster.endpoints());
    config.call_timeout = Duration::from_secs(60);
    let store = ClusterStore::new(config);
    let object = |class: &str| {
        let mut object = Object::new(class, b"".to_vec());
        let entry = |nth| (format!("field-{nth}"), "x".repeat(METADATA_VALUE_BYTES));
        object.metadata = (0..METADATA_ENTRIES).map(entry).collect();
        object
    };
    // In small saves: what an upload brings is put in its place at revisions behind its commit.
    for _ in 0..COUNT / SAVED_AT_ONCE {
        let mut root = object("Root");
        root.children = (1..SAVED_AT_ONCE).map(|_| Arc::new(object("Leaf"))).collect();
        store.save(&root).await?;
    }
    let ids = store.list(&Filter::default()).await?;
    ensure!(ids.len() == COUNT, "{} objects", ids.len());
    Ok((cluster, store, ids))
}

type Records<'a> = BoxStream<'a, Result<Listed, Error>>;

/// Begins a listing at the leader, and kills that behind the first record.
async fn killed_midway<'a>(
    cluster: &Cluster,
    store: &'a ClusterStore,
) -> anyhow::Result<(Listed, Records<'a>)> {
    let leader = cluster.leader().await?;
    let mut records = store.records(Filter::default());
    let first = records.next().await.context("a record")??;
    cluster.kill(leader);
    Ok((first, records))
}

fn of(first: Listed, rest: Vec<Listed>) -> impl Iterator<Item = Id> {
    std::iter::once(first).chain(rest).map(|listed| listed.id)
}

// P6
#[tokio::test(flavor = "multi_thread")]
async fn listing_outlives_its_node_before_the_first_record() -> anyhow::Result<()> {
    let (cluster, store, ids) = filled().await?;
    // The client asks the leader, which has the request and does not answer.
    let leader = cluster.leader().await?;
    cluster.pause(leader)?;
    let mut records = store.records(Filter::default());
    let mut first = records.next();
    ensure!(poll!(&mut first).is_pending(), "a node that stands still has answered");
    cluster.kill(leader);
    let first = first.await.context("a record")??;
    let rest: Vec<Listed> = records.try_collect().await?;
    ensure!(of(first, rest).eq(ids), "other ids");
    cluster.finish().await
}

// P2 P6
#[tokio::test(flavor = "multi_thread")]
async fn listing_goes_on_at_another_node_while_nothing_is_written() -> anyhow::Result<()> {
    let (cluster, store, ids) = filled().await?;
    let (first, rest) = killed_midway(&cluster, &store).await?;
    let before = reads(&cluster).await?;
    let rest: Vec<Listed> = rest.try_collect().await?;
    ensure!(reads(&cluster).await? > before, "no other node was asked: the listing did not break");
    ensure!(of(first, rest).eq(ids), "other ids");
    cluster.finish().await
}

// P2 P6: what was handed out cannot be taken back, and the rest is not there any more as it was.
#[tokio::test(flavor = "multi_thread")]
async fn listing_says_how_far_it_came_if_the_store_has_changed() -> anyhow::Result<()> {
    let (cluster, store, ids) = filled().await?;
    let (first, mut rest) = killed_midway(&cluster, &store).await?;
    store.save(&Object::new("Late", b"".to_vec())).await?;
    let mut listed = vec![first.id];
    let error = loop {
        match rest.next().await {
            Some(Ok(record)) => listed.push(record.id),
            Some(Err(error)) => break error,
            None => bail!("{} of {COUNT} records came as if they were all", listed.len()),
        }
    };
    ensure!(rest.next().await.is_none(), "it goes on behind {error}");
    let Error::BrokenOff { handed_out, .. } = error else { bail!("{error:?}") };
    ensure!(handed_out == listed.len() as u64, "{handed_out} and not {}", listed.len());
    ensure!(ids.starts_with(&listed) && listed.len() < COUNT, "other ids");
    let said = error.to_string();
    ensure!(said.contains(&format!("broke off after {handed_out} object")), "{said}");
    ensure!(said.contains("list again") && !said.contains("did not answer"), "{said}");
    let again = store.records(Filter::default()).try_collect::<Vec<_>>().await?;
    ensure!(again.len() == COUNT + 1, "{} records", again.len());
    cluster.finish().await
}
