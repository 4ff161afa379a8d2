//! Why a node does not start, or stopped by itself.

use std::fmt;
use std::net::SocketAddr;

use crate::assemble::Unusable;
use crate::config::Invalid;
use crate::store::{DirError, StoreError};

/// An error in three parts, with a code that is a section of the runbook.
#[derive(Debug)]
pub struct ServeError {
    code: &'static str,
    what: String,
    cause: String,
    help: String,
}

impl ServeError {
    /// Says what failed, why, and what to do about it.
    pub(crate) fn new(
        code: &'static str,
        what: impl Into<String>,
        cause: impl Into<String>,
        help: impl Into<String>,
    ) -> ServeError {
        ServeError { code, what: what.into(), cause: cause.into(), help: help.into() }
    }

    /// The runbook section, such as `data-dir-in-use`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What failed.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Why.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do about it.
    pub fn help(&self) -> &str {
        &self.help
    }

    pub(super) fn invalid(invalid: &Invalid) -> ServeError {
        let what = format!("{} cannot be {}", invalid.field, invalid.value);
        let help = format!("change {} on the command line or in the config file", invalid.field);
        ServeError::new("bad-config", what, invalid.rule, help)
    }

    pub(super) fn bind(addr: SocketAddr, error: &std::io::Error) -> ServeError {
        let what = format!("cannot listen on {addr}");
        if error.kind() == std::io::ErrorKind::AddrInUse {
            let help = "stop the other process, or choose another address with --client-addr \
                        and --peer-addr";
            return ServeError::new("port-in-use", what, "another process listens there", help);
        }
        let help = "give an address of this machine and a port that this user may open";
        ServeError::new("cannot-listen", what, error.to_string(), help)
    }

    pub(super) fn socket(error: std::io::Error) -> ServeError {
        let help = "start the node again";
        ServeError::new("cannot-listen", "a listening socket failed", error.to_string(), help)
    }

    fn damaged(cause: &dyn fmt::Display) -> ServeError {
        let what = "what this node has on disk cannot be used";
        let help = "do not start this node again from this directory: remove the node from the \
                    cluster, then join a new one with an empty data directory";
        ServeError::new("store-damaged", what, cause.to_string(), help)
    }

    pub(super) fn fault(text: &str) -> ServeError {
        let what = "the node stopped to keep its promises";
        let help = "check the disk (dmesg, free space), then start the node again; if it says so \
                    again, remove the node and join a new one";
        ServeError::new("node-fault", what, text, help)
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for ServeError {}

impl From<DirError> for ServeError {
    fn from(error: DirError) -> ServeError {
        ServeError::new(error.code(), error.to_string(), error.cause(), error.help())
    }
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> ServeError {
        let what = "the data directory cannot be opened";
        ServeError::new(error.code(), what, error.to_string(), error.help())
    }
}

impl From<Unusable> for ServeError {
    fn from(unusable: Unusable) -> ServeError {
        match unusable {
            Unusable::Store(error) => error.into(),
            Unusable::Damaged(cause) => ServeError::damaged(&cause),
        }
    }
}
