//! Clusters simulated from seeds. A seed that fails says how to run it again by itself:
//! `scripts/simulate SEED`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_sim::scale::{report, scale};
use holdfast_sim::{Counts, Outcome, Plan, Plant, run};

/// For how long each seed breaks things, by the clock of the simulation.
const LASTS: Duration = Duration::from_secs(60);
/// One simulation uses one thread.
const THREADS: usize = 2;

/// A seed to be run by itself, from the environment.
fn wanted_seed() -> Option<u64> {
    std::env::var("HOLDFAST_SIM_SEED").ok().map(|seed| seed.parse().unwrap())
}

fn complain(seed: u64, outcome: &Outcome) -> String {
    let mut text = format!("seed {seed}, again with: scripts/simulate {seed}\n");
    for violation in outcome.violations.iter().take(8) {
        text.push_str(&format!("  {violation}\n"));
    }
    text
}

// G1 G2 G4 G8 S3 S4 S8 M3 M4 M5 C4 C5 C6 W1 N5
#[test]
fn nothing_is_violated_in_any_seed() {
    let seeds = match wanted_seed() {
        Some(seed) => seed..seed + 1,
        None => 0..scale(1000, 50),
    };
    let count = seeds.end - seeds.start;
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let total = Mutex::new(Counts::default());
    let began = Instant::now();
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(&Plan::of(seed, LASTS));
                    *total.lock().unwrap() += outcome.counts;
                    if !outcome.violations.is_empty() {
                        failed.lock().unwrap().push(complain(seed, &outcome));
                    }
                }
            });
        }
    });
    let (failed, total) = (failed.into_inner().unwrap(), total.into_inner().unwrap());
    println!("{total:?} in {:?}", began.elapsed());
    assert!(failed.is_empty(), "{} of {count} seeds failed\n{}", failed.len(), failed.join(""));
    report(
        "simulation",
        format!(
            "{count} seeds of {} s without a violation: {:.1} h simulated, {} writes answered, {} \
             reads, {} revisions watched, {} terms, {} faults",
            LASTS.as_secs(),
            total.simulated.as_secs_f64() / 3600.0,
            total.answered,
            total.reads,
            total.watched,
            total.terms,
            total.faults
        ),
    );
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in 0..scale(20, 2) {
        let plan = Plan::of(seed, Duration::from_secs(20));
        let (first, second) = (run(&plan), run(&plan));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert!(first.counts.events > 1000, "{:?}", first.counts);
    }
    let traces = [1, 2].map(|seed| run(&Plan::of(seed, Duration::from_secs(2))).trace);
    assert_ne!(traces[0], traces[1], "seeds do not matter");
}

/// Each defect with the invariant that must find it.
const PLANTED: [(Plant, &str); 8] = [
    (Plant::AcknowledgeBeforeSync, "acknowledged_writes_survive"),
    (Plant::ReadWithoutQuorum, "reads_are_fresh"),
    (Plant::SkipEvent, "watches_complete"),
    (Plant::RevisionPerEntry, "fences_rise"),
    (Plant::ExpireByPresence, "lapsed_leases_are_over"),
    (Plant::RenewEnded, "ended_leases_stay_ended"),
    (Plant::FenceKept, "fences_rise"),
    (Plant::SnapshotWithoutOutcomes, "replicas_agree"),
];
/// In how many seeds each must be found.
const SEEDS_MAX: u64 = 20;

#[test]
fn each_planted_defect_is_found() {
    for (plant, invariant) in PLANTED {
        let finds = |seed: &u64| {
            let plan = Plan { plant: Some(plant), ..Plan::of(*seed, LASTS) };
            run(&plan).violations.iter().any(|found| found.invariant == invariant)
        };
        let found = (0..SEEDS_MAX).find(finds);
        let seed = found.unwrap_or_else(|| panic!("{plant:?} was not found by {invariant}"));
        report(&format!("simulation: {plant:?}"), format!("found by {invariant} in seed {seed}"));
    }
}
