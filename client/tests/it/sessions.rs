//! Sessions as a node sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fake::{Action, Gate, Node, client, in_time};
use holdfast_client::Error;
use tokio::task::JoinSet;

// G4
#[tokio::test]
async fn clones_share_one_session() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client(&[&node]);
    let mut writes = JoinSet::new();
    for i in 0..50 {
        let state = client.clone().with_namespace(&format!("site-{i}")).state();
        writes.spawn(async move { state.set(1, "key", "value").await });
    }
    for written in in_time(writes.join_all()).await {
        assert!(written?.written);
    }
    assert_eq!(node.seen("open_session").len(), 1);
    let seqs: BTreeSet<u64> = node.seen("set_state").iter().map(crate::fake::Seen::seq).collect();
    assert_eq!(seqs, (1..=50).collect());
    Ok(())
}

// G4
#[tokio::test]
async fn first_incomplete_waits_for_the_slowest_write() -> Result<(), Error> {
    let node = Node::start(1).await;
    let gate = Gate::closed();
    let held = gate.clone();
    node.script(move |seen| match seen.text.as_str() {
        "slow" => Action::Wait(held.clone(), Box::new(Action::Default)),
        _ => Action::Default,
    });
    let state = client(&[&node]).with_timeout(Duration::from_secs(60)).state();
    let (slow, quick) = tokio::join!(in_time(state.set(1, "a", "slow")), async {
        node.await_seen("set_state", 1).await;
        state.set(1, "b", "quick").await?;
        state.set(1, "c", "quick").await?;
        gate.open();
        Ok::<(), Error>(())
    });
    slow?;
    quick?;
    state.set(1, "d", "last").await?;
    let of = |text: &str| -> Vec<(u64, u64)> {
        let seen = node.seen("set_state").into_iter().filter(|copy| copy.text == text);
        seen.filter_map(|copy| copy.context.map(|c| (c.seq, c.first_incomplete))).collect()
    };
    assert_eq!(of("quick"), [(2, 1), (3, 1)]);
    assert_eq!(of("last"), [(4, 4)]);
    Ok(())
}

// G4: a call ends before its session could.
#[tokio::test]
async fn deadline_is_at_most_half_the_idle_time() -> Result<(), Error> {
    let node = Node::start(1).await;
    node.grant_session_idle(Duration::from_secs(4));
    let client = client(&[&node]).with_timeout(Duration::from_secs(30));
    in_time(client.state().set(1, "key", "value")).await?;
    let timeout = node.seen("set_state")[0].timeout;
    assert!(timeout <= Duration::from_secs(2), "{timeout:?}");
    assert!(node.seen("open_session")[0].timeout > Duration::from_secs(20));
    Ok(())
}

// G4
#[tokio::test]
async fn session_that_may_have_expired_is_replaced() -> Result<(), Error> {
    let node = Node::start(1).await;
    // Too old to begin a write after 100 ms less 2 ms and 10 ms.
    node.grant_session_idle(Duration::from_millis(200));
    let client = client(&[&node]);
    in_time(client.state().set(1, "key", "first")).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    in_time(client.state().set(1, "key", "second")).await?;
    let contexts: Vec<_> = node.seen("set_state").iter().filter_map(|copy| copy.context).collect();
    assert_eq!((contexts[0].session_id, contexts[0].seq), (100, 1));
    assert_eq!((contexts[1].session_id, contexts[1].seq), (101, 1));
    Ok(())
}

#[tokio::test]
async fn close_ends_the_session_and_the_next_write_opens_another() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client(&[&node]);
    client.close().await?;
    assert_eq!(node.seen("close_session").len(), 0, "there is none yet");
    client.state().set(1, "key", "value").await?;
    client.close().await?;
    assert_eq!(node.seen("close_session").len(), 1);
    client.state().set(1, "key", "value").await?;
    assert_eq!(node.seen("open_session").len(), 2);
    Ok(())
}

// S3: compare-and-set, applied exactly once for each successful call.
#[tokio::test]
async fn update_counts_every_call_once() -> Result<(), Error> {
    let node = Node::start(1).await;
    let mut updates = JoinSet::new();
    for _ in 0..8 {
        // Clients of their own, so that they race.
        let state = client(&[&node]).with_timeout(Duration::from_secs(60)).state();
        updates.spawn(async move {
            for _ in 0..10 {
                state.update(1, "counter", increment).await?;
            }
            Ok::<(), Error>(())
        });
    }
    for updated in in_time(updates.join_all()).await {
        updated?;
    }
    let value = client(&[&node]).state().get(1, "counter").await?.map(|value| value.bytes);
    assert_eq!(value, Some(b"80".to_vec()));
    Ok(())
}

fn increment(old: Option<&[u8]>) -> String {
    let old = old.map_or("0".into(), String::from_utf8_lossy);
    let old: u64 = old.parse().expect("nobody else writes here");
    (old + 1).to_string()
}
