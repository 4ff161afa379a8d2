//! The three outcomes of a write: applied, definitely not applied, unknown.

use std::time::Duration;

use crate::fake::{Action, Gate, Node, client, client_of, closed_address, in_time};
use holdfast_client::{Applied, Error};
use tonic::Code;

const SHORT: Duration = Duration::from_millis(500);

/// Does `action` with copies of `set_state` of the given number, and grants everything else.
fn nth_copy(node: &Node, nth: usize, mut action: impl FnMut() -> Action + Send + 'static) {
    node.script(move |seen| match (seen.call, seen.earlier) {
        ("set_state", earlier) if earlier == nth => action(),
        _ => Action::Default,
    });
}

// G5
#[tokio::test]
async fn broken_connection_resends_the_same_seq() -> Result<(), Error> {
    let node = Node::start(1).await;
    nth_copy(&node, 0, || Action::Cut);
    let client = client(&[&node]);
    assert!(in_time(client.state().set(1, "key", "value")).await?.written);
    let seen = node.seen("set_state");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].context.map(|c| (c.session_id, c.seq)), Some((100, 1)));
    assert_eq!(seen[1].context.map(|c| (c.session_id, c.seq)), Some((100, 1)));
    assert!(!seen[0].is_resent() && seen[1].is_resent());
    Ok(())
}

// G5
#[tokio::test]
async fn silence_until_the_deadline_is_unknown() {
    let node = Node::start(1).await;
    node.script(|seen| if seen.call == "set_state" { Action::Hang } else { Action::Default });
    let client = client(&[&node]).with_timeout(SHORT);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("no answer");
    assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!(error.applied(), Applied::Unknown);
    assert!(error.to_string().contains(&format!("{}: no answer", node.address)), "{error}");
}

// G5
#[tokio::test]
async fn definite_answers_until_the_deadline_are_not_applied() {
    let node = Node::start(1).await;
    let no_leader = node.no_leader();
    node.script(move |seen| match seen.call {
        "set_state" => Action::fail(no_leader.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]).with_timeout(SHORT);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("no leader");
    assert!(matches!(&error, Error::NotApplied { .. }), "{error:?}");
    assert_eq!(error.applied(), Applied::No);
    assert!(error.has_answer());
    assert_eq!(error.header().map(|header| header.node_id), Some(1));
    let seen = node.seen("set_state");
    assert!(seen.len() > 1, "it was tried again");
    assert!(seen.iter().all(|copy| copy.seq() == 1));
    assert!(seen[1..].iter().all(|copy| copy.is_resent()));
}

// G5
#[tokio::test]
async fn one_lost_copy_among_definite_answers_is_unknown() {
    let node = Node::start(1).await;
    let no_leader = node.no_leader();
    node.script(move |seen| match (seen.call, seen.earlier) {
        ("set_state", 0) => Action::Cut,
        ("set_state", _) => Action::fail(no_leader.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]).with_timeout(SHORT);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("no leader");
    assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{error:?}");
}

// G5
#[tokio::test]
async fn node_that_does_not_know_is_asked_again() -> Result<(), Error> {
    let node = Node::start(1).await;
    let unknown = node.status(Code::Unknown, "OUTCOME_UNKNOWN", "unknown");
    nth_copy(&node, 0, move || Action::fail(unknown.clone()));
    let client = client(&[&node]);
    assert!(in_time(client.state().set(1, "key", "value")).await?.written);
    assert!(node.seen("set_state")[1].is_resent());
    Ok(())
}

// G5: a status that is not Holdfast's own says nothing, whatever its code.
#[tokio::test]
async fn foreign_status_is_not_a_definite_answer() {
    for code in [Code::Unavailable, Code::InvalidArgument, Code::NotFound, Code::Internal] {
        let node = Node::start(1).await;
        node.script(move |seen| match seen.call {
            "set_state" => Action::fail(tonic::Status::new(code, "from a proxy")),
            _ => Action::Default,
        });
        let client = client(&[&node]).with_timeout(SHORT);
        let error = in_time(client.state().set(1, "key", "value")).await.expect_err("no answer");
        assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{code:?}: {error:?}");
    }
}

// G5
#[tokio::test]
async fn unreachable_cluster_is_not_applied() {
    let client = client_of(vec![closed_address().await]).with_timeout(SHORT);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("nobody there");
    assert!(matches!(&error, Error::NotApplied { .. }), "{error:?}");
    assert!(!error.has_answer());
}

#[tokio::test]
async fn refusal_says_why() {
    let node = Node::start(1).await;
    let refusal = node.status(Code::NotFound, "UNKNOWN_OBJECT", "no");
    nth_copy(&node, 0, move || Action::fail(refusal.clone()));
    let client = client(&[&node]);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("refused");
    let Error::Refused { reason, code, message, fields, header } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((reason.as_str(), *code), ("UNKNOWN_OBJECT", Code::NotFound));
    assert_eq!(message, "UNKNOWN_OBJECT said node 1");
    assert_eq!(fields.iter().collect::<Vec<_>>(), [(&"detail".to_owned(), &"17".to_owned())]);
    assert_eq!(
        header.as_ref().map(|header| header.cluster_id.as_str()),
        Some(crate::fake::CLUSTER)
    );
    assert_eq!(node.seen("set_state").len(), 1);
}

// G5, S3: a resent copy goes through the log, so its refusal is the outcome of the seq.
#[tokio::test]
async fn refusal_of_a_resent_copy_settles_a_lost_one() {
    let node = Node::start(1).await;
    let refusal = node.status(Code::FailedPrecondition, "STALE_FENCE", "no");
    node.script(move |seen| match (seen.call, seen.earlier) {
        ("set_state", 0) => Action::Cut,
        ("set_state", _) => Action::fail(refusal.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("refused");
    assert_eq!(error.reason(), Some("STALE_FENCE"));
    assert_eq!(node.seen("set_state").len(), 2);
}

// G5: a quota that refuses the second copy says nothing about the first.
#[tokio::test]
async fn refusal_of_one_copy_does_not_settle_a_lost_one() {
    let node = Node::start(1).await;
    let refusal = node.status(Code::ResourceExhausted, "QUOTA", "no");
    node.script(move |seen| match (seen.call, seen.earlier) {
        ("set_state", 0) => Action::Cut,
        ("set_state", _) => Action::fail(refusal.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]).with_timeout(SHORT);
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("refused");
    assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{error:?}");
    // Without a lost copy the refusal stands.
    let error = in_time(client.state().set(1, "key", "value")).await.expect_err("refused");
    assert_eq!(error.reason(), Some("QUOTA"));
}

// G5: the copy in the air may have been applied.
#[tokio::test]
async fn refusal_waits_for_the_copies_in_the_air() -> Result<(), Error> {
    let (one, two, three) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    let gate = Gate::closed();
    let held = gate.clone();
    nth_copy(&one, 0, move || Action::Wait(held.clone(), Box::new(Action::Default)));
    let refusal = two.status(Code::ResourceExhausted, "QUOTA", "no");
    nth_copy(&two, 0, move || Action::fail(refusal.clone()));
    let client = client(&[&one, &two, &three]);
    let state = client.state();
    let (written, ()) = tokio::join!(in_time(state.set(1, "key", "value")), async {
        two.await_seen("set_state", 1).await;
        // Time for the refusal to arrive, and for a copy that must not follow it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
    });
    assert!(written?.written);
    let copies = [&one, &two, &three].map(|node| node.seen("set_state").len());
    assert_eq!(copies, [1, 1, 0]);
    Ok(())
}

/// The first copy is answered only when the second, to another node, is on its way for good.
fn hedged(one: &Node, two: &Node) -> Gate {
    let gate = Gate::closed();
    let held = gate.clone();
    nth_copy(one, 0, move || Action::Wait(held.clone(), Box::new(Action::Default)));
    nth_copy(two, 0, || Action::Hang);
    gate
}

// G4, S3: an answer to the first copy may have left no outcome behind, so that the second one would
// still be carried out.
#[tokio::test]
async fn answer_to_the_first_copy_is_not_enough_beside_a_second() -> Result<(), Error> {
    let (one, two, three) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    let gate = hedged(&one, &two);
    let client = client(&[&one, &two, &three]);
    let state = client.state();
    let (written, _) = tokio::join!(in_time(state.set(1, "key", "value")), async {
        two.await_seen("set_state", 1).await;
        gate.open();
    });
    assert!(written?.written);
    let copies: Vec<_> = [&one, &three].iter().flat_map(|node| node.seen("set_state")).collect();
    assert_eq!(copies.iter().filter(|copy| copy.is_resent()).count(), 1, "{copies:?}");
    assert!(copies.iter().all(|copy| copy.seq() == 1));
    Ok(())
}

// G4, G5
#[tokio::test]
async fn answer_to_the_first_copy_alone_leaves_the_outcome_open() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let gate = hedged(&one, &two);
    let held = gate.clone();
    one.script(move |seen| match (seen.call, seen.earlier) {
        ("set_state", 0) => Action::Wait(held.clone(), Box::new(Action::Default)),
        ("set_state", _) => Action::Hang,
        _ => Action::Default,
    });
    let client = client(&[&one, &two]).with_timeout(SHORT);
    let state = client.state();
    let (result, _) = tokio::join!(in_time(state.set(1, "key", "value")), async {
        two.await_seen("set_state", 1).await;
        gate.open();
    });
    let error = result.expect_err("the second copy may still be carried out");
    assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{error:?}");
}

// G4
#[tokio::test]
async fn expired_session_is_reported_and_the_write_not_moved() -> Result<(), Error> {
    let node = Node::start(1).await;
    let refusal = node.status(Code::FailedPrecondition, "SESSION_EXPIRED", "no");
    nth_copy(&node, 0, move || Action::fail(refusal.clone()));
    let client = client(&[&node]);
    let error = in_time(client.state().set(1, "key", "first")).await.expect_err("expired");
    assert!(matches!(&error, Error::SessionExpired { session: 100, .. }), "{error:?}");
    assert_eq!(error.applied(), Applied::No);
    // The next write opens a session of its own, and begins to count again.
    in_time(client.state().set(1, "key", "second")).await?;
    let seen = node.seen("set_state");
    let texts: Vec<_> = seen.iter().map(|copy| copy.text.as_str()).collect();
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(seen[1].context.map(|c| (c.session_id, c.seq)), Some((101, 1)));
    Ok(())
}

// G4
#[tokio::test]
async fn session_that_expired_after_a_lost_copy_leaves_it_unknown() -> Result<(), Error> {
    let node = Node::start(1).await;
    let refusal = node.status(Code::FailedPrecondition, "SESSION_EXPIRED", "no");
    node.script(move |seen| match (seen.call, seen.earlier) {
        ("set_state", 0) => Action::Cut,
        ("set_state", 1) => Action::fail(refusal.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]);
    let error = in_time(client.state().set(1, "key", "first")).await.expect_err("expired");
    assert!(matches!(&error, Error::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!(node.seen("set_state").len(), 2, "asking on would be of no use");
    Ok(())
}

#[tokio::test]
async fn dropped_write_is_given_up() -> Result<(), Error> {
    let node = Node::start(1).await;
    nth_copy(&node, 0, || Action::Hang);
    let client = client(&[&node]);
    {
        let state = client.state();
        let write = state.set(1, "key", "dropped");
        tokio::select! {
            _ = write => panic!("it hangs"),
            _ = node.await_seen("set_state", 1) => {}
        }
    }
    in_time(client.state().set(1, "key", "next")).await?;
    let seen = node.seen("set_state");
    assert_eq!(seen.iter().map(|copy| copy.text.as_str()).collect::<Vec<_>>(), ["dropped", "next"]);
    // A copy of it that is still on its way is stale from here on, which only the log can tell.
    assert_eq!(seen[1].context.map(|c| (c.seq, c.first_incomplete)), Some((2, 2)));
    assert!(seen[1].is_resent());
    in_time(client.state().set(1, "key", "last")).await?;
    assert!(!node.seen("set_state")[2].is_resent());
    Ok(())
}

#[tokio::test]
async fn oversized_value_is_refused_before_it_is_sent() {
    let node = Node::start(1).await;
    let state = client(&[&node]).state();
    let error = state.set(1, "key", vec![0; (1 << 20) + 1]).await.expect_err("too large");
    assert_eq!(error.reason(), Some("VALUE_TOO_LARGE"));
    assert!(error.to_string().contains("1048577 bytes, and at most 1048576"), "{error}");
    assert_eq!(node.seen("set_state").len(), 0);
    in_time(state.set(1, "key", vec![0; 1 << 20])).await.expect("the limit itself is allowed");
}
