//! `holdfast bench`: how fast a cluster is, and what an operation costs.
//!
//! `target` the cluster and its processes · `workload` what one call is · `load` who calls when, and
//! what is measured · `failover` kills of the leader · `cpu` what processes used · `figures` what
//! came out, as text, JSON and CSV.
//!
//! # The model
//! Clients are independent: each has connections and a session of its own. In a *closed loop* each
//! makes its next call when the one before is answered; that measures what a cluster can do, but
//! hides how long others would have had to wait meanwhile (coordinated omission). In an *open loop*
//! (`--rate`) calls are due at fixed times, and each is measured from when it was due, however late
//! its client came to make it.
//!
//! # Invariants
//! A call that failed is an error and no operation. Ctrl-C ends a run early with the figures so far
//! and exit code 130. What was written is deleted again, or the whole cluster with it.

mod cpu;
mod failover;
mod figures;
mod load;
mod target;
mod workload;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::args::{BenchArgs, Workload};
use crate::codes::Exit;
use crate::errors::{Failure, Outcome};
use crate::local::down::tear_down;
use crate::output::Output;
use crate::progress::Progress;
use figures::{Report, Run};
use load::Step;
use target::{Scratch, Target};

/// Measures, and prints what came out.
pub(crate) async fn run(args: &BenchArgs, output: Output) -> Outcome<Exit> {
    cpu::raise_descriptor_limit();
    let stop = Stop::listen()?;
    let scratch = args.local.then(Scratch::make).transpose()?;
    let opened = tokio::select! {
        target = Target::open(args, scratch.as_ref(), output) => target.map(Some),
        _ = stop.clone().requested() => Ok(None),
    };
    let done = match opened {
        Ok(Some(target)) => measure_all(args, &target, &stop, output).await,
        // There is nothing to print yet.
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    if let Some(scratch) = scratch {
        tear_down(&scratch.places).await;
    }
    done.map(|()| stop.exit())
}

async fn measure_all(
    args: &BenchArgs,
    target: &Target,
    stop: &Stop,
    output: Output,
) -> Outcome<()> {
    let mut report = Report::new(args, target.nodes);
    if args.workload == Workload::Failover {
        let label = format!("failover, {} kills", args.rounds);
        let _waiting = Progress::on_terminal(output, label);
        report.runs.push(failover::run(args, target, stop).await?);
    } else {
        for (index, clients) in args.clients.iter().enumerate() {
            let of = args.clients.len();
            let label =
                format!("{}, {clients} clients ({} of {of})", args.workload.name(), index + 1);
            let _waiting = Progress::on_terminal(output, label);
            if let Some(run) = measure(args, target, *clients, stop).await? {
                report.runs.push(run);
            }
            if stop.is_requested() {
                break;
            }
        }
    }
    report.interrupted = stop.is_requested();
    if let Some(path) = &args.csv {
        report.append_csv(path)?;
    }
    output.answer(&report.text(), || report.json());
    Ok(())
}

/// One number of clients; none if it was stopped before the first of them could call.
async fn measure(
    args: &BenchArgs,
    target: &Target,
    clients: u32,
    stop: &Stop,
) -> Outcome<Option<Run>> {
    let made = tokio::select! {
        callers = workload::callers(args, target, clients) => callers?,
        _ = stop.clone().requested() => return Ok(None),
    };
    let step = Step {
        warm_up: args.warm_up,
        duration: args.duration,
        rate: args.rate,
        processes: target.processes(),
    };
    let (measured, callers) = load::drive(made, &step, stop).await?;
    workload::clean_up(callers, target.is_scratch).await;
    Ok(Some(Run::of(clients, &measured)))
}

/// Whether somebody wants the run to end early.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    asked: watch::Receiver<Option<Exit>>,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM from now on, until this process ends.
    fn listen() -> Outcome<Stop> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failure::bug(format!("cannot listen for signals: {e}")))
        };
        let (sender, asked) = watch::channel(None);
        let (interrupt, terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        tokio::spawn(tell(sender, interrupt, terminate));
        Ok(Stop { asked })
    }

    fn is_requested(&self) -> bool {
        self.asked.borrow().is_some()
    }

    /// What the process exits with.
    fn exit(&self) -> Exit {
        self.asked.borrow().unwrap_or(Exit::Done)
    }

    /// Waits until somebody does.
    async fn requested(mut self) {
        if self.asked.wait_for(Option::is_some).await.is_err() {
            // Nobody listens any more, so that nobody asks.
            std::future::pending::<()>().await;
        }
    }
}

async fn tell(sender: watch::Sender<Option<Exit>>, mut interrupt: Signal, mut terminate: Signal) {
    let exit = tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    };
    sender.send_replace(Some(exit));
    sender.closed().await;
}
