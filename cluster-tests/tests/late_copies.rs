//! A copy of a write that arrives late, when the write has long been answered, does nothing.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::{Cluster, Flow, Options, Proxy, millis, wait_for};

const WAIT_MAX: Duration = Duration::from_secs(30);
/// So large that a proxy which holds as many bytes holds the whole request.
const VALUE: [u8; 8192] = [7; 8192];

/// A set of the value that is there already is answered without a log entry, which leaves no
/// outcome behind. Its second copy, sent because the first answer was slow, is held up meanwhile.
// G4 S3
#[tokio::test(flavor = "multi_thread")]
async fn late_copy_of_a_set_that_changed_nothing_does_nothing() -> anyhow::Result<()> {
    let options = Options { hide_endpoints: true, ..Options::default() };
    let cluster = Cluster::start(3, options).await?;
    let (leader, follower) = (cluster.leader().await?, cluster.follower().await?);
    let to_leader = Proxy::start(&cluster.endpoint(leader)).await?;
    let to_follower = Proxy::start(&cluster.endpoint(follower)).await?;
    let hedging = cluster.client_with(|config| {
        config.endpoints = vec![to_leader.address(), to_follower.address()];
        config.attempt_timeout = millis(200);
        config.keepalive_interval = WAIT_MAX;
        config.keepalive_timeout = WAIT_MAX;
    });
    let object = hedging.state().get_object_id("late", "copy").await?;
    hedging.state().set(object, "key", VALUE).await?;
    // Connected to both, so that what is held from here on is the request; the next call goes where
    // the last answer came from.
    hedging.cluster().status(&to_follower.address()).await?;
    let proposed = hedging.cluster().status(&to_leader.address()).await?.requests_proposed;

    to_leader.down(Flow::Stall);
    to_follower.stall();
    let state = hedging.state();
    let write = tokio::spawn(async move { state.set(object, "key", VALUE).await });
    wait_for("the second copy is held, and the first answered", WAIT_MAX, || async {
        let are_there = to_follower.held_up() >= VALUE.len() && to_leader.held_down() > 0;
        are_there.then_some(())
    })
    .await?;
    ensure!(!write.is_finished(), "it was answered by nobody");
    let now = cluster.status(leader).await?.requests_proposed;
    ensure!(now == proposed, "a set that changes nothing was proposed");
    // Else the library would call the copy back.
    to_follower.deafen();
    to_leader.pass();
    let set = write.await??;
    ensure!(set.written, "{set:?}");

    let other = cluster.client();
    other.state().set(object, "key", "another session's").await?;
    to_follower.up(Flow::Pass);
    wait_for("the late copy is answered", WAIT_MAX, || async {
        (to_follower.held_up() == 0 && to_follower.held_down() > 0).then_some(())
    })
    .await?;
    // Behind it, on the same way.
    cluster.client_only(follower).state().set(object, "marker", "1").await?;
    let value = other.state().get(object, "key").await?.context("no value")?;
    ensure!(value.bytes == b"another session's", "the late copy was carried out");
    cluster.finish().await
}
