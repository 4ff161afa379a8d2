//! What a client needs to know before its first call.

use std::time::Duration;

/// Longest time that one call may take, whatever its caller asks for (24 h); keeps clock
/// arithmetic away from its ends.
pub(crate) const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// How a [`Client`](crate::Client) reaches its cluster. All fields are public; start from
/// [`ClientConfig::new`] and change what differs.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Nodes to begin with, as `host:port`. One that answers is enough: the client learns where
    /// the leader is from what nodes answer.
    pub endpoints: Vec<String>,
    /// Namespace of every call, 1 to 1024 bytes; empty means `default`.
    pub namespace: String,
    /// How long a call may take, retries, elections and queueing included. A write never takes
    /// longer than half of what `session_idle` came to, so that its session outlives it: longer
    /// values are cut to that for writes.
    pub call_timeout: Duration,
    /// How long one attempt to connect to one node may take.
    pub connect_timeout: Duration,
    /// How long one node may leave a call unanswered before a copy of it is also sent to another
    /// one. Never more than a quarter of the call's own time-out, and growing from copy to copy.
    pub attempt_timeout: Duration,
    /// How long the cluster keeps this client's session without a sign of life; 10 s to 24 h, in
    /// whole milliseconds.
    pub session_idle: Duration,
    /// How often an open connection is probed, also while it is idle.
    pub keepalive_interval: Duration,
    /// How long a probe may stay unanswered before the connection counts as broken.
    pub keepalive_timeout: Duration,
}

impl ClientConfig {
    /// The defaults (30 s for a call, 1 s to connect, 1 s before the second copy, 10 min of
    /// session, probes each second with 2 s to answer) for these endpoints.
    pub fn new<I, S>(endpoints: I) -> ClientConfig
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        ClientConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..ClientConfig::default()
        }
    }
}

impl Default for ClientConfig {
    /// As [`ClientConfig::new`], for a node at `127.0.0.1:7480`.
    fn default() -> ClientConfig {
        ClientConfig {
            endpoints: vec!["127.0.0.1:7480".to_owned()],
            namespace: "default".to_owned(),
            call_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(1),
            session_idle: Duration::from_secs(600),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(2),
        }
    }
}
