//! What goes wrong in a run: processes that die, links that are cut or slow, slow disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_node::sim::{self, World};
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::Plan;

/// How long it is waited for a leader to be elected, to take its voters from it.
const ELECTION_MAX: Duration = Duration::from_secs(2);

/// Breaks things for as long as the plan says. Processes may be down, and links cut, when it ends.
pub(crate) async fn run(
    plan: &Plan,
    world: &Arc<World>,
    faults: &AtomicU64,
    random: &mut SmallRng,
) {
    let nemesis = Nemesis { nodes: plan.nodes, world, ends: sim::now() + plan.lasts };
    while nemesis.goes_on() {
        let pause = plan.fault_every.mul_f64(random.random_range(0.1..2.0));
        sim::sleep(pause.min(nemesis.left())).await;
        if nemesis.goes_on() {
            faults.fetch_add(1, Ordering::Relaxed);
            nemesis.strike(random).await;
        }
    }
}

struct Nemesis<'a> {
    nodes: u64,
    world: &'a Arc<World>,
    ends: Duration,
}

impl Nemesis<'_> {
    fn left(&self) -> Duration {
        self.ends.saturating_sub(sim::now())
    }

    fn goes_on(&self) -> bool {
        !self.left().is_zero()
    }

    fn leader(&self) -> Option<u64> {
        // The newest, if there is one that does not know that it leads no more.
        (1..=self.nodes)
            .filter_map(|id| Some((self.world.led_term(id)?, id)))
            .max()
            .map(|(_, id)| id)
    }

    async fn strike(&self, random: &mut SmallRng) {
        let victim = random.random_range(1..=self.nodes);
        let other = 1 + (victim + random.random_range(0..self.nodes - 1)) % self.nodes;
        let leader = self.leader().unwrap_or(victim);
        let lasts = lasts(random);
        let world = self.world;
        match random.random_range(0..100) {
            0..18 => self.crash(victim, random),
            18..32 => self.crash(leader, random),
            // The power goes.
            32..40 => (1..=self.nodes).for_each(|id| self.crash(id, random)),
            40..48 => self.isolate(victim, lasts),
            48..58 => self.isolate(leader, lasts),
            58..66 => self.cut(&[(victim, other)], lasts),
            66..74 => self.cut(&[(victim, leader)], lasts),
            74..80 => {
                world.slow(victim, other, Duration::from_millis(random.random_range(10..300)));
                self.later(lasts, move |world| world.mend(victim, other));
            }
            80..84 => {
                world.slow(0, victim, Duration::from_millis(random.random_range(10..500)));
                self.later(lasts, move |world| world.mend(0, victim));
            }
            84..88 => {
                world.slow_disk(victim, random.random_range(5..100));
                self.later(lasts, move |world| world.slow_disk(victim, 1));
            }
            88..92 => world.move_lead(leader).await,
            92..98 => self.take_voters(leader, random).await,
            _ => world.heal(),
        }
    }

    /// Kills a process, to be started again after a while.
    fn crash(&self, id: u64, random: &mut SmallRng) {
        if !self.world.is_running(id) {
            return;
        }
        self.world.crash(id);
        // Mostly soon: what a node has forgotten matters while others remember.
        let down_ms = match random.random_range(0..3) {
            0 => random.random_range(1..50),
            1 => random.random_range(50..800),
            _ => random.random_range(800..5000),
        };
        self.start_after(id, Duration::from_millis(down_ms));
    }

    fn start_after(&self, id: u64, down: Duration) {
        let world = Arc::clone(self.world);
        // Whoever is still down in the end is started there.
        if down >= self.left() {
            return;
        }
        sim::spawn(async move {
            sim::sleep(down).await;
            if !world.is_running(id)
                && let Err(error) = world.start(id, false).await
            {
                world.fault(error);
            }
        });
    }

    fn isolate(&self, victim: u64, lasts: Duration) {
        let others = (1..=self.nodes).filter(|other| *other != victim);
        let links: Vec<_> = others.flat_map(|other| [(victim, other), (other, victim)]).collect();
        self.cut(&links, lasts);
    }

    fn cut(&self, links: &[(u64, u64)], lasts: Duration) {
        let links: Vec<_> = links.iter().copied().filter(|(from, to)| from != to).collect();
        links.iter().for_each(|(from, to)| self.world.cut(*from, *to));
        self.later(lasts, move |world| {
            links.iter().for_each(|(from, to)| world.mend(*from, *to));
        });
    }

    fn later(&self, lasts: Duration, undo: impl FnOnce(&World) + Send + 'static) {
        let world = Arc::clone(self.world);
        // In the end everything is healed anyway.
        sim::spawn(async move {
            sim::sleep(lasts).await;
            undo(&world);
        });
    }

    /// Makes way for an election, and when it has been won, kills those who voted for the winner and
    /// cuts it off: whoever forgets a vote elects a second leader of that term.
    async fn take_voters(&self, leader: u64, random: &mut SmallRng) {
        self.isolate(leader, ELECTION_MAX / 2);
        let before = self.world.led_term(leader).unwrap_or_default();
        let given_up = (sim::now() + ELECTION_MAX).min(self.ends);
        while sim::now() < given_up {
            let winner = self.leader().filter(|id| self.world.led_term(*id) > Some(before));
            let Some(winner) = winner else {
                sim::sleep(Duration::from_micros(100)).await;
                continue;
            };
            self.world.heal();
            self.isolate(winner, ELECTION_MAX);
            for id in (1..=self.nodes).filter(|id| *id != winner && *id != leader) {
                if self.world.is_running(id) {
                    self.world.crash(id);
                    self.start_after(id, Duration::from_millis(random.random_range(1..30)));
                }
            }
            return;
        }
    }
}

/// For how long something is broken: from a moment to longer than connections live.
fn lasts(random: &mut SmallRng) -> Duration {
    Duration::from_millis(match random.random_range(0..3) {
        0 => random.random_range(10..200),
        1 => random.random_range(200..1500),
        _ => random.random_range(1500..5000),
    })
}
