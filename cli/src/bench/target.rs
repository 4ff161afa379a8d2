//! What is measured: a cluster that runs, or one that is made for it.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::args::{BenchArgs, Workload};
use crate::codes::Code;
use crate::endpoints;
use crate::errors::{Failure, Outcome};
use crate::local::places::Places;
use crate::local::state_file::{Links, LocalCluster};
use crate::local::up::{Wish, up};
use crate::names::LocalName;
use crate::output::Output;
use crate::probe::Probe;

/// How long a cluster may take to come up.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The files of a cluster that is thrown away. They lie with the data of other local clusters, not
/// in the directory for temporary files: that may be memory, where a sync costs nothing.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) places: Places,
    /// Deletes them when it goes.
    _dir: TempDir,
}

impl Scratch {
    pub(super) fn make() -> Outcome<Scratch> {
        let beside = Places::of(&LocalName::default_name())?.data_dir;
        let parent: PathBuf = beside.parent().map(PathBuf::from).unwrap_or(beside);
        let make = || {
            std::fs::create_dir_all(&parent)?;
            tempfile::Builder::new().prefix(".bench-").tempdir_in(&parent)
        };
        let dir = make().map_err(|error| Failure::file("make a directory in", &parent, &error))?;
        Ok(Scratch { places: Places::under(dir.path()), _dir: dir })
    }
}

/// A cluster that answers.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoints: Vec<String>,
    /// How many nodes vote.
    pub(super) nodes: usize,
    /// Whether it goes away, so that nothing has to be tidied up in it.
    pub(super) is_scratch: bool,
    /// Where its files are, if it runs on this machine under our eyes.
    pub(super) places: Option<Places>,
}

impl Target {
    /// Makes the cluster, or finds the one that runs.
    pub(super) async fn open(
        args: &BenchArgs,
        scratch: Option<&Scratch>,
        output: Output,
    ) -> Outcome<Target> {
        if let Some(Scratch { places, .. }) = scratch {
            let wish = Wish {
                nodes: Some(args.nodes),
                base_port: Some(0),
                data_dir: None,
                links: Links::Direct,
                timeout: READY_WITHIN,
            };
            up(places, &wish, output).await?;
            return Ok(Target {
                endpoints: LocalCluster::require(places)?.endpoints(),
                nodes: args.nodes.into(),
                is_scratch: true,
                places: Some(places.clone()),
            });
        }
        let places = endpoints::local(&args.cluster)?.map(|(places, _)| places);
        if places.is_none() && args.workload == Workload::Failover {
            return Err(Failure::new(
                Code::Usage,
                "bench failover kills leaders of local clusters",
            )
            .help("holdfast bench failover --local, or start one first: holdfast up"));
        }
        let endpoints = endpoints::resolve(&args.cluster)?;
        let assessment = crate::status::look(&Probe::new(&endpoints)).await;
        if let Some(failure) = assessment.failure() {
            return Err(failure);
        }
        let nodes = assessment.voters().count();
        Ok(Target { endpoints, nodes, is_scratch: false, places })
    }

    /// The processes of the cluster, its network included; none if it does not run on this machine,
    /// or not all of it is known.
    pub(super) fn processes(&self) -> Option<Vec<u32>> {
        let cluster = LocalCluster::load(self.places.as_ref()?).ok()??;
        let nodes = cluster.nodes.iter().map(|node| node.pid());
        let network = cluster.network.as_ref().filter(|_| cluster.network_runs());
        let network = network.map(|process| Some(process.pid));
        let pids = nodes.chain(network).map(|pid| u32::try_from(pid?).ok());
        pids.collect()
    }
}
