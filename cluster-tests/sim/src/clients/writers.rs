//! Clients that write the same registers, now values of their own, now the same one again and again
//! as pollers do.

use std::time::Duration;

use holdfast_machine::{Command, state};
use rand::RngExt as _;

use super::{Client, NAMESPACE};

/// How many registers there are.
pub(crate) const REGISTERS: usize = 4;
/// What pollers write.
const SAME: &str = "same";
const PAUSE: Duration = Duration::from_millis(60);

pub(crate) fn register(number: usize) -> String {
    format!("register-{number}")
}

pub(super) async fn write(mut client: Client) {
    while client.goes_on() {
        let value = if client.random.random_bool(0.5) { SAME.to_owned() } else { client.unique() };
        let command = state::Command::Set {
            namespace: NAMESPACE.to_owned(),
            object: client.shared.object,
            name: register(client.random.random_range(0..REGISTERS)),
            value: value.into_bytes().into(),
            if_revision: None,
            fence: None,
            noted_revision: None,
        };
        // The history has what came of it.
        let _ = client.write(Command::State(command)).await;
        // Who writes again soon tells the cluster that all before is done with; not everybody does.
        let pause = if client.random.random_bool(0.15) { 30 * PAUSE } else { PAUSE };
        client.pause(pause).await;
    }
}
