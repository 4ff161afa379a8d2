//! Who calls when, and what is measured.
//!
//! The window that is measured begins after the warm-up. A closed loop counts what is answered
//! within it. An open loop counts every call that was due within it: the window is followed by as
//! long a time again for those that were not answered yet, and what is then still open counts as
//! unfinished, with the time that it had waited.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::workload::{Caller, Failed};
use super::{Stop, cpu};
use crate::errors::{Failure, Outcome};

/// Longest latency that is told apart; a call ends before that.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Three significant digits.
const DIGITS: u8 = 3;
/// How often whoever makes calls due looks whether it is over.
const NAP_MAX: Duration = Duration::from_millis(50);

/// How one number of clients is measured.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Calls a second in an open loop; none for a closed one.
    pub(super) rate: Option<u32>,
    /// The processes of the cluster, if they are known.
    pub(super) processes: Option<Vec<u32>>,
}

/// What was measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Of the calls that succeeded, and of those unfinished, in microseconds.
    pub(super) latency_us: Histogram<u64>,
    /// Calls that succeeded.
    pub(super) ops: u64,
    /// Calls that failed, by the code of the error.
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// Calls of an open loop that were due and not answered.
    pub(super) unfinished: u64,
    /// How long was measured.
    pub(super) elapsed: Duration,
    /// What the cluster's processes used meanwhile, if they are known and none has gone.
    pub(super) nodes_cpu: Option<Duration>,
    /// What this process used meanwhile.
    pub(super) client_cpu: Option<Duration>,
}

impl Measured {
    pub(super) fn new() -> Measured {
        let max = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
        Measured {
            latency_us: Histogram::new_with_bounds(1, max, DIGITS)
                .expect("the bounds are in order"),
            ops: 0,
            errors: BTreeMap::new(),
            unfinished: 0,
            elapsed: Duration::ZERO,
            nodes_cpu: None,
            client_cpu: None,
        }
    }

    pub(super) fn succeeded(&mut self, latency: Duration) {
        self.ops += 1;
        self.waited(latency);
    }

    fn waited(&mut self, latency: Duration) {
        self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What all clients share. A std lock, held for the length of one entry.
#[derive(Debug)]
struct Board {
    begin: Instant,
    end: Instant,
    /// Open loop: when what is open counts as unfinished.
    give_up: Instant,
    /// The run was stopped, or is over.
    over: AtomicBool,
    noted: Mutex<(Measured, Option<Failure>)>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, (Measured, Option<Failure>)> {
        self.noted.lock().expect("no code panics while it holds this lock")
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note(&self, latency: Duration, result: Result<(), Failed>) {
        let mut noted = self.lock();
        match result {
            Ok(()) => noted.0.succeeded(latency),
            Err(failed) => {
                let failure = failed.failure();
                *noted.0.errors.entry(failure.code.name()).or_default() += 1;
                noted.1 = Some(failure);
            }
        }
    }
}

/// Has the clients call for the length of the step, or until it is stopped; returns them.
///
/// # Errors
/// If no call succeeded, whatever the last one failed with.
pub(super) async fn drive(
    callers: Vec<Caller>,
    step: &Step,
    stop: &Stop,
) -> Outcome<(Measured, Vec<Caller>)> {
    let begin = Instant::now() + step.warm_up;
    let end = begin + step.duration;
    let give_up = if step.rate.is_some() { end + step.duration } else { end };
    let noted = Mutex::new((Measured::new(), None));
    let board = Arc::new(Board { begin, end, give_up, over: AtomicBool::new(false), noted });
    let mut running = JoinSet::new();
    match step.rate {
        None => {
            for caller in callers {
                running.spawn(closed(caller, Arc::clone(&board)));
            }
        }
        Some(rate) => {
            let (queues, dues): (Vec<_>, Vec<_>) =
                callers.iter().map(|_| mpsc::unbounded_channel()).unzip();
            for (caller, due) in callers.into_iter().zip(dues) {
                running.spawn(open(caller, due, Arc::clone(&board)));
            }
            let schedule = Schedule { first: begin - step.warm_up, rate };
            let paced = Arc::clone(&board);
            thread::spawn(move || schedule.keep(&queues, &paced));
        }
    }
    let used = |pids: &Option<Vec<u32>>| -> Option<Duration> {
        pids.as_ref()?.iter().map(|pid| cpu::used(*pid)).sum()
    };
    let own = || cpu::used(std::process::id());
    wait_until(begin, stop).await;
    let (nodes_before, own_before) = (used(&step.processes), own());
    let measuring = Instant::now();
    let mut finished = Vec::new();
    tokio::select! {
        () = collect(&mut running, &mut finished) => {}
        () = wait_until(give_up, stop) => {}
    }
    board.over.store(true, Ordering::Relaxed);
    let elapsed = measuring.elapsed();
    let (nodes_after, own_after) = (used(&step.processes), own());
    // Whoever is still calling ends with that call.
    collect(&mut running, &mut finished).await;
    let (mut measured, failure) = board.lock().clone();
    measured.elapsed = elapsed;
    let between = |before: Option<Duration>, after: Option<Duration>| after?.checked_sub(before?);
    measured.nodes_cpu = between(nodes_before, nodes_after);
    measured.client_cpu = between(own_before, own_after);
    match failure {
        Some(failure) if measured.ops == 0 => Err(failure),
        Some(_) | None => Ok((measured, finished)),
    }
}

async fn wait_until(instant: Instant, stop: &Stop) {
    tokio::select! {
        () = tokio::time::sleep_until(instant.into()) => {}
        () = stop.clone().requested() => {}
    }
}

async fn collect(running: &mut JoinSet<Caller>, finished: &mut Vec<Caller>) {
    while let Some(ended) = running.join_next().await {
        // A panic has ended this process already.
        finished.extend(ended.ok());
    }
}

/// Calls again as soon as it is answered.
async fn closed(mut caller: Caller, board: Arc<Board>) -> Caller {
    while !board.is_over() {
        let called = Instant::now();
        let result = caller.call().await;
        let answered = Instant::now();
        if answered >= board.begin && answered < board.end && !board.is_over() {
            board.note(answered - called, result);
        }
    }
    caller
}

/// Calls when it is due, or as soon afterwards as the call before is answered.
async fn open(
    mut caller: Caller,
    mut dues: mpsc::UnboundedReceiver<Instant>,
    board: Arc<Board>,
) -> Caller {
    while let Some(due) = dues.recv().await {
        let is_counted = due >= board.begin;
        if board.is_over() || Instant::now() >= board.give_up {
            if is_counted {
                let mut noted = board.lock();
                noted.0.unfinished += 1;
                noted.0.waited(due.elapsed());
            }
            continue;
        }
        let result = caller.call().await;
        if is_counted {
            board.note(due.elapsed(), result);
        }
    }
    caller
}

/// When calls are due: the clients in turn, at even distances.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    first: Instant,
    rate: u32,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        // In nanoseconds from the first one, so that no error adds up.
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        self.first + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Tells the clients when their calls are due, until the window is over. On a thread of its own,
    /// because the timers of an async runtime are as coarse as a fast call is long.
    fn keep(&self, queues: &[mpsc::UnboundedSender<Instant>], board: &Board) {
        let mut next = queues.iter().cycle();
        for number in 0.. {
            let due = self.due(number);
            loop {
                let wait = due.saturating_duration_since(Instant::now());
                if due >= board.end || board.is_over() {
                    return;
                }
                if wait.is_zero() {
                    break;
                }
                thread::sleep(wait.min(NAP_MAX));
            }
            let Some(queue) = next.next() else { return };
            if queue.send(due).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! What counts, and from when it is measured.
    use super::*;

    #[test]
    fn calls_are_due_at_even_distances_for_ever() {
        let schedule = Schedule { first: Instant::now(), rate: 3 };
        let at = |number| schedule.due(number) - schedule.first;
        assert_eq!(at(0), Duration::ZERO);
        assert_eq!(at(3), Duration::from_secs(1));
        assert_eq!(at(3_000_000), Duration::from_secs(1_000_000));
    }

    fn board(window: Duration) -> Board {
        let begin = Instant::now();
        let end = begin + window;
        let noted = Mutex::new((Measured::new(), None));
        Board { begin, end, give_up: end, over: AtomicBool::new(false), noted }
    }

    #[test]
    fn a_schedule_is_kept_whatever_its_clients_do() {
        let board = board(Duration::from_millis(100));
        let schedule = Schedule { first: board.begin, rate: 1_000 };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        schedule.keep(&[sender], &board);
        let mut dues = Vec::new();
        while let Ok(due) = receiver.try_recv() {
            dues.push(due);
        }
        assert_eq!(dues.len(), 100);
        assert!(dues.iter().enumerate().all(|(n, due)| *due == schedule.due(n as u64)));
        assert!(Instant::now() >= *dues.last().unwrap(), "told before it was due");
    }

    #[test]
    fn a_schedule_ends_when_the_run_is_over() {
        let board = board(Duration::from_secs(60));
        board.over.store(true, Ordering::Relaxed);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        Schedule { first: board.begin, rate: 1 }.keep(&[sender], &board);
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn failed_calls_are_no_operations() {
        let board = board(Duration::from_secs(1));
        board.note(Duration::from_millis(3), Ok(()));
        board.note(Duration::from_secs(9), Err(Failed::Wrong("odd")));
        let noted = board.lock();
        assert_eq!((noted.0.ops, noted.0.errors["bug"]), (1, 1));
        assert_eq!(noted.0.latency_us.len(), 1);
        assert_eq!(noted.0.latency_us.value_at_quantile(1.0) / 10, 300);
    }
}
