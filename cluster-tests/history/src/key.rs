//! What one key does: the sequential meaning of the calls (S2–S4).
//!
//! # The model
//! A key is absent, or has a value, the revision that wrote it, and the call that did. All answers
//! carry revisions, which rise with every change of the whole cluster; so along one order of the
//! calls they never fall, and a change's is above all that were seen before it. The revision of a
//! value that was written by a call without an answer is not known until an answer tells it.
//!
//! # What it leaves out
//! Whether a set lost rightly is decided by who wrote the value that stands. If that is the loser's
//! own session, it is decided by whether another one wrote at about that time at all.

use crate::call::{Answer, Call, Held, Op, Value};

/// The state of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Key {
    present: Option<Present>,
    /// The highest revision that an answer has told: later changes have higher ones.
    floor: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Present {
    value: Value,
    /// None: above the floor, and not told yet.
    mod_revision: Option<u64>,
    writer: Writer,
}

/// The call that wrote a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Writer {
    client: usize,
    acknowledged_us: u64,
}

impl Key {
    /// The key after a call that returned `answer`; none if it would have answered something else.
    /// `raced` says whether a write of another session overlaps the call.
    #[must_use]
    pub fn answered(&self, call: &Call, answer: &Answer, raced: bool) -> Option<Key> {
        if answer.revision().is_some_and(|revision| revision < self.floor) {
            return None;
        }
        match (&call.op, answer) {
            (Op::Get, Answer::Absent) => self.present.is_none().then(|| self.clone()),
            (Op::Get, Answer::Found { held, revision }) => self.holds(held, *revision),
            (Op::Set { value }, Answer::Written { mod_revision, revision }) => {
                self.overwritten(call, value, *mod_revision, *revision)
            }
            (Op::Set { .. }, Answer::Lost { held: Some(held), revision }) => {
                self.lost_race(call, raced)?.holds(held, *revision)
            }
            (Op::SetIf { value, if_revision }, Answer::Written { mod_revision, revision }) => {
                self.compared(*if_revision)?.overwritten(call, value, *mod_revision, *revision)
            }
            (Op::SetIf { if_revision, .. }, Answer::Lost { held, revision }) => match held {
                None => (*if_revision != 0).then(|| self.absent_at(*revision))?,
                Some(held) => {
                    (held.mod_revision != *if_revision).then(|| self.holds(held, *revision))?
                }
            },
            (Op::Create { value }, Answer::Written { mod_revision, revision }) => {
                self.absent_at(self.floor)?.written(call, value, *mod_revision, *revision)
            }
            (Op::Create { .. }, Answer::Lost { held: Some(held), revision }) => {
                self.holds(held, *revision)
            }
            (Op::Delete, Answer::Deleted(was_there)) => (self.present.is_some() == *was_there)
                .then_some(Key { present: None, floor: self.floor }),
            (Op::Get | Op::Delete | Op::Set { .. } | Op::Create { .. }, _)
            | (Op::SetIf { .. }, Answer::Absent | Answer::Found { .. } | Answer::Deleted(_)) => {
                None
            }
        }
    }

    /// The key after a call without an answer took effect, which may be no effect at all.
    #[must_use]
    pub fn unanswered(&self, call: &Call) -> Key {
        let overwrite = |key: &Key, value: &Value| {
            if key.present.as_ref().is_some_and(|present| present.value == *value) {
                return self.clone();
            }
            let present = Present::new(call, value, None);
            Key { present: Some(present), floor: key.floor }
        };
        match &call.op {
            Op::Get => self.clone(),
            Op::Set { value } => overwrite(self, value),
            Op::SetIf { value, if_revision } => self
                .compared(*if_revision)
                .map_or_else(|| self.clone(), |key| overwrite(&key, value)),
            Op::Create { value } if self.present.is_none() => overwrite(self, value),
            Op::Create { .. } => self.clone(),
            Op::Delete => Key { present: None, floor: self.floor },
        }
    }

    /// Whether a call without an answer, when it takes effect, leaves nothing of what the key was: it
    /// comes to the same after anything else.
    pub(crate) fn would_be_overwritten(&self, call: &Call) -> bool {
        match &call.op {
            Op::Set { value } => {
                self.present.as_ref().is_none_or(|present| present.value != *value)
            }
            Op::Delete => true,
            Op::Get | Op::SetIf { .. } | Op::Create { .. } => false,
        }
    }

    /// The key, known to hold this at this revision; none if it does not.
    fn holds(&self, held: &Held, revision: u64) -> Option<Key> {
        let present = self.present.as_ref().filter(|present| present.value == held.value)?;
        let is_it = match present.mod_revision {
            Some(known) => known == held.mod_revision,
            None => held.mod_revision > self.floor,
        };
        let present = Present { mod_revision: Some(held.mod_revision), ..present.clone() };
        let floor = self.floor.max(revision);
        (is_it && held.mod_revision <= revision).then_some(Key { present: Some(present), floor })
    }

    fn absent_at(&self, revision: u64) -> Option<Key> {
        let floor = self.floor.max(revision);
        self.present.is_none().then_some(Key { present: None, floor })
    }

    /// The key after a set that was carried out: it changes nothing if it has that value already.
    fn overwritten(
        &self,
        call: &Call,
        value: &Value,
        mod_revision: u64,
        revision: u64,
    ) -> Option<Key> {
        let held = Held { value: value.clone(), mod_revision };
        let same = self.holds(&held, revision);
        same.or_else(|| self.written(call, value, mod_revision, revision))
    }

    /// The key with a value that this call wrote at this revision.
    fn written(&self, call: &Call, value: &Value, mod_revision: u64, revision: u64) -> Option<Key> {
        let is_there = self.present.as_ref().is_some_and(|present| present.value == *value);
        let is_change = !is_there && mod_revision > self.floor && mod_revision <= revision;
        let present = Present::new(call, value, Some(mod_revision));
        is_change.then_some(Key { present: Some(present), floor: revision })
    }

    /// The key, known to be at this revision (0: absent); none if it is not.
    fn compared(&self, if_revision: u64) -> Option<Key> {
        let Some(present) = &self.present else {
            return (if_revision == 0).then(|| self.clone());
        };
        match present.mod_revision {
            Some(known) => (known == if_revision).then(|| self.clone()),
            None => (if_revision > self.floor).then(|| {
                let present = Present { mod_revision: Some(if_revision), ..present.clone() };
                Key { present: Some(present), floor: if_revision }
            }),
        }
    }

    /// The key, if a set may lose to what stands there (S3): never to its own session's value, and
    /// never to one that was acknowledged before it began.
    fn lost_race(&self, call: &Call, raced: bool) -> Option<&Key> {
        let writer = self.present.as_ref()?.writer;
        let is_race = match writer.client == call.client {
            true => raced,
            false => writer.acknowledged_us >= call.invoked_us,
        };
        is_race.then_some(self)
    }
}

impl Present {
    fn new(call: &Call, value: &Value, mod_revision: Option<u64>) -> Present {
        let writer = Writer { client: call.client, acknowledged_us: call.returned_us() };
        Present { value: value.clone(), mod_revision, writer }
    }
}
