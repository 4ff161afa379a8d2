//! P1, P2, P3: ids are given out once; of what belongs together all is seen or nothing; what was acknowledged is
//! there in the end, with its bodies, on every node.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Reply, objects};

use crate::History;
use crate::clients::stored::pairs;
use crate::history::{Done, Pairs, StoredCall};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut broken = leases(history);
    let ended: Vec<Pairs> = history.ended.states.values().map(pairs).collect();
    broken.extend(history.pairs.iter().chain(&ended).flat_map(parts));
    for pairs in &ended {
        broken.extend(lost(history, pairs));
    }
    broken.extend(history.ended.bodies_missing.iter().cloned());
    broken
}

fn leases(history: &History) -> Vec<String> {
    let mut leased: BTreeMap<u64, u64> = BTreeMap::new();
    let mut broken = Vec::new();
    for (call, reply, _) in history.replies() {
        if let (
            Command::Objects(objects::Command::LeaseIds { count, .. }),
            Reply::Objects(objects::Reply::Leased { first }),
        ) = (&call.command, reply)
        {
            let before = leased.range(..first + count).next_back();
            if before.is_some_and(|(other, count)| other + count > *first) {
                broken.push(format!("ids from {first} on were given out twice"));
            }
            leased.insert(*first, *count);
        }
    }
    broken
}

/// What is seen in part.
fn parts(seen: &Pairs) -> Vec<String> {
    let is_whole = |members: &[(u64, String, u64)]| match members {
        [(_, one, at), (_, other, also_at)] => one == other && at == also_at,
        _ => false,
    };
    let parts = seen.pairs.iter().filter(|(_, members)| !is_whole(members));
    parts.map(|(pair, members)| format!("of pair {pair} {members:?} is seen")).collect()
}

/// What was acknowledged and is not there. Each pair is one client's, which changes it one time after the other.
fn lost(history: &History, ended: &Pairs) -> Vec<String> {
    let mut calls: BTreeMap<u64, Vec<&StoredCall>> = BTreeMap::new();
    for call in &history.stored {
        calls.entry(call.pair).or_default().push(call);
    }
    let mut broken = Vec::new();
    for (pair, calls) in calls {
        let last = calls.iter().rposition(|call| call.done != Done::Perhaps);
        let since = &calls[last.map_or(0, |last| last + 1)..];
        let may_be_gone = since.iter().any(|call| call.stamp.is_none());
        let may_be_saved = |stamp: &str| since.iter().any(|c| c.stamp.as_deref() == Some(stamp));
        let last = last.map(|last| calls[last]);
        let stands = ended.pairs.get(&pair).and_then(|members| members.first());
        let is_right = match stands {
            None => may_be_gone || last.is_none_or(|call| call.stamp.is_none()),
            Some((_, stamp, at)) => {
                let is_last = last.is_some_and(|call| {
                    call.stamp.as_ref() == Some(stamp) && call.done == Done::At(*at)
                });
                is_last || may_be_saved(stamp)
            }
        };
        if !is_right {
            broken.push(format!("pair {pair} is {stands:?} in the end, after {last:?}, {since:?}"));
        }
    }
    broken
}
