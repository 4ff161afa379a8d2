//! The async runtime, named once.
//!
//! Node logic spawns, sleeps and reads the monotonic clock only through this module, so that a
//! simulated runtime can later drive a whole cluster from a seed. Channels come from tokio::sync
//! directly: they need no runtime.

mod pace;

use std::future::Future;
use std::io;
use std::time::Duration;

pub(crate) use pace::Pace;
use tokio::sync::oneshot;
pub(crate) use tokio::task::JoinHandle;
pub(crate) use tokio::time::Instant;

/// The niceness of background work: a tenth of the weight of other threads; see sched(7).
const BACKGROUND_NICE: i32 = 10;

/// The runtime that consensus runs on.
pub(crate) type Runtime = pace::Paced;

/// Starts a task; its owner keeps the handle or the task ends with the node (see [`Tasks`]).
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Runs blocking work (disk) off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("blocking work does not panic")
}

/// Runs long work that nobody waits for by the millisecond, such as taking in a snapshot, on a
/// thread of its own that steps back behind all others: where cores are few, writes go on.
pub(crate) async fn background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, wait) = oneshot::channel();
    std::thread::Builder::new().name("background".to_owned()).spawn(move || {
        // On Linux this is about the calling thread.
        if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICE) {
            tracing::debug!(%error, "background work runs like any other");
        }
        // Whoever waited may be gone, with the call that asked for it.
        let _ = done.send(work());
    })?;
    wait.await.map_err(|_| io::Error::other("background work has panicked"))?
}

/// Runs work that seldom blocks where it is, letting other tasks move to another thread meanwhile.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::current().runtime_flavor();
    if flavor == tokio::runtime::RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The future's result, or `None` once the deadline has passed.
pub(crate) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    tokio::time::timeout_at(deadline, future).await.ok()
}

pub(crate) fn now() -> Instant {
    Instant::now()
}

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
