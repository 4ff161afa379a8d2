//! What is wrong with this node, for status and for admission.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The alarms of one node; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Alarms {
    raised: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// The states of two nodes differ, and no majority says which is right.
pub(crate) const DIVERGED: &str = "diverged";
/// This node has less disk left than it keeps free.
pub(crate) const DISK_LOW: &str = "disk-low";
/// Growth of the state is refused for its quota; raised by the leader.
pub(crate) const QUOTA_FULL: &str = "quota-full";
/// The state has come near its quota; raised by the leader.
pub(crate) const QUOTA_NEAR: &str = "quota-near";

/// Every alarm there is.
pub(crate) const ALL: [&str; 4] = [DIVERGED, DISK_LOW, QUOTA_FULL, QUOTA_NEAR];

impl Alarms {
    /// Raises an alarm, or changes its text; logs the first time.
    pub(crate) fn raise(&self, name: &'static str, text: String) {
        let mut raised = self.raised.lock().expect("no code panics while it holds this lock");
        if raised.insert(name, text.clone()).is_none() {
            tracing::error!("alarm {name}: {text}");
        }
    }

    pub(crate) fn clear(&self, name: &'static str) {
        let mut raised = self.raised.lock().expect("no code panics while it holds this lock");
        if raised.remove(name).is_some() {
            tracing::info!("alarm {name} is over");
        }
    }

    /// Whether an alarm is raised.
    pub(crate) fn is_raised(&self, name: &str) -> bool {
        let raised = self.raised.lock().expect("no code panics while it holds this lock");
        raised.contains_key(name)
    }

    /// One line each, in order of their names.
    pub(crate) fn lines(&self) -> Vec<String> {
        let raised = self.raised.lock().expect("no code panics while it holds this lock");
        raised.iter().map(|(name, text)| format!("{name}: {text}")).collect()
    }

    /// Why writes are refused, if they are.
    pub(crate) fn refuses_writes(&self) -> Option<String> {
        let raised = self.raised.lock().expect("no code panics while it holds this lock");
        raised.get(DIVERGED).map(|text| format!("writes are refused: {text}"))
    }
}
