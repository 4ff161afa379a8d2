//! Act two: the leader is killed while a client writes; nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::require;
use crate::connect::Connection;
use crate::errors::Outcome;
use crate::local::places::Places;
use crate::local::ready::NAMESPACE;
use crate::local::signals::{kill_quietly, leader_node};
use crate::names::node_name;
use crate::probe::{Probe, leader};
use crate::units::{measured, millis};

/// Writes before the kill, and as many after it.
const WRITES: usize = 50;
const TIMEOUT: Duration = Duration::from_secs(20);

/// How the kill went.
pub(super) struct Killed {
    /// Who was killed.
    pub(super) node: u64,
    new_leader: Option<u64>,
    took: Duration,
    writes: usize,
}

impl Killed {
    pub(super) fn sentence(&self) -> String {
        let who = self.new_leader.map_or("another node".to_owned(), node_name);
        format!(
            "{} was killed; {who} leads, and writes work again after {}. All {} acknowledged \
             writes are there.",
            node_name(self.node),
            measured(self.took),
            self.writes
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "act": "leader-kill",
            "killed": node_name(self.node),
            "leader": self.new_leader.map(node_name),
            "writes_again_ms": millis(self.took),
            "acknowledged": self.writes,
            "lost": 0,
        })
    }
}

/// Writes, kills the leader, writes on, and reads everything back.
pub(super) async fn run(places: &Places, endpoints: &[String]) -> Outcome<Killed> {
    let connection = Connection::to(endpoints.to_vec(), NAMESPACE, TIMEOUT);
    let state = connection.client.state();
    let object = connection.ok(state.get_object_id("writes", "cli").await).await?;
    let mut acknowledged = BTreeSet::new();
    let key = |n: usize| format!("write-{n:04}");
    for n in 0..WRITES {
        connection.ok(state.set(object, &key(n), b"1".to_vec()).await).await?;
        acknowledged.insert(key(n));
    }
    let node = leader_node(places).await?;
    let in_flight = tokio::spawn({
        let (state, name) = (state.clone(), key(WRITES));
        async move { state.set(object, &name, b"1".to_vec()).await }
    });
    let killed = Instant::now();
    kill_quietly(places, &node).await?;
    // Sent after the kill, so that its answer proves a new leader.
    connection.ok(state.set(object, &key(WRITES + 1), b"1".to_vec()).await).await?;
    let took = killed.elapsed();
    acknowledged.insert(key(WRITES + 1));
    if let Ok(Ok(_)) = in_flight.await {
        acknowledged.insert(key(WRITES));
    }
    for n in WRITES + 2..2 * WRITES {
        connection.ok(state.set(object, &key(n), b"1".to_vec()).await).await?;
        acknowledged.insert(key(n));
    }
    let there: BTreeSet<String> =
        connection.ok(state.list(object).await).await?.into_iter().map(|item| item.name).collect();
    let lost: Vec<&String> = acknowledged.difference(&there).collect();
    require(lost.is_empty(), || format!("acknowledged writes are lost: {lost:?}"))?;
    connection.close().await;
    let seen = Probe::new(endpoints).answering().await;
    Ok(Killed {
        node: node.id,
        new_leader: leader(&seen).map(|status| status.header.node_id),
        took,
        writes: acknowledged.len(),
    })
}
