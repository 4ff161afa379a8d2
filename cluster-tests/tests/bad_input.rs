//! Bad input through the API: each gets an error that names the field, the value and what is
//! allowed; nothing changes, and the nodes stay healthy. // G9, G11
//!
//! The calls are made with the generated client, so that nothing is caught before the node; each
//! is made on the leader and on a follower, which forwards.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_client::{Applied, Error};
use holdfast_cluster_tests::Cluster;
use holdfast_proto::v1;
use tonic::{Code, Status};

use crate::raw::{Raw, refused};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const UNKNOWN: i64 = 1_000_000_007;

#[tokio::test(flavor = "multi_thread")]
async fn names_are_1_to_1024_bytes() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let longest = "é".repeat(KIB / 2);
        let object = raw.object(&longest, &longest).await?;
        raw.set(object, &longest, b"1").await.context("the longest name is allowed")?;
        let before = raw.revision().await?;
        for (name, reason) in [("", "NAME_EMPTY"), (&*format!("{longest}x"), "NAME_TOO_LONG")] {
            let fields = |field| match name.len() {
                0 => vec![("field", field)],
                _ => vec![("field", field), ("actual", "1025"), ("allowed", "1024")],
            };
            let bad =
                |answer, field| refused(answer, Code::InvalidArgument, reason, &fields(field));
            bad(raw.object(name, "class").await.map(drop), "name")?;
            bad(raw.object("name", name).await.map(drop), "class_name")?;
            bad(raw.set(object, name, b"1").await.map(drop), "name")?;
            bad(raw.create(object, name, b"1").await.map(drop), "name")?;
            bad(raw.master(name).await.map(drop), "name")?;
            bad(raw.source(name).await.map(drop), "name")?;
            bad(raw.lease(name, 500).await.map(drop), "name")?;
            if !name.is_empty() {
                raw.namespace = name.to_owned();
                bad(raw.object("name", "class").await.map(drop), "namespace")?;
                bad(raw.source("name").await.map(drop), "namespace")?;
                raw.namespace = String::new();
            }
        }
        ensure!(raw.revision().await? == before, "a refused call changed something");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_at_most_1_mib() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let object = raw.object("values", "test").await?;
        let (largest, too_large) = (vec![b'7'; MIB], vec![b'7'; MIB + 1]);
        raw.set(object, "set", &largest).await.context("the largest value is allowed")?;
        raw.create(object, "create", &largest).await.context("the largest value is allowed")?;
        let before = raw.revision().await?;
        let fields = [("field", "value"), ("actual", "1048577"), ("allowed", "1048576")];
        for key in ["set", "new"] {
            let answer = raw.set(object, key, &too_large).await.map(drop);
            refused(answer, Code::InvalidArgument, "VALUE_TOO_LARGE", &fields)?;
            let answer = raw.create(object, key, &too_large).await.map(drop);
            refused(answer, Code::InvalidArgument, "VALUE_TOO_LARGE", &fields)?;
        }
        ensure!(raw.revision().await? == before, "a refused call changed something");
        ensure!(raw.get(object, "set").await?.value == largest, "the value has changed");
        ensure!(!raw.get(object, "new").await?.found, "there is a value");
        raw.delete(object, "create").await?;
    }
    cluster.finish().await
}

/// What is larger than a message may be never gets to where values are checked.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_refuses_what_no_node_would_take() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let state = cluster.client().state();
    let object = state.get_object_id("large", "test").await?;
    for size in [MIB + 1, 5 * MIB, 64 * MIB] {
        let within = tokio::time::timeout(Duration::from_secs(5), async {
            state.set(object, "key", vec![b'7'; size]).await
        });
        let error = within.await.with_context(|| format!("{size} bytes: no answer"))?;
        let error = error.err().with_context(|| format!("{size} bytes were taken"))?;
        ensure!(matches!(error, Error::Refused { .. }), "{size} bytes: {error:?}");
        ensure!(error.applied() == Applied::No, "{size} bytes: {error:?}");
    }
    ensure!(state.get(object, "key").await?.is_none(), "there is a value");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_values_can_be_read_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let state = cluster.client().state();
    let object = state.get_object_id("large", "test").await?;
    let names: Vec<String> = (0..12).map(|i| format!("key-{i}")).collect();
    for name in &names {
        state.set(object, name, vec![b'7'; MIB]).await?;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ensure!(state.get_many(object, &names).await?.len() == names.len(), "some are missing");
    ensure!(state.list(object).await?.len() == names.len(), "some are missing");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_positive_and_known() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let (source, master) = (raw.source("known").await?, raw.master("known").await?);
        let before = raw.revision().await?;
        for id in [0, -1, i64::MIN] {
            let text = id.to_string();
            let bad = |answer, field| {
                let fields = [("field", field), ("value", &*text)];
                refused(answer, Code::InvalidArgument, "BAD_ID", &fields)
            };
            bad(raw.set(id, "key", b"1").await.map(drop), "object_id")?;
            bad(raw.create(id, "key", b"1").await.map(drop), "object_id")?;
            bad(raw.delete(id, "key").await.map(drop), "object_id")?;
            bad(raw.set_master_state(id).await.map(drop), "master_id")?;
            bad(raw.claim_for(id, master).await.map(drop), "changesource_id")?;
            bad(raw.claim_for(source, id).await.map(drop), "master_id")?;
            bad(raw.claim(id, 7).await.map(drop), "changesource_id")?;
            bad(raw.release(id, 7).await.map(drop), "changesource_id")?;
            bad(raw.set_group(id, "group").await.map(drop), "changesource_id")?;
        }
        let text = UNKNOWN.to_string();
        let unknown =
            |answer, reason, field| refused(answer, Code::NotFound, reason, &[(field, &*text)]);
        let (object, object_id) = ("UNKNOWN_OBJECT", "object_id");
        unknown(raw.set(UNKNOWN, "key", b"1").await.map(drop), object, object_id)?;
        unknown(raw.create(UNKNOWN, "key", b"1").await.map(drop), object, object_id)?;
        unknown(raw.delete(UNKNOWN, "key").await.map(drop), object, object_id)?;
        unknown(raw.list(UNKNOWN).await.map(drop), object, object_id)?;
        unknown(raw.set_master_state(UNKNOWN).await.map(drop), "UNKNOWN_MASTER", "master_id")?;
        unknown(raw.claim_for(source, UNKNOWN).await.map(drop), "UNKNOWN_MASTER", "master_id")?;
        let (no_source, source_id) = ("UNKNOWN_CHANGE_SOURCE", "changesource_id");
        unknown(raw.claim_for(UNKNOWN, master).await.map(drop), no_source, source_id)?;
        unknown(raw.release(UNKNOWN, 7).await.map(drop), no_source, source_id)?;
        unknown(raw.set_group(UNKNOWN, "group").await.map(drop), no_source, source_id)?;
        ensure!(!raw.get(UNKNOWN, "key").await?.found, "an unknown object has a value");
        let found = raw.state.get_object_id(v1::GetObjectIdRequest {
            name: "nobody".to_owned(),
            class_name: "nobody".to_owned(),
            only_existing: true,
            ..Default::default()
        });
        let fields = [("name", "nobody"), ("class_name", "nobody")];
        refused(found.await, Code::NotFound, object, &fields)?;
        ensure!(raw.revision().await? == before, "a refused call changed something");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_named_numbered_and_alive() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let object = raw.object("sessions", "test").await?;
        let session_id = raw.session;
        let context = |seq, first_incomplete| v1::WriteContext {
            session_id,
            seq,
            first_incomplete,
            resent: false,
        };
        // Two writes are answered, and the second one says so of the first.
        raw.set_in(Some(context(100, 100)), object, "key", b"0").await?;
        raw.set_in(Some(context(101, 101)), object, "key", b"1").await?;
        let before = raw.revision().await?;
        let argument = Code::InvalidArgument;
        for (wrong, reason) in [
            (None, "session_id"),
            (Some(v1::WriteContext { session_id: 0, ..context(9, 9) }), "session_id"),
            (Some(context(0, 0)), "seq"),
            (Some(context(9, 10)), "first_incomplete"),
        ] {
            let answer = raw.set_in(wrong, object, "key", b"2").await;
            let message = answer.as_ref().err().map(|s| s.message().to_owned());
            refused(answer, argument, "BAD_REQUEST", &[])?;
            ensure!(message.is_some_and(|m| m.contains(reason)), "it does not name {reason}");
        }
        // Then the first one comes again.
        let late = raw.set_in(Some(context(100, 100)), object, "key", b"late").await;
        refused(late, Code::FailedPrecondition, "STALE_SEQ", &[("seq", "100")])?;
        // A session that never was: a revision that was a write's, and one yet to come.
        for session_id in [before, before + 1_000_000] {
            let context = v1::WriteContext { session_id, ..context(1, 1) };
            let answer = raw.set_in(Some(context), object, "key", b"2").await;
            let text = session_id.to_string();
            let fields = [("session_id", &*text)];
            refused(answer, Code::FailedPrecondition, "SESSION_EXPIRED", &fields)?;
        }
        let idle = raw.cluster.open_session(v1::OpenSessionRequest { idle_ms: 9_999 }).await;
        let fields = [("actual", "9999"), ("min", "10000"), ("max", "86400000")];
        refused(idle, argument, "BAD_IDLE", &fields)?;
        ensure!(raw.revision().await? == before, "a refused call changed something");
        ensure!(raw.get(object, "key").await?.value == b"1", "the value has changed");
    }
    cluster.finish().await
}

/// A session that has been idle for too long is gone, and what is sent in it changes nothing; the
/// library says so too, and goes on in a new one only when it is asked to.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    let idle = Duration::from_secs(10);
    let client = cluster.client_with(|config| config.session_idle = idle);
    let mut raws = Raw::on_leader_and_follower(&cluster).await?;
    let object = client.state().get_object_id("expiry", "test").await?;
    client.state().set(object, "library", "1").await?;
    for raw in &mut raws {
        raw.open_session(10_000).await?;
        raw.set(object, "key", b"1").await?;
    }
    let leader = cluster.leader().await?;
    let used_ms = cluster.status(leader).await?.clock_ms;
    // No lease lives, so that the clock goes on at the next deadline, which is theirs.
    cluster
        .wait("the cluster's clock passes the sessions' deadlines", async || {
            let now_ms = cluster.status(leader).await.ok()?.clock_ms;
            (now_ms >= used_ms + 10_000).then_some(())
        })
        .await?;
    for raw in &mut raws {
        let before = raw.revision().await?;
        let text = raw.session.to_string();
        let fields = [("session_id", &*text)];
        let answer = raw.set(object, "key", b"2").await.map(drop);
        refused(answer, Code::FailedPrecondition, "SESSION_EXPIRED", &fields)?;
        let context = Some(v1::WriteContext { session_id: raw.session, ..Default::default() });
        let kept = raw.cluster.keep_session(v1::KeepSessionRequest { context }).await;
        refused(kept, Code::FailedPrecondition, "SESSION_EXPIRED", &fields)?;
        ensure!(raw.revision().await? == before, "a refused call changed something");
        ensure!(raw.get(object, "key").await?.value == b"1", "the value has changed");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_has_moved_on_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start_three().await?;
    for mut raw in Raw::on_leader_and_follower(&cluster).await? {
        let object = raw.object("fences", "test").await?;
        let source = raw.source("fenced").await?;
        let (first, second) =
            (raw.lease("first", 60_000).await?, raw.lease("second", 60_000).await?);
        let old = raw.claim(source, first).await?;
        let fence = |token| Some(v1::Fence { changesource_id: source, token });
        raw.set_fenced(object, "key", b"first", fence(old)).await?;
        ensure!(raw.release(source, old).await?, "the claim was ours");
        let free = raw.revision().await?;
        let refuse = |answer: Result<_, Status>, token: u64| {
            let (source, token) = (source.to_string(), token.to_string());
            let fields = [("changesource_id", &*source), ("token", &*token)];
            refused(answer, Code::FailedPrecondition, "STALE_FENCE", &fields)
        };
        refuse(raw.set_fenced(object, "key", b"stale", fence(old)).await, old)?;
        ensure!(raw.revision().await? == free, "a refused call changed something");

        let new = raw.claim(source, second).await?;
        ensure!(new > old, "fences rise: {new} after {old}");
        let before = raw.revision().await?;
        // The old one, one that never was, and the right one for another source.
        refuse(raw.set_fenced(object, "key", b"stale", fence(old)).await, old)?;
        refuse(raw.set_fenced(object, "key", b"stale", fence(new + 1)).await, new + 1)?;
        ensure!(!raw.release(source, old).await?, "an old fence released a new claim");
        let ended = raw.claim(source, UNKNOWN.unsigned_abs()).await.map(drop);
        refused(ended, Code::FailedPrecondition, "LEASE_LOST", &[])?;
        for ttl_ms in [499, 86_400_001] {
            let text = ttl_ms.to_string();
            let fields = [("actual", &*text), ("min", "500"), ("max", "86400000")];
            let answer = raw.lease("third", ttl_ms).await.map(drop);
            refused(answer, Code::InvalidArgument, "BAD_TTL", &fields)?;
        }
        ensure!(raw.revision().await? == before, "a refused call changed something");
        ensure!(raw.get(object, "key").await?.value == b"first", "the value has changed");
        raw.set_fenced(object, "key", b"second", fence(new)).await?;
        raw.release(source, new).await?;
        for lease_id in [first, second] {
            let context = raw.context();
            let request = v1::CloseLeaseRequest { context, lease_id, ..Default::default() };
            raw.masters.close_lease(request).await?;
        }
    }
    cluster.finish().await
}
