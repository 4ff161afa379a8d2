//! Flags of the nouns: what can be asked of any cluster, local or not.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use holdfast_client::stm::Key;

use super::{CallArgs, ClusterArgs};
use crate::names::{FenceRef, NodeRef, ObjectName};
use crate::units::parse_duration;

/// `holdfast status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Look again every second
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// `holdfast members`.
#[derive(Debug, Args)]
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

/// `holdfast watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// Only what begins with this: state/CLASS/OBJECT/KEY, changesource/NAME, master/NAME or stm/KEY
    pub(crate) prefix: Option<String>,
    /// Begin with this revision instead of now
    #[arg(long, value_name = "N")]
    pub(crate) from_revision: Option<u64>,
}

/// `holdfast state`.
#[derive(Debug, Args)]
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
        #[arg(allow_negative_numbers = true)]
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
        #[arg(allow_negative_numbers = true, required_unless_present = "exec")]
        value: Option<String>,
        /// How a command makes the value.
        #[command(flatten)]
        exclusive: ExclusiveArgs,
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
    /// Print what changes in an object from now on, until interrupted
    Watch {
        /// name, or class/name
        object: ObjectName,
        /// Only keys that begin with this
        #[arg(default_value = "")]
        key: String,
        /// Begin with this revision instead of now
        #[arg(long, value_name = "N")]
        from_revision: Option<u64>,
    },
    /// Write all rows of the namespace with their ids, as JSON lines or into a Buildbot database
    Export {
        /// Where to; without it, stdout
        #[arg(conflicts_with = "to_buildbot_sql")]
        file: Option<PathBuf>,
        /// Write into this database instead, named as db_url in a master.cfg
        #[arg(long, value_name = "URL")]
        to_buildbot_sql: Option<String>,
        /// Let the values of the cluster win over those that are in the database
        #[arg(long, requires = "to_buildbot_sql")]
        overwrite: bool,
    },
    /// Take in what export wrote, under the same ids; what is there already is passed over
    Import {
        /// What export wrote; - reads it from stdin
        #[arg(required_unless_present = "from_buildbot_sql", conflicts_with = "from_buildbot_sql")]
        file: Option<PathBuf>,
        /// Take in a Buildbot database instead, named as db_url in a master.cfg
        #[arg(long, value_name = "URL")]
        from_buildbot_sql: Option<String>,
    },
    /// List the objects, or the keys and values of one
    List {
        /// name, or class/name; without it, the objects
        object: Option<ObjectName>,
    },
}

/// How a command makes a value, in one place of the cluster at a time.
#[derive(Debug, Args)]
pub(crate) struct ExclusiveArgs {
    /// Let --exec make the value, in one place of the cluster at a time: wait while others do
    #[arg(long, requires = "exec")]
    pub(crate) exclusive: bool,
    /// What sh is to run; its output is the value. The token of its right is in HOLDFAST_TOKEN
    #[arg(long, value_name = "CMD", requires = "exclusive", conflicts_with = "value")]
    pub(crate) exec: Option<String>,
    /// How long the others wait if this process dies meanwhile
    #[arg(long, requires = "exclusive", default_value = "2s", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
    /// How long to wait for others
    #[arg(long, requires = "exclusive", default_value = "60s", value_parser = parse_duration)]
    pub(crate) wait: Duration,
}

/// `holdfast changesource`.
#[derive(Debug, Args)]
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
    /// Change sources that belong to one master, all or none
    Group {
        /// What to do.
        #[command(subcommand)]
        verb: GroupVerb,
    },
}

/// What can be done to groups of change sources.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// List the groups, their change sources, and who owns them
    List,
    /// Put a change source into a group, out of the one it is in; exit 1 unless both are free
    Join {
        /// The change source; made if there is none
        name: String,
        /// The group; made if there is none
        group: String,
    },
    /// Take a change source out of its group; exit 1 unless it is free
    Leave {
        /// The change source
        name: String,
    },
}

/// `holdfast master`.
#[derive(Debug, Args)]
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

/// `holdfast stm`.
#[derive(Debug, Args)]
pub(crate) struct StmArgs {
    /// Which cluster, how long and in which namespace.
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: StmVerb,
}

/// What can be done to variables.
///
/// A key is a Python literal, or else the text that it is: balance, 7, '7', b'x', ('account', 7).
#[derive(Debug, Subcommand)]
pub(crate) enum StmVerb {
    /// Print what a variable holds, as it was written; exit 1 if there is none
    Get {
        /// A text, or a Python literal: balance, 7, '7', ('account', 7)
        #[arg(allow_negative_numbers = true)]
        key: Key,
        /// Answer with what one node has, even without a quorum
        #[arg(long)]
        local: bool,
    },
    /// Write a variable, whatever it holds; exit 1 if it has not the version that was asked for
    Put {
        /// A text, or a Python literal
        #[arg(allow_negative_numbers = true)]
        key: Key,
        /// JSON text, kept byte for byte; - reads it from stdin
        #[arg(allow_negative_numbers = true)]
        value: String,
        /// Write only if the variable has this version; 0: only if it is not there
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
        /// What the value is; bytes and pickle are not looked at
        #[arg(long, value_enum, default_value = "json")]
        codec: CodecName,
    },
    /// Delete a variable; exit 1 if there is none, or not of the version that was asked for
    Del {
        /// A text, or a Python literal
        #[arg(allow_negative_numbers = true)]
        key: Key,
        /// Delete only if the variable has this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// List the keys and versions of variables
    List {
        /// Only texts that begin with this text, or tuples that begin with these parts: ('account',)
        #[arg(allow_negative_numbers = true)]
        prefix: Option<Key>,
    },
    /// Compare and write several variables, all or none; exit 1 if a comparison fails
    #[command(after_help = TXN_HELP)]
    Txn {
        /// Steps, each one argument; without any, lines of stdin
        #[arg(value_name = "STEP")]
        steps: Vec<String>,
    },
    /// Print all variables, as they are at one revision
    Dump {
        /// Only texts that begin with this text, or tuples that begin with these parts
        #[arg(allow_negative_numbers = true)]
        prefix: Option<Key>,
    },
    /// Print which variables change from now on, until interrupted
    Watch {
        /// Only texts that begin with this text, or tuples that begin with these parts
        #[arg(allow_negative_numbers = true)]
        prefix: Option<Key>,
        /// Begin with this revision instead of now
        #[arg(long, value_name = "N")]
        from_revision: Option<u64>,
    },
}

/// What a transaction is made of.
const TXN_HELP: &str = "\
Steps:
  expect KEY VERSION   the variable must have this version
  expect KEY absent    there must be no such variable
  put KEY JSON         write it
  del KEY              delete it

Empty lines and lines that begin with # say nothing. Example:
  holdfast stm txn \"expect alice 3\" \"put alice 90\" \"put ('log', 7) \\\"paid\\\"\"";

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    /// A JSON text
    Json,
    /// Bytes
    Bytes,
    /// A Python pickle
    Pickle,
}
