//! Sessions, in which each write is carried out at most once.
//!
//! A session numbers its writes. The cluster keeps the outcome of every number not below
//! `first_incomplete`, and so can answer a copy of a write that it has already carried out.
//!
//! Invariants:
//! - A seq is given out once, and `first_incomplete` is the lowest seq whose write is still worked
//!   on: neither answered to its caller (an unknown outcome is an answer) nor given up by it. Once
//!   a later write has told the cluster so, copies that are still on their way are refused. Only a
//!   write that goes through the log tells it; so the writes after one that may have left copies
//!   behind are marked as resent, until one of them is answered.
//! - At most [`UNDECIDED_MAX`] seqs lie between `first_incomplete` and the next one.
//! - A write is begun only if its session outlives the longest time that the write can take. That
//!   is counted on CLOCK_BOOTTIME from before the first transmission of the last call that
//!   certainly counted as use (opening or keeping the session; an answer to a write need not have
//!   come through the log). The cluster's clock is never faster than ours by more than the margin.
//! - A write is never moved to another session.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::boottime::BootTime;
use crate::call::{self, Kind};
use crate::deadline::Deadline;
use crate::error::{Cause, Error};
use crate::pool::Pool;

/// Most writes of one session that are undecided at a time; the cluster refuses more.
pub(crate) const UNDECIDED_MAX: u64 = 256;
/// As many permits as there are undecided writes.
const PERMITS: usize = 256;

/// The session of a client and all its clones; opened when first needed.
#[derive(Debug)]
pub(crate) struct Sessions {
    idle: Duration,
    // A std lock: held to read or replace a pointer.
    current: Mutex<Option<Arc<Session>>>,
    // Whoever opens a session holds it meanwhile, across its call: the others wait for the result.
    turn: tokio::sync::Mutex<()>,
}

impl Sessions {
    pub(crate) fn new(idle: Duration) -> Sessions {
        Sessions { idle, current: Mutex::new(None), turn: tokio::sync::Mutex::new(()) }
    }

    /// A session that outlives any write that begins now.
    pub(crate) async fn current(
        &self,
        pool: &Arc<Pool>,
        deadline: Deadline,
    ) -> Result<Arc<Session>, Error> {
        if let Some(session) = self.usable(pool, BootTime::now()) {
            return Ok(session);
        }
        let turn = tokio::time::timeout(deadline.remaining(), self.turn.lock()).await;
        let _turn = turn.map_err(|_| not_sent("no session could be opened in time"))?;
        if let Some(session) = self.usable(pool, BootTime::now()) {
            return Ok(session);
        }
        let session = Arc::new(open(pool, self.idle, deadline).await?);
        *self.lock() = Some(session.clone());
        Ok(session)
    }

    /// Takes the session away, to end it.
    pub(crate) fn take(&self) -> Option<Arc<Session>> {
        self.lock().take()
    }

    /// Takes the session away if it is this one, and leaves it to lapse.
    pub(crate) fn leave(&self, session: &Arc<Session>) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }

    fn usable(&self, pool: &Arc<Pool>, now: BootTime) -> Option<Arc<Session>> {
        let session = self.lock().clone()?;
        let age = now.since(session.used());
        if age >= session.age_max() || session.is_gone.load(Ordering::Acquire) {
            return None;
        }
        if age >= session.idle / 3 && !session.is_being_kept.swap(true, Ordering::AcqRel) {
            // Ends by its own deadline; nobody waits for it, as the session is still good.
            tokio::spawn(session.clone().keep(pool.clone()));
        }
        Some(session)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    idle: Duration,
    /// Before the first transmission of the last call that the cluster counted as use.
    used: Mutex<BootTime>,
    is_being_kept: AtomicBool,
    /// The cluster has said that it does not know the session (any more).
    is_gone: AtomicBool,
    permits: Arc<Semaphore>,
    window: Mutex<Window>,
    /// Told whenever `first_incomplete` rises.
    moved: Notify,
}

#[derive(Debug)]
struct Window {
    next: u64,
    /// Seqs given out and not yet answered.
    open: BTreeSet<u64>,
    /// Seqs below it may have left copies behind, and the cluster may not know that they are over.
    strays_below: u64,
}

impl Window {
    fn first_incomplete(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

impl Session {
    pub(crate) fn new(id: u64, idle: Duration, used: BootTime) -> Session {
        Session {
            id,
            idle,
            used: Mutex::new(used),
            is_being_kept: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(PERMITS)),
            window: Mutex::new(Window { next: 1, open: BTreeSet::new(), strays_below: 0 }),
            moved: Notify::new(),
        }
    }

    /// Longest time that a write in this session may take: half of its idle time.
    pub(crate) fn call_timeout_max(&self) -> Duration {
        self.idle / 2
    }

    /// Age of the last use up to which a write may begin: what its longest duration leaves of the
    /// idle time, less a margin of 1 % and 10 ms for clocks that differ.
    fn age_max(&self) -> Duration {
        let margin = self.idle / 100 + Duration::from_millis(10);
        self.idle.saturating_sub(self.call_timeout_max()).saturating_sub(margin)
    }

    /// The number of a new write; waits while too many are undecided.
    pub(crate) async fn allot(self: &Arc<Session>, deadline: Deadline) -> Result<Seq, Error> {
        let allot = async {
            // Never closed, so the error cannot occur; a write without a permit would only wait
            // below instead.
            let permit = self.permits.clone().acquire_owned().await.ok();
            loop {
                let moved = self.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if let Some((number, told)) = self.next_seq() {
                    let session = self.clone();
                    return Seq { number, session, told, is_decided: false, _permit: permit };
                }
                moved.await;
            }
        };
        tokio::time::timeout(deadline.remaining(), allot).await.map_err(|_| {
            not_sent(&format!("{UNDECIDED_MAX} earlier writes of this session are undecided"))
        })
    }

    /// A new number, and if its write is to go through the log, the first incomplete one that it
    /// tells the cluster at least.
    fn next_seq(&self) -> Option<(u64, Option<u64>)> {
        let mut window = self.window();
        let number = window.next;
        if number - window.first_incomplete() >= UNDECIDED_MAX {
            return None;
        }
        window.next += 1;
        window.open.insert(number);
        let first_incomplete = window.first_incomplete();
        Some((number, (window.strays_below > 0).then_some(first_incomplete)))
    }

    fn finish(&self, seq: &Seq) {
        let has_moved = {
            let mut window = self.window();
            let before = window.first_incomplete();
            window.open.remove(&seq.number);
            if !seq.is_decided {
                window.strays_below = window.strays_below.max(seq.number + 1);
            } else if seq.told.is_some_and(|told| told >= window.strays_below) {
                window.strays_below = 0;
            }
            window.first_incomplete() > before
        };
        if has_moved {
            self.moved.notify_waiters();
        }
    }

    async fn keep(self: Arc<Session>, pool: Arc<Pool>) {
        let began = BootTime::now();
        let context = proto::WriteContext { session_id: self.id, ..Default::default() };
        let request = proto::KeepSessionRequest { context: Some(context) };
        let deadline = Deadline::after(self.idle / 8);
        let result = call::run(&pool, Kind::Read, deadline, |_| request).await;
        match result {
            Ok(_) => *self.used.lock().unwrap_or_else(PoisonError::into_inner) = began,
            Err(error) if error.is_session_gone() => self.mark_gone(),
            // The session lapses unless a later attempt fares better; then a new one is opened.
            Err(error) => tracing::debug!(session = self.id, %error, "session not kept"),
        }
        self.is_being_kept.store(false, Ordering::Release);
    }

    /// No further write begins in this session.
    pub(crate) fn mark_gone(&self) {
        self.is_gone.store(true, Ordering::Release);
    }

    fn used(&self) -> BootTime {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // A std lock: held for an insert or a removal, never across an await.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of one write, taken until the write is answered or given up.
#[derive(Debug)]
pub(crate) struct Seq {
    number: u64,
    session: Arc<Session>,
    /// Set if all its copies go through the log: the first incomplete seq when it was given out.
    told: Option<u64>,
    /// Whether none of its copies can be carried out from here on.
    is_decided: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seq {
    /// What a copy sent at this moment carries.
    pub(crate) fn context(&self, resent: bool) -> proto::WriteContext {
        proto::WriteContext {
            session_id: self.session.id,
            seq: self.number,
            first_incomplete: self.session.window().first_incomplete(),
            resent: resent || self.told.is_some(),
        }
    }

    /// The write is over, with a certain result; a seq that is only dropped leaves that open.
    pub(crate) fn decide(mut self, was_carried_out: bool) {
        self.is_decided = true;
        if !was_carried_out {
            // A node may have refused it by itself, and then the log knows nothing of it.
            self.told = None;
        }
    }
}

impl Drop for Seq {
    fn drop(&mut self) {
        self.session.finish(self);
    }
}

/// Opens a session. Repeating that does no harm: a session too many lapses by itself.
async fn open(pool: &Pool, idle: Duration, deadline: Deadline) -> Result<Session, Error> {
    let began = BootTime::now();
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let request = proto::OpenSessionRequest { idle_ms };
    let opened = call::run(pool, Kind::Read, deadline, |_| request).await;
    // The write that needs the session was not sent.
    let opened = opened.map_err(Error::before_sending)?;
    Ok(Session::new(opened.session_id, Duration::from_millis(opened.idle_ms), began))
}

fn not_sent(why: &str) -> Error {
    let cause = Cause { summary: format!("not sent: {why}"), attempts: Vec::new() };
    Error::NotApplied { cause, header: None }
}

#[cfg(test)]
mod tests {
    //! Numbering, and when a session is too old to begin a write in.

    use super::*;
    use crate::config::ClientConfig;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(idle: Duration) -> Arc<Session> {
        Arc::new(Session::new(7, idle, BootTime::now()))
    }

    async fn allot(session: &Arc<Session>) -> Result<Seq, Error> {
        session.allot(Deadline::after(60 * SECOND)).await
    }

    // G4
    #[tokio::test]
    async fn first_incomplete_is_the_lowest_seq_not_answered() -> Result<(), Error> {
        let session = session(600 * SECOND);
        let first = allot(&session).await?;
        let second = allot(&session).await?;
        let third = allot(&session).await?;
        assert_eq!((first.number, second.number, third.number), (1, 2, 3));
        assert_eq!(third.context(false).first_incomplete, 1);
        second.decide(true);
        assert_eq!(third.context(true).first_incomplete, 1);
        first.decide(true);
        assert_eq!(third.context(true).first_incomplete, 3);
        third.decide(true);
        let fourth = allot(&session).await?;
        let expected =
            proto::WriteContext { session_id: 7, seq: 4, first_incomplete: 4, resent: false };
        assert_eq!(fourth.context(false), expected);
        Ok(())
    }

    // G4: whatever a write that was given up has left on its way, no later one is answered before
    // the cluster knows to refuse it.
    #[tokio::test]
    async fn writes_after_one_given_up_go_through_the_log() -> Result<(), Error> {
        let session = session(600 * SECOND);
        let first = allot(&session).await?;
        let given_up = allot(&session).await?;
        assert!(!given_up.context(false).resent);
        drop(given_up);
        // The first one is still open, so this one cannot tell the cluster of the second.
        let third = allot(&session).await?;
        assert!(third.context(false).resent);
        third.decide(true);
        first.decide(true);
        // A refusal need not have come from the log.
        let fourth = allot(&session).await?;
        assert!(fourth.context(false).resent);
        fourth.decide(false);
        let fifth = allot(&session).await?;
        assert!(fifth.context(false).resent);
        fifth.decide(true);
        let sixth = allot(&session).await?;
        assert!(!sixth.context(false).resent);
        Ok(())
    }

    // G4
    #[tokio::test]
    async fn write_257_waits_for_the_first_one() -> Result<(), Error> {
        let session = session(600 * SECOND);
        let first = allot(&session).await?;
        for _ in 2..=UNDECIDED_MAX {
            // All the later ones are answered, and still the cluster keeps their outcomes.
            drop(allot(&session).await?);
        }
        let error = session.allot(Deadline::after(Duration::from_millis(20))).await;
        let error = error.expect_err("the window is full");
        assert!(matches!(&error, Error::NotApplied { .. }), "{error:?}");
        assert!(error.to_string().contains("256"), "{error}");

        let (next, ()) = tokio::join!(allot(&session), async { drop(first) });
        assert_eq!(next?.number, UNDECIDED_MAX + 1);
        Ok(())
    }

    // G4: a write ends before its session could.
    #[tokio::test]
    async fn old_session_is_not_used_for_a_new_write() {
        let pool = Arc::new(Pool::new(Arc::new(ClientConfig::new(Vec::<String>::new()))));
        let sessions = Sessions::new(600 * SECOND);
        let began = BootTime::now();
        let session = Arc::new(Session::new(7, 600 * SECOND, began));
        *sessions.lock() = Some(session.clone());
        assert_eq!(session.call_timeout_max(), 300 * SECOND);
        let is_usable = |age| sessions.usable(&pool, began + age).is_some();
        assert!(is_usable(SECOND));
        assert!(!session.is_being_kept.load(Ordering::Acquire));
        assert!(is_usable(293 * SECOND));
        assert!(session.is_being_kept.load(Ordering::Acquire), "it is kept in good time");
        // 600 s less 300 s for the call, 1 % and 10 ms.
        assert!(!is_usable(294 * SECOND));
        session.mark_gone();
        assert!(!is_usable(SECOND));
    }
}
