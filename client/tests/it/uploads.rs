//! The store on a cluster against nodes that break off, forget and refuse: P1 to P3 and P6 as its client sees
//! them.

use std::sync::Arc;
use std::time::Duration;

use holdfast_client::persistence::{ClusterStore, Error, Filter, Id, Object, Store};
use holdfast_client::{Applied, ClientConfig};
use tonic::Code;

use crate::fake::{Node, closed_address, in_time};
use crate::persistence::contract;
use crate::shelf::Shelf;

const KIB: usize = 1 << 10;
const CHUNK: usize = 512 * KIB;

/// A cluster of one node, and a store on it that waits for ten seconds.
pub(crate) async fn cluster() -> (Node, Shelf, ClusterStore) {
    let shelf = Shelf::default();
    let node = Node::start_with(1, Some(shelf.clone())).await;
    let store = store(vec![node.address.clone()], Duration::from_secs(10));
    (node, shelf, store)
}

pub(crate) fn store(endpoints: Vec<String>, wait: Duration) -> ClusterStore {
    ClusterStore::new(ClientConfig { endpoints, call_timeout: wait, ..ClientConfig::default() })
}

fn large(chunks: usize) -> Object {
    let byte = |at: usize| u8::try_from((at / CHUNK * 7 + at) % 256).expect("below 256");
    Object::new("Large", (0..chunks * CHUNK).map(byte).collect::<Vec<u8>>())
}

async fn comes_back(store: &ClusterStore, object: &Object) {
    let id = object.id().expect("it was saved");
    let found = store.load(id).await.expect("it is there").into_root();
    assert!(found.body == object.body, "it came back otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_of_a_cluster_keeps_the_contract() {
    let shelf = Shelf::default();
    let node = Node::start_with(1, Some(shelf)).await;
    let open = |place: &str| -> Arc<dyn Store> {
        let mut config = ClientConfig::new([&node.address]);
        config.namespace = place.to_owned();
        Arc::new(ClusterStore::new(config))
    };
    contract::all(&open).await;
}

// P3: what was answered is not sent again, and what was not is.
#[tokio::test(flavor = "multi_thread")]
async fn broken_upload_goes_on_behind_what_was_answered() {
    let (_node, shelf, store) = cluster().await;
    shelf.lock().break_after = Some(3);
    let object = large(20);
    in_time(store.save(&object)).await.expect("it goes on");
    comes_back(&store, &object).await;
    let state = shelf.lock();
    assert_eq!((state.opened, store.progress().bytes().0), (1, (40 * CHUNK) as u64));
    let firsts: Vec<u64> = state.streams.iter().map(|stream| stream[0]).collect();
    // 20 chunks; the object that names them comes behind, on a stream of its own.
    assert_eq!(firsts, [1, 4, 7, 10, 13, 16, 19, 21]);
    for stream in &state.streams {
        assert!(stream.windows(2).all(|pair| pair[1] == pair[0] + 1), "{stream:?}");
        // The window is 4 MiB, and opens with the answers.
        assert!(stream.len() <= 3 + 8, "{stream:?}");
    }
}

// P3
#[tokio::test(flavor = "multi_thread")]
async fn lapsed_upload_is_begun_anew() {
    let (_node, shelf, store) = cluster().await;
    shelf.lock().lapse = 2;
    let object = large(4);
    in_time(store.save(&object)).await.expect("the third one lives");
    comes_back(&store, &object).await;
    assert_eq!(shelf.lock().opened, 3);

    // Not for ever. The object keeps its id, and can be saved again.
    shelf.lock().lapse = 3;
    let object = large(5);
    let error = in_time(store.save(&object)).await.expect_err("all of them lapse");
    let said = error.of_call().and_then(|error| error.reason()).map(str::to_owned);
    assert_eq!(said.as_deref(), Some("UNKNOWN_UPLOAD"), "{error:?}");
    let id = object.id().expect("it has one");
    assert!(store.load(id).await.expect_err("nothing of it is there").is_load_error());
    assert_eq!(in_time(store.save(&object)).await.expect("now it lives"), id);
    comes_back(&store, &object).await;
}

// P3 G9
#[tokio::test(flavor = "multi_thread")]
async fn refused_upload_is_abandoned() {
    let (_node, shelf, store) = cluster().await;
    shelf.lock().refuse = Some((Code::ResourceExhausted, "QUOTA_FULL"));
    let error = in_time(store.save(&large(4))).await.expect_err("there is no room");
    assert!(matches!(error, Error::Refused { .. }) && !error.is_unavailable(), "{error:?}");
    let counted = {
        let state = shelf.lock();
        (state.opened, state.abandoned)
    };
    assert_eq!(counted, (1, 1));
    assert!(store.list(&Filter::default()).await.expect("it lists").is_empty());
}

// P2 P6
#[tokio::test(flavor = "multi_thread")]
async fn broken_load_is_begun_anew() {
    let (_node, shelf, store) = cluster().await;
    let object = large(3);
    in_time(store.save(&object)).await.expect("it is saved");
    shelf.lock().broken_loads = 3;
    in_time(comes_back(&store, &object)).await;
    assert_eq!(shelf.lock().loads, 4);
}

// P3: parts of two trees are never shown as one.
#[tokio::test(flavor = "multi_thread")]
async fn load_under_which_all_changes_is_given_up() {
    let (_node, shelf, store) = cluster().await;
    let mut root = Object::new("Root", b"root".to_vec());
    root.children = vec![Arc::new(Object::new("Leaf", b"leaf".to_vec()))];
    let id = in_time(store.save(&root)).await.expect("it is saved");
    assert_eq!(store.load(id).await.expect("it loads").len(), 2);
    shelf.lock().is_restless = true;
    let error = in_time(store.load(id)).await.expect_err("its leaf is never of its revision");
    assert!(matches!(error, Error::Unsteady { tries: 16, .. }), "{error:?}");
    // Alone it is what it is.
    assert_eq!(store.load_alone(id).await.expect("it loads").body, b"root");
}

// P6 G5
#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_no_load_error() {
    let store = store(vec![closed_address().await], Duration::from_millis(200));
    let object = large(4);
    for error in [
        in_time(store.load(Id::LOWEST)).await.map(drop).expect_err("nobody is there"),
        in_time(store.save(&object)).await.map(drop).expect_err("nobody is there"),
    ] {
        assert!(error.is_unavailable() && !error.is_load_error(), "{error:?}");
        assert!(error.to_string().contains(&store.name()), "{error}");
    }
    assert_eq!(object.id(), None, "there was nobody to give it one");
}

// P6: an upload is given up when nothing goes on, not because it takes long.
#[tokio::test(flavor = "multi_thread")]
async fn upload_that_goes_nowhere_is_given_up() {
    let (_node, shelf, _) = cluster().await;
    let node = Node::start_with(2, Some(shelf.clone())).await;
    let store = store(vec![node.address.clone()], Duration::from_millis(500));
    // So that it has ids and a session.
    in_time(store.save(&Object::new("Small", b"".to_vec()))).await.expect("it is saved");
    shelf.lock().break_after = Some(0);
    let error = in_time(store.save(&large(4))).await.expect_err("no message is answered");
    assert!(error.is_unavailable(), "{error:?}");
    assert!(error.to_string().contains(&node.address), "{error}");
}

// G5: what is not known of a step before the save is no doubt about the save.
#[tokio::test(flavor = "multi_thread")]
async fn save_that_got_no_ids_was_not_carried_out() {
    let (_node, shelf, _) = cluster().await;
    let node = Node::start_with(2, Some(shelf.clone())).await;
    let store = store(vec![node.address.clone()], Duration::from_millis(500));
    shelf.lock().is_deaf = true;
    let object = Object::new("Small", b"".to_vec());
    let error = in_time(store.save(&object)).await.expect_err("the lease of ids hangs");
    assert!(matches!(error, Error::Unavailable { applied: Applied::No, .. }), "{error:?}");
    shelf.lock().is_deaf = false;
    in_time(store.save(&object)).await.expect("it is saved");
    shelf.lock().is_deaf = true;
    let error = in_time(store.save(&object)).await.expect_err("the save hangs");
    assert!(matches!(error, Error::Unavailable { applied: Applied::Unknown, .. }), "{error:?}");
}
