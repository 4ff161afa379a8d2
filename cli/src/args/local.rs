//! Flags of the local cluster and of the demonstrations on it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{CallArgs, LocalNameArgs};
use crate::names::NodeRef;
use crate::units::parse_duration;

/// `holdfast up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How many nodes; 3 for a new cluster
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: Option<u8>,
    /// Which local cluster.
    #[command(flatten)]
    pub(crate) local: LocalNameArgs,
    /// First client port, 7480 for a new cluster; its peer port is one above, the next node ten
    /// above; 0 picks free ones
    #[arg(long)]
    pub(crate) base_port: Option<u16>,
    /// Where the data goes, one directory a node
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Let the nodes reach each other without a network between them that could be cut or slowed
    #[arg(long)]
    pub(crate) direct: bool,
    /// How long to wait until the cluster is ready
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// `holdfast down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Which local cluster.
    #[command(flatten)]
    pub(crate) local: LocalNameArgs,
    /// Delete its data, logs and state file too
    #[arg(long)]
    pub(crate) purge: bool,
}

/// `holdfast logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Only this node
    pub(crate) node: Option<NodeRef>,
    /// Which local cluster.
    #[command(flatten)]
    pub(crate) local: LocalNameArgs,
    /// Go on as more is logged
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `holdfast local`.
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// Which local cluster.
    #[command(flatten)]
    pub(crate) local: LocalNameArgs,
    /// What to do to it.
    #[command(subcommand)]
    pub(crate) verb: LocalVerb,
}

/// What can be done to the local cluster and its nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalVerb {
    /// Kill a node the hard way (SIGKILL)
    Kill {
        /// n2, or leader
        node: NodeRef,
    },
    /// Stop a node in good order (SIGTERM)
    Stop {
        /// n2, or leader
        node: NodeRef,
    },
    /// Start a stopped node with its data
    Start {
        /// n2
        node: NodeRef,
    },
    /// Stop a node in good order and start it again
    Restart {
        /// n2, or leader
        node: NodeRef,
    },
    /// Freeze a node (SIGSTOP)
    Pause {
        /// n2, or leader
        node: NodeRef,
    },
    /// Let a frozen node go on (SIGCONT); without a node, all of them
    Resume {
        /// n2
        node: Option<NodeRef>,
    },
    /// Cut nodes off from each other; heal ends it. More cuts add to those that there are
    Partition {
        /// Only what the first group sends to the second is lost; the way back stays
        #[arg(long)]
        one_way: bool,
        /// Groups with slashes between them, such as n1 / n2,n3; one group alone is cut off from
        /// all other nodes
        #[arg(required = true, value_name = "NODE,… [/ NODE,…]")]
        groups: Vec<String>,
    },
    /// Mend all cuts, and make slow nodes quick
    Heal,
    /// Delay all that a node sends to others and is sent by them
    Slow {
        /// n2, or leader
        node: NodeRef,
        /// By how much each way, at most 10s; 0ms ends it
        #[arg(value_parser = parse_duration)]
        by: Duration,
    },
    /// List the nodes, as holdfast ps does
    #[command(visible_alias = "status")]
    Ps,
    /// Add one more node: learner, caught up, voter
    Join {
        /// How long to wait until it votes
        #[arg(long, default_value = "30s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Kill a stand-in master and watch its change source change hands
    Failover {
        /// How long a lease lasts without a renewal
        #[arg(long, default_value = "1s", value_parser = parse_duration)]
        ttl: Duration,
    },
}

/// `holdfast demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many nodes
    #[arg(short = 'n', long, default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(3..=9))]
    pub(crate) nodes: u8,
    /// How long a master's lease lasts without a renewal
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
}

/// The hidden process that is the network of a local cluster.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// The state directory of the cluster
    #[arg(long)]
    pub(crate) state_dir: PathBuf,
}

/// The hidden stand-in master.
#[derive(Debug, Args)]
pub(crate) struct StandInArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// The master's name
    #[arg(long)]
    pub(crate) master: String,
    /// The change source to claim
    #[arg(long)]
    pub(crate) changesource: String,
    /// How long its lease lasts without a renewal
    #[arg(long, value_parser = parse_duration)]
    pub(crate) ttl: Duration,
}
