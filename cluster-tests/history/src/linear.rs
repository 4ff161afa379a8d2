//! The search for one order of the calls on a key in which every answer is right and no call comes
//! before one that was over when it began.
//!
//! # The model
//! Wing and Gong, *Testing and verifying concurrent objects* (1993), with the memory of dead ends
//! by Lowe, *Testing for linearizability* (2017): calls are taken one after the other, any that
//! began before the first return among those left; what was reached without success is never tried
//! again.
//!
//! A call without an answer may be taken at any moment after it began, or never. One that is taken
//! must be *needed*: the next call must come to something else than it would have come to without.
//! Otherwise leaving the call out leads to the same key with more calls left to choose from, so
//! whatever follows can follow there too. That keeps hundreds of calls without answers cheap.
//!
//! # Invariants
//! - Moments that are equal count as overlapping.
//! - The order in which calls are tried (by the revisions of their answers) changes how long the
//!   search takes, never what it finds.
//! - The search takes at most as many steps as it is given, and remembers at most
//!   [`DEAD_BYTES_MAX`] of dead ends; beyond that it may come to the same one again.

use std::collections::{BTreeMap, HashSet};

use crate::call::{Answer, Call, Outcome};
use crate::error::{Error, Rule};
use crate::key::Key;

/// Steps that a check of one key may take in a test: some seconds. A good history takes about one
/// step a call.
pub const STEPS_MAX: u64 = 5_000_000;
/// What the dead ends of one search may take, in bytes (256 MiB): far more than a good history
/// needs, and no more than a machine for tests has to spare.
const DEAD_BYTES_MAX: usize = 256 << 20;
/// How many calls a broken history names.
const NAMED_MAX: usize = 12;

/// Checks the calls of each key by [`check_key`]; returns how many steps that took.
///
/// # Errors
/// That of the first key that does not pass.
pub fn check_keys(calls: &[Call], steps_max: u64) -> Result<u64, Error> {
    let mut keys: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(&call.key).or_default().push(call);
    }
    let mut steps = 0;
    for calls in keys.into_values() {
        steps += check_key(&calls, steps_max)?;
    }
    Ok(steps)
}

/// Checks that all calls on one key, which begins absent, fit into one order; returns how many
/// steps that took.
///
/// # Errors
/// [`Rule::Linearizable`] if there is no such order, and [`Error::Undecided`] if `steps_max` steps
/// found neither one nor that there is none.
pub fn check_key(calls: &[&Call], steps_max: u64) -> Result<u64, Error> {
    let mut search = Search::new(calls, steps_max);
    search.run()
}

/// Calls are named by their place in the order in which they began: answered ones in one list,
/// those without an answer in another.
struct Search<'a> {
    answered: Vec<Candidate<'a>>,
    unanswered: Vec<&'a Call>,
    is_taken: Taken,
    /// The first answered call that is not taken.
    first: usize,
    /// How many answered calls are taken.
    taken: usize,
    dead: HashSet<DeadEnd>,
    /// About what these take.
    dead_bytes: usize,
    steps: u64,
    steps_max: u64,
    furthest: Furthest,
}

struct Candidate<'a> {
    call: &'a Call,
    answer: &'a Answer,
    returned_us: u64,
    /// Another client's write overlaps it.
    raced: bool,
}

struct Taken {
    answered: Vec<bool>,
    unanswered: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Answered(usize),
    Unanswered(usize),
}

/// One call deep in the search.
struct Frame {
    key: Key,
    /// The key before, if the call taken last had no answer: see the module's notes.
    before: Option<Key>,
    /// What was taken to come here.
    step: Option<Step>,
    /// What is still to be tried from here, last first.
    options: Vec<Step>,
    /// Whether calls without an answer are among what was tried.
    is_widened: bool,
}

/// Which calls were taken, and what the key was then: nothing good comes from there.
#[derive(PartialEq, Eq, Hash)]
struct DeadEnd {
    first: usize,
    answered: Vec<usize>,
    unanswered: Vec<usize>,
    key: Key,
}

impl DeadEnd {
    /// About what it takes in memory; values are shared.
    fn bytes(&self) -> usize {
        let places = self.answered.len() + self.unanswered.len();
        size_of::<DeadEnd>() + places * size_of::<usize>()
    }
}

/// Where the search has come furthest, for people.
#[derive(Default)]
struct Furthest {
    taken: usize,
    key: Key,
    next: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(calls: &[&'a Call], steps_max: u64) -> Search<'a> {
        let mut calls = calls.to_vec();
        calls.sort_by_key(|call| call.invoked_us);
        let writes: Vec<&Call> = calls.iter().copied().filter(|c| c.may_have_written()).collect();
        let raced = |call: &Call| {
            let overlaps = |write: &&Call| {
                write.client != call.client
                    && write.returned_us() >= call.invoked_us
                    && write.invoked_us <= call.returned_us()
            };
            writes.iter().any(overlaps)
        };
        let mut answered = Vec::new();
        let mut unanswered = Vec::new();
        for call in calls {
            match &call.outcome {
                Outcome::Returned { at_us, answer } => {
                    let is_lost = matches!(answer, Answer::Lost { .. });
                    let raced = is_lost && raced(call);
                    answered.push(Candidate { call, answer, returned_us: *at_us, raced });
                }
                Outcome::Unknown if call.may_have_written() => unanswered.push(call),
                Outcome::Unknown | Outcome::NotApplied => {}
            }
        }
        let is_taken = Taken {
            answered: vec![false; answered.len()],
            unanswered: vec![false; unanswered.len()],
        };
        Search {
            answered,
            unanswered,
            is_taken,
            first: 0,
            taken: 0,
            dead: HashSet::new(),
            dead_bytes: 0,
            steps: 0,
            steps_max,
            furthest: Furthest::default(),
        }
    }

    fn run(&mut self) -> Result<u64, Error> {
        let mut path = vec![self.frame(Key::default(), None, None)];
        while let Some(frame) = path.last_mut() {
            if self.taken == self.answered.len() {
                return Ok(self.steps);
            }
            let Some(step) = frame.options.pop() else {
                if !frame.is_widened {
                    frame.is_widened = true;
                    frame.options = self.unanswered_options(frame.before.as_ref());
                    continue;
                }
                let frame = path.pop().expect("it was the last");
                self.give_up(frame);
                continue;
            };
            self.steps += 1;
            if self.steps > self.steps_max {
                return Err(self.undecided());
            }
            if let Some((key, before)) = self.take(frame, step) {
                self.mark(step, true);
                if self.is_dead(&key) {
                    self.mark(step, false);
                } else {
                    path.push(self.frame(key, before, Some(step)));
                }
            }
        }
        Err(self.broken())
    }

    fn frame(&self, key: Key, before: Option<Key>, step: Option<Step>) -> Frame {
        let options = self.answered_options().into_iter().map(Step::Answered).collect();
        Frame { key, before, step, options, is_widened: false }
    }

    /// The key after a step, and the one before if the step needs to be shown to be needed; none if
    /// the step is not possible, or leads nowhere new.
    fn take(&self, frame: &Frame, step: Step) -> Option<(Key, Option<Key>)> {
        let after = |key: &Key| match step {
            Step::Answered(index) => {
                let Candidate { call, answer, raced, .. } = &self.answered[index];
                key.answered(call, answer, *raced)
            }
            Step::Unanswered(index) => Some(key.unanswered(self.unanswered[index])),
        };
        let key = after(&frame.key)?;
        if frame.before.as_ref().is_some_and(|before| after(before).as_ref() == Some(&key)) {
            return None;
        }
        match step {
            Step::Answered(_) => Some((key, None)),
            Step::Unanswered(_) => (key != frame.key).then(|| (key, Some(frame.key.clone()))),
        }
    }

    /// The answered calls that may come next: those that began before the first return among the
    /// rest. The most promising one is the last.
    fn answered_options(&self) -> Vec<usize> {
        let mut options = Vec::new();
        let mut first_return = u64::MAX;
        for index in self.first..self.answered.len() {
            if self.is_taken.answered[index] {
                continue;
            }
            let Candidate { call, returned_us, .. } = &self.answered[index];
            if call.invoked_us > first_return {
                break;
            }
            first_return = first_return.min(*returned_us);
            options.push(index);
        }
        options.sort_by_key(|index| {
            let Candidate { call, answer, returned_us, .. } = &self.answered[*index];
            // A revision's write comes before the reads of that revision.
            let is_read = !call.may_have_written();
            std::cmp::Reverse((answer.revision().unwrap_or(0), is_read, *returned_us))
        });
        options
    }

    /// The calls without an answer that may come next. Behind another one, which made of `before`
    /// what the key is now, only those that may need it.
    fn unanswered_options(&self, before: Option<&Key>) -> Vec<Step> {
        let left = self.answered[self.first..].iter().zip(&self.is_taken.answered[self.first..]);
        let returns = left.filter(|(_, is_taken)| !**is_taken).map(|(left, _)| left.returned_us);
        let first_return = returns.min().unwrap_or(u64::MAX);
        let began = self.unanswered.iter().take_while(|call| call.invoked_us <= first_return);
        let is_option = |index: &usize| {
            let call = self.unanswered[*index];
            !self.is_taken.unanswered[*index]
                && before.is_none_or(|before| !before.would_be_overwritten(call))
        };
        (0..began.count()).filter(is_option).map(Step::Unanswered).collect()
    }

    fn mark(&mut self, step: Step, is_taken: bool) {
        match step {
            Step::Unanswered(index) => self.is_taken.unanswered[index] = is_taken,
            Step::Answered(index) => {
                self.is_taken.answered[index] = is_taken;
                match is_taken {
                    true => self.taken += 1,
                    false => self.taken -= 1,
                }
                self.first = self.first.min(index);
                while self.is_taken.answered.get(self.first) == Some(&true) {
                    self.first += 1;
                }
            }
        }
    }

    /// Nothing good comes from here: goes back by one step.
    fn give_up(&mut self, frame: Frame) {
        if self.taken >= self.furthest.taken {
            let next = self.answered_options();
            self.furthest = Furthest { taken: self.taken, key: frame.key.clone(), next };
        }
        if self.dead_bytes < DEAD_BYTES_MAX {
            let dead = self.dead_end(frame.key);
            self.dead_bytes += dead.bytes();
            self.dead.insert(dead);
        }
        if let Some(step) = frame.step {
            self.mark(step, false);
        }
    }

    fn is_dead(&self, key: &Key) -> bool {
        !self.dead.is_empty() && self.dead.contains(&self.dead_end(key.clone()))
    }

    fn dead_end(&self, key: Key) -> DeadEnd {
        let taken = |flags: &[bool], from: usize| {
            (from..flags.len()).filter(|index| flags[*index]).collect::<Vec<usize>>()
        };
        // No call can be taken that began after the first return among the rest, so the taken ones
        // are near.
        let reach = self.reach();
        let answered = taken(&self.is_taken.answered[..reach], self.first);
        let unanswered = taken(&self.is_taken.unanswered, 0);
        DeadEnd { first: self.first, answered, unanswered, key }
    }

    /// Behind the last answered call that may have been taken.
    fn reach(&self) -> usize {
        let Some(first) = self.answered.get(self.first) else { return self.answered.len() };
        let is_near = |candidate: &Candidate<'_>| candidate.call.invoked_us <= first.returned_us;
        self.first + self.answered[self.first..].partition_point(is_near)
    }

    fn undecided(&self) -> Error {
        let what = format!(
            "{} calls on {}, {} of them without an answer",
            self.answered.len() + self.unanswered.len(),
            self.name(),
            self.unanswered.len()
        );
        Error::Undecided { steps: self.steps_max, what }
    }

    fn broken(&self) -> Error {
        let Furthest { taken, key, next } = &self.furthest;
        let named = next.iter().rev().take(NAMED_MAX);
        let named: Vec<String> =
            named.map(|index| format!("{:?}", self.answered[*index].call)).collect();
        let what = format!(
            "after {taken} of {} answered calls {} is {key:?}, and none of these can be next: {}",
            self.answered.len(),
            self.name(),
            named.join("; ")
        );
        Error::broken(Rule::Linearizable, what)
    }

    fn name(&self) -> &str {
        let answered = self.answered.first().map(|candidate| candidate.call);
        answered.or(self.unanswered.first().copied()).map_or("a key without calls", |c| &c.key)
    }
}
