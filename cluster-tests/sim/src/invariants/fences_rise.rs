//! C5: each grant of a change source has a fence that is above all before it; no two grants share
//! one.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_machine::{Command, Event, Reply, changesources};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut last: BTreeMap<i64, (Option<(i64, u64)>, u64)> = BTreeMap::new();
    let mut owners: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
    for (revision, events) in history.events() {
        for event in events {
            let Event::ChangeSource(changesources::Event { id, owner, .. }) = event else {
                continue;
            };
            let (before, highest) = last.entry(*id).or_default();
            if let Some((master, token)) = owner
                && *before != *owner
            {
                if *token <= *highest || *token != revision {
                    broken.push(format!(
                        "source {id} was granted to {master} at revision {revision} under token \
                         {token}; the highest before was {highest}"
                    ));
                }
                if let Some(other) = owners.insert(*token, (history.head(*id), *master))
                    && other != (history.head(*id), *master)
                {
                    broken.push(format!("token {token} is of {other:?} and of {id}, {master}"));
                }
                *highest = (*highest).max(*token);
            }
            *before = *owner;
        }
    }
    broken.extend(as_told(history));
    broken
}

/// The same for what clients were told: a grant that was asked for after another was known has no
/// lower token, and none of another lease has the same.
fn as_told(history: &History) -> Vec<String> {
    struct Grant {
        began: Duration,
        ended: Duration,
        lease: u64,
        token: u64,
    }
    let mut grants: BTreeMap<i64, Vec<Grant>> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let Command::ChangeSources(
            changesources::Command::Claim { changesource, lease, .. }
            | changesources::Command::Await { changesource, lease, .. },
        ) = &call.command
        else {
            continue;
        };
        if let Reply::ChangeSources(changesources::Reply::Granted { token }) = reply {
            let (began, ended) = (call.began, call.ended);
            let grant = Grant { began, ended, lease: *lease, token: *token };
            grants.entry(*changesource).or_default().push(grant);
        }
    }
    let mut broken = Vec::new();
    for (id, grants) in &grants {
        for (at, grant) in grants.iter().enumerate() {
            for other in &grants[..at] {
                let is_later = other.ended < grant.began;
                if is_later && grant.token < other.token
                    || grant.token == other.token && grant.lease != other.lease
                {
                    broken.push(format!(
                        "source {id}: token {} for lease {}, after token {} for lease {}",
                        grant.token, grant.lease, other.token, other.lease
                    ));
                }
            }
        }
    }
    broken
}
