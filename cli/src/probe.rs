//! What single nodes know about themselves and their cluster, asked without anybody's agreement.
//!
//! A probe never waits for a quorum and is bounded in time, so that it answers just when nothing
//! else does. It is the base of `status`, and of every wait for a local cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_client::{Client, ClientConfig};
use tokio::task::JoinSet;

pub(crate) use holdfast_client::{Member, NodeStatus, Role};

/// How long one node may take to answer.
pub(crate) const NODE_WITHIN: Duration = Duration::from_millis(700);
/// Pause before a node that has answered is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The same, on this machine.
const ASK_AGAIN_EAGERLY: Duration = Duration::from_millis(20);

/// Asks nodes one by one; cheap to clone, and keeps its connections.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    client: Client,
    endpoints: Vec<String>,
    ask_again_after: Duration,
}

/// What came back from one endpoint: what the node knows, or why it said nothing.
pub(crate) type Seen = Result<NodeStatus, String>;

impl Probe {
    /// A probe of the nodes at these endpoints.
    pub(crate) fn new(endpoints: &[String]) -> Self {
        let config = ClientConfig {
            call_timeout: NODE_WITHIN,
            connect_timeout: NODE_WITHIN,
            ..ClientConfig::new(endpoints.iter().cloned())
        };
        Self {
            client: Client::connect(config),
            endpoints: endpoints.to_vec(),
            ask_again_after: ASK_AGAIN_AFTER,
        }
    }

    /// A probe that looks again at once, for waiting on nodes of this machine.
    pub(crate) fn eager(endpoints: &[String]) -> Self {
        Self { ask_again_after: ASK_AGAIN_EAGERLY, ..Self::new(endpoints) }
    }

    /// Asks one node.
    pub(crate) async fn node(&self, endpoint: &str) -> Seen {
        match tokio::time::timeout(NODE_WITHIN, self.client.cluster().status(endpoint)).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err(format!("no answer within {} ms", NODE_WITHIN.as_millis())),
        }
    }

    /// Asks every node that is configured, and every member that those tell of, all at once.
    /// Returns when each has answered or not, after `within` at the latest.
    pub(crate) async fn all(&self, within: Duration) -> BTreeMap<String, Seen> {
        self.until(within, |_, has_all| has_all).await
    }

    /// Asks all of them, and goes on asking those that have answered until `is_settled` says so of
    /// what they last said, and of whether each has answered or not at least once. One that is
    /// slow holds nobody up.
    pub(crate) async fn until(
        &self,
        within: Duration,
        mut is_settled: impl FnMut(&BTreeMap<String, Seen>, bool) -> bool,
    ) -> BTreeMap<String, Seen> {
        let deadline = Instant::now() + within;
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        let mut asking = JoinSet::new();
        let mut new = self.endpoints.clone();
        loop {
            for endpoint in new.drain(..) {
                if asked.insert(endpoint.clone()) {
                    asking.spawn(self.clone().node_after(Duration::ZERO, endpoint));
                }
            }
            let next = tokio::time::timeout_at(deadline.into(), asking.join_next()).await;
            let Ok(Some(Ok((endpoint, answer)))) = next else { break };
            if let Ok(status) = &answer {
                new.extend(status.members.iter().map(|m| m.client_endpoint.clone()));
            }
            seen.insert(endpoint.clone(), answer);
            let has_all = new.iter().chain(&asked).all(|endpoint| seen.contains_key(endpoint));
            if is_settled(&seen, has_all) {
                break;
            }
            asking.spawn(self.clone().node_after(self.ask_again_after, endpoint));
        }
        for endpoint in asked {
            let silence = || Err(format!("no answer within {} ms", within.as_millis()));
            seen.entry(endpoint).or_insert_with(silence);
        }
        seen
    }

    async fn node_after(self, pause: Duration, endpoint: String) -> (String, Seen) {
        tokio::time::sleep(pause).await;
        let answer = self.node(&endpoint).await;
        (endpoint, answer)
    }

    /// The nodes that answer, asked once.
    pub(crate) async fn answering(&self) -> Vec<NodeStatus> {
        self.all(NODE_WITHIN).await.into_values().filter_map(Result::ok).collect()
    }
}

/// The leader among nodes that answered: one that says so itself, and in the latest term. One that
/// has just been elected names its predecessor for a moment, and does not count yet.
pub(crate) fn leader(seen: &[NodeStatus]) -> Option<&NodeStatus> {
    let leads = |s: &&NodeStatus| s.role == Role::Leader && s.header.leader_id == s.header.node_id;
    seen.iter().filter(leads).max_by_key(|s| s.header.term)
}

/// The last thing that an endpoint met, in few words.
fn reason(error: &holdfast_client::Error) -> String {
    match error.cause().and_then(|cause| cause.attempts.last()) {
        Some(attempt) => attempt.message.clone(),
        None => error.to_string(),
    }
}
