//! Act one: callers on all nodes race to create one value, and exactly one of them does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_client::Created;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::require;
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::local::ready::NAMESPACE;
use crate::output::bytes_text;
use crate::units::{measured, millis};

/// Callers for each node.
const CALLERS_PER_NODE: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(10);

/// How the race went.
pub(super) struct Race {
    callers: usize,
    nodes: usize,
    value: String,
    revision: u64,
    took: Duration,
}

impl Race {
    pub(super) fn sentence(&self) -> String {
        format!(
            "{} callers on {} nodes, 1 created it, all got the same value {} (revision {}), in {}.",
            self.callers,
            self.nodes,
            self.value,
            self.revision,
            measured(self.took)
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "act": "create-once",
            "callers": self.callers,
            "created": 1,
            "value": self.value,
            "revision": self.revision.to_string(),
            "took_ms": millis(self.took),
        })
    }
}

/// Runs the race.
pub(super) async fn run(endpoints: &[String]) -> Outcome<Race> {
    let callers = endpoints.len() * CALLERS_PER_NODE;
    let start = Arc::new(Barrier::new(callers + 1));
    let mut racing = JoinSet::new();
    for caller in 0..callers {
        // Each one knows its own node only, so that all nodes take part.
        let endpoint = endpoints[caller % endpoints.len()].clone();
        racing.spawn(race(endpoint, caller, start.clone()));
    }
    start.wait().await;
    let begin = Instant::now();
    let mut outcomes = Vec::new();
    while let Some(outcome) = racing.join_next().await {
        outcomes.push(outcome.map_err(|error| Failure::bug(error.to_string()))??);
    }
    let took = begin.elapsed();
    let created = outcomes.iter().filter(|outcome| outcome.created).count();
    require(created == 1, || format!("{created} of {callers} callers created the value"))?;
    let first = &outcomes[0];
    let same = |o: &Created| (&o.value, o.mod_revision) == (&first.value, first.mod_revision);
    require(outcomes.iter().all(same), || "two callers got different values".to_owned())?;
    Ok(Race {
        callers,
        nodes: endpoints.len(),
        value: bytes_text(&first.value),
        revision: first.mod_revision,
        took,
    })
}

async fn race(endpoint: String, caller: usize, start: Arc<Barrier>) -> Outcome<Created> {
    let connection = Connection::to(vec![endpoint], NAMESPACE, TIMEOUT);
    let state = connection.client.state();
    let object = connection.client.state().get_object_id("race", "cli").await;
    start.wait().await;
    let object = connection.ok(object).await?;
    let value = format!("\"caller {caller}\"").into_bytes();
    let created = connection.ok(state.create(object, "winner", value).await).await;
    connection.close().await;
    created
}
