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
