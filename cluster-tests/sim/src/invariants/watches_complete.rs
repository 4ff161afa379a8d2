//! W1: a watch hands out every event behind where it began, each once, in order, all of a revision
//! together, wherever it is; what was acknowledged is among them.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Event, Reply, state};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut all: BTreeMap<u64, &[Event]> = BTreeMap::new();
    for segment in &history.segments {
        let who = format!("w{} on n{} after {}", segment.watcher, segment.node, segment.after);
        let mut last = segment.after;
        for (revision, events) in &segment.revisions {
            if *revision <= last {
                broken.push(format!("{who}: revision {revision} comes after {last}"));
            }
            last = *revision;
            let known = all.entry(*revision).or_insert(events);
            if *known != events.as_slice() {
                broken
                    .push(format!("{who}: revision {revision} is {events:?}, elsewhere {known:?}"));
            }
        }
    }
    for segment in &history.segments {
        let seen: BTreeMap<u64, ()> = segment.revisions.iter().map(|(at, _)| (*at, ())).collect();
        let range = segment.after + 1..segment.through + 1;
        if range.is_empty() {
            continue;
        }
        for (revision, _) in all.range(range) {
            if !seen.contains_key(revision) {
                broken.push(format!(
                    "w{} on n{} after {} was told nothing of revision {revision}, and all up to {}",
                    segment.watcher, segment.node, segment.after, segment.through
                ));
            }
        }
    }
    broken.extend(acknowledged(history));
    broken
}

/// Who watches learns of every write that was acknowledged.
fn acknowledged(history: &History) -> Vec<String> {
    let events = history.events();
    let mut broken = Vec::new();
    for (call, reply, _) in history.replies() {
        let (Command::State(command), Reply::State(reply)) = (&call.command, reply) else {
            continue;
        };
        let (
            state::Command::Set { name, value, .. } | state::Command::Create { name, value, .. },
            state::Reply::Written { written: true, mod_revision, .. }
            | state::Reply::Created { created: true, mod_revision, .. },
        ) = (command, reply)
        else {
            continue;
        };
        let told = events.get(mod_revision).copied().unwrap_or_default();
        if history.is_watched(*mod_revision) && !told.iter().any(|event| puts(event, name, value)) {
            broken.push(format!(
                "c{} was told that {name} = {:?} was written at revision {mod_revision}, and who \
                 watched was told {told:?}",
                call.client,
                String::from_utf8_lossy(value)
            ));
        }
    }
    broken
}

fn puts(event: &Event, wanted: &str, wanted_value: &[u8]) -> bool {
    matches!(event, Event::State(state::Event::Put { name, value, .. })
        if name == wanted && **value == *wanted_value)
}
