//! Clients of which one at a time is to create a value: they ask for the right, wait for it, take
//! their time over it, and some never come to the end (S5).

use std::time::Duration;

use holdfast_machine::{Command, Reply, creators, state};
use holdfast_node::sim;
use rand::RngExt as _;

use super::{Client, NAMESPACE};

/// Another value is to be created every so often.
const ROUND: Duration = Duration::from_millis(1500);
/// How long it is waited for the right.
const WAIT_MS: u64 = 4000;
/// How often one who waits asks how it stands.
const ASK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn create(mut client: Client) {
    let mut last = None;
    while client.goes_on() {
        let round = sim::now().as_millis() / ROUND.as_millis();
        if last.replace(round) != Some(round) {
            // Whoever lost the right, or the race, comes back in the next round.
            let _ = take_part(&mut client, format!("exclusive-{round}")).await;
        }
        client.pause(ROUND / 5).await;
    }
}

async fn take_part(client: &mut Client, name: String) -> Option<()> {
    let (namespace, object) = (|| NAMESPACE.to_owned(), client.shared.object);
    let ttl_ms = client.random.random_range(500..2000);
    let ask = creators::Command::Ask {
        namespace: namespace(),
        object,
        name: name.clone(),
        ttl_ms,
        wait_ms: WAIT_MS,
    };
    let mut answer = client.write(Command::Creators(ask)).await?;
    let token = loop {
        match answer {
            Ok(Reply::Creators(creators::Reply::Creating { token, .. })) => break token,
            Ok(Reply::Creators(creators::Reply::Waiting { token, .. })) => {
                client.pause(ASK_EVERY).await;
                answer = keep(client, &name, token).await?;
            }
            _ => return None,
        }
    };
    // What creating takes, renewed as long as it has to be.
    for _ in 0..client.random.random_range(0..4) {
        client.pause(Duration::from_millis(ttl_ms / 3)).await;
        let kept = keep(client, &name, token).await?;
        if !matches!(kept, Ok(Reply::Creators(creators::Reply::Creating { .. }))) {
            return None;
        }
    }
    match client.random.random_range(0..100) {
        // It dies, or takes longer than it said.
        0..25 => return None,
        25..40 => client.pause(Duration::from_millis(2 * ttl_ms)).await,
        40..50 => {
            let command =
                creators::Command::Abandon { namespace: namespace(), object, name, token };
            client.write(Command::Creators(command)).await?.ok()?;
            return None;
        }
        _ => {}
    }
    let command = state::Command::Create {
        namespace: namespace(),
        object,
        name,
        value: client.unique().into_bytes().into(),
        fence: None,
        token: Some(token),
    };
    client.write(Command::State(command)).await?.ok().map(drop)
}

async fn keep(
    client: &mut Client,
    name: &str,
    token: u64,
) -> Option<Result<Reply, holdfast_machine::Refusal>> {
    let (namespace, object) = (NAMESPACE.to_owned(), client.shared.object);
    let name = name.to_owned();
    let command = creators::Command::Keep { namespace, object, name, token };
    client.write(Command::Creators(command)).await
}
