//! G4, G5, S3: a write takes effect once, at the revision that its caller is told, however often it was
//! sent.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Event, Reply, state};

use crate::{Answer, History};

/// The writes of one value to one register.
#[derive(Default)]
struct Writes {
    /// The revisions that callers were told.
    told: Vec<u64>,
    /// How many more may have taken effect, each once.
    unknown: usize,
}

pub(super) fn check(history: &History) -> Vec<String> {
    let mut writes: BTreeMap<(&str, &[u8]), Writes> = BTreeMap::new();
    for call in &history.calls {
        let Command::State(
            state::Command::Set { name, value, .. } | state::Command::Create { name, value, .. },
        ) = &call.command
        else {
            continue;
        };
        let writes = writes.entry((name, value)).or_default();
        match &call.answer {
            Answer::Reply {
                reply:
                    Reply::State(
                        state::Reply::Written { written: true, mod_revision, .. }
                        | state::Reply::Created { created: true, mod_revision, .. },
                    ),
                ..
            } => writes.told.push(*mod_revision),
            Answer::Unknown => writes.unknown += 1,
            _ => {}
        }
    }
    let mut broken = Vec::new();
    for (revision, events) in history.events() {
        for event in events {
            let Event::State(state::Event::Put { name, value, .. }) = event else { continue };
            let Some(writes) = writes.get_mut(&(name.as_str(), &**value)) else {
                let text = String::from_utf8_lossy(value);
                if !text.is_empty() && name != "last" {
                    broken.push(format!("nobody wrote {text:?} to {name}, revision {revision}"));
                }
                continue;
            };
            if writes.told.contains(&revision) {
                continue;
            }
            match writes.unknown.checked_sub(1) {
                Some(unknown) => writes.unknown = unknown,
                None => broken.push(format!(
                    "{:?} was written to {name} at revision {revision}, and all who wrote it were \
                     told otherwise: {:?}",
                    String::from_utf8_lossy(value),
                    writes.told
                )),
            }
        }
    }
    broken
}
