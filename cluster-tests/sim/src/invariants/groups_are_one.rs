//! C7: change sources that share a group belong to one master under one token, or to none.

use std::collections::BTreeMap;

use holdfast_machine::{Event, changesources};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut members: BTreeMap<(&str, i64), Option<(i64, u64)>> = BTreeMap::new();
    let mut last = 0;
    for (revision, events) in history.events() {
        if !(last + 1..=revision).all(|between| history.is_watched(between)) {
            // Nobody was told what happened between.
            members.clear();
        }
        last = revision;
        for event in events {
            let Event::ChangeSource(changesources::Event { id, owner, group, .. }) = event else {
                continue;
            };
            members.retain(|(_, member), _| member != id);
            if let Some(group) = group {
                members.insert((group, *id), *owner);
            }
        }
        let mut owners: BTreeMap<&str, Option<(i64, u64)>> = BTreeMap::new();
        for ((group, id), owner) in &members {
            let first = *owners.entry(group).or_insert(*owner);
            if first != *owner {
                broken.push(format!(
                    "revision {revision}: group {group} is owned by {first:?}, its source {id} by \
                     {owner:?}"
                ));
            }
        }
    }
    broken
}
