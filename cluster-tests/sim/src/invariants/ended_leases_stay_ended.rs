//! M3: a renewal of a lease that has ended is refused, and revives nothing.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Event, Refusal, Reply, masters};

use crate::{Answer, History};

pub(super) fn check(history: &History) -> Vec<String> {
    // The revision from which on a lease is known to be over.
    let mut over: BTreeMap<u64, u64> = BTreeMap::new();
    let mut present: BTreeMap<i64, u64> = BTreeMap::new();
    for (revision, events) in history.events() {
        for event in events {
            let Event::Master(masters::Event { id, lease, .. }) = event else { continue };
            let before = match lease {
                Some(lease) => present.insert(*id, *lease),
                None => present.remove(id),
            };
            if let Some(before) = before
                && *lease != Some(before)
            {
                over.entry(before).or_insert(revision);
            }
        }
    }
    let mut broken = Vec::new();
    for (call, reply, revision) in history.replies() {
        if let Command::Masters(
            masters::Command::KeepAlive { lease, .. }
            | masters::Command::KeepWithinGrace { lease, .. },
        ) = &call.command
            && matches!(reply, Reply::Masters(masters::Reply::Renewed { .. }))
            && over.get(lease).is_some_and(|over| *over <= revision)
        {
            broken.push(format!(
                "c{} renewed lease {lease} at revision {revision}, and it was over at {}",
                call.client, over[lease]
            ));
        }
    }
    broken.extend(as_told(history));
    broken
}

/// Once a client was told that a lease is lost, nobody renews it.
fn as_told(history: &History) -> Vec<String> {
    let mut lost = BTreeMap::new();
    for call in &history.calls {
        if let Answer::Refused(Refusal::LeaseLost { lease }) = &call.answer {
            let known = lost.entry(*lease).or_insert(call.ended);
            *known = call.ended.min(*known);
        }
    }
    let mut broken = Vec::new();
    for (call, reply, _) in history.replies() {
        if let Command::Masters(
            masters::Command::KeepAlive { lease, .. }
            | masters::Command::KeepWithinGrace { lease, .. },
        ) = &call.command
            && matches!(reply, Reply::Masters(masters::Reply::Renewed { .. }))
            && lost.get(lease).is_some_and(|lost| *lost < call.began)
        {
            broken.push(format!("c{} renewed lease {lease}, which was lost before", call.client));
        }
    }
    broken
}
