//! Flags of one node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{ArgAction, Args, Subcommand};
use holdfast_node::config::LogFormat;

/// `holdfast serve`. What is absent here comes from the configuration file, else the default.
#[derive(Debug, Default, Args)]
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
    /// The address that other nodes are dialled from [default: the system's choice]
    #[arg(long, env = "HOLDFAST_PEER_SOURCE_ADDR", value_name = "IP")]
    pub(crate) peer_source_addr: Option<IpAddr>,
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
    /// The most that the state may take, in bytes; growth beyond it is refused [default: 2147483648]
    #[arg(long, env = "HOLDFAST_QUOTA_BYTES", value_name = "N")]
    pub(crate) quota_bytes: Option<u64>,
    /// Disk to keep free, in bytes; growth is refused below it [default: 268435456]
    #[arg(long, env = "HOLDFAST_DISK_FLOOR_BYTES", value_name = "N")]
    pub(crate) disk_floor_bytes: Option<u64>,
    /// How the log on stderr is written [default: text]
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", value_name = "FORMAT", value_parser = log_format())]
    pub(crate) log_format: Option<LogFormat>,
    /// For tests only: never sync; a power cut loses acknowledged writes
    #[arg(long, env = "HOLDFAST_UNSAFE_NO_SYNC", hide = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(crate) unsafe_no_sync: bool,
    /// Leave the session of whoever started us, so that closing their terminal does not reach us
    #[arg(long, hide = true)]
    pub(crate) own_session: bool,
}

/// `holdfast config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// What to print.
    #[command(subcommand)]
    pub(crate) verb: ConfigVerb,
}

/// What can be printed of a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// The settings that a node would run with; takes the flags of serve
    Show {
        /// Also where each one comes from: flag, environment, file or default
        #[arg(long)]
        origin: bool,
        /// As for a node.
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// A commented configuration file with every setting
    Example,
}

fn log_format() -> impl clap::builder::TypedValueParser<Value = LogFormat> {
    let formats = [LogFormat::Text, LogFormat::Json];
    PossibleValuesParser::new(formats.map(LogFormat::name)).map(move |name| {
        let found = formats.into_iter().find(|format| format.name() == name);
        found.expect("only possible values come here")
    })
}
