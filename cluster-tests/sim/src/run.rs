//! One run from beginning to end.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_machine::{Command, Reply, changesources, state, stm};
use holdfast_node::sim::{self, World, plant};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clients::{self, Client, NAMESPACE, Shared, transactions};
use crate::history::{History, LeadSeen, Recorder};
use crate::{Plan, Violation, invariants, nemesis};

/// How many change sources there are; all but the first share a group.
const SOURCES: usize = 4;
/// How long a cluster may take to form with nothing in its way.
const FORM_MAX: Duration = Duration::from_secs(30);
/// How long clients may take to finish what they are at, and nodes to catch up, once all is healed.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// How often it is looked who leads.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All that happened, as one number.
    pub trace: u64,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// How much there was.
    pub counts: Counts,
}

/// How much there was in a run, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// How long it took, by the clock of the simulation.
    pub simulated: Duration,
    /// What happened on the network and to the nodes.
    pub events: u64,
    /// Writes that were answered.
    pub answered: u64,
    /// Writes nobody knows the outcome of.
    pub unknown: u64,
    /// Linearizable reads.
    pub reads: u64,
    /// Revisions that watchers were told of.
    pub watched: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Doings of the nemesis.
    pub faults: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.simulated += other.simulated;
        self.events += other.events;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.watched += other.watched;
        self.terms += other.terms;
        self.faults += other.faults;
    }
}

/// Carries out a plan on this thread and says what did not hold.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    plant::set(plan.plant);
    let recorder = Recorder::default();
    let world = World::new(plan.seed, plan.prints);
    let faults = Arc::new(AtomicU64::new(0));
    let main = simulate(plan.clone(), Arc::clone(&world), recorder.clone(), Arc::clone(&faults));
    // The executor panics if nothing can happen any more, or if time stands still.
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| sim::run(plan.seed, main)));
    let (trace, events) = world.trace();
    let mut history = recorder.take();
    history.clocks_are_good = plan.clocks_are_good;
    history.ended.faults.extend(world.take_faults());
    let mut violations = Vec::new();
    let simulated = match done {
        Ok(Ok(simulated)) => {
            violations = invariants::check(&history);
            simulated
        }
        Ok(Err(stuck)) => {
            violations.extend(invariants::check(&history));
            violations.push(Violation { invariant: "it_gets_to_its_end", text: stuck });
            Duration::ZERO
        }
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned().unwrap_or_default();
            violations.push(Violation { invariant: "it_gets_to_its_end", text });
            Duration::ZERO
        }
    };
    plant::set(None);
    let counts = count(&history, simulated, events, faults.load(Ordering::Relaxed));
    Outcome { trace, violations, counts }
}

fn count(history: &History, simulated: Duration, events: u64, faults: u64) -> Counts {
    let answered = history.replies().count() as u64;
    let unknown =
        history.calls.iter().filter(|call| matches!(call.answer, crate::Answer::Unknown)).count();
    let watched: usize = history.segments.iter().map(|segment| segment.revisions.len()).sum();
    Counts {
        simulated,
        events,
        answered,
        unknown: unknown as u64,
        reads: history.reads.len() as u64,
        watched: watched as u64,
        terms: history.leads.len() as u64,
        faults,
    }
}

async fn simulate(
    plan: Plan,
    world: Arc<World>,
    recorder: Recorder,
    faults: Arc<AtomicU64>,
) -> Result<Duration, String> {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x52_75_6e);
    let simulated = form_and_run(&plan, &world, &recorder, &faults, &mut random).await;
    world.end();
    // Whoever waits for a node learns that it is gone.
    sim::sleep(Duration::from_millis(1)).await;
    simulated
}

async fn form_and_run(
    plan: &Plan,
    world: &Arc<World>,
    recorder: &Recorder,
    faults: &Arc<AtomicU64>,
    random: &mut SmallRng,
) -> Result<Duration, String> {
    form(plan, world, random).await?;
    let shared = Shared {
        world: Arc::clone(world),
        recorder: recorder.clone(),
        nodes: (1..=plan.nodes).collect(),
        object: 0,
        sources: Vec::new(),
        gives_up: 0.0,
        stop: Arc::new(AtomicBool::new(false)),
        busy: Arc::new(AtomicU64::new(0)),
    };
    let shared = set_up(shared, plan.gives_up, random).await?;
    sim::spawn(look_who_leads(shared.clone()));
    clients::start(&shared, random);
    nemesis::run(plan, world, faults, random).await;
    settle(plan, &shared, random).await?;
    Ok(sim::now())
}

/// Forms the cluster as an operator would: one node forms it, the others join.
async fn form(plan: &Plan, world: &Arc<World>, random: &mut SmallRng) -> Result<(), String> {
    for id in 1..=plan.nodes {
        world.add_machine(id, plan.clock_rate(random), |config| {
            config.snapshot_every_entries = plan.snapshot_every;
            config.log_keep_entries = plan.log_keep;
        });
        world.start(id, id == 1).await?;
    }
    let given_up = sim::now() + FORM_MAX;
    for id in 2..=plan.nodes {
        while let Err(error) = world.join(1, id).await {
            if sim::now() > given_up {
                return Err(format!("n{id} could not join: {error}"));
            }
            sim::sleep(Duration::from_millis(50)).await;
        }
    }
    while world.voters(1) < plan.nodes as usize {
        if sim::now() > given_up {
            return Err(format!("only {} voters", world.voters(1)));
        }
        sim::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Makes what clients work on.
async fn set_up(
    mut shared: Shared,
    gives_up: f64,
    random: &mut SmallRng,
) -> Result<Shared, String> {
    let mut client = Client::new(0, &shared, random);
    let command = state::Command::GetObjectId {
        namespace: NAMESPACE.to_owned(),
        name: "simulated".to_owned(),
        class_name: "Test".to_owned(),
    };
    shared.object = match client.write(Command::State(command)).await {
        Some(Ok(Reply::State(state::Reply::ObjectId(id)))) => id,
        other => return Err(format!("no object: {other:?}")),
    };
    for number in 0..SOURCES {
        let namespace = || NAMESPACE.to_owned();
        let name = format!("source-{number}");
        let find = changesources::Command::FindId { namespace: namespace(), name };
        let found = client.write(Command::ChangeSources(find)).await;
        let Some(Ok(Reply::ChangeSources(changesources::Reply::Id(changesource)))) = found else {
            return Err(format!("no change source: {found:?}"));
        };
        shared.sources.push(changesource);
        if number > 0 {
            let group = Some("group".to_owned());
            let namespace = namespace();
            let set = changesources::Command::SetGroup { namespace, changesource, group };
            let grouped = client.write(Command::ChangeSources(set)).await;
            if !matches!(grouped, Some(Ok(_))) {
                return Err(format!("no group: {grouped:?}"));
            }
        }
    }
    let began = client.write(transactions::first()).await;
    if !matches!(began, Some(Ok(Reply::Stm(stm::Reply::Committed)))) {
        return Err(format!("no variables: {began:?}"));
    }
    shared.gives_up = gives_up;
    let mut history = shared.recorder.lock();
    (history.object, history.sources) = (shared.object, shared.sources.clone());
    drop(history);
    Ok(shared)
}

/// Notes who leads which term, whoever else knows of it.
async fn look_who_leads(shared: Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        for node in &shared.nodes {
            if let Some(term) = shared.world.led_term(*node) {
                let (seen, now) = (LeadSeen { term, node: *node }, sim::now());
                let mut history = shared.recorder.lock();
                history.leads.entry(seen).or_insert((now, now)).1 = now;
            }
        }
        sim::sleep(LOOK_EVERY).await;
    }
}

/// Heals everything, and waits until clients and nodes have come to rest.
async fn settle(plan: &Plan, shared: &Shared, random: &mut SmallRng) -> Result<(), String> {
    let world = &shared.world;
    world.heal();
    for id in &shared.nodes {
        if !world.is_running(*id) {
            world.start(*id, false).await?;
        }
    }
    let healed = sim::now();
    shared.recorder.lock().ended.healed = healed;
    let mut client = Client::new(usize::MAX, shared, random);
    let command = state::Command::Set {
        namespace: NAMESPACE.to_owned(),
        object: shared.object,
        name: "last".to_owned(),
        value: b"last".as_slice().into(),
        if_revision: None,
        fence: None,
        noted_revision: None,
    };
    let given_up = healed + QUIET_MAX;
    while !matches!(client.write(Command::State(command.clone())).await, Some(Ok(_))) {
        if sim::now() > given_up {
            return Err(format!("no write since all was healed {QUIET_MAX:?} ago"));
        }
    }
    shared.recorder.lock().ended.wrote = Some(sim::now());
    // A while longer, so that everybody meets a cluster in order once more.
    sim::sleep(Duration::from_secs(2).min(plan.lasts)).await;
    shared.stop.store(true, Ordering::Relaxed);
    let given_up = sim::now() + QUIET_MAX;
    loop {
        let states: BTreeMap<_, _> =
            shared.nodes.iter().filter_map(|id| Some((*id, world.applied(*id)?))).collect();
        let mut applied = states.values().map(|state| state.header().applied);
        let first = applied.next();
        let is_level = states.len() == shared.nodes.len() && applied.all(|at| Some(at) == first);
        let is_quiet = shared.busy.load(Ordering::Relaxed) == 0;
        if is_quiet && is_level {
            let missing = shared.nodes.iter().flat_map(|id| world.bodies_missing(*id)).collect();
            let mut history = shared.recorder.lock();
            (history.ended.states, history.ended.bodies_missing) = (states, missing);
            return Ok(());
        }
        if sim::now() > given_up {
            let busy = shared.busy.load(Ordering::Relaxed);
            let at: Vec<_> = states.iter().map(|(id, s)| (id, s.header().applied)).collect();
            return Err(format!("{busy} clients are not done, nodes are at {at:?}"));
        }
        sim::sleep(Duration::from_millis(random.random_range(20..40))).await;
    }
}
