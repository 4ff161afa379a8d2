//! T1, T2, G4: transactions run as if one behind the other. What moves from one variable to the other is
//! never lost or doubled, who decides by two variables and writes one has not missed a change of the
//! other, and each commit that succeeded counts once.

use std::collections::BTreeMap;

use holdfast_machine::stm::{self, Write};
use holdfast_machine::{Command, Event, Reply};

use crate::clients::NAMESPACE;
use crate::clients::transactions::{ACCOUNTS, ON_CALL, TOTAL, values};
use crate::{Answer, History};

pub(super) fn check(history: &History) -> Vec<String> {
    let read = history.together.iter().map(|together| {
        let who = format!("c{} at revision {}", together.client, together.revision);
        (who, together.values.clone())
    });
    let ended = history.ended.states.iter().map(|(node, state)| {
        let who = format!("n{node} in the end");
        (who, values(state))
    });
    let mut broken: Vec<String> =
        read.chain(ended).filter_map(|(who, values)| apart(&who, &values)).collect();
    broken.extend(versions(history));
    broken.extend(counts(history));
    broken
}

/// What does not fit together of what was read together.
fn apart(who: &str, values: &BTreeMap<String, u64>) -> Option<String> {
    let sum = |keys: [&str; 2]| keys.iter().filter_map(|key| values.get(*key)).sum::<u64>();
    match (sum(ACCOUNTS), sum(ON_CALL)) {
        (total, _) if total != TOTAL => Some(format!("{who}: {total} of {TOTAL}: {values:?}")),
        (_, 0) => Some(format!("{who}: nobody is on call: {values:?}")),
        _ => None,
    }
}

/// A version rises by one with each write: no other version is ever seen behind it.
fn versions(history: &History) -> Vec<String> {
    let mut last: BTreeMap<&[u8], (u64, u64)> = BTreeMap::new();
    let mut broken = Vec::new();
    for (revision, events) in history.events() {
        for event in events {
            let Event::Variable(stm::Event { key, version, .. }) = event else { continue };
            if let Some((since, before)) = last.insert(key, (revision, *version)) {
                let all_seen = (since..=revision).all(|revision| history.is_watched(revision));
                if *version <= before || (all_seen && *version != before + 1) {
                    broken.push(format!(
                        "{} had version {before} at revision {since} and {version} at {revision}",
                        key.escape_ascii()
                    ));
                }
            }
        }
    }
    broken
}

/// In the end a version counts the commits that succeeded, and perhaps those nobody knows of.
fn counts(history: &History) -> Vec<String> {
    let mut commits: BTreeMap<&[u8], (u64, u64)> = BTreeMap::new();
    for call in &history.calls {
        let Command::Stm(command) = &call.command else { continue };
        let (told, unknown) = match &call.answer {
            Answer::Reply { reply: Reply::Stm(stm::Reply::Committed), .. } => (1, 0),
            Answer::Unknown => (0, 1),
            _ => continue,
        };
        for write in &command.writes {
            let (Write::Put { key, .. } | Write::Delete { key }) = write;
            let counted = commits.entry(key).or_default();
            (counted.0, counted.1) = (counted.0 + told, counted.1 + unknown);
        }
    }
    let Some(state) = history.ended.states.values().next() else { return Vec::new() };
    let mut broken = Vec::new();
    for (key, (told, unknown)) in commits {
        let found = stm::get(state, NAMESPACE, key).unwrap();
        let version = found.map_or(0, |found| found.version);
        if !(told..=told + unknown).contains(&version) {
            broken.push(format!(
                "{} has version {version} after {told} commits and {unknown} unknown ones",
                key.escape_ascii()
            ));
        }
    }
    broken
}
