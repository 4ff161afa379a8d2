//! The configuration file of `serve`: toml, the flags spelt with underscores, unknown keys refused.
//!
//! A key that nobody knows is nearly always a mistyped one, and a setting that is silently not set
//! is worse than a node that does not start; so it is an error that names the line and the key that
//! was probably meant. Forming a cluster, and accepting a directory that has moved, are acts of the
//! moment and stay on the command line.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use holdfast_node::config::LogFormat;
use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::runbook::nearest;
use crate::settings;

/// What a configuration file may hold; each key as the flag of that name.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// Where the node keeps its data.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where clients are served.
    pub(crate) client_addr: Option<SocketAddr>,
    /// Where other nodes are served.
    pub(crate) peer_addr: Option<SocketAddr>,
    /// What clients are told to connect to.
    pub(crate) advertise_client: Option<String>,
    /// What other nodes are told to connect to.
    pub(crate) advertise_peer: Option<String>,
    /// The address that other nodes are dialled from.
    pub(crate) peer_source_addr: Option<IpAddr>,
    /// The id of the node.
    pub(crate) node_id: Option<u64>,
    /// Client endpoints of the cluster to join.
    pub(crate) join: Option<Vec<String>>,
    /// How often a leader is heard from, in milliseconds.
    pub(crate) heartbeat_ms: Option<u64>,
    /// Shortest silence before an election, in milliseconds.
    pub(crate) election_min_ms: Option<u64>,
    /// Longest silence before an election, in milliseconds.
    pub(crate) election_max_ms: Option<u64>,
    /// Log entries between two snapshots.
    pub(crate) snapshot_every_entries: Option<u64>,
    /// Log entries kept behind a snapshot.
    pub(crate) log_keep_entries: Option<u64>,
    /// The most that the state may take, in bytes.
    pub(crate) quota_bytes: Option<u64>,
    /// Disk to keep free, in bytes.
    pub(crate) disk_floor_bytes: Option<u64>,
    /// How the node writes its log: `text` or `json`.
    pub(crate) log_format: Option<LogFormat>,
}

impl ConfigFile {
    /// The keys that it sets.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        // toml has no value for what is absent, and leaves it out.
        let set = toml::Table::try_from(self).expect("settings are strings, numbers and lists");
        set.keys().cloned().collect()
    }
}

/// Reads a configuration file.
pub(crate) fn load(path: &Path) -> Outcome<ConfigFile> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Code::BadConfig, format!("cannot read {}", path.display()))
            .cause(error.to_string())
            .help("check --config and HOLDFAST_CONFIG")
    })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Outcome<ConfigFile> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        let place = format!("{} line {line}", path.display());
        let message = error.message();
        match message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
            Some(key) => unknown_key(&place, key),
            None => Failure::new(Code::BadConfig, format!("{place}: {}", first_line(message)))
                .cause(format!("it says: {}", text.lines().nth(line - 1).unwrap_or("").trim()))
                .help("correct that line; holdfast config example shows all settings"),
        }
    })
}

fn unknown_key(place: &str, key: &str) -> Failure {
    let failure = Failure::new(Code::BadConfig, format!("{place}: there is no setting {key}"));
    match nearest(key, settings::keys()) {
        Some(near) => failure.help(format!("did you mean {near}?")),
        None => {
            let keys: Vec<&str> = settings::keys().collect();
            failure.help(format!("the settings are {}", keys.join(", ")))
        }
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    //! What a file may hold, and what is said of one that holds something else.
    use super::*;

    fn parse_it(text: &str) -> Outcome<ConfigFile> {
        parse(text, Path::new("holdfast.toml"))
    }

    #[test]
    fn every_key_is_known() {
        let file = parse_it(
            "data_dir = \"/d\"\nclient_addr = \"127.0.0.1:1\"\npeer_addr = \"127.0.0.1:2\"\n\
             advertise_client = \"a:1\"\nadvertise_peer = \"a:2\"\n\
             peer_source_addr = \"127.0.0.9\"\nnode_id = 3\njoin = [\"b:1\"]\n\
             heartbeat_ms = 50\nelection_min_ms = 150\nelection_max_ms = 300\n\
             snapshot_every_entries = 1000\nlog_keep_entries = 10\nquota_bytes = 9000000\n\
             disk_floor_bytes = 0\nlog_format = \"json\"\n",
        )
        .unwrap();
        assert_eq!(file.node_id, Some(3));
        assert_eq!(file.join, Some(vec!["b:1".to_owned()]));
        assert_eq!(file.quota_bytes, Some(9_000_000));
        assert_eq!(file.log_format, Some(LogFormat::Json));
        assert_eq!(file.keys().len(), settings::keys().count());
        for key in settings::keys() {
            let failure = parse_it(&format!("{key} = {{ no = 1 }}")).unwrap_err();
            assert!(!failure.what.contains("no setting"), "{key}: {}", failure.what);
        }
        assert_eq!(parse_it("").unwrap(), ConfigFile::default());
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line_and_what_was_meant() {
        let failure = parse_it("# a file\ndata_dir = \"/d\"\nhartbeat_ms = 50\n").unwrap_err();
        assert_eq!(failure.code, Code::BadConfig);
        assert_eq!(failure.what, "holdfast.toml line 3: there is no setting hartbeat_ms");
        assert_eq!(failure.help.unwrap(), "did you mean heartbeat_ms?");
        let failure = parse_it("colour = 1").unwrap_err();
        assert!(failure.help.unwrap().starts_with("the settings are data_dir, "));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let failure = parse_it("node_id = 1\nheartbeat_ms = \"fast\"\n").unwrap_err();
        assert!(failure.what.starts_with("holdfast.toml line 2: invalid type"), "{failure:?}");
        assert_eq!(failure.cause.unwrap(), "it says: heartbeat_ms = \"fast\"");
        let failure = parse_it("node_id = \n").unwrap_err();
        assert!(failure.what.starts_with("holdfast.toml line 1: "), "{failure:?}");
    }
}
