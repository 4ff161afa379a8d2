//! The process of one node: a clock, and tasks that die with it.
//!
//! Invariants:
//! - A task is polled and dropped with its host as the present one, so whatever it spawns or asks
//!   the time of is the host's.
//! - After [`Host::kill`] no code of the host runs again, but for destructors.
//! - A panic ends the task it comes from and is remembered: nothing in a node may panic.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures::FutureExt as _;
use openraft::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use tokio::sync::oneshot;

use super::Clock;
use crate::sim::World;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

/// A running process.
pub(crate) struct Host {
    node: u64,
    clock: Clock,
    world: Weak<World>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    dead: bool,
    spawned: u64,
    alive: BTreeMap<u64, Weak<Slot>>,
}

impl Host {
    /// A process for this node whose clock begins now and counts so many microseconds a second.
    pub(crate) fn start(node: u64, clock_rate: u64, world: &Arc<World>) -> Arc<Host> {
        let (clock, world) = (Clock::start(clock_rate), Arc::downgrade(world));
        Arc::new(Host { node, clock, world, tasks: Mutex::default() })
    }

    /// The host of the task that is being polled.
    pub(crate) fn current() -> Option<Arc<Host>> {
        // Gone when the thread ends, and with it every host.
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    pub(crate) fn node(&self) -> u64 {
        self.node
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn world(&self) -> Arc<World> {
        self.world.upgrade().expect("a world outlives its hosts")
    }

    /// Starts a task in this host, from wherever.
    pub(crate) fn spawn<F>(self: &Arc<Host>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn_in(Some(Arc::clone(self)), future)
    }

    /// Ends every task where it stands, in the order they were started.
    pub(crate) fn kill(self: &Arc<Host>) {
        let alive = {
            let mut tasks = locked(&self.tasks);
            tasks.dead = true;
            std::mem::take(&mut tasks.alive)
        };
        for slot in alive.into_values().filter_map(|slot| slot.upgrade()) {
            slot.abort();
        }
    }
}

/// Makes a host the present one, until dropped.
struct Entered(Option<Arc<Host>>);

impl Entered {
    fn new(host: Option<Arc<Host>>) -> Entered {
        Entered(CURRENT.try_with(|current| current.replace(host)).unwrap_or_default())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        // An error means that the thread ends, where nothing asks any more.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

/// Values under the locks here change in single steps, so a panic elsewhere leaves them whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task.
struct Slot {
    host: Option<Arc<Host>>,
    number: u64,
    /// None while it is polled, and once it has ended.
    body: Mutex<Option<Body>>,
    aborted: std::sync::atomic::AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Slot {
    fn abort(&self) {
        self.aborted.store(true, std::sync::atomic::Ordering::Relaxed);
        let body = locked(&self.body).take();
        if let Some(body) = body {
            self.drop_body(body);
        }
        if let Some(waker) = locked(&self.waker).take() {
            waker.wake();
        }
    }

    fn drop_body(&self, body: Body) {
        let _entered = Entered::new(self.host.clone());
        drop(body);
    }
}

/// What the executor polls.
struct Runner(Arc<Slot>);

impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let slot = &self.0;
        let Some(mut body) = locked(&slot.body).take() else { return Poll::Ready(()) };
        *locked(&slot.waker) = Some(cx.waker().clone());
        let entered = Entered::new(slot.host.clone());
        let polled = body.as_mut().poll(cx);
        drop(entered);
        if polled.is_pending() && !slot.aborted.load(std::sync::atomic::Ordering::Relaxed) {
            *locked(&slot.body) = Some(body);
            return Poll::Pending;
        }
        slot.drop_body(body);
        if let Some(host) = &slot.host {
            locked(&host.tasks).alive.remove(&slot.number);
        }
        Poll::Ready(())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The simulation ends: destructors still ask for the time.
        let body = locked(&self.0.body).take();
        if let Some(body) = body {
            self.0.drop_body(body);
        }
    }
}

pub(super) fn spawn_in<F>(host: Option<Arc<Host>>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, result) = oneshot::channel();
    let panics = host.clone();
    let body = async move {
        let result = AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| {
            let text = panic_text(payload.as_ref());
            if let Some(host) = panics {
                host.world().note_panic(host.node, &text);
            }
            JoinError::Panicked(text)
        });
        // Nobody waits for most tasks.
        let _ = sender.send(result);
    };
    let mut number = 0;
    if let Some(host) = &host {
        let mut tasks = locked(&host.tasks);
        if tasks.dead {
            drop(tasks);
            // The sender goes with the body: whoever waits learns that it was aborted.
            return JoinHandle { result, slot: Weak::new() };
        }
        tasks.spawned += 1;
        number = tasks.spawned;
    }
    let slot = Arc::new(Slot {
        host: host.clone(),
        number,
        body: Mutex::new(Some(Box::pin(body))),
        aborted: std::sync::atomic::AtomicBool::new(false),
        waker: Mutex::new(None),
    });
    let handle = JoinHandle { result, slot: Arc::downgrade(&slot) };
    if let Some(host) = &host {
        locked(&host.tasks).alive.insert(number, Arc::downgrade(&slot));
    }
    drop(SimRuntime::spawn(Runner(slot)));
    handle
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Resolves to a task's output; dropping it leaves the task alone.
pub(crate) struct JoinHandle<T> {
    result: oneshot::Receiver<Result<T, JoinError>>,
    slot: Weak<Slot>,
}

impl<T> JoinHandle<T> {
    /// Ends the task at once.
    pub(crate) fn abort(&self) {
        if let Some(slot) = self.slot.upgrade() {
            slot.abort();
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.result).poll(cx);
        result.map(|result| result.unwrap_or(Err(JoinError::Aborted)))
    }
}

/// Why a task has no output.
#[derive(Clone, Debug)]
pub(crate) enum JoinError {
    Aborted,
    Panicked(String),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Aborted => f.write_str("the task was aborted"),
            JoinError::Panicked(text) => write!(f, "the task panicked: {text}"),
        }
    }
}
