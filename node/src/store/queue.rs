//! A thread that writes, and the queue in front of it.
//!
//! Producers push, the thread takes everything there is at once: that is the group commit.
//!
//! Invariant: jobs come out in the order in which they went in, each once; after `close` nothing
//! goes in, and what is in still comes out.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Fault;

/// How often something that waits for a thread looks whether the store has failed meanwhile.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a thread may still take to end by itself after a fault.
const HANG_MAX: Duration = Duration::from_secs(1);

/// Jobs of type `J`, each with a weight in bytes.
pub(super) struct Queue<J> {
    inner: Mutex<Inner<J>>,
    /// Told when there is something to take, or the queue is closed.
    filled: Condvar,
    /// Told when the queue was emptied, or closed.
    emptied: Condvar,
}

struct Inner<J> {
    jobs: VecDeque<J>,
    bytes: usize,
    closed: bool,
    /// Whether a job is in that is worth waking up for.
    urgent: bool,
    /// Whether the writer waits, and looks by itself before long.
    has_timer: bool,
}

/// What [`Queue::take`] returns.
pub(super) struct Taken<J> {
    pub(super) jobs: VecDeque<J>,
    /// Nothing will follow.
    pub(super) closed: bool,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Self {
        let inner = Inner {
            jobs: VecDeque::new(),
            bytes: 0,
            closed: false,
            urgent: false,
            has_timer: false,
        };
        Self { inner: Mutex::new(inner), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Adds a job and wakes the writer; gives the job back if the queue is closed.
    pub(super) fn push(&self, job: J, bytes: usize) -> Result<(), J> {
        let mut inner = self.lock();
        inner.add(job, bytes, true)?;
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Adds a job that may wait until another one wakes the writer.
    pub(super) fn push_lazily(&self, job: J, bytes: usize) -> Result<(), J> {
        self.lock().add(job, bytes, false)
    }

    /// Adds a job when fewer than `bytes_max` wait; blocks until then. Wakes the writer only if it
    /// would not look by itself, or if a quarter of that waits.
    pub(super) fn push_bounded(&self, job: J, bytes: usize, bytes_max: usize) -> Result<(), J> {
        let mut inner = self.lock();
        while inner.bytes >= bytes_max && !inner.closed {
            inner = self.emptied.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let wakes = !inner.has_timer || inner.bytes + bytes >= bytes_max / 4;
        inner.add(job, bytes, wakes)?;
        drop(inner);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Whether [`Queue::push_bounded`] would wait now.
    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        let inner = self.lock();
        inner.bytes >= bytes_max && !inner.closed
    }

    /// Takes all jobs, as soon as one is urgent, the queue is closed or `timeout` has passed.
    pub(super) fn take(&self, timeout: Option<Duration>) -> Taken<J> {
        let mut inner = self.lock();
        inner.has_timer = timeout.is_some();
        match timeout {
            None => {
                while !inner.urgent && !inner.closed {
                    inner = self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
            }
            Some(timeout) if !inner.urgent && !inner.closed => {
                let woken = self
                    .filled
                    .wait_timeout_while(inner, timeout, |inner| !inner.urgent && !inner.closed);
                inner = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            Some(_) => {}
        }
        inner.bytes = 0;
        inner.urgent = false;
        inner.has_timer = false;
        let taken = Taken { jobs: std::mem::take(&mut inner.jobs), closed: inner.closed };
        drop(inner);
        self.emptied.notify_all();
        taken
    }

    /// Refuses new jobs from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        // A panic elsewhere leaves the queue whole: each change is one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Inner<J> {
    fn add(&mut self, job: J, bytes: usize, urgent: bool) -> Result<(), J> {
        if self.closed {
            return Err(job);
        }
        self.jobs.push_back(job);
        self.bytes += bytes;
        self.urgent |= urgent;
        Ok(())
    }
}

/// A thread of a store.
pub(super) struct Thread {
    handle: JoinHandle<()>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
}

impl Thread {
    /// Starts a thread; if it panics, that is a fault.
    pub(super) fn spawn(
        name: &str,
        fault: Fault,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, ended) = channel();
        let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _alive = alive;
            let _watched = RaiseOnPanic(fault);
            run();
        })?;
        Ok(Self { handle, ended })
    }

    /// Waits until the thread has ended; after a fault only for a while, as the engine may hang.
    pub(super) fn join(self, fault: &Fault) {
        let mut hung = Duration::ZERO;
        while self.ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            if fault.text().is_some() {
                hung += LOOK_EVERY;
            }
            if hung > HANG_MAX {
                tracing::warn!("a thread of the store hangs in a failed write and is left alone");
                return;
            }
        }
        // A panic has been raised as a fault already.
        let _ = self.handle.join();
    }
}

struct RaiseOnPanic(Fault);

impl Drop for RaiseOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.raise("a thread of the store has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn jobs_come_out_in_order_and_a_closed_queue_takes_no_more() {
        let queue = Queue::new();
        queue.push_lazily(1, 0).expect("open");
        assert!(queue.take(Some(Duration::ZERO)).jobs.into_iter().eq([1]));
        for job in 2..5 {
            queue.push(job, 10).expect("open");
        }
        queue.close();
        assert_eq!(queue.push(9, 0), Err(9));
        let taken = queue.take(None);
        assert!(taken.closed && taken.jobs.into_iter().eq([2, 3, 4]));
    }

    #[test]
    fn a_full_queue_makes_producers_wait_until_it_is_taken() {
        let queue = Arc::new(Queue::new());
        queue.push_bounded(1, 100, 100).expect("empty");
        let producer = {
            let queue = queue.clone();
            thread::spawn(move || queue.push_bounded(2, 1, 100))
        };
        let mut jobs = Vec::new();
        while jobs.len() < 2 {
            jobs.extend(queue.take(Some(LOOK_EVERY)).jobs);
        }
        assert_eq!(jobs, [1, 2]);
        producer.join().expect("joined").expect("open");
    }

    #[test]
    fn a_writer_that_looks_by_itself_is_woken_by_much_only() {
        let (queue, waits) = (Arc::new(Queue::new()), Duration::from_secs(60));
        let taken = {
            let queue = queue.clone();
            thread::spawn(move || queue.take(Some(waits)).jobs)
        };
        while !queue.lock().has_timer {
            thread::yield_now();
        }
        queue.push_bounded(1, 24, 100).expect("open");
        assert!(!queue.lock().urgent && !queue.is_full(100));
        queue.push_bounded(2, 1, 100).expect("open");
        assert_eq!(taken.join().expect("joined"), [1, 2]);
    }

    #[test]
    fn a_panic_in_a_thread_is_a_fault() {
        let fault = Fault::new(Arc::new(|_| {}));
        let thread = Thread::spawn("panics", fault.clone(), || panic!("as the test wants"));
        thread.expect("spawned").join(&fault);
        assert_eq!(fault.text().as_deref(), Some("a thread of the store has panicked"));
    }
}
