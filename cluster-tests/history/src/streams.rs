//! Watches: every change once, in order, complete, and true (W1).
//!
//! # The model
//! A *stream* is what one watcher was handed out, over however many connections, and between which
//! revisions it claims to be complete. All streams together give the *changes*: what was written
//! under each key at each revision. Each answer of a call says something about them.
//!
//! # What it leaves out
//! A delete's answer has no revision, so deletes are counted for each key, not told apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::call::{Answer, Call, Held, Op, Outcome, Value};
use crate::error::{Error, Rule};
use crate::revisions::held;

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision that made it.
    pub revision: u64,
    /// The key.
    pub key: Arc<str>,
    /// What was written; none if the key was deleted.
    pub value: Option<Value>,
}

/// What one watcher saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Whose.
    pub watcher: usize,
    /// It claims to be complete from behind this revision on.
    pub after: u64,
    /// Up to this one.
    pub through: u64,
    /// The changes, in the order in which they came.
    pub events: Vec<Event>,
}

/// Changes of one key by revision.
type Changes<'a> = BTreeMap<&'a str, BTreeMap<u64, Option<&'a Value>>>;

/// Checks that the streams are in order, complete and true: against each other, and against the
/// answers of all calls that were made. Together the streams must reach from before the first call
/// to behind the last one.
///
/// # Errors
/// [`Rule::InOrder`], [`Rule::Complete`], [`Rule::True`] or [`Rule::ReadsAgree`];
/// [`Error::Undecided`] if there are revisions in between that no stream claims to have seen.
pub fn check_streams(calls: &[Call], streams: &[Stream]) -> Result<(), Error> {
    for stream in streams {
        check_order(stream)?;
    }
    check_coverage(streams)?;
    let changes = merge(streams)?;
    for stream in streams {
        check_complete(stream, &changes)?;
    }
    check_answers(calls, &changes)?;
    check_origins(calls, &changes)?;
    check_deletes(calls, &changes)?;
    check_reads(calls, &changes)
}

fn check_order(stream: &Stream) -> Result<(), Error> {
    let mut last: Option<&Event> = None;
    for event in &stream.events {
        let is_next = last.is_none_or(|last| {
            (last.revision, &last.key) < (event.revision, &event.key)
                || last.revision < event.revision
        });
        if !is_next || event.revision <= stream.after || event.revision > stream.through {
            let what = format!(
                "watcher {} from {} to {} saw {last:?}, then {event:?}",
                stream.watcher, stream.after, stream.through
            );
            return Err(Error::broken(Rule::InOrder, what));
        }
        last = Some(event);
    }
    Ok(())
}

fn check_coverage(streams: &[Stream]) -> Result<(), Error> {
    let mut spans: Vec<(u64, u64)> = streams.iter().map(|s| (s.after, s.through)).collect();
    spans.sort_unstable();
    let mut reach = spans.first().map_or(0, |(after, _)| *after);
    for (after, through) in spans {
        if after > reach {
            let what = format!("no watcher claims to have seen revisions {} to {after}", reach + 1);
            return Err(Error::Undecided { steps: 0, what });
        }
        reach = reach.max(through);
    }
    Ok(())
}

/// All changes that anybody saw; watchers must not contradict each other.
fn merge(streams: &[Stream]) -> Result<Changes<'_>, Error> {
    let mut changes = Changes::new();
    for stream in streams {
        for event in &stream.events {
            let of_key = changes.entry(&event.key).or_default();
            let seen = of_key.entry(event.revision).or_insert(event.value.as_ref());
            if *seen != event.value.as_ref() {
                let what = format!("watcher {} saw {event:?}, another {seen:?}", stream.watcher);
                return Err(Error::broken(Rule::True, what));
            }
        }
    }
    Ok(changes)
}

fn check_complete(stream: &Stream, changes: &Changes<'_>) -> Result<(), Error> {
    let seen: std::collections::BTreeSet<(u64, &str)> =
        stream.events.iter().map(|event| (event.revision, &*event.key)).collect();
    for (key, of_key) in changes {
        let claimed = of_key.range(stream.after + 1..=stream.through);
        for (revision, value) in claimed {
            if !seen.contains(&(*revision, key)) {
                let what = format!(
                    "watcher {} did not see {key} become {value:?} at {revision}",
                    stream.watcher
                );
                return Err(Error::broken(Rule::Complete, what));
            }
        }
    }
    Ok(())
}

/// What an answer says was written at a revision was seen to be written then.
fn check_answers(calls: &[Call], changes: &Changes<'_>) -> Result<(), Error> {
    for call in calls {
        let Some((value, mod_revision)) = held(call) else { continue };
        let seen = changes.get(&*call.key).and_then(|of_key| of_key.get(&mod_revision));
        let rule = match seen {
            None => Rule::Complete,
            Some(Some(seen)) if ***seen == *value => continue,
            Some(_) => Rule::True,
        };
        return Err(Error::broken(rule, format!("watchers saw {seen:?}, and there is {call:?}")));
    }
    Ok(())
}

/// Every value that was seen was written by somebody: at that revision, or by a call that never
/// learned of it.
fn check_origins(calls: &[Call], changes: &Changes<'_>) -> Result<(), Error> {
    let mut acknowledged: BTreeMap<(&str, u64), &[u8]> = BTreeMap::new();
    let mut open: BTreeMap<(&str, &[u8]), usize> = BTreeMap::new();
    for call in calls {
        match (&call.outcome, call.value()) {
            (
                Outcome::Returned { answer: Answer::Written { mod_revision, .. }, .. },
                Some(value),
            ) => {
                acknowledged.insert((&call.key, *mod_revision), value);
            }
            (Outcome::Unknown, Some(value)) => *open.entry((&call.key, value)).or_default() += 1,
            (Outcome::Returned { .. } | Outcome::NotApplied | Outcome::Unknown, _) => {}
        }
    }
    for (key, of_key) in changes {
        for (revision, value) in of_key {
            let Some(value) = value else { continue };
            if acknowledged.contains_key(&(*key, *revision)) {
                continue;
            }
            match open.get_mut(&(*key, &***value)).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => {
                    let what = format!("nobody wrote {value:?} under {key}, seen at {revision}");
                    return Err(Error::broken(Rule::True, what));
                }
            }
        }
    }
    Ok(())
}

fn check_deletes(calls: &[Call], changes: &Changes<'_>) -> Result<(), Error> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.op == Op::Delete) {
        let (told, open) = counts.entry(&call.key).or_default();
        match &call.outcome {
            Outcome::Returned { answer, .. } if *answer == Answer::Deleted(true) => *told += 1,
            Outcome::Unknown => *open += 1,
            Outcome::Returned { .. } | Outcome::NotApplied => {}
        }
    }
    let none = BTreeMap::new();
    for key in counts.keys().chain(changes.keys()) {
        let (told, open) = counts.get(key).copied().unwrap_or_default();
        let of_key = changes.get(key).unwrap_or(&none);
        let seen = of_key.values().filter(|value| value.is_none()).count();
        let what =
            || format!("{seen} deletes of {key} were seen, {told} acknowledged, {open} unanswered");
        if seen < told {
            return Err(Error::broken(Rule::Complete, what()));
        }
        if seen > told + open {
            return Err(Error::broken(Rule::True, what()));
        }
    }
    Ok(())
}

/// What stood at a revision is what the changes up to it amount to.
fn check_reads(calls: &[Call], changes: &Changes<'_>) -> Result<(), Error> {
    for call in calls {
        let Some((answer, revision)) =
            call.answer().and_then(|answer| Some((answer, answer.revision()?)))
        else {
            continue;
        };
        let last = changes.get(&*call.key).and_then(|of_key| of_key.range(..=revision).next_back());
        let stands = last.and_then(|(at, value)| Some((*at, (*value)?)));
        let told = match answer {
            Answer::Found { held: Held { value, mod_revision }, .. }
            | Answer::Lost { held: Some(Held { value, mod_revision }), .. } => {
                Some((*mod_revision, value))
            }
            Answer::Written { mod_revision, .. } => call.value().map(|v| (*mod_revision, v)),
            Answer::Lost { held: None, .. } | Answer::Absent | Answer::Deleted(_) => None,
        };
        if stands != told {
            let what = format!("{call:?}, but the changes up to then leave {stands:?}");
            return Err(Error::broken(Rule::ReadsAgree, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Each rule has a lie that is caught.

    use super::*;

    fn value(text: &str) -> Value {
        text.as_bytes().into()
    }

    fn event(revision: u64, text: &str) -> Event {
        Event { revision, key: "k".into(), value: Some(value(text)) }
    }

    fn deleted(revision: u64) -> Event {
        Event { revision, key: "k".into(), value: None }
    }

    fn stream(watcher: usize, events: &[Event]) -> Stream {
        Stream { watcher, after: 0, through: 100, events: events.to_vec() }
    }

    fn call(op: Op, outcome: Outcome) -> Call {
        Call { client: 1, key: "k".into(), invoked_us: 1, op, outcome }
    }

    fn returned(answer: Answer) -> Outcome {
        Outcome::Returned { at_us: 2, answer }
    }

    fn set(text: &str, mod_revision: u64) -> Call {
        let answer = Answer::Written { mod_revision, revision: mod_revision };
        call(Op::Set { value: value(text) }, returned(answer))
    }

    fn found(text: &str, mod_revision: u64, revision: u64) -> Call {
        let held = Held { value: value(text), mod_revision };
        call(Op::Get, returned(Answer::Found { held, revision }))
    }

    /// Two sets, a delete, and a set that nobody answered.
    fn calls() -> Vec<Call> {
        vec![
            set("a", 5),
            found("a", 5, 6),
            set("b", 7),
            call(Op::Delete, returned(Answer::Deleted(true))),
            call(Op::Set { value: value("c") }, Outcome::Unknown),
        ]
    }

    fn events() -> Vec<Event> {
        vec![event(5, "a"), event(7, "b"), deleted(8), event(9, "c")]
    }

    fn rule(calls: &[Call], streams: &[Stream]) -> Option<Rule> {
        check_streams(calls, streams).err().and_then(|error| error.rule())
    }

    // W1
    #[test]
    fn streams_that_tell_all_pass() {
        let late = Stream { after: 7, ..stream(2, &events()[2..]) };
        assert_eq!(check_streams(&calls(), &[stream(1, &events()), late]), Ok(()));
        // The call without an answer need not have done anything.
        assert_eq!(check_streams(&calls(), &[stream(1, &events()[..3])]), Ok(()));
    }

    // W1
    #[test]
    fn change_out_of_order_or_twice_is_caught() {
        let swapped = [event(7, "b"), event(5, "a"), deleted(8)];
        assert_eq!(rule(&calls(), &[stream(1, &swapped)]), Some(Rule::InOrder));
        let twice = [event(5, "a"), event(7, "b"), event(7, "b"), deleted(8)];
        assert_eq!(rule(&calls(), &[stream(1, &twice)]), Some(Rule::InOrder));
        let outside = Stream { after: 5, ..stream(1, &events()) };
        assert_eq!(rule(&calls(), &[outside]), Some(Rule::InOrder));
    }

    // W1
    #[test]
    fn missing_change_is_caught() {
        let missing = [event(5, "a"), deleted(8)];
        assert_eq!(rule(&calls(), &[stream(1, &missing)]), Some(Rule::Complete));
        // Nobody was told of it, but another watcher saw it.
        let both = [stream(1, &events()), stream(2, &events()[..3])];
        assert_eq!(rule(&calls(), &both), Some(Rule::Complete));
        let undeleted = [event(5, "a"), event(7, "b")];
        assert_eq!(rule(&calls(), &[stream(1, &undeleted)]), Some(Rule::Complete));
    }

    // W1
    #[test]
    fn change_that_nobody_made_is_caught() {
        let mut events = events();
        events.push(event(10, "d"));
        assert_eq!(rule(&calls(), &[stream(1, &events)]), Some(Rule::True));
        events.pop();
        // The call without an answer took effect once at most.
        events.push(event(10, "c"));
        assert_eq!(rule(&calls(), &[stream(1, &events)]), Some(Rule::True));
        events.pop();
        events.push(deleted(10));
        assert_eq!(rule(&calls(), &[stream(1, &events)]), Some(Rule::True));
        let other = [event(5, "x"), event(7, "b"), deleted(8)];
        assert_eq!(rule(&calls(), &[stream(1, &other)]), Some(Rule::True));
        let both = [stream(1, &self::events()), stream(2, &other)];
        assert_eq!(rule(&calls(), &both), Some(Rule::True));
        let refused = [call(Op::Set { value: value("a") }, Outcome::NotApplied)];
        assert_eq!(rule(&refused, &[stream(1, &[event(5, "a")])]), Some(Rule::True));
    }

    // W2: a watcher that was told "compacted" goes on behind a gap.
    #[test]
    fn revisions_that_nobody_watched_leave_it_undecided() {
        let begin = Stream { through: 6, ..stream(1, &events()[..1]) };
        let end = Stream { after: 6, ..stream(1, &events()[1..]) };
        assert_eq!(check_streams(&calls(), &[end.clone(), begin.clone()]), Ok(()));
        let late = Stream { after: 7, ..stream(1, &events()[2..]) };
        let error = check_streams(&calls(), &[begin, late]).expect_err("7 is missing");
        assert!(matches!(&error, Error::Undecided { .. }), "{error}");
        assert!(error.to_string().contains("revisions 7 to 7"), "{error}");
    }

    // G2
    #[test]
    fn read_of_what_was_over_at_its_revision_is_caught() {
        let mut calls = calls();
        calls.push(found("a", 5, 7));
        assert_eq!(rule(&calls, &[stream(1, &events())]), Some(Rule::ReadsAgree));
    }
}
