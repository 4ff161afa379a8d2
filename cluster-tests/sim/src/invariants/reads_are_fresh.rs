//! G2: a read sees every write that was acknowledged before it began, and none that a later read
//! does not see.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::{Command, Reply, state};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    // What became known when: that a state of this revision was committed.
    let replied = history.replies().map(|(call, _, revision)| (call.ended, revision));
    let read = history.reads.iter().map(|read| (read.ended, read.revision));
    let mut known: Vec<(Duration, u64)> = replied.chain(read).collect();
    known.sort_unstable();
    let mut highest = 0;
    let highest_by: Vec<(Duration, u64)> = known
        .into_iter()
        .map(|(at, revision)| {
            highest = highest.max(revision);
            (at, highest)
        })
        .collect();
    let mut broken = Vec::new();
    for read in &history.reads {
        let before = highest_by.partition_point(|(at, _)| *at < read.began);
        let least = before.checked_sub(1).map_or(0, |last| highest_by[last].1);
        if read.revision < least {
            broken.push(format!(
                "c{} read a state of revision {} from {:?} on, when {least} was known already",
                read.client, read.revision, read.began
            ));
        }
    }
    broken.extend(items(history));
    broken
}

/// The same for each register by itself: values, not only numbers.
fn items(history: &History) -> Vec<String> {
    let mut written: BTreeMap<&str, BTreeMap<u64, &[u8]>> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        if let Command::State(state::Command::Set { name, value, .. }) = &call.command
            && let Reply::State(state::Reply::Written { written: true, mod_revision, .. }) = reply
        {
            written.entry(name).or_default().insert(*mod_revision, value);
        }
    }
    let mut broken = Vec::new();
    for read in &history.reads {
        for (name, (revision, value)) in &read.items {
            let known = written.get(name.as_str()).and_then(|values| values.get(revision));
            if known.is_some_and(|known| *known != value.as_slice()) {
                broken.push(format!(
                    "c{} read {:?} in {name} at revision {revision}, where something else was \
                     written",
                    read.client,
                    String::from_utf8_lossy(value)
                ));
            }
        }
    }
    broken
}
