//! Flags of `holdfast bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::ClusterArgs;
use crate::units::parse_duration;

/// `holdfast bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What is measured
    #[arg(value_enum, default_value = "mixed")]
    pub(crate) workload: Workload,
    /// Which cluster, unless --local makes one.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// How many clients call at once; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_value = "1,16,64,256")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) clients: Vec<u32>,
    /// How long each is measured
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// How long each runs before it is measured
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,
    /// Open loop: so many calls a second in all, begun on time whether earlier ones have been
    /// answered or not, and measured from when they were to begin. Without it each client makes its
    /// next call when the one before is answered
    #[arg(long, value_name = "CALLS/S")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
    /// Size of a value, in bytes
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(40..=1_048_576))]
    pub(crate) value_bytes: u32,
    /// Measure a cluster of its own on this machine, thrown away afterwards
    #[arg(long, conflicts_with_all = ["endpoints", "local_name"])]
    pub(crate) local: bool,
    /// How many nodes that one has
    #[arg(short = 'n', long, default_value_t = 3, requires = "local")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    /// failover: how many leaders are killed
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// Add the figures to this file as comma-separated values; a new one begins with a header
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One state write for three linearizable reads
    Mixed,
    /// State writes
    State,
    /// Claims and releases of change sources under leases, each client its own
    Claim,
    /// Commits of variables that are compared and written, each client its own
    Stm,
    /// Saves of stored objects, each client its own
    Object,
    /// Kills of the leader: from the kill to the next acknowledged write; local clusters only
    Failover,
}

impl Workload {
    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::State => "state",
            Self::Claim => "claim",
            Self::Stm => "stm",
            Self::Object => "object",
            Self::Failover => "failover",
        }
    }
}
