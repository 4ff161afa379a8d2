//! The end of a store: the first failed write or sync, remembered for good.
//!
//! After a failed sync the kernel may have dropped the dirty pages, so that a second sync succeeds
//! without having written them.  The only safe answer is to stop, and to trust nothing but what a
//! new process reads back.
//!
//! Invariants:
//! - Once raised, a fault never clears; the first text is kept.
//! - A failed sync that only [`sync`] has seen counts as raised.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::sync;

/// Called once with the text of the first fault, from any thread, so that the node can stop.
pub type OnFault = Arc<dyn Fn(&str) + Send + Sync>;

type Listener = Box<dyn Fn() + Send + Sync>;

/// Whether the stores of one data directory can still be trusted; clones share the answer.
#[derive(Clone)]
pub struct Fault(Arc<Inner>);

struct Inner {
    text: OnceLock<String>,
    on_fault: OnFault,
    /// Told after `on_fault`; the log uses it to fail the writes that wait on a hung engine.
    listeners: Mutex<Vec<Listener>>,
}

impl Fault {
    pub(super) fn new(on_fault: OnFault) -> Self {
        let listeners = Mutex::new(Vec::new());
        Self(Arc::new(Inner { text: OnceLock::new(), on_fault, listeners }))
    }

    /// The first fault, if there was one; also looks for failed syncs that nobody raised yet.
    pub fn text(&self) -> Option<String> {
        if let Some(text) = self.0.text.get() {
            return Some(text.clone());
        }
        let text = sync::failed()?;
        self.raise(&text);
        self.0.text.get().cloned()
    }

    /// An error if there was a fault: call it before each acknowledgement.
    pub fn check(&self) -> io::Result<()> {
        self.text().map_or(Ok(()), |text| Err(io::Error::other(text)))
    }

    /// Records `text` unless there was a fault before, and tells everyone.
    pub(super) fn raise(&self, text: &str) {
        if self.0.text.set(text.to_owned()).is_err() {
            return;
        }
        tracing::error!(fault = text, "the store has failed, nothing is acknowledged any more");
        (self.0.on_fault)(text);
        for listener in self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            listener();
        }
    }

    /// Records a failed `action` and returns the error to hand on.
    pub(super) fn fail(&self, action: &str, cause: &dyn std::fmt::Display) -> io::Error {
        self.raise(&format!("{action}: {cause}"));
        io::Error::other(self.text().unwrap_or_else(|| action.to_owned()))
    }

    /// Calls `listener` after a fault; it must not block.
    pub(super) fn listen(&self, listener: Listener) {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fault").field(&self.0.text.get()).finish()
    }
}
