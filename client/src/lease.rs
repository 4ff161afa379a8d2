//! A lease that renews itself, and says in time when it is lost.
//!
//! The cluster gives a master's change sources to another one when its lease has run out by the
//! cluster's clock. The holder must have stopped by then, also if it was cut off, suspended or
//! stopped by a signal meanwhile. So it counts the lease by itself, and earlier:
//!
//! - from *before the first transmission* of the renewal that succeeded, on CLOCK_BOOTTIME,
//! - less a margin of 1 % and 10 ms, for clocks that run at different speeds,
//! - and for a lease with a grace also from its connection's last sign of life (`attach`).
//!
//! Invariants:
//! - Once the clock has reached the end so counted the lease is lost for good: whoever looks first
//!   (a caller, the renewing task, a reply that comes in) compares the clock before anything else,
//!   and the loss is never taken back. A late reply revives nothing.
//! - No renewal is sent for a lease that was reported lost.
//! - [`LeaseHolder::is_live`] is exact. [`LeaseHolder::lost`] wakes through tokio's timers, which
//!   stand still while the machine is suspended and may fire late on a busy runtime: it looks at
//!   the clock at least every 100 ms. Whatever must not happen without the lease is to check first.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::attach;
use crate::boottime::BootTime;
use crate::change_sources::{Awaited, Claimed, Fence};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Applied, Error};
use crate::instance::Instance;
use crate::life::{Life, Loss, counted};
use crate::masters::{HeldBy, Lease, OpenedLease, Renewal};
use crate::state::Written;
use crate::watch::{Change, Event, Watch, WatchFilter, WatchOptions};

/// Shortest ttl that the cluster grants; it refuses shorter ones, and must get to see them.
const TTL_MIN: Duration = Duration::from_millis(500);
/// How long before its end a lease is no longer worth a renewal, so that none is sent after it.
pub(crate) const RENEWAL_MIN: Duration = Duration::from_millis(1);
/// Longest pause after a renewal that failed early.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A live lease of a master, renewed every third of its ttl by a task of its own.
///
/// Dropping it stops the renewals and leaves the lease to run out; [`LeaseHolder::close`] ends it
/// at once.
#[derive(Debug)]
pub struct LeaseHolder {
    held: Arc<Held>,
    renewals: JoinHandle<()>,
    /// For a lease with a grace.
    attachment: Option<JoinHandle<()>>,
}

/// What became of the wish to hold a lease.
#[derive(Debug)]
pub enum Opened {
    /// It is ours.
    Granted(LeaseHolder),
    /// Another instance holds a live lease of that name. It may be had when that one has run out.
    HeldBy(HeldBy),
}

impl LeaseHolder {
    /// Opens a lease and keeps it alive; see [`Masters::open_lease`](crate::Masters::open_lease).
    /// Tries again within the client's call time-out if an answer came too late to be of use.
    ///
    /// # Errors
    /// Those of a write.
    pub async fn open(
        client: &Client,
        name: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> Result<Opened, Error> {
        LeaseHolder::open_with_grace(client, name, instance, ttl, Duration::ZERO).await
    }

    /// As [`LeaseHolder::open`]; and if this process dies or loses its connection, the lease ends
    /// within `grace` from when a node has seen that, long before its ttl may have run. See
    /// [`Masters::open_lease_with_grace`](crate::Masters::open_lease_with_grace).
    ///
    /// The price: a holder that reaches no node, or no leader, for the grace less the margin counts
    /// its lease as lost. So let `grace` be well above an election and a network's hiccups.
    ///
    /// # Errors
    /// Those of a write; refused as `OUT_OF_BOUNDS` if `grace` is neither zero nor 500 ms to `ttl`.
    pub async fn open_with_grace(
        client: &Client,
        name: &str,
        instance: &Instance,
        ttl: Duration,
        grace: Duration,
    ) -> Result<Opened, Error> {
        // A session of its own, so that renewals never queue behind the program's writes.
        let own = client.with_own_session();
        let deadline = Deadline::after(client.call_timeout());
        loop {
            own.with_timeout(deadline.remaining()).open_session().await?;
            let began = BootTime::now();
            // An answer that takes longer is of no use.
            let timeout = deadline.remaining().min(ttl.max(TTL_MIN));
            let masters = own.with_timeout(timeout).masters();
            let opened = masters.open_lease_with_grace(name, instance, ttl, grace).await;
            let error = match opened {
                Ok(OpenedLease::HeldBy(holder)) => return Ok(Opened::HeldBy(holder)),
                Ok(OpenedLease::Granted(lease)) => {
                    let until = began + counted(lease.ttl.min(ttl));
                    if BootTime::now() < until {
                        let held = Held {
                            client: client.clone(),
                            renewer: own,
                            lease,
                            grace,
                            life: Life::new(until),
                            renewed: watch::Sender::new(0),
                            span: watch::Sender::new(Span::Full),
                            _instance: instance.clone(),
                        };
                        return Ok(Opened::Granted(LeaseHolder::start(held, began)));
                    }
                    Error::LeaseLost { lease: lease.id, applied: Applied::Unknown }
                }
                Err(error @ Error::Refused { .. }) => return Err(error),
                Err(error) => error,
            };
            if deadline.has_passed() {
                return Err(error);
            }
            tokio::time::sleep(deadline.remaining().min(pause(ttl))).await;
        }
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.held.lease
    }

    /// The master that the lease makes active.
    #[must_use]
    pub fn master(&self) -> i64 {
        self.held.lease.master
    }

    /// Whether the lease still holds at this moment. Looks at the clock, and waits for nothing.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.held.life.loss().is_none()
    }

    /// As [`LeaseHolder::is_live`], for use with `?`.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] once it does not hold any more.
    pub fn check(&self) -> Result<(), Error> {
        self.held.check(Applied::No)
    }

    /// Waits until the lease is lost, and says how. Comes before the cluster could give the claims
    /// away, unless the machine was suspended or the runtime was held up: see the module's notes.
    pub async fn lost(&self) -> Loss {
        self.held.life.lost().await
    }

    /// When the lease is lost unless it is renewed before, or one with a grace shown to be connected;
    /// or when it was lost.
    #[must_use]
    pub fn lost_at(&self) -> BootTime {
        self.held.life.until()
    }

    /// Claims a change source. Doing it again gives the same token.
    ///
    /// # Errors
    /// Those of a write; [`Error::LeaseLost`] if the lease is lost, before or meanwhile.
    pub async fn claim(&self, change_source: i64) -> Result<Claimed, Error> {
        let client = self.held.client();
        let sources = client.change_sources();
        self.held.guard(sources.claim(self.held.lease.id, change_source)).await
    }

    /// Claims a change source as soon as it is our turn: those who wait are served in the order in
    /// which they came. Waits for as long as it takes and the lease lives, also while no node can be
    /// reached or the cluster has no leader.
    ///
    /// Dropping the future leaves the line, and gives the change source back if it was granted at
    /// that very moment. So do not claim the same one, or one of its group, in another way
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the lease is lost, before or meanwhile; refused as
    /// `UNKNOWN_CHANGE_SOURCE`, `TOO_MANY_CLAIMS`, `TOO_MANY_WAITERS` or `TOO_MANY_PLACES`.
    pub async fn await_claim(&self, change_source: i64) -> Result<u64, Error> {
        let place = Place { held: self.held.clone(), change_source, is_left: true };
        let result = self.held.guard(self.held.stand_in_line(change_source)).await;
        if result.is_ok() {
            place.keep();
        }
        result
    }

    /// Gives a claim back, if it is still held under this very token; returns whether it was.
    ///
    /// # Errors
    /// As [`LeaseHolder::claim`].
    pub async fn release(&self, change_source: i64, token: u64) -> Result<bool, Error> {
        let client = self.held.client();
        self.held.guard(client.change_sources().release(change_source, token)).await
    }

    /// Overwrites a value under a fence, see [`State::set_fenced`](crate::State::set_fenced).
    ///
    /// # Errors
    /// Those of a write; [`Error::LeaseLost`] if the lease is lost, before or meanwhile.
    pub async fn set_fenced(
        &self,
        object: i64,
        name: &str,
        bytes: impl Into<Vec<u8>>,
        fence: Fence,
    ) -> Result<Written, Error> {
        let client = self.held.client();
        self.held.guard(client.state().set_fenced(object, name, bytes, fence)).await
    }

    /// Ends the lease, which frees all its claims at once; returns how many there were. Stop what
    /// depends on them first: the holder counts as lost from here on.
    ///
    /// # Errors
    /// Those of a write: the lease then runs out by itself. [`Error::LeaseLost`] if it was lost
    /// already.
    pub async fn close(self) -> Result<u32, Error> {
        self.check()?;
        self.held.life.end(Loss::Closed);
        let held = &self.held;
        let timeout = held.renewer.call_timeout().min(held.lease.ttl);
        let closed = held.renewer.with_timeout(timeout).masters().close_lease(held.lease.id).await;
        if closed.is_ok() {
            // Left open it lapses by itself.
            let _ = held.renewer.with_timeout(timeout).close().await;
        }
        closed
    }

    fn start(held: Held, began: BootTime) -> LeaseHolder {
        let held = Arc::new(held);
        let renewals = tokio::spawn(renew(held.clone(), began));
        let attachment = (!held.grace.is_zero()).then(|| tokio::spawn(attach::keep(held.clone())));
        LeaseHolder { held, renewals, attachment }
    }
}

impl Drop for LeaseHolder {
    fn drop(&mut self) {
        self.held.life.end(Loss::Closed);
        self.renewals.abort();
        if let Some(attachment) = &self.attachment {
            attachment.abort();
        }
    }
}

/// What a lease is renewed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// Its ttl.
    Full,
    /// Its grace alone: a node that could see its holder go is yet to be found.
    Grace,
}

/// What the holder and its task share.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) client: Client,
    /// The same cluster through a session for the lease alone.
    renewer: Client,
    pub(crate) lease: Lease,
    /// Zero: none.
    pub(crate) grace: Duration,
    pub(crate) life: Life,
    /// The number of the last renewal that succeeded.
    pub(crate) renewed: watch::Sender<u64>,
    /// What it is renewed for. Setting it renews at once.
    pub(crate) span: watch::Sender<Span>,
    /// Keeps the secret from others for as long as the lease is held: whoever shows it ends this
    /// lease at once, without our noticing before the next renewal.
    _instance: Instance,
}

impl Held {
    /// The client, with no more time for a call than the lease has left.
    fn client(&self) -> Client {
        let left = self.life.until().since(BootTime::now());
        self.client.with_timeout(self.client.call_timeout().min(left))
    }

    fn check(&self, applied: Applied) -> Result<(), Error> {
        match self.life.loss() {
            None => Ok(()),
            Some(_) => Err(Error::LeaseLost { lease: self.lease.id, applied }),
        }
    }

    /// Waits for the grant of a change source, whatever the cluster is short of meanwhile: asking
    /// again keeps the place.
    async fn stand_in_line(&self, change_source: i64) -> Result<u64, Error> {
        loop {
            let error = match self.await_grant(change_source).await {
                Err(
                    error @ (Error::Unavailable { .. }
                    | Error::NotApplied { .. }
                    | Error::OutcomeUnknown { .. }
                    | Error::SessionExpired { .. }),
                ) => error,
                result => return result,
            };
            tracing::debug!(lease = self.lease.id, change_source, %error, "waiting on in line");
            tokio::time::sleep(pause(self.lease.ttl)).await;
        }
    }

    /// Waits for the grant of a change source while the cluster answers. It is seen as a change,
    /// which is pushed; the claim itself then gives the token.
    async fn await_grant(&self, change_source: i64) -> Result<u64, Error> {
        let filters = vec![WatchFilter::ChangeSource(Some(change_source))];
        let options = WatchOptions { filters, ..WatchOptions::default() };
        loop {
            // Before asking, so that no grant is missed; and anew if too much was missed.
            let mut watch = self.client().watch(options.clone()).await?;
            loop {
                let asked = self
                    .client()
                    .change_sources()
                    .await_claim(self.lease.id, change_source)
                    .await?;
                if let Awaited::Granted { token } = asked {
                    return Ok(token);
                }
                if !self.is_granted(&mut watch).await? {
                    break;
                }
            }
        }
    }

    /// Whether the watch shows a grant to this master; false if it can show nothing any more.
    async fn is_granted(&self, watch: &mut Watch) -> Result<bool, Error> {
        loop {
            match watch.next().await {
                Ok(Change {
                    event: Event::ChangeSource { owner: Some((master, _)), .. }, ..
                }) if master == self.lease.master => {
                    return Ok(true);
                }
                // The watch goes on as soon as there is a node; the lease says for how long.
                Ok(_) | Err(Error::Unavailable { .. }) => {}
                Err(error) if error.reason() == Some("COMPACTED") => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// How long the lease lives from a renewal of this kind.
    fn lasts(&self, span: Span) -> Duration {
        match span {
            Span::Full => self.lease.ttl,
            Span::Grace => self.grace,
        }
    }

    /// Renews the lease, and counts from before that was sent. None if it was lost before an answer.
    async fn renew(&self, span: Span) -> Option<Result<Duration, Error>> {
        let began = BootTime::now();
        let lasts = self.lasts(span);
        if span == Span::Grace && !self.life.shorten(began, began + counted(lasts)) {
            return None;
        }
        let left = self.life.until().since(began);
        let renewer = self.renewer.with_timeout(left.saturating_sub(RENEWAL_MIN));
        let masters = renewer.masters();
        let renewal = async {
            match span {
                Span::Full => masters.keep_alive(self.lease.id).await,
                Span::Grace => masters.keep_within_grace(self.lease.id).await,
            }
        };
        let reply = tokio::select! {
            reply = renewal => reply,
            _ = self.life.lost() => return None,
        };
        // The clock first: a reply that comes too late must not be looked at.
        if self.life.loss().is_some() {
            return None;
        }
        match reply {
            Ok(Renewal { ttl, number }) => {
                let ttl = ttl.min(lasts);
                if !self.life.extend(BootTime::now(), began + counted(ttl)) {
                    return None;
                }
                self.renewed.send_if_modified(|newest| {
                    let is_newer = *newest < number;
                    *newest = number.max(*newest);
                    is_newer
                });
                Some(Ok(ttl))
            }
            Err(error) if error.reason() == Some("LEASE_LOST") => {
                self.life.end(Loss::Ended);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Makes a call that is of use only while the lease lives.
    async fn guard<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.check(Applied::No)?;
        let result = tokio::select! {
            result = call => result,
            _ = self.life.lost() => {
                return Err(Error::LeaseLost { lease: self.lease.id, applied: Applied::Unknown });
            }
        };
        let applied = match &result {
            Ok(_) => Applied::Unknown,
            Err(error) => error.applied(),
        };
        self.check(applied)?;
        if let Err(error) = &result
            && error.reason() == Some("LEASE_LOST")
        {
            self.life.end(Loss::Ended);
            return Err(Error::LeaseLost { lease: self.lease.id, applied: Applied::No });
        }
        result
    }
}

/// A place in a line, left when it is dropped.
struct Place {
    held: Arc<Held>,
    change_source: i64,
    is_left: bool,
}

impl Place {
    /// It has led to a claim.
    fn keep(mut self) {
        self.is_left = false;
    }

    async fn leave(held: Arc<Held>, change_source: i64) -> Result<(), Error> {
        let client = held.client();
        let sources = client.change_sources();
        if !sources.stop_awaiting(held.lease.id, change_source).await?
            && let Some(found) = sources.get(change_source).await?
            && let Some(claimant) = found.claimant.filter(|c| c.lease == Some(held.lease.id))
        {
            sources.release(change_source, claimant.token).await?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (held, change_source) = (self.held.clone(), self.change_source);
        if !self.is_left || held.life.loss().is_some() {
            // A lost lease's place has gone with it.
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let lease = held.lease.id;
                if let Err(error) = Place::leave(held, change_source).await {
                    tracing::debug!(lease, change_source, %error, "still in line");
                }
            });
        }
    }
}

/// Renews the lease until it is lost.
async fn renew(held: Arc<Held>, mut began: BootTime) {
    let mut wanted = held.span.subscribe();
    let mut wait = held.lease.ttl / 3;
    loop {
        tokio::select! {
            biased;
            loss = held.life.sleep_until(began + wait) => if loss.is_some() { return },
            // The sender lives in `held`.
            _ = wanted.changed() => {}
        }
        began = BootTime::now();
        let span = *wanted.borrow_and_update();
        wait = tokio::select! {
            biased;
            // What is on its way asks for another time; the next answer makes it stale.
            _ = wanted.changed() => {
                wanted.mark_changed();
                continue;
            }
            renewed = held.renew(span) => match renewed {
                None => return,
                Some(Ok(ttl)) => ttl / 3,
                Some(Err(error)) => {
                    tracing::warn!(lease = held.lease.id, %error, "lease not renewed, trying again");
                    BootTime::now().since(began) + pause(held.lasts(span))
                }
            },
        };
    }
}

/// How long to wait after a call about a lease failed: often enough for several tries in what a
/// third of the ttl leaves.
pub(crate) fn pause(ttl: Duration) -> Duration {
    (ttl / 20).min(PAUSE_MAX)
}
