//! Random faults from a seed: nodes killed, paused, cut off, unable to speak or to hear, to each
//! other or to clients.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::proxy::{Flow, Proxy};

/// How long a fault lasts: from less than an election takes to more than connections stay open
/// without a sign of life.
const LASTS_MS: std::ops::Range<u64> = 200..4000;
/// How long all is well between two faults: at times too short for an election.
const PAUSE_MS: std::ops::Range<u64> = 100..1500;
/// A second fault begins before the first has ended in one of so many cases.
const SECOND_IN: u32 = 3;
/// The leader is chosen in one of so many cases, else any node.
const LEADER_IN: u32 = 2;

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// SIGKILL; started again at the end.
    Kill,
    /// SIGSTOP; SIGCONT at the end.
    Pause,
    /// Nothing passes between it and the other nodes.
    CutOff,
    /// Nothing that it sends reaches the other nodes.
    Mute,
    /// Nothing that the other nodes send reaches it.
    Deaf,
    /// What clients send to it comes late, at the end: after they have sent it elsewhere too.
    LateCalls,
    /// What it answers to clients comes late.
    LateAnswers,
}

const KINDS: [Kind; 7] = [
    Kind::Kill,
    Kind::Pause,
    Kind::CutOff,
    Kind::Mute,
    Kind::Deaf,
    Kind::LateCalls,
    Kind::LateAnswers,
];

/// Brings faults about, in an order that the seed decides. Which node leads, and so which one is
/// hit, and how calls and faults meet, is left to chance: the same seed gives a similar run.
#[derive(Debug)]
pub struct Faults {
    cluster: Arc<Cluster>,
    /// Between the clients and each node.
    proxies: Vec<Proxy>,
    random: SmallRng,
    counts: BTreeMap<Kind, usize>,
    overlaps: usize,
}

impl Faults {
    /// For a cluster of three or more nodes with [`Options::network`](crate::Options::network) and
    /// [`Options::hide_endpoints`](crate::Options::hide_endpoints).
    ///
    /// # Errors
    /// If it cannot listen for clients.
    pub async fn new(cluster: Arc<Cluster>, seed: u64) -> anyhow::Result<Faults> {
        let mut proxies = Vec::new();
        for endpoint in cluster.endpoints() {
            proxies.push(Proxy::start(&endpoint).await?);
        }
        let random = SmallRng::seed_from_u64(seed);
        Ok(Faults { cluster, proxies, random, counts: BTreeMap::new(), overlaps: 0 })
    }

    /// Where clients have to go to meet faults, in order of the nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::address).collect()
    }

    /// One fault after the other, two at a time now and then, for about this long. Returns when
    /// all has been mended.
    ///
    /// # Errors
    /// If a node ended by itself or cannot be started.
    pub async fn go_on_for(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.wait(PAUSE_MS).await;
            let first = self.begin(None).await?;
            self.wait(LASTS_MS).await;
            if self.random.random_ratio(1, SECOND_IN) {
                self.overlaps += 1;
                let second = self.begin(Some(first)).await?;
                self.wait(LASTS_MS).await;
                self.end(first)?;
                self.wait(PAUSE_MS).await;
                self.end(second)?;
            } else {
                self.end(first)?;
            }
            self.cluster.check()?;
        }
        Ok(())
    }

    /// Hits a node, but not the one that is hit already.
    async fn begin(&mut self, besides: Option<(Kind, usize)>) -> anyhow::Result<(Kind, usize)> {
        let kind = KINDS[self.random.random_range(0..KINDS.len())];
        let any = self.random.random_range(0..self.cluster.size());
        let wants_leader = self.random.random_ratio(1, LEADER_IN);
        let leader = if wants_leader { self.cluster.leader_now().await } else { None };
        let mut node = leader.unwrap_or(any);
        if besides.is_some_and(|(_, hit)| hit == node) {
            node = (node + 1) % self.cluster.size();
        }
        let others: Vec<usize> = (0..self.cluster.size()).filter(|other| *other != node).collect();
        match kind {
            Kind::Kill => self.cluster.kill(node),
            Kind::Pause => self.cluster.pause(node)?,
            Kind::CutOff => self.cluster.partition(&[node]),
            Kind::Mute => self.cluster.mute(&[node]),
            Kind::Deaf => self.cluster.mute(&others),
            Kind::LateCalls => self.proxies[node].up(Flow::Stall),
            Kind::LateAnswers => self.proxies[node].down(Flow::Stall),
        }
        *self.counts.entry(kind).or_default() += 1;
        Ok((kind, node))
    }

    fn end(&self, (kind, node): (Kind, usize)) -> anyhow::Result<()> {
        match kind {
            Kind::Kill => self.cluster.start_node(node),
            Kind::Pause => self.cluster.resume(node),
            // Of two cuts the second is mended with the first.
            Kind::CutOff | Kind::Mute | Kind::Deaf => {
                self.cluster.heal();
                Ok(())
            }
            Kind::LateCalls | Kind::LateAnswers => {
                self.proxies[node].pass();
                Ok(())
            }
        }
    }

    async fn wait(&mut self, span_ms: std::ops::Range<u64>) {
        let span = Duration::from_millis(self.random.random_range(span_ms));
        tokio::time::sleep(span).await;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.counts {
            let what = match kind {
                Kind::Kill => "kills",
                Kind::Pause => "pauses",
                Kind::CutOff => "partitions",
                Kind::Mute => "nodes muted",
                Kind::Deaf => "nodes deafened",
                Kind::LateCalls => "late calls",
                Kind::LateAnswers => "late answers",
            };
            write!(f, "{count} {what}, ")?;
        }
        write!(f, "{} times two at once", self.overlaps)
    }
}
