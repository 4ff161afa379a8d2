//! S4: of all creates of one item, one creates it, and everybody gets that one's value.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Event, Reply, state};

use crate::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut seen: Vec<(&str, &[u8], String)> = Vec::new();
    let mut broken = Vec::new();
    for (revision, events) in history.events() {
        for event in events {
            if let Event::State(state::Event::Put { name, value, .. }) = event
                && (name.starts_with("create-") || name.starts_with("exclusive-"))
            {
                seen.push((name, value, format!("who watched revision {revision}")));
            }
        }
    }
    let mut creators: BTreeMap<&str, usize> = BTreeMap::new();
    for (call, reply, _) in history.replies() {
        let Command::State(state::Command::Create { name, value, .. }) = &call.command else {
            continue;
        };
        let Reply::State(state::Reply::Created { created, value: present, .. }) = reply else {
            continue;
        };
        let who = format!("c{}", call.client);
        if *created {
            seen.push((name, value, who));
            if let Some(other) = creators.insert(name, call.client) {
                broken.push(format!("c{other} and c{} both created {name}", call.client));
            }
        } else if let Some(present) = present {
            seen.push((name, present, who));
        }
    }
    let mut values: BTreeMap<&str, (&[u8], String)> = BTreeMap::new();
    for (name, value, who) in seen {
        let (first, by) = values.entry(name).or_insert_with(|| (value, who.clone()));
        if *first != value {
            let text = String::from_utf8_lossy;
            broken.push(format!(
                "{name} is {:?} for {by} and {:?} for {who}",
                text(first),
                text(value)
            ));
        }
    }
    broken
}
