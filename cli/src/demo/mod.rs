//! `holdfast demo`: the main job in ten seconds, on a cluster that is thrown away afterwards.
//!
//! Three real nodes on free ports; a create-once race; a kill of the leader under load; an
//! ownership fail-over. Each act checks what it shows, and a check that does not hold ends the demo
//! with exit code 70. Whatever happens, the nodes are stopped and their files deleted, also on
//! Ctrl-C.

mod leader_kill;
mod race;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::DemoArgs;
use crate::codes::{Code, Exit};
use crate::errors::{Failure, Outcome};
use crate::local::down::tear_down;
use crate::local::failover::fail_over;
use crate::local::places::Places;
use crate::local::signals::start_one;
use crate::local::state_file::{Links, LocalCluster};
use crate::local::up::{Wish, up};
use crate::output::{Format, Output, print_line};
use crate::probe::Probe;
use crate::status::{Verdict, look};
use crate::units::{human, millis};

/// How long the cluster may take to come up, or to be whole again.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What is told while it happens: lines for people, one object at the end for scripts.
#[derive(Debug)]
struct Tale {
    output: Output,
    acts: Vec<Value>,
}

impl Tale {
    fn say(&self, line: &str) {
        if self.output.format == Format::Text {
            print_line(line);
        }
    }

    fn act(&mut self, line: &str, json: Value) {
        self.say(line);
        self.acts.push(json);
    }
}

/// Runs the demo.
pub(crate) async fn run(args: &DemoArgs, output: Output) -> Outcome<Exit> {
    let root = tempfile::Builder::new()
        .prefix("holdfast-demo-")
        .tempdir()
        .map_err(|error| Failure::file("make a directory in", &std::env::temp_dir(), &error))?;
    let places = Places::under(root.path());
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::bug(format!("cannot listen for signals: {error}")))
    };
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let done = tokio::select! {
        done = acts(args, &places, output) => done,
        _ = interrupt.recv() => Ok(Exit::Interrupted),
        _ = terminate.recv() => Ok(Exit::Terminated),
    };
    let done = match done {
        Err(mut failure) => {
            failure.help = Some(with_logs(failure.help.take(), &places));
            Err(failure)
        }
        other => other,
    };
    tear_down(&places).await;
    done
}

async fn acts(args: &DemoArgs, places: &Places, output: Output) -> Outcome<Exit> {
    let begin = Instant::now();
    let mut tale = Tale { output, acts: Vec::new() };
    tale.say("A cluster of real processes on this machine, thrown away afterwards:\n");
    let wish = Wish {
        nodes: Some(args.nodes),
        base_port: Some(0),
        data_dir: None,
        links: Links::Direct,
        timeout: READY_WITHIN,
    };
    let report = up(places, &wish, output).await?;
    let ready_ms = millis(report.took);
    tale.act(&report.head(), json!({ "act": "up", "nodes": args.nodes, "ready_ms": ready_ms }));
    let endpoints = LocalCluster::require(places)?.endpoints();

    tale.say("\nCreate once: every caller wants to be the one that sets a value.");
    let race = race::run(&endpoints).await?;
    tale.act(&format!("  {}", race.sentence()), race.json());

    tale.say("\nKill the leader with SIGKILL while a client writes.");
    let killed = leader_kill::run(places, &endpoints).await?;
    tale.act(&format!("  {}", killed.sentence()), killed.json());
    let restart = Instant::now();
    start_one(places, killed.node, output).await?;
    whole_again(&endpoints).await?;
    let name = crate::names::node_name(killed.node);
    tale.say(&format!("  {name} is started again, and back after {}.", human(restart.elapsed())));

    tale.say("\nKill a master that owns a change source.");
    let handover = fail_over(&endpoints, args.ttl).await?;
    let mut json = handover.json();
    json["act"] = json!("fail-over");
    tale.act(&format!("  {}", handover.sentence()), json);

    let took = begin.elapsed();
    match output.format {
        Format::Text => tale.say(&format!(
            "\nAll of it held, in {}. Your turn: holdfast up, then holdfast status --watch",
            human(took)
        )),
        Format::Json | Format::Jsonl => output.answer(
            "",
            || json!({ "schema": "holdfast.demo/v1", "acts": tale.acts, "took_ms": millis(took) }),
        ),
    }
    Ok(Exit::Done)
}

/// Waits until all nodes answer and follow.
async fn whole_again(endpoints: &[String]) -> Outcome<()> {
    let begin = Instant::now();
    let probe = Probe::new(endpoints);
    loop {
        let assessment = look(&probe).await;
        if assessment.verdict == Verdict::Healthy {
            return Ok(());
        }
        if begin.elapsed() > READY_WITHIN {
            return Err(assessment.failure().unwrap_or_else(|| {
                Failure::new(Code::NotReady, "the cluster did not become whole again")
                    .cause(assessment.troubles())
            }));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A check that must hold.
fn require(holds: bool, what: impl FnOnce() -> String) -> Outcome<()> {
    match holds {
        true => Ok(()),
        false => Err(Failure::new(Code::DemoFailed, what())
            .help("this must not happen: please report it with what was printed")),
    }
}

/// The logs are deleted with everything else, so their ends go into the help of the error.
fn with_logs(help: Option<String>, places: &Places) -> String {
    let mut text = help.unwrap_or_else(|| "try again".to_owned());
    let Ok(Some(cluster)) = LocalCluster::load(places) else { return text };
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(&node.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(5)..] {
            text += &format!("\n{}  {line}", node.name());
        }
    }
    text
}
