//! S8: a write with a fence takes effect only while the claim it names stands.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Event, Reply, changesources, state};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    // Who owned each source from which revision on.
    let mut owners: BTreeMap<i64, BTreeMap<u64, Option<u64>>> = BTreeMap::new();
    for (revision, events) in history.events() {
        for event in events {
            if let Event::ChangeSource(changesources::Event { id, owner, .. }) = event {
                let token = owner.map(|(_, token)| token);
                owners.entry(*id).or_default().insert(revision, token);
            }
        }
    }
    let mut broken = Vec::new();
    for (call, reply, _) in history.replies() {
        if let Command::State(state::Command::Set { fence: Some(fence), .. }) = &call.command
            && let Reply::State(state::Reply::Written { written: true, mod_revision, .. }) = reply
            && history.is_watched(*mod_revision)
            && history.is_watched(fence.token)
            && let Some(owners) = owners.get(&fence.changesource)
            && let Some((since, owner)) = owners.range(..mod_revision).next_back()
            && (*since..*mod_revision).all(|revision| history.is_watched(revision))
            && *owner != Some(fence.token)
        {
            broken.push(format!(
                "c{} wrote under {fence:?} at revision {mod_revision}, and from revision {since} \
                 on the owner was {owner:?}",
                call.client
            ));
        }
    }
    broken
}
