//! G2, S3, S4: what clients were told of each item fits into one order of the calls, each carried out
//! at some moment between its beginning and its answer (`holdfast_history`).

use std::sync::Arc;
use std::time::Duration;

use holdfast_history::{Call, Held, Op, Outcome, STEPS_MAX};
use holdfast_machine::{Command, Reply, state};

use crate::{Answer, History};

pub(super) fn check(history: &History) -> Vec<String> {
    let writes = history.calls.iter().filter_map(write);
    let reads = history.reads.iter().flat_map(|read| {
        let held = |(name, (mod_revision, value)): (&String, &(u64, Vec<u8>))| Call {
            client: read.client,
            key: name.as_str().into(),
            invoked_us: micros(read.began),
            op: Op::Get,
            outcome: Outcome::Returned {
                at_us: micros(read.ended),
                answer: holdfast_history::Answer::Found {
                    held: Held { value: value.as_slice().into(), mod_revision: *mod_revision },
                    revision: read.revision,
                },
            },
        };
        read.items.iter().map(held)
    });
    let calls: Vec<Call> = writes.chain(reads).collect();
    match holdfast_history::check_keys(&calls, STEPS_MAX) {
        Ok(_) => Vec::new(),
        Err(error) => vec![error.to_string()],
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}

/// A write of an item, but for those under a fence, which the order of an item alone does not decide.
fn write(call: &crate::Call) -> Option<Call> {
    let Command::State(command) = &call.command else { return None };
    let (name, op) = match command {
        state::Command::Set { name, value, fence: None, if_revision: None, .. } => {
            (name, Op::Set { value: Arc::clone(value) })
        }
        state::Command::Create { name, value, fence: None, .. } => {
            (name, Op::Create { value: Arc::clone(value) })
        }
        _ => return None,
    };
    let outcome = match &call.answer {
        Answer::Reply { revision, reply: Reply::State(reply) } => {
            Outcome::Returned { at_us: micros(call.ended), answer: answer(*revision, reply)? }
        }
        Answer::Reply { .. } | Answer::Refused(_) | Answer::NotApplied => Outcome::NotApplied,
        Answer::Unknown => Outcome::Unknown,
    };
    let (client, key, invoked_us) = (call.client, name.as_str().into(), micros(call.began));
    Some(Call { client, key, invoked_us, op, outcome })
}

fn answer(revision: u64, reply: &state::Reply) -> Option<holdfast_history::Answer> {
    use holdfast_history::Answer as Told;
    Some(match reply {
        state::Reply::Written { written: true, mod_revision, .. }
        | state::Reply::Created { created: true, mod_revision, .. } => {
            Told::Written { mod_revision: *mod_revision, revision }
        }
        state::Reply::Written { mod_revision, value: Some(value), .. }
        | state::Reply::Created { mod_revision, value: Some(value), .. } => Told::Lost {
            held: Some(Held { value: Arc::clone(value), mod_revision: *mod_revision }),
            revision,
        },
        state::Reply::Written { found: false, .. } => Told::Lost { held: None, revision },
        _ => return None,
    })
}
