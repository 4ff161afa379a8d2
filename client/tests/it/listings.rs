//! Listings of a store on a cluster whose streams break: P2 and P6 as its client sees them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_client::persistence::{ClusterStore, Error, Filter, Id, Object, Store};
use tokio::time::Instant;

use crate::fake::in_time;
use crate::uploads::{cluster, store};

/// Three parts of the shelf, of at most a thousand each, before the last one, which is empty.
const COUNT: usize = 2500;

/// Saves many objects; returns their ids in order.
async fn fill(store: &ClusterStore) -> Vec<u64> {
    let mut root = Object::new("Root", b"".to_vec());
    root.children = (1..COUNT).map(|_| Arc::new(Object::new("Leaf", b"".to_vec()))).collect();
    in_time(store.save(&root)).await.expect("it is saved");
    let ids = in_time(store.list(&Filter::default())).await.expect("they are listed");
    assert_eq!(ids.len(), COUNT);
    ids.into_iter().map(Id::get).collect()
}

/// All that a stream of records hands out, and the error that it ends with.
async fn drain(store: &ClusterStore) -> (Vec<u64>, Option<Error>) {
    let (mut ids, mut error) = (Vec::new(), None);
    let mut records = store.records(Filter::default());
    while let Some(record) = in_time(records.next()).await {
        assert!(error.is_none(), "it goes on behind {error:?}");
        match record {
            Ok(listed) => ids.push(listed.id.get()),
            Err(broken) => error = Some(broken),
        }
    }
    (ids, error)
}

// P6
#[tokio::test(flavor = "multi_thread")]
async fn listing_that_breaks_before_its_first_record_is_begun_anew() {
    let (_node, shelf, store) = cluster().await;
    let all = fill(&store).await;
    for collects in [true, false] {
        {
            let mut state = shelf.lock();
            state.broken_listings = VecDeque::from([1, 1]);
            state.listed_after.clear();
        }
        let listed = match collects {
            true => in_time(store.list_records(&Filter::default())).await,
            false => in_time(store.records(Filter::default()).try_collect()).await,
        };
        let listed: Vec<_> = listed.expect("it is begun anew");
        assert!(listed.iter().map(|listed| listed.id.get()).eq(all.iter().copied()));
        assert_eq!(shelf.lock().listed_after, [0, 0, 0]);
    }
}

// P2 P6: the same revision is the same objects, whoever has it.
#[tokio::test(flavor = "multi_thread")]
async fn listing_goes_on_at_its_revision() {
    let (_node, shelf, store) = cluster().await;
    let all = fill(&store).await;
    {
        let mut state = shelf.lock();
        state.broken_listings = VecDeque::from([2, 1, 2]);
        state.listed_after.clear();
    }
    let (listed, error) = drain(&store).await;
    assert!(error.is_none(), "{error:?}");
    assert!(listed == all, "other ids");
    assert_eq!(shelf.lock().listed_after, [0, all[999], all[999], all[1999]]);
}

// P2: what is of two revisions is never shown as one listing.
#[tokio::test(flavor = "multi_thread")]
async fn listing_whose_revision_is_gone_says_so_and_ends() {
    let (_node, shelf, store) = cluster().await;
    let all = fill(&store).await;
    shelf.lock().broken_listings = VecDeque::from([3]);
    let mut records = store.records(Filter::default());
    let first = in_time(records.next()).await.expect("a record").expect("it is listed");
    assert_eq!(first.id.get(), all[0]);
    in_time(store.save(&Object::new("Late", b"".to_vec()))).await.expect("it is saved");
    let mut rest = 0;
    let error = loop {
        match in_time(records.next()).await.expect("it does not end as if it were whole") {
            Ok(_) => rest += 1,
            Err(error) => break error,
        }
    };
    assert!(in_time(records.next()).await.is_none(), "it goes on behind its error");
    assert!(matches!(error, Error::BrokenOff { handed_out: 2000, .. }), "{error:?}");
    assert_eq!(rest, 1999);
    let said = error.to_string();
    assert!(said.contains("broke off after 2000 objects") && said.contains("list again"), "{said}");
    assert!(said.contains("node 1: broken off") && !said.contains("did not answer"), "{said}");
    // Again, it is whole.
    let (listed, error) = drain(&store).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(listed.len(), COUNT + 1);
}

// P6: it is waited for another node, and the time that is told is the time that it was waited.
#[tokio::test(flavor = "multi_thread")]
async fn listing_that_goes_on_nowhere_was_waited_for() {
    const WAIT: Duration = Duration::from_secs(1);
    let (node, shelf, patient) = cluster().await;
    let all = fill(&patient).await;
    let store = store(vec![node.address.clone()], WAIT);
    shelf.lock().broken_listings = VecDeque::from([2]);
    let mut records = store.records(Filter::default());
    let first = in_time(records.next()).await.expect("a record").expect("it is listed");
    assert_eq!(first.id.get(), all[0]);
    drop(node);
    let began = Instant::now();
    let error = in_time(records.try_collect::<Vec<_>>()).await.expect_err("nobody is there");
    let took = began.elapsed();
    assert!(
        matches!(error, Error::Unavailable { waited, .. } if (WAIT..=took).contains(&waited)),
        "after {took:?}: {error:?}"
    );
}
