//! What a commit of variables may be said to have come to: applied, busy, in conflict, uncertain; and that
//! committing again settles it exactly once. // T2 T3 G5

use std::time::{Duration, Instant};

use crate::fake::{Action, Node, Seen, client, client_of, closed_address, in_time};
use holdfast_client::Error;
use holdfast_client::stm::{CommitError, Interrupt, Key, TransactError, Value};
use tonic::Code;

const SHORT: Duration = Duration::from_millis(500);
const BUDGET: Duration = Duration::from_millis(100);

fn key(name: &str) -> Key {
    Key::new(name).expect("a short key")
}

/// A copy of x that holds the number and is not committed, with a short budget.
async fn changed(client: &holdfast_client::Client, number: u32) -> Result<Value, Error> {
    let mut x = client.stm().with_budget(BUDGET).usevar(&key("x")).await?;
    x.set(&number).expect("a number is JSON");
    Ok(x)
}

/// Does `action` with the commits of which `which` says so, and grants everything else.
fn script(
    node: &Node,
    which: impl Fn(&Seen) -> bool + Send + 'static,
    action: impl Fn() -> Action + Send + 'static,
) {
    node.script(move |seen| match seen.call {
        "commit" if which(seen) => action(),
        _ => Action::Default,
    });
}

fn numbers(node: &Node) -> Vec<(u64, u64)> {
    let seen = node.seen("commit");
    seen.iter().filter_map(|copy| copy.context).map(|c| (c.session_id, c.seq)).collect()
}

// T3: a reply that was lost is asked for again, under the same number.
#[tokio::test]
async fn lost_reply_is_asked_for_again() -> Result<(), Error> {
    let node = Node::start(1).await;
    script(&node, |seen| seen.earlier == 0, || Action::Unsaid(Box::new(Action::Cut)));
    let client = client(&[&node]);
    let mut x = changed(&client, 7).await?;
    let revision = in_time(x.commit()).await.expect("it was applied");
    assert_eq!((x.version(), x.mod_revision()), (1, revision), "the copy follows");
    assert!(!x.is_changed());
    assert_eq!(numbers(&node), [(100, 1), (100, 1)]);
    assert!(node.seen("commit")[1].is_resent());
    Ok(())
}

// T3: busy is said soon, and only of what no node has.
#[tokio::test]
async fn busy_is_said_within_the_budget() -> Result<(), Error> {
    let node = Node::start(1).await;
    let no_leader = node.no_leader();
    script(&node, |_| true, move || Action::fail(no_leader.clone()));
    let client = client(&[&node]);
    let mut x = changed(&client, 7).await?;
    let began = Instant::now();
    let error = in_time(x.commit()).await.expect_err("there is no leader");
    assert!(matches!(&error, CommitError::BusyRetry { .. }), "{error:?}");
    assert!(began.elapsed() >= BUDGET && began.elapsed() < BUDGET + SHORT, "{:?}", began.elapsed());
    assert!(x.is_changed() && x.version() == 0, "nothing was committed");
    // A node may hold it for nearly as long as it is told, and its no has to come back within the budget:
    // one that came 10 ms too late left the commit uncertain.
    let told = node.seen("commit")[0].timeout;
    assert!(told > BUDGET / 2 && told <= BUDGET * 4 / 5, "{told:?}");
    // It is a new commit.
    script(&node, |_| false, || Action::Default);
    in_time(x.commit()).await.expect("there is one again");
    assert_eq!(x.version(), 1);

    let client = client_of(vec![closed_address().await]);
    let nobody = client.with_timeout(SHORT).stm().usevar(&key("x")).await;
    assert!(matches!(nobody, Err(Error::Unavailable { .. })));
    Ok(())
}

// T3: what may have been applied is neither busy nor applied; committing again settles it.
#[tokio::test]
async fn uncertain_commit_is_settled_by_committing_again() -> Result<(), Error> {
    let node = Node::start(1).await;
    script(&node, |_| true, || Action::Unsaid(Box::new(Action::Hang)));
    let client = client(&[&node]).with_timeout(SHORT);
    let mut x = changed(&client, 7).await?;
    for _ in 0..2 {
        let error = in_time(x.commit()).await.expect_err("no answer");
        assert!(matches!(&error, CommitError::CommitUncertain { .. }), "{error:?}");
    }
    assert!(x.is_changed() && x.version() == 0);

    // Others go on meanwhile, in a session of their own.
    script(&node, |_| false, || Action::Default);
    let mut other = client.stm().usevar(&key("other")).await?;
    other.set(&1).expect("JSON");
    in_time(other.commit()).await.expect("nothing is in its way");

    let revision = in_time(x.commit()).await.expect("it was applied once");
    assert_eq!((x.version(), x.mod_revision()), (1, revision));
    let numbers = numbers(&node);
    let (own, others): (Vec<_>, Vec<_>) =
        numbers.iter().copied().partition(|number| *number == (100, 1));
    assert!(own.len() >= 3, "{numbers:?}");
    assert_eq!(others, [(101, 1)]);
    let found = client.stm().usevar(&key("x")).await?;
    assert_eq!((found.version(), found.get::<u32>()), (1, Ok(Some(7))));
    Ok(())
}

// T3: what the copy was made to hold since is committed on top of what was settled.
#[tokio::test]
async fn later_change_is_committed_after_the_uncertain_one() -> Result<(), Error> {
    let node = Node::start(1).await;
    script(&node, |_| true, || Action::Unsaid(Box::new(Action::Hang)));
    let client = client(&[&node]).with_timeout(SHORT);
    let mut x = changed(&client, 7).await?;
    in_time(x.commit()).await.expect_err("no answer");
    x.set(&8).expect("JSON");
    script(&node, |_| false, || Action::Default);
    in_time(x.commit()).await.expect("both");
    assert_eq!(x.version(), 2);
    assert_eq!(client.stm().usevar(&key("x")).await?.get::<u32>(), Ok(Some(8)));
    Ok(())
}

// T3: so does a commit whose future was dropped.
#[tokio::test]
async fn dropped_commit_is_settled_by_committing_again() -> Result<(), Error> {
    let node = Node::start(1).await;
    script(&node, |seen| seen.earlier == 0, || Action::Unsaid(Box::new(Action::Hang)));
    let client = client(&[&node]);
    let mut x = changed(&client, 7).await?;
    tokio::select! {
        _ = x.commit() => panic!("it hangs"),
        _ = node.await_seen("commit", 1) => {}
    }
    in_time(x.commit()).await.expect("it was applied once");
    assert_eq!(x.version(), 1);
    assert_eq!(numbers(&node), [(100, 1), (100, 1)]);
    Ok(())
}

// T3: a definite answer to a later copy does not make a lost one busy.
#[tokio::test]
async fn commit_is_not_busy_once_a_copy_was_lost() -> Result<(), Error> {
    let node = Node::start(1).await;
    let no_leader = node.no_leader();
    node.script(move |seen| match (seen.call, seen.earlier) {
        ("commit", 0) => Action::Unsaid(Box::new(Action::Cut)),
        ("commit", _) => Action::fail(no_leader.clone()),
        _ => Action::Default,
    });
    let client = client(&[&node]).with_timeout(SHORT);
    let mut x = changed(&client, 7).await?;
    let error = in_time(x.commit()).await.expect_err("nobody knows");
    assert!(matches!(&error, CommitError::CommitUncertain { .. }), "{error:?}");
    Ok(())
}

// T3: when the session is gone nobody remembers, but a variable that is as it was tells.
#[tokio::test]
async fn variables_tell_of_a_commit_whose_session_is_gone() -> Result<(), Error> {
    for was_applied in [false, true] {
        let node = Node::start(1).await;
        let client = client(&[&node]);
        let mut x = changed(&client, 1).await?;
        in_time(x.commit()).await.expect("nothing is in its way");
        let expired = node.status(Code::FailedPrecondition, "SESSION_EXPIRED", "no");
        node.script(move |seen| match (seen.call, seen.earlier) {
            ("commit", 1) if was_applied => Action::Unsaid(Box::new(Action::Cut)),
            ("commit", 1) => Action::Cut,
            ("commit", 2) => Action::fail(expired.clone()),
            _ => Action::Default,
        });
        x.set(&2).expect("JSON");
        let error = in_time(x.commit()).await.expect_err("the session is gone");
        match was_applied {
            false => assert!(matches!(&error, CommitError::BusyRetry { .. }), "{error:?}"),
            // Or it was somebody else who wrote.
            true => assert!(matches!(&error, CommitError::CommitUncertain { .. }), "{error:?}"),
        }
    }
    Ok(())
}

// T3
#[tokio::test]
async fn conflict_names_the_variables_and_carries_them() -> Result<(), Error> {
    let node = Node::start(1).await;
    let client = client(&[&node]);
    let mut one = changed(&client, 1).await?;
    let mut two = changed(&client, 2).await?;
    in_time(one.commit()).await.expect("it is the first");
    let error = in_time(two.commit()).await.expect_err("it is the second");
    assert_eq!(error.to_string(), "nothing was committed: others have changed 'x'");
    let CommitError::ConcurrentUpdate(conflict) = error else { panic!("{error:?}") };
    let found = &conflict.variables[0];
    assert_eq!((found.version, found.mod_revision), (1, one.mod_revision()));
    assert_eq!(found.content.as_ref().map(|c| c.bytes().to_vec()), Some(b"1".to_vec()));
    Ok(())
}

// T4: a transaction that is uncertain can be settled, and is applied once.
#[tokio::test]
async fn uncertain_transaction_can_be_settled() -> Result<(), Error> {
    let node = Node::start(1).await;
    script(&node, |_| true, || Action::Unsaid(Box::new(Action::Hang)));
    let store = client(&[&node]).with_timeout(SHORT).stm().with_budget(BUDGET);
    let done = store.transact(|transaction| async move {
        let counted = transaction.get::<u32>(&key("n")).await?.unwrap_or(0);
        transaction.put(&key("n"), &(counted + 1))?;
        Ok::<_, Interrupt>(())
    });
    let Err(TransactError::Uncertain { mut commit, .. }) = in_time(done).await else {
        panic!("nobody has answered");
    };
    script(&node, |_| false, || Action::Default);
    let revision = in_time(commit.commit()).await.expect("it was applied");
    assert_eq!(in_time(commit.commit()).await.expect("it stays so"), revision);
    assert_eq!(store.usevar(&key("n")).await?.version(), 1);
    assert!(numbers(&node).iter().all(|number| *number == (100, 1)));
    Ok(())
}
