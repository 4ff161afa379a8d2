//! Clients that watch everything, and go on at another node when one is gone or they feel like it
//! (W1).

use std::time::Duration;

use holdfast_node::sim::{self, Seen};
use rand::RngExt as _;

use super::Client;
use crate::history::Segment;

/// How long a watcher that has nowhere to go waits.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn watch(mut client: Client) {
    let mut cursor = 0;
    // At the end it waits until it has seen what the nodes have.
    while client.goes_on() || client.is_behind(cursor) {
        let node = client.any_node();
        let Ok(mut watching) = client.shared.world.watch(node, cursor).await else {
            client.pause(PAUSE).await;
            continue;
        };
        let stays = Duration::from_millis(client.random.random_range(500..8000));
        let leaves = sim::now() + stays;
        let (watcher, revisions) = (client.number, Vec::new());
        let mut segment = Segment { watcher, node, after: cursor, revisions, through: cursor };
        let mut oldest_kept = None;
        while let Some(seen) = watching.next().await {
            match seen {
                Seen::Revision { number, events } => segment.revisions.push((number, events)),
                Seen::Through(through) => segment.through = through,
                Seen::Compacted { oldest } => oldest_kept = Some(oldest),
            }
            let over = !client.goes_on() && !client.is_behind(segment.through);
            if oldest_kept.is_some() || sim::now() > leaves || over {
                break;
            }
        }
        cursor = segment.through;
        client.shared.recorder.lock().segments.push(segment);
        if let Some(oldest) = oldest_kept {
            client.pause(PAUSE).await;
            // Another node may remember more; now and then it takes what there is, as a client does
            // that reads the state anew.
            if client.random.random_bool(0.3) {
                cursor = oldest - 1;
            }
        }
    }
}

impl Client {
    fn is_behind(&self, cursor: u64) -> bool {
        let world = &self.shared.world;
        let newest = self.shared.nodes.iter().filter_map(|id| world.applied(*id));
        newest.map(|state| state.header().revision).max().is_some_and(|newest| newest > cursor)
    }
}
