//! Calls, tersely.

use holdfast_history::{Answer, Call, Held, Op, Outcome, Value};

/// When a call began, and when its answer was there.
pub(crate) type Times = (u64, u64);

pub(crate) fn value(text: &str) -> Value {
    text.as_bytes().into()
}

fn call((invoked_us, at_us): Times, op: Op, answer: Answer) -> Call {
    let outcome = Outcome::Returned { at_us, answer };
    Call { client: 1, key: "key".into(), invoked_us, op, outcome }
}

pub(crate) fn get(times: Times, answer: Answer) -> Call {
    call(times, Op::Get, answer)
}

pub(crate) fn set(text: &str, times: Times, answer: Answer) -> Call {
    call(times, Op::Set { value: value(text) }, answer)
}

pub(crate) fn set_if(text: &str, if_revision: u64, times: Times, answer: Answer) -> Call {
    call(times, Op::SetIf { value: value(text), if_revision }, answer)
}

pub(crate) fn create(text: &str, times: Times, answer: Answer) -> Call {
    call(times, Op::Create { value: value(text) }, answer)
}

pub(crate) fn delete(times: Times, was_there: bool) -> Call {
    call(times, Op::Delete, Answer::Deleted(was_there))
}

/// The same call by another client.
pub(crate) fn by(client: usize, call: Call) -> Call {
    Call { client, ..call }
}

/// The same call without an answer.
pub(crate) fn unknown(call: Call) -> Call {
    Call { outcome: Outcome::Unknown, ..call }
}

pub(crate) fn found(text: &str, mod_revision: u64, revision: u64) -> Answer {
    Answer::Found { held: Held { value: value(text), mod_revision }, revision }
}

pub(crate) fn written(mod_revision: u64) -> Answer {
    Answer::Written { mod_revision, revision: mod_revision }
}

pub(crate) fn lost(text: &str, mod_revision: u64, revision: u64) -> Answer {
    Answer::Lost { held: Some(Held { value: value(text), mod_revision }), revision }
}
