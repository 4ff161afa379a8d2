//! Kills of the leader: how long no write is possible.
//!
//! Each round kills the leader with SIGKILL and writes at once; the write is acknowledged when
//! another node leads. Then the node is started again, and the next round begins when the cluster is
//! whole.

use std::time::{Duration, Instant};

use super::load::Measured;
use super::target::Target;
use super::workload::{self, Caller};
use super::{Run, Stop};
use crate::args::BenchArgs;
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::local::places::Places;
use crate::local::signals::{kill_quietly, leader_node, start_one};
use crate::output::{Format, Output};
use crate::probe::Probe;
use crate::status::{Verdict, look};

/// How long the cluster may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// So many rounds, or as many as there were until it was stopped.
pub(super) async fn run(args: &BenchArgs, target: &Target, stop: &Stop) -> Outcome<Run> {
    let places = target.places.as_ref().ok_or_else(|| Failure::bug("no local cluster"))?;
    let mut callers = workload::callers(args, target, 1).await?;
    let caller = callers.first_mut().ok_or_else(|| Failure::bug("one client was asked for"))?;
    let mut measured = Measured::new();
    let begin = Instant::now();
    for _ in 0..args.rounds {
        // A round is always ended: it leaves the cluster as whole as it found it.
        if stop.is_requested() {
            break;
        }
        measured.succeeded(round(places, target, caller).await?);
    }
    measured.elapsed = begin.elapsed();
    workload::clean_up(callers, target.is_scratch).await;
    Ok(Run::of(1, &measured))
}

async fn round(places: &Places, target: &Target, caller: &mut Caller) -> Outcome<Duration> {
    // The client talks to the leader, as any client does after a while.
    caller.call().await.map_err(|failed| failed.failure())?;
    let leader = leader_node(places).await?;
    let killed = Instant::now();
    kill_quietly(places, &leader).await?;
    caller.call().await.map_err(|failed| failed.failure())?;
    let outage = killed.elapsed();
    start_one(places, leader.id, Output { format: Format::Json }).await?;
    whole(&target.endpoints).await?;
    Ok(outage)
}

async fn whole(endpoints: &[String]) -> Outcome<()> {
    let begin = Instant::now();
    let probe = Probe::new(endpoints);
    loop {
        let assessment = look(&probe).await;
        if assessment.verdict == Verdict::Healthy {
            return Ok(());
        }
        if begin.elapsed() > WHOLE_WITHIN {
            return Err(Failure::new(Code::NotReady, "the cluster did not become whole again")
                .cause(assessment.troubles()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
