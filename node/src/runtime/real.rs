//! The runtime of a real node: tokio.

use std::future::Future;
use std::io;
use std::time::Duration;

pub(crate) use openraft_rt_tokio::TokioRuntime as Base;
pub(crate) use tokio::select;
use tokio::sync::oneshot;
pub(crate) use tokio::sync::watch;
pub(crate) use tokio::task::JoinHandle;
pub(crate) use tokio::time::Instant;

/// The niceness of background work: a tenth of the weight of other threads; see sched(7).
const BACKGROUND_NICE: i32 = 10;

/// Starts a task; its owner keeps the handle or the task ends with the node (see
/// [`Tasks`](super::Tasks)).
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

/// Wall-clock time in milliseconds since 1970, for display only.
pub(crate) fn wall_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
