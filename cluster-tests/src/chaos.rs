//! Kills the leader again and again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::Cluster;

/// Longest time that a write after a kill may take: far above any promise, to end a test that hangs.
const RECOVER_MAX: Duration = Duration::from_secs(30);

/// One kill of a leader.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    /// Which node it was.
    pub node: usize,
    /// When the signal was sent.
    pub at: Instant,
    /// When the first write that began after it was acknowledged.
    pub recovered: Instant,
}

impl Kill {
    /// How long no write was possible.
    #[must_use]
    pub fn outage(&self) -> Duration {
        self.recovered - self.at
    }

    /// Whether something that ran from `began` to `ended` ran during the outage.
    #[must_use]
    pub fn overlaps(&self, began: Instant, ended: Instant) -> bool {
        began < self.recovered && ended > self.at
    }
}

/// A task that kills the leader of a cluster with SIGKILL every so often and starts it again a
/// little later.
#[derive(Debug)]
pub struct Chaos {
    kills: watch::Receiver<Vec<Kill>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Chaos {
    /// Begins with the first kill after `every`; each node is down for `down`.
    #[must_use]
    pub fn start(cluster: Arc<Cluster>, every: Duration, down: Duration) -> Chaos {
        let (noted, kills) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(cluster, every, down, noted, stopped));
        Chaos { kills, stop, task }
    }

    /// The kills so far that the cluster has recovered from.
    #[must_use]
    pub fn kills(&self) -> Vec<Kill> {
        self.kills.borrow().clone()
    }

    /// Whether it goes on; it ends early only on an error, which [`Chaos::stop`] returns.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it, with all nodes started again, and returns the kills.
    ///
    /// # Errors
    /// What went wrong meanwhile.
    pub async fn stop(self) -> anyhow::Result<Vec<Kill>> {
        self.stop.send_replace(true);
        self.task.await.context("the chaos task")??;
        Ok(self.kills.borrow().clone())
    }
}

async fn run(
    cluster: Arc<Cluster>,
    every: Duration,
    down: Duration,
    noted: watch::Sender<Vec<Kill>>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let state = cluster
        .client_with(|config| {
            config.namespace = "chaos".to_owned();
            config.call_timeout = RECOVER_MAX;
        })
        .state();
    let object = state.get_object_id("chaos", "pulse").await?;
    let mut next = Instant::now() + every;
    for round in 1_u64.. {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            () = tokio::time::sleep_until(next) => {}
        }
        next += every;
        let node = cluster.leader().await?;
        let at = Instant::now();
        cluster.kill(node);
        let restart = async {
            tokio::time::sleep_until(at + down).await;
            cluster.start_node(node)
        };
        let recover = async {
            let written = state.set(object, "pulse", round.to_string()).await;
            written.map(|_| Instant::now()).with_context(|| format!("write after kill {round}"))
        };
        let (restarted, recovered) = tokio::join!(restart, recover);
        restarted?;
        let kill = Kill { node, at, recovered: recovered? };
        noted.send_modify(|kills| kills.push(kill));
    }
    Ok(())
}
