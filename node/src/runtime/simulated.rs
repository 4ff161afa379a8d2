//! The runtime of a simulation: one thread, virtual time, everything drawn from one seed.
//!
//! It is openraft-rt-sim, which polls tasks in the order they became runnable and jumps to the next
//! timer when none is, with what a cluster in one process needs beside it: a [`Host`] for each
//! node's process, which has a clock of its own and can be killed with all its tasks, whoever
//! spawned them. A task belongs to the host of the task that spawned it; those of the network and
//! of the test belong to none, and have the clock of the simulation itself.
//!
//! What differs from run to run is not here: branches of [`select`] are looked at in the order they
//! are written, and [`watch`] wakes its receivers in the order they came.

mod clock;
mod host;
pub(crate) mod watch;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::{SimInstant, SimRuntime};

pub(crate) use clock::{Clock, Instant};
pub(crate) use host::{Host, JoinError, JoinHandle};

/// tokio's, with the branches in the order they are written.
macro_rules! select {
    ($($branches:tt)*) => { tokio::select! { biased; $($branches)* } };
}
pub(crate) use select;

/// Starts a task in the present host.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    host::spawn_in(Host::current(), future)
}

/// Starts a task that no host's death ends.
pub(crate) fn spawn_outside<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    host::spawn_in(None, future)
}

/// Runs work that would block where it is: there is no other thread, and it takes no time.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    work()
}

/// See [`blocking`].
pub(crate) async fn background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    work()
}

/// See [`blocking`].
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    work()
}

pub(crate) async fn sleep(duration: Duration) {
    Base::sleep(duration).await;
}

/// The future's result, or `None` once the deadline has passed.
pub(crate) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let sleep = Base::sleep_until(deadline);
    select! {
        output = future => Some(output),
        () = sleep => None,
    }
}

pub(crate) fn now() -> Instant {
    Clock::current().now()
}

/// Virtual time in milliseconds, some time in 2023.
pub(crate) fn wall_ms() -> u64 {
    const BEGIN_MS: u64 = 1_700_000_000_000;
    BEGIN_MS + u64::try_from(since_start().as_millis()).unwrap_or(u64::MAX - BEGIN_MS)
}

/// How long the simulation has run, by no host's clock.
pub(crate) fn since_start() -> Duration {
    <SimInstant as openraft::Instant>::now().elapsed_since_start()
}

/// What openraft runs on.
#[derive(Debug)]
pub(crate) struct Base(SimRuntime);

impl Base {
    pub(crate) fn with_seed(seed: u64) -> Base {
        Base(SimRuntime::with_seed(seed))
    }
}

/// Fails once its time is over.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Pin<Box<<SimRuntime as AsyncRuntime>::Sleep>>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.sleep.as_mut().poll(cx).map(|()| Err(TimedOut))
    }
}

/// The time was over first.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
pub(crate) struct TimedOut;

impl AsyncRuntime for Base {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = Instant;
    type TimeoutError = TimedOut;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(Clock::current().to_pass(duration))
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        SimRuntime::sleep(Clock::current().until(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout { future: Box::pin(future), sleep: Box::pin(Base::sleep(duration)) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout { future: Box::pin(future), sleep: Box::pin(Base::sleep_until(deadline)) }
    }

    fn is_panic(join_error: &JoinError) -> bool {
        matches!(join_error, JoinError::Panicked(_))
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(_threads: usize) -> Base {
        Base::with_seed(0)
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
