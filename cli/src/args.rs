//! The command line: one definition gives parsing, help and completions.
//!
//! What a flag means stands here; what a command does stands in the module of its name. Durations
//! carry a unit, nodes are spelt `n2` (or `2`, or `leader` where a leader makes sense), objects
//! `name` or `class/name`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

use crate::codes::EXIT_TABLE;
use crate::names::{FenceRef, LocalName, NodeRef, ObjectName};
use crate::output::Format;
use crate::units::parse_duration;

/// Replicated state and exclusive ownership for a handful of machines.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true, after_help = EXIT_TABLE)]
#[command(max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// How the answer is printed.
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs and nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a local cluster, or start it again with its data
    Up(UpArgs),
    /// Stop the local cluster; its data stays unless --purge
    Down(DownArgs),
    /// List the nodes of the local cluster
    Ps(LocalNameArgs),
    /// Print what the nodes of the local cluster logged
    Logs(LogsArgs),
    /// Break and mend the local cluster, one node at a time
    Local(LocalArgs),
    /// Show three nodes surviving: a create-once race, a leader kill, an ownership fail-over
    Demo(DemoArgs),
    /// Run one node in the foreground
    Serve(ServeArgs),
    /// One screen, one verdict
    Status(StatusArgs),
    /// List the members, remove one, move the lead
    Members(MembersArgs),
    /// Read and write object state
    State(StateArgs),
    /// List, claim, release and move change sources
    Changesource(ChangesourceArgs),
    /// List, show and expire masters
    Master(MasterArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Explain a command, or an error code offline
    Help {
        /// A command, or the code of an error such as no-quorum.
        #[arg(value_name = "COMMAND|CODE")]
        topic: Vec<String>,
    },
    /// Print the version
    Version,
    /// A master for fail-over demonstrations: claims, says so, and holds on until it is killed
    #[command(name = "__master", hide = true)]
    StandIn(StandInArgs),
}

/// Which local cluster.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LocalNameArgs {
    /// Which local cluster; several run side by side
    #[arg(long, global = true, env = "HOLDFAST_NAME", default_value = "default")]
    pub(crate) name: LocalName,
}

/// Which cluster to talk to, and how long.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ClusterArgs {
    /// Client endpoints of the cluster, by default those of the local cluster, else
    /// 127.0.0.1:7480 [env: HOLDFAST_ENDPOINTS]
    #[arg(long, global = true, value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub(crate) endpoints: Vec<String>,
    /// Use the local cluster of this name [env: HOLDFAST_NAME]
    #[arg(long, global = true)]
    pub(crate) name: Option<LocalName>,
}

/// How long a call may take, and in which namespace it works.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct CallArgs {
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// How long to try before giving up
    #[arg(long, global = true, env = "HOLDFAST_TIMEOUT", default_value = "10s",
          value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// The namespace to work in
    #[arg(long, global = true, env = "HOLDFAST_NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
}

/// `holdfast up`.
#[derive(Debug, ClapArgs)]
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
    /// How long to wait until the cluster is ready
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// `holdfast down`.
#[derive(Debug, ClapArgs)]
pub(crate) struct DownArgs {
    /// Which local cluster.
    #[command(flatten)]
    pub(crate) local: LocalNameArgs,
    /// Delete its data, logs and state file too
    #[arg(long)]
    pub(crate) purge: bool,
}

/// `holdfast logs`.
#[derive(Debug, ClapArgs)]
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
#[derive(Debug, ClapArgs)]
pub(crate) struct LocalArgs {
    /// Which local cluster.
    #[command(flatten)]
    pub(crate) local: LocalNameArgs,
    /// What to do to it.
    #[command(subcommand)]
    pub(crate) verb: LocalVerb,
}

/// What can be done to one node of the local cluster.
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
#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// How many nodes
    #[arg(short = 'n', long, default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(3..=9))]
    pub(crate) nodes: u8,
    /// How long a master's lease lasts without a renewal
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
}

/// `holdfast serve`. What is absent here comes from the configuration file, else the default.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct ServeArgs {
    /// A toml file with these settings, spelt with underscores
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where this node keeps its data
    #[arg(long, env = "HOLDFAST_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where clients are served [default: 127.0.0.1:7480]
    #[arg(long, env = "HOLDFAST_CLIENT_ADDR", value_name = "IP:PORT")]
    pub(crate) client_addr: Option<SocketAddr>,
    /// Where the other nodes are served [default: 127.0.0.1:7481]
    #[arg(long, env = "HOLDFAST_PEER_ADDR", value_name = "IP:PORT")]
    pub(crate) peer_addr: Option<SocketAddr>,
    /// What clients are told to connect to [default: the client address]
    #[arg(long, env = "HOLDFAST_ADVERTISE_CLIENT", value_name = "HOST:PORT")]
    pub(crate) advertise_client: Option<String>,
    /// What other nodes are told to connect to [default: the peer address]
    #[arg(long, env = "HOLDFAST_ADVERTISE_PEER", value_name = "HOST:PORT")]
    pub(crate) advertise_peer: Option<String>,
    /// The id of this node [default: 1 for --form, else chosen by the cluster]
    #[arg(long, env = "HOLDFAST_NODE_ID", value_name = "N")]
    pub(crate) node_id: Option<u64>,
    /// Form a new cluster of this one node; ignored once the directory belongs to a cluster
    #[arg(long, conflicts_with = "join")]
    pub(crate) form: bool,
    /// Join the cluster at these client endpoints; ignored once the directory belongs to it
    #[arg(long, env = "HOLDFAST_JOIN", value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub(crate) join: Vec<String>,
    /// The data directory was moved here on purpose, and the old place is gone
    #[arg(long)]
    pub(crate) moved: bool,
    /// How often a leader is heard from, in milliseconds [default: 50]
    #[arg(long, env = "HOLDFAST_HEARTBEAT_MS", value_name = "MS")]
    pub(crate) heartbeat_ms: Option<u64>,
    /// Shortest silence before an election, in milliseconds [default: 150]
    #[arg(long, env = "HOLDFAST_ELECTION_MIN_MS", value_name = "MS")]
    pub(crate) election_min_ms: Option<u64>,
    /// Longest silence before an election, in milliseconds [default: 300]
    #[arg(long, env = "HOLDFAST_ELECTION_MAX_MS", value_name = "MS")]
    pub(crate) election_max_ms: Option<u64>,
    /// Log entries between two snapshots
    #[arg(long, env = "HOLDFAST_SNAPSHOT_EVERY_ENTRIES", value_name = "N")]
    pub(crate) snapshot_every_entries: Option<u64>,
    /// Log entries kept behind a snapshot for nodes that were away
    #[arg(long, env = "HOLDFAST_LOG_KEEP_ENTRIES", value_name = "N")]
    pub(crate) log_keep_entries: Option<u64>,
    /// For tests only: never sync; a power cut loses acknowledged writes
    #[arg(long, env = "HOLDFAST_UNSAFE_NO_SYNC", hide = true, action = ArgAction::SetTrue)]
    pub(crate) unsafe_no_sync: bool,
    /// Leave the session of whoever started us, so that closing their terminal does not reach us
    #[arg(long, hide = true)]
    pub(crate) own_session: bool,
}

/// `holdfast status`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Look again every second
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// `holdfast members`.
#[derive(Debug, ClapArgs)]
pub(crate) struct MembersArgs {
    /// Which cluster, and how long.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What to do; without it, list.
    #[command(subcommand)]
    pub(crate) verb: Option<MembersVerb>,
}

/// What can be done to members.
#[derive(Debug, Subcommand)]
pub(crate) enum MembersVerb {
    /// List the members
    List {
        /// Answer with what one node knows, even without a quorum
        #[arg(long)]
        local: bool,
    },
    /// Take a node out of the cluster; refused if the rest could not commit
    Remove {
        /// n2
        node: NodeRef,
    },
    /// Move the lead
    Lead {
        /// To this voter; without it, to whoever is most up to date
        node: Option<NodeRef>,
    },
}

/// `holdfast state`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StateArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: StateVerb,
}

/// What can be done to object state.
#[derive(Debug, Subcommand)]
pub(crate) enum StateVerb {
    /// Print a value as it was written; exit 1 if there is none
    Get {
        /// name, or class/name; the class is cli if left out
        object: ObjectName,
        /// The key in that object
        key: String,
        /// Answer with what one node has, even without a quorum
        #[arg(long)]
        local: bool,
    },
    /// Write a value; exit 1 if a racing write won
    Set {
        /// name, or class/name; made if there is none
        object: ObjectName,
        /// The key in that object
        key: String,
        /// JSON text, kept byte for byte; - reads it from stdin
        value: String,
        /// Write only if the key's revision is this one; 0: only if it has no value
        #[arg(long, value_name = "N", conflicts_with = "fence")]
        if_revision: Option<u64>,
        /// Write only while that claim of a change source stands
        #[arg(long, value_name = "CHANGESOURCE:FENCE")]
        fence: Option<FenceRef>,
        /// Do not check that the value is JSON
        #[arg(long)]
        raw: bool,
    },
    /// Write a value only if there is none; exit 1 and the winner's value otherwise
    Create {
        /// name, or class/name; made if there is none
        object: ObjectName,
        /// The key in that object
        key: String,
        /// JSON text, kept byte for byte; - reads it from stdin
        value: String,
        /// Do not check that the value is JSON
        #[arg(long)]
        raw: bool,
    },
    /// Delete a value; exit 1 if there is none
    Del {
        /// name, or class/name
        object: ObjectName,
        /// The key in that object
        key: String,
    },
    /// List the objects, or the keys and values of one
    List {
        /// name, or class/name; without it, the objects
        object: Option<ObjectName>,
    },
}

/// `holdfast changesource`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ChangesourceArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: ChangesourceVerb,
}

/// What can be done to change sources.
#[derive(Debug, Subcommand)]
pub(crate) enum ChangesourceVerb {
    /// List the change sources and who owns them
    List {
        /// Only those that this master owns
        #[arg(long, value_name = "MASTER")]
        master: Option<String>,
        /// Only owned ones
        #[arg(long, conflicts_with = "free")]
        owned: bool,
        /// Only free ones
        #[arg(long)]
        free: bool,
    },
    /// Claim a change source for a master; exit 1 if somebody owns it
    Claim {
        /// The change source; made if there is none
        name: String,
        /// The master that is to own it; made if there is none
        #[arg(long = "as", value_name = "MASTER")]
        master: String,
        /// Claim under a lease that nobody renews, so that the claim ends by itself; without it
        /// the claim stands until it is released or the master is expired
        #[arg(long, value_parser = parse_duration)]
        ttl: Option<Duration>,
    },
    /// Give a change source back
    Release {
        /// The change source
        name: String,
        /// Only if it is still held under this fence; exit 1 otherwise
        #[arg(long, value_name = "N")]
        fence: Option<u64>,
    },
    /// Take a change source from whoever owns it and give it to a master
    Move {
        /// The change source
        name: String,
        /// The new owner; made if there is none
        master: String,
    },
}

/// `holdfast master`.
#[derive(Debug, ClapArgs)]
pub(crate) struct MasterArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: MasterVerb,
}

/// What can be done to masters.
#[derive(Debug, Subcommand)]
pub(crate) enum MasterVerb {
    /// List the masters
    List,
    /// Show one master and what it owns
    Show {
        /// Its name
        name: String,
    },
    /// Mark a master inactive: its lease ends and its change sources are free at once
    Expire {
        /// Its name
        name: String,
    },
}

/// The hidden stand-in master.
#[derive(Debug, ClapArgs)]
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

#[cfg(test)]
mod tests {
    //! The command line parses as the documentation spells it.
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn clap_finds_no_contradiction() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        for line in [
            "holdfast up -n 3 --name a --base-port 0 --data-dir /tmp/x -o json",
            "holdfast down --purge",
            "holdfast ps --name a -o jsonl",
            "holdfast logs n2 -f",
            "holdfast local kill leader --name a",
            "holdfast local --name a resume",
            "holdfast local join",
            "holdfast local failover --ttl 500ms",
            "holdfast serve --data-dir /d --join 127.0.0.1:7480 --node-id 2 --moved",
            "holdfast status --watch --endpoints a:1,b:2",
            "holdfast members -o json",
            "holdfast members --local list",
            "holdfast members lead",
            "holdfast state set demo greeting \"hello\"",
            "holdfast state get demo greeting --local --namespace x",
            "holdfast changesource claim git-main --as master-c --ttl 10s",
            "holdfast changesource move git-main master-c",
            "holdfast master expire master-a",
            "holdfast help no-quorum",
            "holdfast completions bash",
            "holdfast version -o json",
        ] {
            if line.contains("members --local") {
                assert!(parse(line).is_err(), "{line}");
            } else {
                parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn wrong_lines_are_refused_with_exit_2() {
        for line in [
            "holdfast bogus",
            "holdfast up -n 0",
            "holdfast up -n 10",
            "holdfast up --name ../x",
            "holdfast serve --form --join a:1",
            "holdfast changesource claim git-main",
            "holdfast changesource claim git-main --as m --ttl 10",
            "holdfast local kill",
            "holdfast ps -o yaml",
        ] {
            let error = parse(line).map(|_| ()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
