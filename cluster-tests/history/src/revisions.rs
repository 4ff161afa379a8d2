//! Revisions against real time, over all keys at once (G6).
//!
//! The revision of an answer is the one at which it is true. So it is not below any that was seen
//! before the call began; and the revision of a change is above them all.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{Answer, Call, Held, Outcome};
use crate::error::{Error, Rule};

/// Checks that revisions agree with the order of calls in time, and that each wrote one value under
/// one key.
///
/// # Errors
/// [`Rule::RealTime`] or [`Rule::OneWrite`].
pub fn check_revisions(calls: &[Call]) -> Result<(), Error> {
    let mut answers: Vec<(&Call, u64, &Answer)> = Vec::new();
    for call in calls {
        if let Outcome::Returned { at_us, answer } = &call.outcome {
            answers.push((call, *at_us, answer));
        }
    }
    check_time(&answers, &Writers::of(calls))?;
    check_writes(&answers)
}

/// Who may have written what: a set that finds its value there already is answered as if it had
/// written that, with the revision that did.
struct Writers<'a> {
    /// How many calls were told that a key's value stands since a revision.
    told: BTreeMap<(&'a str, u64), usize>,
    /// Keys and values of calls without an answer.
    open: BTreeSet<(&'a str, &'a [u8])>,
}

impl<'a> Writers<'a> {
    fn of(calls: &'a [Call]) -> Writers<'a> {
        let mut writers = Writers { told: BTreeMap::new(), open: BTreeSet::new() };
        for call in calls {
            let Some(value) = call.value() else { continue };
            match &call.outcome {
                Outcome::Returned { answer: Answer::Written { mod_revision, .. }, .. } => {
                    *writers.told.entry((&call.key, *mod_revision)).or_default() += 1;
                }
                Outcome::Unknown => {
                    writers.open.insert((&call.key, value));
                }
                Outcome::Returned { .. } | Outcome::NotApplied => {}
            }
        }
        writers
    }

    /// Whether it was certainly this call that changed its key, at the revision of its answer.
    fn is_change(&self, call: &Call) -> bool {
        let (Some(Answer::Written { mod_revision, revision }), Some(value)) =
            (call.answer(), call.value())
        else {
            return false;
        };
        mod_revision == revision
            && self.told.get(&(&*call.key, *revision)) == Some(&1)
            && !self.open.contains(&(&*call.key, &**value))
    }
}

fn check_time(answers: &[(&Call, u64, &Answer)], writers: &Writers<'_>) -> Result<(), Error> {
    let mut by_begin = answers.to_vec();
    by_begin.sort_by_key(|(call, ..)| call.invoked_us);
    let mut by_end = answers.to_vec();
    by_end.sort_by_key(|(_, at_us, _)| *at_us);
    let mut ended = by_end.into_iter().peekable();
    let mut seen: Option<(u64, &Call)> = None;
    for (call, _, answer) in by_begin {
        while let Some((before, _, told)) = ended.next_if(|(_, at, _)| *at < call.invoked_us) {
            if told.revision() > seen.map(|(revision, _)| revision) {
                seen = told.revision().map(|revision| (revision, before));
            }
        }
        let (Some(revision), Some((floor, before))) = (answer.revision(), seen) else { continue };
        if revision < floor || (revision == floor && writers.is_change(call)) {
            let what = format!("{call:?} began after {before:?} had ended");
            return Err(Error::broken(Rule::RealTime, what));
        }
    }
    Ok(())
}

fn check_writes(answers: &[(&Call, u64, &Answer)]) -> Result<(), Error> {
    let mut writes: BTreeMap<u64, (&Call, &[u8])> = BTreeMap::new();
    for (call, ..) in answers {
        let Some((value, mod_revision)) = held(call) else { continue };
        let (first, written) = writes.entry(mod_revision).or_insert((call, value));
        if first.key != call.key || *written != value {
            let what = format!("revision {mod_revision} in {first:?} and in {call:?}");
            return Err(Error::broken(Rule::OneWrite, what));
        }
    }
    Ok(())
}

/// The value that an answer says stands, and the revision that wrote it.
pub(crate) fn held(call: &Call) -> Option<(&[u8], u64)> {
    match call.answer()? {
        Answer::Found { held: Held { value, mod_revision }, .. }
        | Answer::Lost { held: Some(Held { value, mod_revision }), .. } => {
            Some((value, *mod_revision))
        }
        Answer::Written { mod_revision, .. } => Some((call.value()?, *mod_revision)),
        Answer::Lost { held: None, .. } | Answer::Absent | Answer::Deleted(_) => None,
    }
}

#[cfg(test)]
mod tests {
    //! Each rule has a lie that is caught.

    use super::*;
    use crate::call::{Op, Value};

    fn value(text: &str) -> Value {
        text.as_bytes().into()
    }

    fn set(key: &str, (invoked_us, at_us): (u64, u64), mod_revision: u64, revision: u64) -> Call {
        let answer = Answer::Written { mod_revision, revision };
        let outcome = Outcome::Returned { at_us, answer };
        Call { client: 1, key: key.into(), invoked_us, op: Op::Set { value: value(key) }, outcome }
    }

    fn found(key: &str, (invoked_us, at_us): (u64, u64), mod_revision: u64, revision: u64) -> Call {
        let held = Held { value: value(key), mod_revision };
        let outcome = Outcome::Returned { at_us, answer: Answer::Found { held, revision } };
        Call { client: 2, key: key.into(), invoked_us, op: Op::Get, outcome }
    }

    fn rule(calls: &[Call]) -> Option<Rule> {
        check_revisions(calls).err().and_then(|error| error.rule())
    }

    // G6
    #[test]
    fn revisions_that_rise_with_time_pass() {
        let calls = [
            set("a", (0, 10), 5, 5),
            found("a", (11, 20), 5, 5),
            // The same value again: nothing changed.
            set("a", (11, 20), 5, 5),
            set("b", (5, 30), 4, 4),
            set("c", (15, 40), 6, 6),
            found("a", (35, 50), 5, 6),
        ];
        assert_eq!(check_revisions(&calls), Ok(()));
    }

    // G6 G2
    #[test]
    fn revision_from_before_the_call_is_caught() {
        assert_eq!(
            rule(&[set("a", (0, 10), 5, 5), found("b", (11, 20), 3, 4)]),
            Some(Rule::RealTime)
        );
        assert_eq!(rule(&[set("a", (0, 10), 5, 5), found("b", (10, 20), 3, 4)]), None);
        assert_eq!(
            rule(&[set("a", (0, 10), 5, 5), set("b", (11, 20), 4, 4)]),
            Some(Rule::RealTime)
        );
        // A change has a revision of its own, also when the one before was only read.
        let read = found("c", (0, 10), 3, 5);
        assert_eq!(rule(&[read, set("b", (11, 20), 5, 5)]), Some(Rule::RealTime));
    }

    /// Found by a run of seven minutes: the set came last, found its value there, and was taken for
    /// the change that another call had made.
    // G6 S3
    #[test]
    fn set_that_changed_nothing_has_the_revision_of_the_change() {
        let read = found("b", (11, 20), 3, 5);
        let again = set("a", (21, 30), 5, 5);
        assert_eq!(
            check_revisions(&[set("a", (0, 12), 5, 5), read.clone(), again.clone()]),
            Ok(())
        );
        let unanswered = Call { outcome: Outcome::Unknown, ..set("a", (0, 12), 5, 5) };
        assert_eq!(check_revisions(&[unanswered, read.clone(), again.clone()]), Ok(()));
        assert_eq!(rule(&[read, again]), Some(Rule::RealTime));
    }

    #[test]
    fn revision_that_wrote_two_things_is_caught() {
        let two_keys = [set("a", (0, 10), 5, 5), set("b", (0, 10), 5, 5)];
        assert_eq!(rule(&two_keys), Some(Rule::OneWrite));
        let mut two_values = [set("a", (0, 10), 5, 5), set("a", (0, 10), 5, 5)];
        two_values[1].op = Op::Set { value: value("x") };
        assert_eq!(rule(&two_values), Some(Rule::OneWrite));
    }
}
