//! Whom a client asks: the leader if it knows it, others when a node is gone, hangs or is foreign.

use std::time::{Duration, Instant};

use crate::fake::{Action, Node, PATIENCE, client, client_of, closed_address, in_time};
use holdfast_client::Error;

// G3
#[tokio::test]
async fn leader_hint_of_a_response_is_followed() -> Result<(), Error> {
    let (follower, leader) = (Node::start(1).await, Node::start(2).await);
    follower.hint(&leader, 3);
    // The leader is not among the configured endpoints.
    let client = client(&[&follower]);
    client.state().get(1, "first").await?;
    assert_eq!(client.endpoints(), [follower.address.clone(), leader.address.clone()]);
    client.state().get(1, "second").await?;
    assert_eq!(follower.seen("get_state").len(), 1);
    assert_eq!(leader.seen("get_state")[0].text, "second");
    Ok(())
}

// G3
#[tokio::test]
async fn leader_hint_of_an_error_is_followed_within_the_call() -> Result<(), Error> {
    let (follower, leader) = (Node::start(1).await, Node::start(2).await);
    follower.hint(&leader, 3);
    let refusal = follower.no_leader();
    follower.script(move |_| Action::fail(refusal.clone()));
    let client = client(&[&follower]);
    let written = client.state().set(1, "key", "value").await?;
    assert!(written.written);
    // Nothing was carried out at the follower, yet a copy had been sent there.
    assert_eq!(leader.seen("open_session").len(), 1);
    assert_eq!(leader.seen("set_state").len(), 1);
    Ok(())
}

#[tokio::test]
async fn hint_of_an_older_term_is_passed_over() -> Result<(), Error> {
    let (one, old, new) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    one.hint(&new, 8);
    new.hint(&old, 7);
    let client = client(&[&one]);
    for name in ["a", "b", "c"] {
        client.state().get(1, name).await?;
    }
    assert_eq!(one.seen("get_state").len(), 1);
    assert_eq!(new.seen("get_state").len(), 2);
    assert_eq!(old.seen("get_state").len(), 0);
    Ok(())
}

// G5: nothing was sent to a node that could not be reached.
#[tokio::test]
async fn unreachable_node_costs_no_copy() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client_of(vec![closed_address().await, node.address.clone()]);
    client.state().set(1, "key", "value").await?;
    let seen = node.seen("set_state");
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].is_resent());
    Ok(())
}

// G5
#[tokio::test]
async fn hung_node_costs_an_attempt_and_not_the_deadline() -> Result<(), Error> {
    let (hung, sound) = (Node::start(1).await, Node::start(2).await);
    hung.script(|seen| if seen.call == "set_state" { Action::Hang } else { Action::Default });
    let client = client(&[&hung, &sound]);
    let client = client.with_timeout(10 * PATIENCE);
    in_time(client.state().set(1, "key", "value")).await?;
    let (first, second) = (hung.seen("set_state"), sound.seen("set_state"));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(!first[0].is_resent() && second[0].is_resent());
    assert_eq!(first[0].seq(), second[0].seq());
    // From then on the sound one is asked first.
    in_time(client.state().set(1, "key", "other")).await?;
    assert_eq!((hung.seen("set_state").len(), sound.seen("set_state").len()), (1, 2));
    Ok(())
}

// G3: a node without a leader holds the call; that is not a failure.
#[tokio::test]
async fn held_call_is_answered_by_whoever_comes_first() -> Result<(), Error> {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let gate = crate::fake::Gate::closed();
    for node in [&one, &two] {
        let gate = gate.clone();
        node.script(move |seen| match seen.call {
            "set_state" => Action::Wait(gate.clone(), Box::new(Action::Default)),
            _ => Action::Default,
        });
    }
    let client = client(&[&one, &two]);
    let state = client.state();
    let (written, ()) = tokio::join!(in_time(state.set(1, "key", "value")), async {
        one.await_seen("set_state", 1).await;
        two.await_seen("set_state", 1).await;
        gate.open();
    });
    assert!(written?.written);
    Ok(())
}

#[tokio::test]
async fn answers_of_another_cluster_are_thrown_away() -> Result<(), Error> {
    let (ours, theirs) = (Node::start(1).await, Node::start(2).await);
    theirs.header(|header| header.cluster_id = "another".to_owned());
    let client = client(&[&ours, &theirs]).with_timeout(Duration::from_secs(1));
    client.state().get(1, "key").await?;
    let refusal = ours.no_leader();
    ours.script(move |_| Action::fail(refusal.clone()));
    let error = client.state().get(1, "key").await.expect_err("only the foreign one answers");
    assert!(matches!(&error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("belongs to cluster another"), "{error}");
    // Neither are its refusals.
    let refusal = theirs.status(tonic::Code::NotFound, "UNKNOWN_OBJECT", "no");
    theirs.script(move |_| Action::fail(refusal.clone()));
    let error = client.state().get(1, "key").await.expect_err("only the foreign one answers");
    assert!(matches!(&error, Error::Unavailable { .. }), "{error:?}");
    Ok(())
}

// UX: which endpoints failed, and why.
#[tokio::test]
async fn unavailable_names_endpoints_and_reasons() {
    let (closed, wrong) = (closed_address().await, "no address at all".to_owned());
    let client = client_of(vec![closed.clone(), wrong.clone()]);
    let client = client.with_timeout(Duration::from_millis(300));
    let begun = Instant::now();
    let error = in_time(client.state().get(1, "key")).await.expect_err("nobody is there");
    assert!(begun.elapsed() >= Duration::from_millis(300), "it was tried until the deadline");
    let text = error.to_string();
    assert!(text.starts_with("unavailable: state.get_state got no answer within 0.3"), "{text}");
    assert!(text.contains(&format!("{closed}: Connection refused")), "{text}");
    assert!(text.contains("is not of the form host:port"), "{text}");
    assert!(!error.has_answer());
}

// G11
#[tokio::test]
async fn hopeless_endpoints_fail_at_once() {
    let begun = Instant::now();
    let client = client_of(vec!["localhost".to_owned(), "a b:1".to_owned()]);
    let error = client.state().get(1, "key").await.expect_err("they are no addresses");
    assert!(error.to_string().contains("\"localhost\" is not of the form host:port"), "{error}");
    let error = client_of(Vec::new()).state().set(1, "key", "value").await.expect_err("none");
    assert!(matches!(&error, Error::NotApplied { .. }), "{error:?}");
    assert!(error.to_string().contains("there are no endpoints to try"), "{error}");
    assert!(begun.elapsed() < client.call_timeout());
}

#[tokio::test]
async fn status_asks_one_node_only() -> Result<(), Error> {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let client = client(&[&one]);
    assert_eq!(client.cluster().status(&two.address).await?.header.node_id, 2);
    assert_eq!(one.seen("status").len(), 0);
    let closed = closed_address().await;
    let error = client.cluster().status(&closed).await.expect_err("nobody is there");
    let cause = error.cause().expect("it could not be reached");
    assert_eq!(cause.attempts.len(), 1);
    assert_eq!(cause.attempts[0].endpoint, closed);
    assert_eq!(one.seen("status").len(), 0);
    Ok(())
}

// A refusal that follows a lost copy of a membership change proves nothing.
#[tokio::test]
async fn membership_change_lost_and_then_refused_is_unknown() {
    let node = Node::start(1).await;
    let refusal = node.status(tonic::Code::NotFound, "UNKNOWN_MEMBER", "no");
    node.script(move |seen| match seen.earlier {
        0 => Action::Cut,
        _ => Action::fail(refusal.clone()),
    });
    let client = client(&[&node]);
    let error = in_time(client.cluster().remove(3)).await.expect_err("refused");
    assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{error:?}");
    let error = in_time(client.cluster().remove(3)).await.expect_err("refused");
    assert_eq!(error.reason(), Some("UNKNOWN_MEMBER"));
}
