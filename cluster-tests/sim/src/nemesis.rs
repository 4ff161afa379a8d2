//! What goes wrong in a run: processes that die, links that are cut or slow, slow disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_node::sim::{self, World};
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::Plan;

/// Breaks things for as long as the plan says. Processes may be down, and links cut, when it ends.
pub(crate) async fn run(
    plan: &Plan,
    world: &Arc<World>,
    faults: &AtomicU64,
    random: &mut SmallRng,
) {
    let ends = sim::now() + plan.lasts;
    loop {
        let pause = plan.fault_every.mul_f64(random.random_range(0.1..2.0));
        if sim::now() + pause >= ends {
            sim::sleep(ends.saturating_sub(sim::now())).await;
            return;
        }
        sim::sleep(pause).await;
        faults.fetch_add(1, Ordering::Relaxed);
        strike(plan, world, random, ends).await;
    }
}

async fn strike(plan: &Plan, world: &Arc<World>, random: &mut SmallRng, ends: Duration) {
    let victim = random.random_range(1..=plan.nodes);
    let other = 1 + (victim + random.random_range(0..plan.nodes - 1)) % plan.nodes;
    let leader = (1..=plan.nodes).find(|id| world.led_term(*id).is_some());
    match random.random_range(0..100) {
        0..20 => crash(world, &[victim], random, ends),
        20..40 => crash(world, &[leader.unwrap_or(victim)], random, ends),
        // The power goes.
        40..48 => {
            let all: Vec<u64> = (1..=plan.nodes).collect();
            crash(world, &all, random, ends);
        }
        48..58 => isolate(plan, world, victim),
        58..66 => isolate(plan, world, leader.unwrap_or(victim)),
        66..74 => world.cut(victim, other),
        74..80 => {
            let by = Duration::from_millis(random.random_range(10..300));
            world.slow(victim, other, by);
        }
        80..84 => world.slow(0, victim, Duration::from_millis(random.random_range(10..500))),
        84..89 => world.slow_disk(victim, random.random_range(5..100)),
        89..93 => world.move_lead(leader.unwrap_or(victim)).await,
        _ => {}
    }
    if random.random_bool(0.5) {
        world.heal();
    }
    // Whoever has been down for long enough comes back.
    if random.random_bool(0.3) {
        world.heal();
        let pause = Duration::from_millis(random.random_range(0..2000));
        sim::sleep(pause.min(ends.saturating_sub(sim::now()))).await;
    }
}

/// Kills processes at once, each to be started again after a while of its own.
fn crash(world: &Arc<World>, ids: &[u64], random: &mut SmallRng, ends: Duration) {
    for id in ids.iter().copied().filter(|id| world.is_running(*id)).collect::<Vec<_>>() {
        world.crash(id);
        // Mostly soon: what a node has forgotten matters while others remember.
        let down_ms = match random.random_range(0..3) {
            0 => random.random_range(1..50),
            1 => random.random_range(50..800),
            _ => random.random_range(800..5000),
        };
        let down = Duration::from_millis(down_ms);
        if sim::now() + down >= ends {
            // Left for the end, where everything is started.
            continue;
        }
        let world = Arc::clone(world);
        sim::spawn(async move {
            sim::sleep(down).await;
            if !world.is_running(id)
                && let Err(error) = world.start(id, false).await
            {
                world.fault(error);
            }
        });
    }
}

fn isolate(plan: &Plan, world: &Arc<World>, victim: u64) {
    for other in (1..=plan.nodes).filter(|other| *other != victim) {
        world.cut(victim, other);
        world.cut(other, victim);
    }
}
