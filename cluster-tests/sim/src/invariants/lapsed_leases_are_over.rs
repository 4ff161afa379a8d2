//! M4: a lease whose deadline has passed is over, whether or not anything has cleared it away.
//!
//! While one node leads one term, the cluster clock runs on: a renewal that is sent more than the
//! lease's time after the last one was answered comes too late.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::{Command, Reply, masters};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    if !history.clocks_are_good {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let mut renewed: BTreeMap<u64, Duration> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let (Command::Masters(command), Reply::Masters(reply)) = (&call.command, reply) else {
            continue;
        };
        let (lease, ttl_ms) = match (command, reply) {
            (
                masters::Command::KeepAlive { lease, .. }
                | masters::Command::KeepWithinGrace { lease, .. },
                masters::Reply::Renewed { ttl_ms, .. },
            ) => (*lease, *ttl_ms),
            (_, masters::Reply::Lease { lease, ttl_ms, .. }) => (*lease, *ttl_ms),
            _ => continue,
        };
        // Clocks are right to half a percent.
        let lasts = Duration::from_millis(ttl_ms + ttl_ms / 100 + 1);
        if let Some(before) = renewed.insert(lease, call.ended)
            && call.began > before + lasts
            && one_led(history, before, call.ended)
        {
            broken.push(format!(
                "c{} renewed lease {lease} of {ttl_ms} ms {:?} after it was last renewed",
                call.client,
                call.began - before
            ));
        }
    }
    broken
}

/// Whether one node led one term from before to after this time, and no later term had begun by then:
/// a leader that is cut off does not know that it leads no more.
fn one_led(history: &History, from: Duration, to: Duration) -> bool {
    let led = |(first, last): &(Duration, Duration)| *first <= from && *last >= to;
    let Some((lead, _)) = history.leads.iter().rfind(|(_, times)| led(times)) else {
        return false;
    };
    let begun = to + 2 * crate::LOOK_EVERY;
    !history.leads.iter().any(|(other, (first, _))| other.term > lead.term && *first <= begun)
}
