//! Ticks: entries without requests, which let time pass where no client writes.
//!
//! The leader proposes one when the next deadline falls due, and at least every second while a
//! lease exists, so that a change of leader forgets at most a second of the cluster clock.

use std::sync::Arc;
use std::time::Duration;

use crate::leadership::{Epoch, Lead, Leader};
use crate::propose::Proposer;
use crate::raft::machine::Applied;
use crate::raft::types::Raft;
use crate::runtime::{self, watch};

/// The longest time without an entry while a lease exists.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// The shortest pause between two ticks: what is due beyond one entry's bound goes in steps.
const TICK_PAUSE: Duration = Duration::from_millis(2);

/// Runs for the node's life; idle unless this node leads.
pub(crate) async fn run(raft: Raft, applied: Arc<Applied>, mut lead: watch::Receiver<Lead>) {
    loop {
        let leader = lead.borrow_and_update().leader.clone();
        match leader {
            Leader::Me(epoch) => {
                runtime::select! {
                    () = tick(&raft, &applied, &epoch) => {}
                    changed = lead.changed() => if changed.is_err() { return },
                }
            }
            Leader::None | Leader::Other(_) => {
                if lead.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Ticks for as long as the node leads in this epoch.
async fn tick(raft: &Raft, applied: &Applied, epoch: &Epoch) {
    let mut applied_index = applied.watch();
    loop {
        applied_index.borrow_and_update();
        let wait = time_to_tick(applied, epoch);
        runtime::select! {
            () = wait_for(wait) => {
                Proposer::tick(raft, epoch).await;
                runtime::sleep(TICK_PAUSE).await;
            }
            // A new entry may have set an earlier deadline, and has carried the clock itself.
            changed = applied_index.changed() => if changed.is_err() { return },
        }
    }
}

/// How long until a tick is due; none if no lease and no session waits for anything.
fn time_to_tick(applied: &Applied, epoch: &Epoch) -> Option<Duration> {
    let state = applied.state();
    let deadline = state.next_deadline_ms().map(|deadline| epoch.until(deadline));
    let second = state.has_lease().then(|| {
        let stamped = state.header().clock_ms;
        epoch.until(stamped + u64::try_from(TICK_EVERY.as_millis()).expect("a second"))
    });
    deadline.into_iter().chain(second).min()
}

async fn wait_for(wait: Option<Duration>) {
    match wait {
        Some(duration) => runtime::sleep(duration).await,
        None => std::future::pending().await,
    }
}
