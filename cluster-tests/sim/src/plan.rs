//! What a run is like. The seed decides everything; tests change what they are after.

use std::time::Duration;

use holdfast_node::sim::Plant;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is not said here.
    pub seed: u64,
    /// How many voters there are.
    pub nodes: u64,
    /// For how long things are broken, by the clock of the simulation.
    pub lasts: Duration,
    /// Whether every clock is right to within half a percent; else some run a third too fast or slow.
    pub clocks_are_good: bool,
    /// After how many entries a node takes a snapshot.
    pub snapshot_every: u64,
    /// How many entries behind it are kept.
    pub log_keep: u64,
    /// The mean time between two doings of the nemesis.
    pub fault_every: Duration,
    /// How often a client has less patience than an election takes, of 1.
    pub gives_up: f64,
    /// A defect to be found.
    pub plant: Option<Plant>,
    /// Whether every event is printed.
    pub prints: bool,
}

impl Plan {
    /// The plan of a seed: three nodes or five, good clocks or bad ones.
    #[must_use]
    pub fn of(seed: u64, lasts: Duration) -> Plan {
        let mut random = SmallRng::seed_from_u64(seed);
        Plan {
            seed,
            nodes: if random.random_bool(0.6) { 3 } else { 5 },
            lasts,
            clocks_are_good: random.random_bool(0.6),
            snapshot_every: random.random_range(100..1500),
            log_keep: random.random_range(0..200),
            fault_every: Duration::from_millis(random.random_range(300..3000)),
            gives_up: if random.random_bool(0.5) { 0.1 } else { 0.0 },
            plant: None,
            prints: std::env::var_os("HOLDFAST_SIM_PRINT").is_some(),
        }
    }

    /// The rate of a node's clock, in microseconds a second.
    pub(crate) fn clock_rate(&self, random: &mut SmallRng) -> u64 {
        match self.clocks_are_good {
            true => random.random_range(995_000..=1_005_000),
            false => random.random_range(700_000..=1_300_000),
        }
    }
}
