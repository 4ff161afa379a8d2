//! Clients that race to create the same items (S4).

use std::time::Duration;

use holdfast_machine::{Command, state};
use holdfast_node::sim;

use super::{Client, NAMESPACE};

/// Another item is raced for every so often.
const ROUND: Duration = Duration::from_millis(400);

pub(super) async fn race(mut client: Client) {
    while client.goes_on() {
        let round = sim::now().as_millis() / ROUND.as_millis();
        let command = state::Command::Create {
            namespace: NAMESPACE.to_owned(),
            object: client.shared.object,
            name: format!("create-{round}"),
            value: client.unique().into_bytes().into(),
            fence: None,
            token: None,
        };
        // The history has what came of it.
        let _ = client.write(Command::State(command)).await;
        client.pause(ROUND / 3).await;
    }
}
