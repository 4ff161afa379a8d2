//! G1: a write that was acknowledged is there for good, whatever crashed since.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Reply, state};

use crate::History;
use crate::clients::NAMESPACE;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    // By name: the newest revision that was acknowledged, and the value if it was this write's.
    let mut newest: BTreeMap<&str, (u64, Option<&[u8]>)> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let (Command::State(command), Reply::State(reply)) = (&call.command, reply) else {
            continue;
        };
        let (name, value, revision, is_mine) = match (command, reply) {
            (
                state::Command::Set { name, value, .. },
                state::Reply::Written { written, mod_revision, .. },
            ) => (name, value, *mod_revision, *written),
            (
                state::Command::Create { name, value, .. },
                state::Reply::Created { created, mod_revision, .. },
            ) => (name, value, *mod_revision, *created),
            _ => continue,
        };
        let value = is_mine.then_some(&**value);
        let seen = newest.entry(name).or_default();
        if revision > seen.0 || (revision == seen.0 && seen.1.is_none()) {
            *seen = (revision, value);
        }
    }
    for (node, state) in &history.ended.states {
        for (name, (revision, value)) in &newest {
            let found = state::get(state, NAMESPACE, history.object, name).unwrap();
            let is_there = found.is_some_and(|found| {
                found.mod_revision > *revision
                    || (found.mod_revision == *revision && value.is_none_or(|v| v == found.value))
            });
            if !is_there {
                broken.push(format!(
                    "{name} was acknowledged at revision {revision} as {:?}, and n{node} has \
                     {found:?} in the end",
                    value.map(String::from_utf8_lossy)
                ));
            }
        }
    }
    broken
}
