//! A lease as its holder counts it.

use std::time::{Duration, Instant};

use crate::fake::{Action, Gate, Node, client, in_time};
use holdfast_client::{
    Applied, BootTime, Claimed, Client, Error, Instance, LeaseHolder, Loss, Opened, Origin,
};
use tonic::Code;

const TTL: Duration = Duration::from_millis(500);

async fn open(client: &Client, ttl: Duration) -> Result<LeaseHolder, Error> {
    match in_time(LeaseHolder::open(client, "master-a", &Instance::random(), ttl)).await? {
        Opened::Granted(holder) => Ok(holder),
        Opened::HeldBy(other) => panic!("held by {other:?}"),
    }
}

// M5
#[tokio::test]
async fn lease_is_lost_in_time_when_renewals_stall() -> Result<(), Error> {
    let node = Node::start(1).await;
    node.script(|seen| if seen.call == "keep_alive" { Action::Hang } else { Action::Default });
    let client = client(&[&node]);
    let begun = Instant::now();
    let holder = open(&client, TTL).await?;
    assert!(holder.is_live());
    let opened = node.seen("open_lease");
    assert_eq!(opened.len(), 1);
    assert_eq!(in_time(holder.lost()).await, Loss::Expired);
    // The cluster's own count began after ours: with the grant, which came before `open` returned.
    let told = begun.elapsed();
    assert!(told >= TTL - TTL / 100 - Duration::from_millis(10), "too early: {told:?}");
    assert!(!holder.is_live() && holder.check().is_err());
    assert!(holder.lost_at() <= BootTime::now());
    Ok(())
}

// M5: it does not matter when anybody looks; the count ends before the ttl has run from the grant.
#[tokio::test]
async fn count_begins_before_the_first_transmission() -> Result<(), Error> {
    let node = Node::start(1).await;
    let (gate, ttl) = (Gate::closed(), Duration::from_secs(3600));
    let held = gate.clone();
    node.script(move |seen| match seen.call {
        "open_lease" => Action::Wait(held.clone(), Box::new(Action::Default)),
        _ => Action::Default,
    });
    let client = client(&[&node]);
    let (holder, sent) = tokio::join!(open(&client, ttl), async {
        node.await_seen("open_lease", 1).await;
        let sent = BootTime::now();
        gate.open();
        sent
    });
    assert!(holder?.lost_at() <= sent + (ttl - ttl / 100 - Duration::from_millis(10)));
    Ok(())
}

// M5
#[tokio::test]
async fn renewals_keep_a_lease_alive() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client(&[&node]);
    let holder = open(&client, TTL).await?;
    let first_end = holder.lost_at();
    node.await_seen("keep_alive", 4).await;
    // The fourth renewal is due after four thirds of the ttl.
    assert!(BootTime::now() > first_end && holder.is_live());
    let seqs: Vec<u64> = node.seen("keep_alive").iter().map(crate::fake::Seen::seq).collect();
    assert_eq!(seqs[..4], [2, 3, 4, 5], "each is a write of its own");
    for renewal in node.seen("keep_alive") {
        assert!(renewal.timeout < TTL, "it may not outlast the lease: {:?}", renewal.timeout);
    }
    Ok(())
}

// M5
#[tokio::test]
async fn late_reply_revives_nothing_and_no_renewal_follows() -> Result<(), Error> {
    let node = Node::start(1).await;
    let gate = Gate::closed();
    let held = gate.clone();
    node.script(move |seen| match seen.call {
        "keep_alive" => Action::Wait(held.clone(), Box::new(Action::Default)),
        _ => Action::Default,
    });
    let client = client(&[&node]);
    let holder = open(&client, TTL).await?;
    node.await_seen("keep_alive", 1).await;
    assert_eq!(in_time(holder.lost()).await, Loss::Expired);
    let sent = node.seen("keep_alive").len();
    // Now the cluster renews it, for an hour.
    gate.open();
    let error = holder.claim(3).await.expect_err("lost");
    assert!(matches!(error, Error::LeaseLost { lease: 5, applied: Applied::No }), "{error:?}");
    assert_eq!(node.seen("claim").len(), 0, "it was not even sent");
    // Two renewal periods more.
    tokio::time::sleep(TTL).await;
    assert!(!holder.is_live());
    assert_eq!(holder.lost().await, Loss::Expired);
    assert_eq!(node.seen("keep_alive").len(), sent);
    Ok(())
}

// M3, M5
#[tokio::test]
async fn lease_that_the_cluster_has_ended_is_lost_at_once() -> Result<(), Error> {
    let node = Node::start(1).await;
    let refusal = node.status(Code::FailedPrecondition, "LEASE_LOST", "no");
    node.script(move |seen| match seen.call {
        "keep_alive" => Action::fail(refusal.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]);
    let holder = open(&client, Duration::from_secs(3)).await?;
    let end = holder.lost_at();
    assert_eq!(in_time(holder.lost()).await, Loss::Ended);
    assert!(holder.lost_at() < end);
    Ok(())
}

// M5: an election in the middle of a renewal.
#[tokio::test]
async fn renewal_survives_a_broken_connection_and_an_election() -> Result<(), Error> {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.script(|seen| if seen.call == "keep_alive" { Action::Cut } else { Action::Default });
    let no_leader = two.no_leader();
    two.script(move |seen| match (seen.call, seen.earlier) {
        ("keep_alive", 0..=2) => Action::fail(no_leader.clone()),
        _ => Action::Default,
    });
    let client = client(&[&one, &two]);
    let holder = open(&client, Duration::from_secs(3)).await?;
    let end = holder.lost_at();
    let moved = async {
        while holder.lost_at() <= end {
            assert!(holder.is_live());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(moved).await;
    assert!(two.seen("keep_alive")[0].is_resent());
    Ok(())
}

// M5
#[tokio::test]
async fn claim_that_the_lease_does_not_outlive_is_lost_with_it() -> Result<(), Error> {
    let node = Node::start(1).await;
    node.script(|seen| match seen.call {
        "keep_alive" | "claim" => Action::Hang,
        _ => Action::Default,
    });
    let client = client(&[&node]);
    let holder = open(&client, TTL).await?;
    let error = in_time(holder.claim(3)).await.expect_err("it hangs");
    // Whichever of the two ends first, nobody believes to own anything.
    assert_eq!(error.applied(), Applied::Unknown);
    in_time(holder.lost()).await;
    Ok(())
}

#[tokio::test]
async fn claims_and_close_go_through_while_the_lease_lives() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client(&[&node]);
    // On another thread, as a program would.
    let holder = tokio::spawn(async move { open(&client, Duration::from_secs(60)).await });
    let holder = holder.await.expect("it does not panic")?;
    assert_eq!(holder.claim(3).await?, Claimed::Granted { token: 9 });
    assert_eq!(holder.close().await?, 2);
    assert_eq!(node.seen("close_lease").len(), 1);
    Ok(())
}

#[tokio::test]
async fn dropped_holder_renews_no_more() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client(&[&node]);
    let holder = open(&client, TTL).await?;
    node.await_seen("keep_alive", 1).await;
    drop(holder);
    // A renewal that was just on its way may still come in.
    tokio::time::sleep(TTL / 5).await;
    let seen = node.seen("keep_alive").len();
    tokio::time::sleep(TTL).await;
    assert_eq!(node.seen("keep_alive").len(), seen);
    Ok(())
}

// M3
#[tokio::test]
async fn holder_keeps_the_secret_file_locked() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("instance");
    let node = Node::start(1).await;
    let client = client(&[&node]);
    let instance = Instance::from_file(&path)?;
    let ttl = Duration::from_secs(60);
    let Opened::Granted(holder) = LeaseHolder::open(&client, "master-a", &instance, ttl).await?
    else {
        panic!("it is free");
    };
    drop(instance);
    assert_eq!(Instance::from_file(&path)?.origin(), Origin::Unlocked);
    drop(holder);
    Ok(())
}

// M3
#[tokio::test]
async fn other_instance_is_named() -> Result<(), Error> {
    let node = Node::start(1).await;
    node.script(|seen| {
        if seen.call != "open_lease" {
            return Action::Default;
        }
        let holder = holdfast_proto::v1::LeaseHolder {
            master_id: 1,
            name: "master-a".to_owned(),
            lease_id: 4,
            lease_remaining_ms: 1500,
        };
        let outcome = Some(holdfast_proto::v1::open_lease_response::Outcome::HeldBy(holder));
        Action::reply(holdfast_proto::v1::OpenLeaseResponse { header: None, outcome })
    });
    let client = client(&[&node]);
    let opened = LeaseHolder::open(&client, "master-a", &Instance::random(), TTL).await?;
    let Opened::HeldBy(holder) = opened else { panic!("it is held by another") };
    assert_eq!((holder.lease, holder.remaining), (4, Duration::from_millis(1500)));
    Ok(())
}
