//! Masters that take change sources from each other, write under their fences, and die.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{
    Claimant, Claimed, Client, Error, Fence, Instance, LeaseHolder, Loss, Opened, Written,
};
use holdfast_cluster_tests::{boot_us, micros, millis, recorder};
use holdfast_history::{Answer, FencedWrite, Op, Outcome, Sighting, Tenure};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Lie, Run};

/// Short, so that many leases run out.
const TTL: Duration = millis(1000);
/// Claims of one life.
const TURNS: std::ops::Range<usize> = 1..8;
/// Writes under the fence of one claim.
const WRITES: std::ops::Range<usize> = 0..4;
/// Pause between two of anything.
const PAUSE_MS: std::ops::Range<u64> = 0..60;
/// The longest wait in line.
const LINE_MAX: Duration = Duration::from_secs(10);
/// For so much longer [`Lie::LateOwners`] believe in what they had.
const LATE_US: u64 = 1_500_000;
/// Clients of calls on state are numbered: writers first, then masters.
const FIRST_CLIENT: usize = 100;

pub(super) struct Master {
    number: usize,
    client: Client,
    run: Run,
    random: SmallRng,
    lives: u64,
    written: u64,
}

/// What came of a claim.
enum Claim {
    Granted(u64),
    Taken,
    /// It is not clear.
    GivenUp,
}

/// How a life goes on after a turn.
enum Next {
    Turn,
    /// The lease is given up or lost; the fence, if it has one, is an old one now.
    Death(Option<Fence>),
}

impl Master {
    pub(super) fn new(run: &Run, number: usize) -> Master {
        let client = run.client(number);
        let number = FIRST_CLIENT + number;
        let random = SmallRng::seed_from_u64(run.seed.wrapping_add(number as u64));
        Master { number, client, run: run.clone(), random, lives: 0, written: 0 }
    }

    pub(super) async fn go_on(mut self) -> anyhow::Result<()> {
        while !*self.run.over.borrow() {
            self.live().await?;
        }
        Ok(())
    }

    /// From the opening of a lease to its end. Each life has a name of its own: the next one has to
    /// wait until the lease of this one has run out.
    async fn live(&mut self) -> anyhow::Result<()> {
        self.lives += 1;
        let name = format!("master-{}-{}", self.number, self.lives);
        let opened = LeaseHolder::open(&self.client, &name, &Instance::random(), TTL).await;
        let holder = match opened {
            Ok(Opened::Granted(holder)) => holder,
            Ok(Opened::HeldBy(by)) => bail!("{name} is new, and held by {by:?}"),
            Err(error) => return during_faults(&error),
        };
        let mut asked = BTreeMap::new();
        for _ in 0..self.random.random_range(TURNS) {
            match self.turn(&holder, &mut asked).await? {
                Next::Turn => self.pause().await,
                Next::Death(fence) => {
                    drop(holder);
                    return self.haunt(fence).await;
                }
            }
        }
        // Nothing is held.
        holder.close().await.map(drop).or_else(|error| during_faults(&error))
    }

    /// Claims a source, keeps it for a while, and gives it back or dies.
    async fn turn(
        &mut self,
        holder: &LeaseHolder,
        asked: &mut BTreeMap<i64, u64>,
    ) -> anyhow::Result<Next> {
        let source = self.run.sources[self.random.random_range(0..self.run.sources.len())];
        // A claim that got no answer may be the one that was granted.
        let first = self.run.with(source)[0];
        let asked_us = *asked.entry(first).or_insert_with(boot_us);
        let token = match self.claim(holder, source).await {
            Ok(Claim::Granted(token)) => token,
            Ok(Claim::Taken) => {
                asked.remove(&first);
                return Ok(Next::Turn);
            }
            Ok(Claim::GivenUp) => return Ok(Next::Death(None)),
            Err(error) => return self.died(holder, &error, None).await,
        };
        let from_us = boot_us();
        let fence = Fence { change_source: source, token };
        let mut failed = None;
        for _ in 0..self.random.random_range(WRITES) {
            self.pause().await;
            failed = self.write(holder, fence).await.err();
            if failed.is_some() {
                break;
            }
        }
        let dies = failed.is_some() || self.random.random_ratio(1, 4);
        let mut until_us = match dies {
            // Nobody renews from here on; it may believe until its own count has run out.
            true => micros(holder.lost_at()),
            false => believed_until(holder),
        };
        if dies && self.run.lie == Some(Lie::LateOwners) {
            until_us += LATE_US;
        }
        for &source in self.run.with(source) {
            let owner = self.number;
            self.run.recorder.tenure(Tenure { owner, source, token, asked_us, from_us, until_us });
        }
        if let Some(error) = failed {
            return self.died(holder, &error, Some(fence)).await;
        }
        if dies {
            return Ok(Next::Death(Some(fence)));
        }
        match holder.release(source, token).await {
            Ok(true) => {
                asked.remove(&first);
                Ok(Next::Turn)
            }
            Ok(false) => bail!("{source} was not held under {token} by a live lease"),
            Err(error) => self.died(holder, &error, Some(fence)).await,
        }
    }

    /// At once, or in line.
    async fn claim(&mut self, holder: &LeaseHolder, source: i64) -> Result<Claim, Error> {
        if self.random.random() {
            let invoked_us = boot_us();
            return Ok(match holder.claim(source).await? {
                Claimed::Granted { token } => Claim::Granted(token),
                Claimed::AlreadyClaimed(Claimant { token, .. }) => {
                    self.run.recorder.sighting(sighting(source, Some(token), invoked_us));
                    Claim::Taken
                }
            });
        }
        match tokio::time::timeout(LINE_MAX, holder.await_claim(source)).await {
            Ok(token) => token.map(Claim::Granted),
            Err(_) => Ok(Claim::GivenUp),
        }
    }

    async fn write(&mut self, holder: &LeaseHolder, fence: Fence) -> Result<(), Error> {
        let (key, value) = self.next_write(fence);
        let invoked_us = boot_us();
        let object = self.run.object;
        let written = holder.set_fenced(object, &key, value.clone(), fence).await;
        self.note_write(fence, &key, value, invoked_us, written.clone());
        written.map(drop)
    }

    /// What a dead master's process does that does not know that it is dead: writes under its fence.
    async fn haunt(&mut self, fence: Option<Fence>) -> anyhow::Result<()> {
        let Some(fence) = fence else { return Ok(()) };
        for _ in 0..self.random.random_range(0..3) {
            let wait = self.random.random_range(0.0..1.0);
            tokio::time::sleep(TTL.mul_f64(wait)).await;
            let (key, value) = self.next_write(fence);
            let invoked_us = boot_us();
            let state = self.client.state();
            let written = state.set_fenced(self.run.object, &key, value.clone(), fence).await;
            self.note_write(fence, &key, value, invoked_us, written);
        }
        Ok(())
    }

    fn next_write(&mut self, fence: Fence) -> (String, Vec<u8>) {
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        (format!("work-{}", fence.change_source), value.into_bytes())
    }

    fn note_write(
        &self,
        fence: Fence,
        key: &str,
        value: Vec<u8>,
        invoked_us: u64,
        written: Result<Written, Error>,
    ) {
        let Fence { change_source: source, token } = fence;
        let outcome = recorder::outcome(written.map(recorder::written));
        if let Outcome::Returned { answer: Answer::Written { revision, .. }, .. } = &outcome {
            self.run.recorder.fenced(FencedWrite { source, token, revision: *revision });
        }
        let op = Op::Set { value: value.into() };
        self.run.recorder.call(self.number, key, op, invoked_us, outcome);
    }

    /// Ends a life after an error, which has to be one that faults explain.
    async fn died(
        &self,
        holder: &LeaseHolder,
        error: &Error,
        fence: Option<Fence>,
    ) -> anyhow::Result<Next> {
        during_faults(error)?;
        if !holder.is_live() {
            let loss = holder.lost().await;
            ensure!(loss == Loss::Expired, "{loss:?}, and nobody ended the lease: {error}");
        }
        Ok(Next::Death(fence))
    }

    async fn pause(&mut self) {
        let pause = self.random.random_range(PAUSE_MS);
        tokio::time::sleep(millis(pause)).await;
    }
}

/// The last moment up to now at which the holder took its claims for its own.
fn believed_until(holder: &LeaseHolder) -> u64 {
    let now_us = boot_us();
    if holder.is_live() { now_us } else { micros(holder.lost_at()) }
}

/// Nothing of what the clients ask is refused; but calls may go unanswered, and leases run out.
fn during_faults(error: &Error) -> anyhow::Result<()> {
    match error {
        Error::NotApplied { .. }
        | Error::OutcomeUnknown { .. }
        | Error::Unavailable { .. }
        | Error::LeaseLost { .. } => Ok(()),
        Error::Refused { .. } | Error::SessionExpired { .. } => bail!("{error}"),
    }
}

fn sighting(source: i64, token: Option<u64>, since_us: u64) -> Sighting {
    Sighting { source, token, revision: None, since_us, by_us: boot_us() }
}

/// Looks who owns what.
pub(super) struct Observer {
    client: Client,
    run: Run,
    random: SmallRng,
}

impl Observer {
    pub(super) fn new(run: &Run, number: usize) -> Observer {
        let random = SmallRng::seed_from_u64(run.seed.wrapping_sub(number as u64));
        Observer { client: run.client(number), run: run.clone(), random }
    }

    pub(super) async fn go_on(mut self) -> anyhow::Result<()> {
        while !*self.run.over.borrow() {
            let source = self.run.sources[self.random.random_range(0..self.run.sources.len())];
            let invoked_us = boot_us();
            match self.client.change_sources().get(source).await {
                Ok(found) => {
                    let claimant = found.context("no change source ever goes")?.claimant;
                    let token = claimant.map(|claimant| claimant.token);
                    self.run.recorder.sighting(sighting(source, token, invoked_us));
                }
                Err(error) => during_faults(&error)?,
            }
            tokio::time::sleep(millis(self.random.random_range(0..40))).await;
        }
        Ok(())
    }
}
