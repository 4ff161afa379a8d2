//! Clients that read all registers, linearizably, at any node (G2).

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::state;
use holdfast_node::sim;
use rand::RngExt as _;

use super::writers::{REGISTERS, register};
use super::{Client, NAMESPACE};
use crate::history::Read;

const PAUSE: Duration = Duration::from_millis(80);

pub(super) async fn read(mut client: Client) {
    while client.goes_on() {
        let node = client.any_node();
        let (object, began) = (client.shared.object, sim::now());
        let timeout = Duration::from_millis(client.random.random_range(200..3000));
        if let Ok(state) = client.shared.world.read(node, false, timeout).await {
            let mut items = BTreeMap::new();
            for name in (0..REGISTERS).map(register) {
                let found = state::get(&state, NAMESPACE, object, &name).unwrap();
                if let Some(found) = found {
                    items.insert(name, (found.mod_revision, found.value.to_vec()));
                }
            }
            let (revision, ended) = (state.header().revision, sim::now());
            let read = Read { client: client.number, began, ended, revision, items };
            client.shared.recorder.lock().reads.push(read);
        }
        client.pause(PAUSE).await;
    }
}
