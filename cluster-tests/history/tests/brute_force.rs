//! The search against one that tries everything, on small histories: those that a simulated key
//! brings about, which must pass, and the same with one thing changed, on which both must agree.

use holdfast_history::{Answer, Call, Held, Key, Op, Outcome, STEPS_MAX, Value, check_key};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const SEEDS: u64 = 20_000;
/// Most calls of a history: so few that all their orders can be tried.
const CALLS_MAX: usize = 7;
const CLIENTS: usize = 3;

// G2 S3 S4
#[test]
fn history_of_a_real_key_is_never_called_broken() {
    for seed in 0..SEEDS {
        let calls = simulate(&mut SmallRng::seed_from_u64(seed));
        let result = check(&calls);
        assert!(result.is_ok(), "seed {seed}: {:#?}\n{calls:#?}", result.err());
    }
}

// G2 S3 S4
#[test]
fn search_agrees_with_trying_everything() {
    let mut good = 0;
    for seed in 0..SEEDS {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut calls = simulate(&mut random);
        change_something(&mut random, &mut calls);
        let is_good = try_everything(&calls);
        let result = check(&calls);
        assert_eq!(result.is_ok(), is_good, "seed {seed}: {result:?}\n{calls:#?}");
        good += u64::from(is_good);
    }
    // Neither answer is rare.
    assert!(good > SEEDS / 10 && good < SEEDS * 9 / 10, "{good} of {SEEDS} are good");
}

fn check(calls: &[Call]) -> Result<u64, holdfast_history::Error> {
    let calls: Vec<&Call> = calls.iter().collect();
    check_key(&calls, STEPS_MAX)
}

/// Whether any order of the calls, with any of those without an answer, fits.
fn try_everything(calls: &[Call]) -> bool {
    fn go(calls: &[Call], is_taken: &mut Vec<bool>, key: &Key) -> bool {
        let left = || calls.iter().zip(is_taken.iter()).filter(|(_, taken)| !**taken);
        let Some(first_return) =
            left().filter(|(call, _)| call.answer().is_some()).map(|(c, _)| c.returned_us()).min()
        else {
            return true;
        };
        (0..calls.len()).any(|index| {
            let call = &calls[index];
            if is_taken[index]
                || call.invoked_us > first_return
                || call.outcome == Outcome::NotApplied
            {
                return false;
            }
            let next = match call.answer() {
                Some(answer) => key.answered(call, answer, raced(calls, call)),
                None => Some(key.unanswered(call)),
            };
            let Some(next) = next else { return false };
            is_taken[index] = true;
            let found = go(calls, is_taken, &next);
            is_taken[index] = false;
            found
        })
    }
    go(calls, &mut vec![false; calls.len()], &Key::default())
}

fn raced(calls: &[Call], call: &Call) -> bool {
    calls.iter().any(|other| {
        other.client != call.client
            && other.may_have_written()
            && other.invoked_us <= call.returned_us()
            && call.invoked_us <= other.returned_us()
    })
}

/// A key as the cluster keeps it, written down once more: who wrote, and when another session did.
#[derive(Clone, Default)]
struct Simulated {
    revision: u64,
    item: Option<Item>,
    /// When each revision came.
    times: Vec<(u64, u64)>,
}

#[derive(Clone)]
struct Item {
    value: Value,
    mod_revision: u64,
    writer: usize,
    other_revision: u64,
}

fn simulate(random: &mut SmallRng) -> Vec<Call> {
    let mut key = Simulated::default();
    let count = random.random_range(1..=CALLS_MAX);
    (1..=count)
        .map(|nth| {
            let now_us = 1000 + 100 * nth as u64;
            // Something else changes in the cluster.
            key.revision += random.random_range(0..2);
            let invoked_us = now_us - random.random_range(0..150);
            let client = random.random_range(0..CLIENTS);
            let op = random_op(random, &key);
            let is_unknown = random.random_range(0..4) == 0;
            let happens = !is_unknown || random.random();
            let mut call =
                Call { client, key: "key".into(), invoked_us, op, outcome: Outcome::Unknown };
            if happens {
                let admitted_us = random.random_range(invoked_us..=now_us);
                let answer = key.carry_out(&call, now_us, admitted_us);
                if !is_unknown {
                    let at_us = now_us + random.random_range(0..150);
                    call.outcome = Outcome::Returned { at_us, answer };
                }
            } else if random.random() {
                call.outcome = Outcome::NotApplied;
            }
            call
        })
        .collect()
}

fn random_op(random: &mut SmallRng, key: &Simulated) -> Op {
    let value = random_value(random);
    match random.random_range(0..10) {
        0..3 => Op::Get,
        3..6 => Op::Set { value },
        6 => Op::Create { value },
        7 => Op::Delete,
        _ => {
            let now = key.item.as_ref().map_or(0, |item| item.mod_revision);
            let if_revision = if random.random_range(0..3) == 0 { key.revision } else { now };
            Op::SetIf { value, if_revision }
        }
    }
}

/// Few values, so that the same comes again.
fn random_value(random: &mut SmallRng) -> Value {
    Value::from([b'a' + random.random_range(0..4)])
}

impl Simulated {
    fn carry_out(&mut self, call: &Call, now_us: u64, admitted_us: u64) -> Answer {
        let noted = self.times.iter().rfind(|(_, at_us)| *at_us <= admitted_us);
        let noted = noted.map_or(0, |(revision, _)| *revision);
        let others = self.others_wrote(call.client);
        let present = self.item.as_ref().map_or(0, |item| item.mod_revision);
        let does_lose = match &call.op {
            Op::Set { .. } => self.item.is_some() && others > noted,
            Op::SetIf { if_revision, .. } => *if_revision != present,
            Op::Create { .. } => self.item.is_some(),
            Op::Get | Op::Delete => false,
        };
        let held = self
            .item
            .as_ref()
            .map(|item| Held { value: item.value.clone(), mod_revision: item.mod_revision });
        if does_lose {
            return Answer::Lost { held, revision: self.revision };
        }
        match &call.op {
            Op::Get => {
                held.map_or(Answer::Absent, |held| Answer::Found { held, revision: self.revision })
            }
            Op::Delete => {
                if self.item.take().is_some() {
                    self.change(now_us);
                }
                Answer::Deleted(held.is_some())
            }
            Op::Set { value } | Op::SetIf { value, .. } | Op::Create { value } => {
                if let Some(held) = held.filter(|held| held.value == *value) {
                    let Held { mod_revision, .. } = held;
                    return Answer::Written { mod_revision, revision: self.revision };
                }
                let mod_revision = self.change(now_us);
                self.item = Some(Item {
                    value: value.clone(),
                    mod_revision,
                    writer: call.client,
                    other_revision: others,
                });
                Answer::Written { mod_revision, revision: mod_revision }
            }
        }
    }

    fn others_wrote(&self, client: usize) -> u64 {
        self.item.as_ref().map_or(0, |item| {
            if item.writer == client { item.other_revision } else { item.mod_revision }
        })
    }

    fn change(&mut self, now_us: u64) -> u64 {
        self.revision += 1;
        self.times.push((self.revision, now_us));
        self.revision
    }
}

/// One lie.
fn change_something(random: &mut SmallRng, calls: &mut Vec<Call>) {
    let index = random.random_range(0..calls.len());
    let value = random_value(random);
    let shift = random.random_range(0..3);
    let call = &mut calls[index];
    match (random.random_range(0..4), &mut call.outcome) {
        (0, _) => {
            calls.remove(index);
        }
        (1, Outcome::Returned { at_us, .. }) => {
            // Elsewhere in time.
            let takes = *at_us - call.invoked_us;
            call.invoked_us = random.random_range(900..1800);
            *at_us = call.invoked_us + takes;
        }
        (_, Outcome::Returned { answer, .. }) => match answer {
            Answer::Absent => {
                *answer =
                    Answer::Found { held: Held { value, mod_revision: shift + 1 }, revision: 3 }
            }
            Answer::Deleted(was_there) => *was_there = !*was_there,
            Answer::Found { held, .. } if shift == 0 => held.value = value,
            Answer::Found { .. } if shift == 1 => *answer = Answer::Absent,
            Answer::Found { held, .. } => held.mod_revision += shift,
            Answer::Lost { held: Some(held), .. } if shift == 0 => held.value = value,
            Answer::Lost { held, .. } if shift == 1 => *held = None,
            Answer::Lost { held, revision } => {
                *answer = Answer::Written {
                    mod_revision: held.as_ref().map_or(*revision, |held| held.mod_revision),
                    revision: *revision,
                };
            }
            Answer::Written { mod_revision, revision } if shift == 0 => {
                let held = Some(Held { value, mod_revision: *mod_revision });
                *answer = Answer::Lost { held, revision: *revision };
            }
            Answer::Written { mod_revision, revision } => {
                *mod_revision += shift;
                *revision = (*revision).max(*mod_revision);
            }
        },
        (_, Outcome::NotApplied) => call.outcome = Outcome::Unknown,
        (_, Outcome::Unknown) => call.outcome = Outcome::NotApplied,
    }
}
