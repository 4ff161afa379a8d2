//! The async runtime, named once.
//!
//! Node logic spawns, sleeps, selects and reads clocks only through this module, so that another
//! runtime can drive a whole cluster from a seed: with the cargo feature `sim` it is `simulated`
//! (one thread, virtual time), else `real` (tokio). Most channels come from tokio::sync directly:
//! they need no runtime. `watch` comes from here: tokio's wakes its receivers in a random order.

use std::future::Future;

mod pace;
#[cfg(not(feature = "sim"))]
mod real;
#[cfg(feature = "sim")]
pub(crate) mod simulated;

pub(crate) use pace::Pace;
#[cfg(not(feature = "sim"))]
pub(crate) use real::*;
#[cfg(feature = "sim")]
pub(crate) use simulated::*;

/// The runtime that consensus runs on.
pub(crate) type Runtime = pace::Paced;

/// The long-lived tasks of one node: each is aborted when the owner is dropped, so that none
/// outlives its node.
#[derive(Default)]
pub(crate) struct Tasks {
    handles: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Tasks {
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let handle = spawn(future);
        self.handles.lock().expect("no task panics while it registers").push(handle);
    }

    /// Stops every task; each ends at its next await.
    pub(crate) fn abort(&self) {
        for handle in self.handles.lock().expect("no task panics while it registers").drain(..) {
            handle.abort();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}
