//! What is known about a local cluster between two commands: its nodes, ports and processes.
//!
//! Invariants: the file is replaced as a whole, never half written (written aside, synced, renamed,
//! directory synced); it is changed only under the [`Lock`]; a process in it may be gone, so that
//! whoever reads it looks at the process too. Data is deleted only by its owner, `down --purge`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::places::Places;
use super::process::{ProcessId, ProcessState};
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::names::node_name;

/// The format of the file; another one is refused.
const SCHEMA: &str = "holdfast.local/v2";
/// How long one command waits for another one to let go of the cluster.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalCluster {
    /// The format.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// Holds one directory a node.
    pub(crate) data_dir: PathBuf,
    /// How its nodes reach each other.
    pub(crate) links: Links,
    /// The process of the network, if there is one; none after it was stopped by us.
    pub(crate) network: Option<ProcessId>,
    /// The number of the next node that joins; numbers are never used twice.
    pub(crate) next_node: u64,
    /// In the order of their numbers.
    pub(crate) nodes: Vec<LocalNode>,
    /// Data of nodes that were removed, for whoever deletes the cluster.
    pub(crate) retired: Vec<PathBuf>,
}

/// How the nodes of a local cluster reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Links {
    /// Through a network that cuts and slows on command.
    Network,
    /// By themselves.
    Direct,
}

/// A node of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalNode {
    /// Its number.
    #[serde(rename = "node", with = "node_id")]
    pub(crate) id: u64,
    /// Where clients reach it.
    pub(crate) endpoint: String,
    /// Where other nodes reach it.
    pub(crate) peer: String,
    /// Its data.
    pub(crate) data_dir: PathBuf,
    /// Whether that directory was ours from the beginning; one that held something before is never
    /// deleted.
    pub(crate) made_here: bool,
    /// Its output.
    pub(crate) log: PathBuf,
    /// Whether it has been a voter: from then on it is started without telling it how to become
    /// one, so that a wiped directory is noticed and not formed anew.
    pub(crate) joined: bool,
    /// The process that was started last; none after it was stopped by us.
    pub(crate) process: Option<ProcessId>,
}

impl LocalNode {
    /// Its name, as people read it.
    pub(crate) fn name(&self) -> String {
        node_name(self.id)
    }

    /// What its process is up to.
    pub(crate) fn state(&self) -> ProcessState {
        self.process.as_ref().map_or(ProcessState::Stopped, ProcessId::state)
    }

    /// Its pid while there is a process.
    pub(crate) fn pid(&self) -> Option<i32> {
        let process = self.process.as_ref()?;
        (process.state() != ProcessState::Stopped).then_some(process.pid)
    }
}

impl LocalCluster {
    /// A cluster without nodes.
    pub(crate) fn new(places: &Places, data_dir: PathBuf) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            name: places.name.to_string(),
            data_dir,
            links: Links::Network,
            network: None,
            next_node: 1,
            nodes: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Adds a stopped node on these ports.
    pub(crate) fn add(&mut self, places: &Places, client_port: u16, peer_port: u16) -> u64 {
        let id = self.next_node;
        self.next_node += 1;
        let data_dir = self.data_dir.join(node_name(id));
        self.nodes.push(LocalNode {
            id,
            endpoint: format!("127.0.0.1:{client_port}"),
            peer: format!("127.0.0.1:{peer_port}"),
            made_here: is_absent_or_empty(&data_dir),
            data_dir,
            log: places.log_file(id),
            joined: false,
            process: None,
        });
        id
    }

    /// The cluster as the file has it; none if there is no file.
    pub(crate) fn load(places: &Places) -> Outcome<Option<Self>> {
        let path = places.state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &path, &error)),
        };
        let cluster: Self = serde_json::from_str(&text).map_err(|error| broken(&path, &error))?;
        if cluster.schema != SCHEMA {
            return Err(broken(&path, &format!("the schema is {}", cluster.schema)));
        }
        Ok(Some(cluster))
    }

    /// The cluster as the file has it; an error if there is none.
    pub(crate) fn require(places: &Places) -> Outcome<Self> {
        Self::load(places)?.ok_or_else(|| {
            Failure::new(
                Code::NoLocalCluster,
                format!("there is no local cluster called {}", places.name),
            )
            .help(format!("start one: holdfast up{}", places.name_flag()))
        })
    }

    /// Writes the file. The lock proves that nobody else does.
    pub(crate) fn save(&self, places: &Places, _lock: &Lock) -> Outcome<()> {
        let path = places.state_file();
        let text = serde_json::to_string_pretty(self).map_err(|e| Failure::bug(e.to_string()))?;
        replace_file(&places.state_dir, &path, text.as_bytes())
            .map_err(|error| Failure::file("write", &path, &error))
    }

    /// The node of that number.
    pub(crate) fn node(&self, id: u64) -> Outcome<&LocalNode> {
        self.nodes.iter().find(|node| node.id == id).ok_or_else(|| self.no_such_node(id))
    }

    /// The node of that number, to change it.
    pub(crate) fn node_mut(&mut self, id: u64) -> Outcome<&mut LocalNode> {
        let missing = self.no_such_node(id);
        self.nodes.iter_mut().find(|node| node.id == id).ok_or(missing)
    }

    /// Whether the process of the network is there.
    pub(crate) fn network_runs(&self) -> bool {
        self.network.as_ref().is_some_and(|process| process.state() != ProcessState::Stopped)
    }

    /// The client endpoints of all nodes, also of stopped ones.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }

    fn no_such_node(&self, id: u64) -> Failure {
        let names: Vec<String> = self.nodes.iter().map(LocalNode::name).collect();
        Failure::new(
            Code::NoSuchNode,
            format!("the local cluster {} has no node {}", self.name, node_name(id)),
        )
        .help(format!("its nodes are {}", names.join(", ")))
    }
}

/// The right to change a local cluster; held for moments, never while waiting for a node.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting up to five seconds for another command to finish.
    pub(crate) async fn take(places: &Places) -> Outcome<Self> {
        let path = places.lock_file();
        let begin = Instant::now();
        loop {
            match try_lock(&path) {
                Ok(Some(file)) => return Ok(Self { _file: file }),
                Ok(None) if begin.elapsed() < LOCK_WAIT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(None) => {
                    return Err(Failure::new(
                        Code::LocalBusy,
                        format!("another command is changing the local cluster {}", places.name),
                    )
                    .cause(format!("{} is locked", path.display()))
                    .help("wait for it to finish and try again"));
                }
                Err(error) => return Err(Failure::file("lock", &path, &error)),
            }
        }
    }
}

/// None if another process has it, or if the file was purged between opening and locking it.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent_or_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn replace_file(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut aside = tempfile::NamedTempFile::new_in(dir)?;
    aside.write_all(bytes)?;
    aside.write_all(b"\n")?;
    aside.as_file().sync_all()?;
    aside.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

fn broken(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::BadData, format!("cannot use the state file {}", path.display()))
        .cause(why.to_string())
        .help("move it away; nodes that still run then have to be stopped by their pid")
}

/// Node numbers are spelt `n1` in the file.
mod node_id {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::names::{NodeRef, node_name};

    pub(super) fn serialize<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&node_name(*id))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        match String::deserialize(from)?.parse() {
            Ok(NodeRef::Id(id)) => Ok(id),
            Ok(NodeRef::Leader) | Err(_) => Err(D::Error::custom("a node is spelt n1")),
        }
    }
}

#[cfg(test)]
mod tests {
    //! The file survives a round trip, and nobody changes it behind another one's back.
    use super::*;

    fn places() -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::under(dir.path());
        (dir, places)
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded() {
        let (_dir, places) = places();
        assert_eq!(LocalCluster::load(&places).unwrap(), None);
        assert_eq!(LocalCluster::require(&places).unwrap_err().code, Code::NoLocalCluster);
        let lock = Lock::take(&places).await.unwrap();
        let mut cluster = LocalCluster::new(&places, places.data_dir.clone());
        assert_eq!(cluster.add(&places, 7480, 7481), 1);
        assert_eq!(cluster.add(&places, 7490, 7491), 2);
        cluster.nodes[1].process = ProcessId::of(std::process::id());
        cluster.save(&places, &lock).unwrap();
        let loaded = LocalCluster::require(&places).unwrap();
        assert_eq!(loaded, cluster);
        assert_eq!(loaded.endpoints(), ["127.0.0.1:7480", "127.0.0.1:7490"]);
        assert_eq!(loaded.node(1).unwrap().state(), ProcessState::Stopped);
        assert_eq!(loaded.node(2).unwrap().state(), ProcessState::Running);
        assert_eq!(loaded.node(3).unwrap_err().code, Code::NoSuchNode);
        let text = fs::read_to_string(places.state_file()).unwrap();
        assert!(text.contains("\"node\": \"n1\""), "{text}");
    }

    #[test]
    fn a_directory_that_holds_something_is_not_ours() {
        let (_dir, places) = places();
        fs::create_dir_all(places.data_dir.join("n1")).unwrap();
        fs::create_dir_all(places.data_dir.join("n2/keep")).unwrap();
        let mut cluster = LocalCluster::new(&places, places.data_dir.clone());
        for port in [7480, 7490, 7500] {
            cluster.add(&places, port, port + 1);
        }
        let ours: Vec<bool> = cluster.nodes.iter().map(|node| node.made_here).collect();
        assert_eq!(ours, [true, false, true]);
    }

    #[tokio::test]
    async fn a_file_of_another_format_is_refused() {
        let (_dir, places) = places();
        fs::create_dir_all(&places.state_dir).unwrap();
        fs::write(places.state_file(), "{\"schema\":\"holdfast.local/v9\"}").unwrap();
        assert_eq!(LocalCluster::load(&places).unwrap_err().code, Code::BadData);
    }

    #[tokio::test]
    async fn the_lock_is_exclusive_and_survives_a_purge() {
        let (_dir, places) = places();
        let first = Lock::take(&places).await.unwrap();
        assert!(try_lock(&places.lock_file()).unwrap().is_none());
        fs::remove_dir_all(&places.state_dir).unwrap();
        let second = Lock::take(&places).await.unwrap();
        drop(first);
        assert!(try_lock(&places.lock_file()).unwrap().is_none());
        drop(second);
        assert!(try_lock(&places.lock_file()).unwrap().is_some());
    }
}
