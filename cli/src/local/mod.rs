//! The local cluster: real nodes on this machine, for trying, breaking and testing.
//!
//! `places` where its files are · `state_file` which nodes there are · `process` what they are up
//! to · `ports` · `network` what lies between them · `spawn` starting one · `ready` waiting for
//! all · `up`, `down`, `join`, `signals`, `ps`, `logs`, `failover` the verbs · `report` what a start
//! prints.
//!
//! Invariants: nodes outlive the command that started them; nothing is ever ended by name, and no
//! signal goes to a process that only has the pid of one of ours; several clusters run side by side.

pub(crate) mod down;
pub(crate) mod failover;
pub(crate) mod join;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod places;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod ps;
pub(crate) mod ready;
pub(crate) mod report;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod state_file;
pub(crate) mod up;

use crate::args::{LocalArgs, LocalVerb};
use crate::codes::Exit;
use crate::errors::Outcome;
use crate::output::Output;
use network::verbs;
use places::Places;

/// Carries out `holdfast local …`.
pub(crate) async fn run(args: &LocalArgs, output: Output) -> Outcome<Exit> {
    let places = Places::of(&args.local.name)?;
    match &args.verb {
        LocalVerb::Kill { node } => signals::kill(&places, *node, output).await?,
        LocalVerb::Stop { node } => signals::stop(&places, *node, output).await?,
        LocalVerb::Start { node } => signals::start(&places, *node, output).await?,
        LocalVerb::Restart { node } => signals::restart(&places, *node, output).await?,
        LocalVerb::Pause { node } => signals::pause(&places, *node, output).await?,
        LocalVerb::Resume { node } => signals::resume(&places, *node, output).await?,
        LocalVerb::Partition { one_way, groups } => {
            verbs::partition(&places, groups, *one_way, output).await?;
        }
        LocalVerb::Heal => verbs::heal(&places, output).await?,
        LocalVerb::Slow { node, by } => verbs::slow(&places, *node, *by, output).await?,
        LocalVerb::Ps => ps::run(&places, output).await?,
        LocalVerb::Join { timeout } => join::run(&places, *timeout, output).await?,
        LocalVerb::Failover { ttl } => failover::run(&places, *ttl, output).await?,
    }
    Ok(Exit::Done)
}
