//! Where a local cluster keeps its files.
//!
//! State file, lock and logs: `$XDG_STATE_HOME/holdfast/local/<name>/`. Data:
//! `$XDG_DATA_HOME/holdfast/local/<name>/n1` and so on, unless told otherwise. A throw-away cluster
//! keeps both under one directory of its own.

use std::env;
use std::path::{Path, PathBuf};

use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::names::{LocalName, node_name};

/// The files of one local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Its name.
    pub(crate) name: LocalName,
    /// Holds the state file, the lock and the logs.
    pub(crate) state_dir: PathBuf,
    /// Holds one data directory a node, unless `up` was told another place.
    pub(crate) data_dir: PathBuf,
}

impl Places {
    /// The places of the cluster of that name, from the environment.
    pub(crate) fn of(name: &LocalName) -> Outcome<Self> {
        let state = base_dir("XDG_STATE_HOME", ".local/state")?;
        let data = base_dir("XDG_DATA_HOME", ".local/share")?;
        Ok(Self {
            name: name.clone(),
            state_dir: state.join("holdfast/local").join(name.as_str()),
            data_dir: data.join("holdfast/local").join(name.as_str()),
        })
    }

    /// Everything under one directory, for a cluster that is thrown away with it.
    pub(crate) fn under(root: &Path) -> Self {
        Self {
            name: LocalName::default_name(),
            state_dir: root.join("state"),
            data_dir: root.join("data"),
        }
    }

    /// The file that says which nodes there are.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.state_dir.join("cluster.json")
    }

    /// The file that whoever changes the cluster locks.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.state_dir.join("lock")
    }

    /// Where a node's output goes.
    pub(crate) fn log_file(&self, id: u64) -> PathBuf {
        self.state_dir.join("logs").join(format!("{}.log", node_name(id)))
    }

    /// Where the network's output goes.
    pub(crate) fn network_log(&self) -> PathBuf {
        self.state_dir.join("logs/network.log")
    }

    /// What to add to a command line so that it means this cluster: nothing for the default one.
    pub(crate) fn name_flag(&self) -> String {
        if self.name.is_default() { String::new() } else { format!(" --name {}", self.name) }
    }
}

fn base_dir(variable: &str, below_home: &str) -> Outcome<PathBuf> {
    if let Some(dir) = env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        return Ok(dir);
    }
    match env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()) {
        Some(home) => Ok(home.join(below_home)),
        None => {
            Err(Failure::new(Code::LocalFiles, "there is no place for a local cluster's files")
                .cause(format!("neither {variable} nor HOME holds an absolute path"))
                .help(format!("set HOME or {variable}")))
        }
    }
}
