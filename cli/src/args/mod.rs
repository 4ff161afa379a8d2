//! The command line: one definition gives parsing, help and completions.
//!
//! What a flag means stands here; what a command does stands in the module of its name. Durations
//! carry a unit, nodes are spelt `n2` (or `2`, or `leader` where a leader makes sense), objects
//! `name` or `class/name`.

mod bench;
mod local;
mod nouns;
mod object;
mod serve;

use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

use crate::codes::EXIT_TABLE;
use crate::names::LocalName;
use crate::output::Format;
use crate::units::parse_duration;
pub(crate) use bench::{BenchArgs, Workload};
pub(crate) use local::{
    DemoArgs, DownArgs, LocalArgs, LocalVerb, LogsArgs, NetworkArgs, StandInArgs, UpArgs,
};
pub(crate) use nouns::{
    ChangesourceArgs, ChangesourceVerb, CodecName, ExclusiveArgs, GroupVerb, MasterArgs,
    MasterVerb, MembersArgs, MembersVerb, StateArgs, StateVerb, StatusArgs, StmArgs, StmVerb,
    WatchArgs,
};
pub(crate) use object::{AboutArgs, Entry as MetadataEntry, ObjectArgs, ObjectVerb};
pub(crate) use serve::{ConfigArgs, ConfigVerb, ServeArgs};

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
    /// Break and mend the local cluster: its nodes, and what lies between them
    Local(LocalArgs),
    /// Show three nodes surviving: a create-once race, a leader kill, an ownership fail-over
    Demo(DemoArgs),
    /// Run one node in the foreground
    Serve(ServeArgs),
    /// Show the settings of a node, and where each comes from
    Config(ConfigArgs),
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
    /// Read and write variables with versions, by transactions
    Stm(StmArgs),
    /// Save and load files as objects, by the ids that they are given
    Object(ObjectArgs),
    /// Print what changes, one line each, until interrupted
    Watch(WatchArgs),
    /// Measure how fast a cluster is, and what an operation costs
    Bench(BenchArgs),
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
    /// What the nodes of a local cluster reach each other through
    #[command(name = "__network", hide = true)]
    Network(NetworkArgs),
}

/// Which local cluster.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LocalNameArgs {
    /// Which local cluster; several run side by side
    #[arg(id = "local_name", long = "name", value_name = "NAME", global = true)]
    #[arg(env = "HOLDFAST_NAME", default_value = "default")]
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
    #[arg(id = "local_name", long = "name", value_name = "NAME", global = true)]
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
            "holdfast local partition n1 / n2,n3",
            "holdfast local partition leader --name a",
            "holdfast local partition --one-way n1 / n2",
            "holdfast local heal",
            "holdfast local slow leader 50ms",
            "holdfast local ps -o json",
            "holdfast local status",
            "holdfast up --direct",
            "holdfast local failover --ttl 500ms",
            "holdfast serve --data-dir /d --join 127.0.0.1:7480 --node-id 2 --moved",
            "holdfast config show --origin --config f.toml --heartbeat-ms 60",
            "holdfast config example",
            "holdfast bench",
            "holdfast bench state --clients 1,16 --duration 2s --local --nodes 1 --csv f.csv",
            "holdfast bench claim --rate 500 --endpoints a:1",
            "holdfast bench failover --local --rounds 5 -o json",
            "holdfast status --watch --endpoints a:1,b:2",
            "holdfast members -o json",
            "holdfast members list --local",
            "holdfast members lead",
            "holdfast state set demo greeting \"hello\"",
            "holdfast state get demo greeting --local --namespace x",
            "holdfast state set demo number -1",
            "holdfast state create demo number -1",
            "holdfast state create demo built --exclusive --exec ./build --ttl 1s --wait 5m --raw",
            "holdfast state set demo number - --raw",
            "holdfast state export --namespace x",
            "holdfast state export rows.jsonl",
            "holdfast state export --to-buildbot-sql sqlite:///state.sqlite --overwrite",
            "holdfast state import -",
            "holdfast state import --from-buildbot-sql sqlite:///state.sqlite",
            "holdfast changesource claim git-main --as master-c --ttl 10s",
            "holdfast changesource move git-main master-c",
            "holdfast changesource group join git-main project",
            "holdfast changesource group leave git-main",
            "holdfast changesource group list",
            "holdfast master expire master-a",
            "holdfast stm get balance --local",
            "holdfast stm get -7 -o json",
            "holdfast stm put ('account',7) -1 --if-version 0",
            "holdfast stm put blob - --codec bytes --namespace x",
            "holdfast stm del balance --if-version 3",
            "holdfast stm list ('account',)",
            "holdfast stm txn",
            "holdfast stm dump -o jsonl",
            "holdfast stm watch acc --from-revision 7",
            "holdfast bench stm --local",
            "holdfast object save FILE --class job --meta state=NEW --meta size=",
            "holdfast object load 1000000000000001 -o json",
            "holdfast object replace 1000000000000001 -",
            "holdfast object remove 1000000000000001 1000000000000002",
            "holdfast object list --class job --meta state=NEW",
            "holdfast bench object --local",
            "holdfast help no-quorum",
            "holdfast completions bash",
            "holdfast version -o json",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
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
            "holdfast changesource group join git-main",
            "holdfast changesource claim git-main --as m --ttl 10",
            "holdfast local kill",
            "holdfast state create demo built",
            "holdfast state create demo built --exclusive",
            "holdfast state create demo built --exec ./build",
            "holdfast state create demo built 1 --exclusive --exec ./build",
            "holdfast state create demo built 1 --wait 1s",
            "holdfast state export rows.jsonl --to-buildbot-sql sqlite:///state.sqlite",
            "holdfast state export --overwrite",
            "holdfast state import",
            "holdfast state import rows.jsonl --from-buildbot-sql sqlite:///state.sqlite",
            "holdfast stm get ('account',7",
            "holdfast stm put balance",
            "holdfast stm put balance 1 --codec text",
            "holdfast ps -o yaml",
        ] {
            let error = parse(line).map(|_| ()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
