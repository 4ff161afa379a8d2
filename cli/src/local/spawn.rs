//! Starting the process of a node, so that it outlives this command.
//!
//! The node leaves our session (`--own-session`), reads nothing, and writes to its log file. Its
//! settings come from flags alone: of our environment it keeps only the settings that are the same
//! for all nodes, such as the heartbeat.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::network::behind;
use super::process::ProcessId;
use super::state_file::{Links, LocalNode};
use crate::codes::Code;
use crate::errors::{Failure, Outcome};

/// Settings of one particular node; a local node must not inherit them.
const ENV_OF_ONE_NODE: &[&str] = &[
    "HOLDFAST_CONFIG",
    "HOLDFAST_DATA_DIR",
    "HOLDFAST_CLIENT_ADDR",
    "HOLDFAST_PEER_ADDR",
    "HOLDFAST_ADVERTISE_CLIENT",
    "HOLDFAST_ADVERTISE_PEER",
    "HOLDFAST_PEER_SOURCE_ADDR",
    "HOLDFAST_NODE_ID",
    "HOLDFAST_JOIN",
];

/// How much of a log is searched for the last words of a node.
const LAST_WORDS_BYTES: u64 = 64 * 1024;

/// A node that we have just started, while we still watch it.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its number.
    pub(crate) id: u64,
    child: Child,
    log: PathBuf,
    log_begin: u64,
}

/// How a node comes to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the data that it has.
    Existing,
    /// As the first one of a new cluster.
    Form,
    /// Into the cluster at these client endpoints.
    Join(Vec<String>),
}

/// Starts a node; its process is written into `node`.
pub(crate) fn spawn(node: &mut LocalNode, start: &Start, links: Links) -> Outcome<Started> {
    let (log, log_begin) = open_log(&node.log)?;
    let binary = std::env::current_exe()
        .map_err(|error| Failure::bug(format!("cannot find our own binary: {error}")))?;
    let mut command = Command::new(&binary);
    command.args(arguments(node, start, links)?);
    for name in ENV_OF_ONE_NODE {
        command.env_remove(name);
    }
    let log_too = log.try_clone().map_err(|error| Failure::file("open", &node.log, &error))?;
    command.stdin(Stdio::null()).stdout(log_too).stderr(log).current_dir("/");
    let child = command.spawn().map_err(|error| Failure::file("start", &binary, &error))?;
    let started = Started { id: node.id, child, log: node.log.clone(), log_begin };
    node.process = ProcessId::of(started.child.id());
    Ok(started)
}

impl Started {
    /// What the node said when it ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<Failure> {
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = self.last_words();
        let name = crate::names::node_name(self.id);
        Some(match Failure::parse_last(&said) {
            Some(mut failure) => {
                failure.what = format!("{name}: {}", failure.what);
                failure
            }
            None => Failure::new(Code::NodeFault, format!("{name} ended at its start ({status})"))
                .cause(said.lines().last().unwrap_or("it logged nothing").to_owned())
                .help(format!("read its log: {}", self.log.display())),
        })
    }

    /// Ends the node at once and waits for it: for a start that is given up.
    pub(crate) fn kill(mut self) {
        // An error says that it is gone already, which is what we want.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }

    fn last_words(&self) -> String {
        read_from(&self.log, self.log_begin).unwrap_or_default()
    }
}

fn arguments(node: &LocalNode, start: &Start, links: Links) -> Outcome<Vec<String>> {
    let mut arguments: Vec<String> = [
        "serve",
        "--own-session",
        "--data-dir",
        &node.data_dir.to_string_lossy(),
        "--client-addr",
        &node.endpoint,
    ]
    .map(str::to_owned)
    .to_vec();
    match links {
        Links::Direct => arguments.extend(["--peer-addr".to_owned(), node.peer.clone()]),
        Links::Network => {
            let port = node.peer.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let listen = behind(node.id, port.unwrap_or_default())?;
            arguments.extend(["--peer-addr".to_owned(), listen.to_string()]);
            arguments.extend(["--advertise-peer".to_owned(), node.peer.clone()]);
            arguments.extend(["--peer-source-addr".to_owned(), listen.ip().to_string()]);
        }
    }
    match start {
        Start::Existing => {}
        Start::Form => arguments.push("--form".to_owned()),
        Start::Join(endpoints) => arguments.extend(["--join".to_owned(), endpoints.join(",")]),
    }
    if *start != Start::Existing {
        arguments.extend(["--node-id".to_owned(), node.id.to_string()]);
    }
    Ok(arguments)
}

/// Opens a log to write behind what is there, and says how much that is.
fn open_log(path: &Path) -> Outcome<(File, u64)> {
    let open = || -> io::Result<(File, u64)> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let begin = file.metadata()?.len();
        Ok((file, begin))
    };
    open().map_err(|error| Failure::file("open", path, &error))
}

fn read_from(path: &Path, begin: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let begin = begin.max(file.metadata()?.len().saturating_sub(LAST_WORDS_BYTES));
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    //! How a node is started, and that its last words are found.
    use super::*;

    fn node() -> LocalNode {
        LocalNode {
            id: 2,
            endpoint: "127.0.0.1:7490".to_owned(),
            peer: "127.0.0.1:7491".to_owned(),
            data_dir: "/d/n2".into(),
            made_here: true,
            log: "/l/n2.log".into(),
            joined: false,
            process: None,
        }
    }

    #[test]
    fn the_first_start_says_how_the_node_comes_to_its_cluster() {
        let line = |start| arguments(&node(), &start, Links::Direct).unwrap().join(" ");
        let common = "serve --own-session --data-dir /d/n2 --client-addr 127.0.0.1:7490 \
                      --peer-addr 127.0.0.1:7491";
        assert_eq!(line(Start::Existing), common);
        assert_eq!(line(Start::Form), format!("{common} --form --node-id 2"));
        assert_eq!(
            line(Start::Join(vec!["a:1".into(), "b:2".into()])),
            format!("{common} --join a:1,b:2 --node-id 2")
        );
    }

    #[test]
    fn behind_a_network_a_node_has_an_address_of_its_own() {
        let line = arguments(&node(), &Start::Existing, Links::Network).unwrap().join(" ");
        assert_eq!(
            line,
            "serve --own-session --data-dir /d/n2 --client-addr 127.0.0.1:7490 --peer-addr \
             127.77.0.2:7491 --advertise-peer 127.0.0.1:7491 --peer-source-addr 127.77.0.2"
        );
    }

    #[test]
    fn only_what_was_logged_since_the_start_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/n2.log");
        drop(open_log(&path).unwrap());
        fs::write(&path, "error[bug]: long ago\n").unwrap();
        let (mut file, begin) = open_log(&path).unwrap();
        io::Write::write_all(&mut file, b"error[port-in-use]: port 7490 is in use\n").unwrap();
        let said = read_from(&path, begin).unwrap();
        assert_eq!(said, "error[port-in-use]: port 7490 is in use\n");
    }
}
