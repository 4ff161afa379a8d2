//! The endpoints of one cluster, and which of them to ask next.
//!
//! Invariants:
//! - A hint of an older term never replaces one of a newer term.
//! - Answers of another cluster than the first that answered are thrown away: sessions, ids and
//!   revisions of two clusters mean nothing to each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::ClientConfig;
use crate::endpoint::Endpoint;
use crate::error::Header;

/// Most endpoints that are remembered. A cluster has a handful of nodes; more means that nodes come
/// and go, and the learned ones that no longer answer are replaced.
const ENDPOINTS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Pool {
    config: Arc<ClientConfig>,
    // A std lock: held for a walk over a few endpoints, never across an await.
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    endpoints: Vec<Arc<Endpoint>>,
    /// Where the leader of `leader_term` is reached.
    leader: Option<Arc<str>>,
    leader_term: u64,
    /// Who carried out a call last.
    last_good: Option<Arc<str>>,
    cluster_id: Option<String>,
}

impl Pool {
    pub(crate) fn new(config: Arc<ClientConfig>) -> Pool {
        let mut known = Known {
            endpoints: Vec::new(),
            leader: None,
            leader_term: 0,
            last_good: None,
            cluster_id: None,
        };
        for address in &config.endpoints {
            known.add(address, false, &config);
        }
        Pool { config, known: Mutex::new(known) }
    }

    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// All endpoints, the one to ask first in front: the leader, then who last carried out a call, then the
    /// others as configured; those that failed lately behind all others.
    pub(crate) fn in_order(&self) -> Vec<Arc<Endpoint>> {
        let known = self.lock();
        let mut endpoints = known.endpoints.clone();
        let is = |name: &Option<Arc<str>>, endpoint: &Endpoint| {
            name.as_ref().is_some_and(|name| name == endpoint.address())
        };
        endpoints.sort_by_cached_key(|endpoint| {
            (endpoint.is_avoided(), !is(&known.leader, endpoint), !is(&known.last_good, endpoint))
        });
        endpoints
    }

    /// What is wrong with each endpoint, if there is no way to use any of them.
    pub(crate) fn faults(&self) -> Option<Vec<(Arc<str>, String)>> {
        let known = self.lock();
        let fault = |endpoint: &Arc<Endpoint>| {
            endpoint.fault().map(|fault| (endpoint.address().clone(), fault.to_owned()))
        };
        known.endpoints.iter().map(fault).collect()
    }

    /// The endpoint of this address, known or not.
    pub(crate) fn at(&self, address: &str) -> Arc<Endpoint> {
        let present = self.lock().endpoints.iter().find(|e| &**e.address() == address).cloned();
        present.unwrap_or_else(|| Arc::new(Endpoint::new(address.into(), true, &self.config)))
    }

    /// Addresses of all endpoints, as configured and learned.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.lock().endpoints.iter().map(|endpoint| endpoint.address().to_string()).collect()
    }

    /// Takes in what a node says about the cluster, and whether it carried the call out. An error
    /// if it is a node of another cluster.
    pub(crate) fn observe(
        &self,
        from: &Endpoint,
        header: &Header,
        has_answered: bool,
    ) -> Result<(), String> {
        let mut known = self.lock();
        if !header.cluster_id.is_empty() {
            match &known.cluster_id {
                None => known.cluster_id = Some(header.cluster_id.clone()),
                Some(ours) if *ours == header.cluster_id => {}
                Some(ours) => {
                    return Err(format!(
                        "belongs to cluster {}, and this client talks to cluster {ours}; \
                         make a new client to change over",
                        header.cluster_id
                    ));
                }
            }
        }
        if has_answered {
            known.last_good = Some(from.address().clone());
        }
        let is_news = header.term >= known.leader_term;
        if is_news && !header.leader_endpoint.is_empty() {
            let leader = known.add(&header.leader_endpoint, true, &self.config);
            known.leader = Some(leader);
            known.leader_term = header.term;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code under this lock panics half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, address: &str, is_learned: bool, config: &ClientConfig) -> Arc<str> {
        let present = self.endpoints.iter().find(|known| &**known.address() == address);
        if let Some(present) = present {
            return present.address().clone();
        }
        if self.endpoints.len() >= ENDPOINTS_MAX {
            let stale = self.endpoints.iter().position(|old| old.is_learned() && old.is_avoided());
            // Without a stale one the oldest learned one goes; the configured ones always stay.
            let stale = stale.or_else(|| self.endpoints.iter().position(|old| old.is_learned()));
            match stale {
                Some(stale) => drop(self.endpoints.remove(stale)),
                None if is_learned => return Arc::from(address),
                None => {}
            }
        }
        let address: Arc<str> = Arc::from(address);
        let endpoint = Endpoint::new(address.clone(), is_learned, config);
        self.endpoints.push(Arc::new(endpoint));
        address
    }
}
