//! Clusters simulated from seeds. A seed that fails says how to run it again by itself:
//! `scripts/simulate SEED`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_sim::scale::{report, scale};
use holdfast_sim::{Counts, Outcome, Plan, Plant, run};

/// For how long each seed breaks things, by the clock of the simulation.
const LASTS: Duration = Duration::from_secs(60);
/// How many violations of one invariant are spelt out.
const NAMED_MAX: usize = 3;
/// One simulation uses one thread.
const THREADS: usize = 2;

/// A seed to be run by itself, from the environment.
fn wanted_seed() -> Option<u64> {
    std::env::var("HOLDFAST_SIM_SEED").ok().map(|seed| seed.parse().unwrap())
}

fn complain(seed: u64, outcome: &Outcome) -> String {
    let mut text = format!("seed {seed}, again with: scripts/simulate {seed}\n");
    let mut counts = BTreeMap::<_, usize>::new();
    for violation in &outcome.violations {
        let count = counts.entry(violation.invariant).or_default();
        *count += 1;
        // The others are seldom news.
        if *count <= NAMED_MAX {
            text.push_str(&format!("  {violation}\n"));
        }
    }
    for (invariant, count) in counts.into_iter().filter(|(_, count)| *count > NAMED_MAX) {
        text.push_str(&format!("  {invariant}: {count} in all\n"));
    }
    text
}

/// Runs one seed after the other, several at a time, until there are no more or one is enough.
fn run_seeds(
    seeds: Range<u64>,
    plan: impl Fn(u64) -> Plan + Sync,
    is_enough: impl Fn(u64, Outcome) -> bool + Sync,
) {
    let (next, done) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || is_enough(seed, run(&plan(seed))) {
                        done.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

// G1 G2 G4 G5 G8 S3 S4 S5 S8 M3 M4 M5 C4 C5 C6 C7 P1 P2 P3 T1 T2 W1 N5
#[test]
fn nothing_is_violated_in_any_seed() {
    let seeds = match wanted_seed() {
        Some(seed) => seed..seed + 1,
        None => 0..scale(1000, 50),
    };
    let count = seeds.end - seeds.start;
    let (failed, total) = (Mutex::new(Vec::new()), Mutex::new(Counts::default()));
    let began = Instant::now();
    run_seeds(
        seeds,
        |seed| Plan::of(seed, LASTS),
        |seed, outcome| {
            *total.lock().unwrap() += outcome.counts;
            if !outcome.violations.is_empty() {
                failed.lock().unwrap().push(complain(seed, &outcome));
            }
            false
        },
    );
    let (failed, total) = (failed.into_inner().unwrap(), total.into_inner().unwrap());
    println!("{total:?} in {:?}", began.elapsed());
    assert!(failed.is_empty(), "{} of {count} seeds failed\n{}", failed.len(), failed.join(""));
    report(
        "simulation",
        format!(
            "{count} seeds of {} s without a violation: {:.1} h simulated, {} writes answered, {} \
             unknown, {} reads, {} revisions watched, {} terms, {} faults",
            LASTS.as_secs(),
            total.simulated.as_secs_f64() / 3600.0,
            total.answered,
            total.unknown,
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
const PLANTED: [(Plant, &str); 12] = [
    (Plant::AcknowledgeBeforeSync, "acknowledged_writes_survive"),
    (Plant::ReadWithoutQuorum, "reads_are_fresh"),
    (Plant::SkipEvent, "watches_complete"),
    (Plant::RevisionPerEntry, "fences_rise"),
    (Plant::ExpireByPresence, "lapsed_leases_are_over"),
    (Plant::RenewEnded, "ended_leases_stay_ended"),
    (Plant::FenceKept, "fences_rise"),
    (Plant::SnapshotWithoutOutcomes, "replicas_agree"),
    (Plant::FenceNotChecked, "fenced_writes_are_the_owners"),
    (Plant::ReleaseUnchecked, "exclusive_claims"),
    (Plant::StagedIsSeen, "stored_objects_are_whole"),
    (Plant::OnlyFirstCompared, "transactions_are_isolated"),
];
/// In how many seeds each must be found.
const SEEDS_MAX: u64 = 60;

#[test]
fn each_planted_defect_is_found() {
    let mut missed = Vec::new();
    for (plant, invariant) in PLANTED {
        // What a client that has given up leaves behind could explain what is found.
        let plan = |seed| Plan { plant: Some(plant), gives_up: 0.0, ..Plan::of(seed, LASTS) };
        let found = Mutex::new(None);
        run_seeds(0..SEEDS_MAX, plan, |seed, outcome| {
            let finds = outcome.violations.iter().any(|violation| violation.invariant == invariant);
            if finds {
                found.lock().unwrap().get_or_insert(seed);
            }
            finds
        });
        match found.into_inner().unwrap() {
            Some(seed) => report(
                &format!("simulation: {plant:?}"),
                format!("found by {invariant} in seed {seed}"),
            ),
            None => missed.push(format!("{plant:?} was not found by {invariant}")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join(", "));
}
