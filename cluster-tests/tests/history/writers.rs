//! Clients that read and write a few keys, all of them the same ones.

use std::collections::BTreeMap;

use holdfast_client::State;
use holdfast_cluster_tests::{boot_us, millis, recorder};
use holdfast_history::{Answer, Op, Outcome};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Lie, Run};

/// So few that calls on one key meet.
const KEYS: usize = 6;
/// Pause between two calls of a client.
const PAUSE_MS: std::ops::Range<u64> = 0..30;
/// A value that everybody writes, in one of so many writes; all others are written once.
const SAME_IN: u32 = 10;
/// One of so many writes is undone by [`Lie::LostWrites`].
const UNDONE_IN: u32 = 8;

pub(super) struct Writer {
    number: usize,
    state: State,
    /// Answers the reads of [`Lie::StaleReads`].
    stale: Option<State>,
    /// Of a session of its own, which undoes writes for [`Lie::LostWrites`].
    other: Option<State>,
    run: Run,
    random: SmallRng,
    written: u64,
    /// The revision of each key as it was told last.
    revisions: BTreeMap<String, u64>,
}

impl Writer {
    /// One that is told by the node `stale` what it reads, if there is one.
    pub(super) fn new(run: &Run, number: usize, stale: Option<usize>) -> Writer {
        let only = |node| {
            let endpoints = vec![run.cluster.endpoint(node)];
            let namespace = run.namespace.clone();
            let client = run.cluster.client_with(|config| {
                (config.endpoints, config.namespace) = (endpoints, namespace);
            });
            client.state()
        };
        Writer {
            number,
            state: run.client(number).state(),
            stale: stale.map(only),
            other: (run.lie == Some(Lie::LostWrites)).then(|| run.client(number).state()),
            run: run.clone(),
            random: SmallRng::seed_from_u64(run.seed.wrapping_add(number as u64)),
            written: 0,
            revisions: BTreeMap::new(),
        }
    }

    pub(super) async fn go_on(mut self) -> anyhow::Result<()> {
        while !*self.run.over.borrow() {
            let key = format!("key-{}", self.random.random_range(0..KEYS));
            let op = self.next_op(&key);
            let invoked_us = boot_us();
            let outcome = self.ask(&key, &op).await;
            if let Outcome::Returned { answer, .. } = &outcome {
                self.learn(&key, answer);
            }
            self.run.recorder.call(self.number, &key, op, invoked_us, outcome);
            let pause = self.random.random_range(PAUSE_MS);
            tokio::time::sleep(millis(pause)).await;
        }
        Ok(())
    }

    fn next_op(&mut self, key: &str) -> Op {
        self.written += 1;
        let value = match self.random.random_ratio(1, SAME_IN) {
            true => "same".to_owned(),
            false => format!("{}-{}", self.number, self.written),
        };
        let value = value.into_bytes().into();
        match self.random.random_range(0..20) {
            0..8 => Op::Get,
            8..13 => Op::Set { value },
            13..16 => {
                let if_revision = self.revisions.get(key).copied().unwrap_or(0);
                Op::SetIf { value, if_revision }
            }
            16..18 => Op::Create { value },
            _ => Op::Delete,
        }
    }

    async fn ask(&mut self, key: &str, op: &Op) -> Outcome {
        match (op, &self.stale, &self.other) {
            (Op::Get, Some(stale), _) => {
                let read = stale.get_local(self.run.object, key).await;
                recorder::outcome(read.map(recorder::found))
            }
            (Op::Set { .. }, _, Some(other)) if self.random.random_ratio(1, UNDONE_IN) => {
                let outcome = recorder::ask(&self.state, self.run.object, key, op).await;
                recorder::ask(other, self.run.object, key, &Op::Delete).await;
                outcome
            }
            (_, _, _) => recorder::ask(&self.state, self.run.object, key, op).await,
        }
    }

    fn learn(&mut self, key: &str, answer: &Answer) {
        let revision = match answer {
            Answer::Found { held, .. } | Answer::Lost { held: Some(held), .. } => held.mod_revision,
            Answer::Written { mod_revision, .. } => *mod_revision,
            Answer::Absent | Answer::Lost { held: None, .. } | Answer::Deleted(_) => 0,
        };
        self.revisions.insert(key.to_owned(), revision);
    }
}
