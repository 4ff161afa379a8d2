//! Whether this node can serve, for the standard gRPC health service.

use std::sync::Arc;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::leadership::Leader;
use crate::node::Node;

/// Keeps the overall status in step with what the node knows: serving while there is a leader.
pub(crate) fn follow(node: &Arc<Node>, reporter: HealthReporter) {
    let mut lead = node.lead.clone();
    node.tasks.spawn(async move {
        loop {
            let status = match lead.borrow_and_update().leader {
                Leader::None => ServingStatus::NotServing,
                Leader::Me(_) | Leader::Other(_) => ServingStatus::Serving,
            };
            reporter.set_service_status("", status).await;
            if lead.changed().await.is_err() {
                return;
            }
        }
    });
}
