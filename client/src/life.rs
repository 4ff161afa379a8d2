//! The life of a lease, as its holder counts it.
//!
//! Two counts run on CLOCK_BOOTTIME, and the lease is lost when the first of them ends: from before
//! the first transmission of the last renewal, for the lease's ttl; and, while a node can shrink the
//! lease because it is attached there, from before the last message that this node has answered, for
//! the grace. A renewal for the grace alone moves the end of the first count up, from the moment before it is
//! sent. Each count is shorter than what the cluster counts by a margin of 1 % and 10 ms.
//!
//! Invariant: the clock is compared before anything else is done, and a loss is never taken back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::boottime::BootTime;

/// Longest sleep between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// What a client's clock and the cluster's may differ by at any ttl; 1 % comes on top.
const MARGIN: Duration = Duration::from_millis(10);

/// How a lease came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It was not renewed in time, as far as its holder can tell.
    Expired,
    /// The cluster said that it has ended: the master was made inactive, or its installation
    /// opened another lease.
    Ended,
    /// Its holder closed or dropped it.
    Closed,
}

/// How much of a lease its holder counts on.
pub(crate) fn counted(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl / 100).saturating_sub(MARGIN)
}

/// The life of one lease: how long it lasts by the holder's own count, and whether it is over.
#[derive(Debug)]
pub(crate) struct Life {
    // A std lock: held for a comparison, never across an await.
    status: Mutex<Status>,
    loss: watch::Sender<Option<Loss>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    /// Where the count from the last renewal ends.
    until: BootTime,
    /// Where the count from the last proof of the connection ends, while a node can shrink the lease.
    graced: Option<BootTime>,
    /// Once set, never changed.
    loss: Option<Loss>,
}

impl Status {
    /// The earlier of the two counts' ends.
    fn end(&self) -> BootTime {
        self.graced.map_or(self.until, |graced| graced.min(self.until))
    }
}

impl Life {
    pub(crate) fn new(until: BootTime) -> Life {
        let status = Status { until, graced: None, loss: None };
        Life { status: Mutex::new(status), loss: watch::Sender::new(None) }
    }

    /// Whether the lease is lost at this moment.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.loss_at(BootTime::now())
    }

    fn loss_at(&self, now: BootTime) -> Option<Loss> {
        self.settle(&mut self.lock(), now)
    }

    /// Moves the end, unless the lease is lost by `now`; returns whether it did.
    pub(crate) fn extend(&self, now: BootTime, until: BootTime) -> bool {
        let mut status = self.lock();
        let is_live = self.settle(&mut status, now).is_none();
        if is_live {
            status.until = status.until.max(until);
        }
        is_live
    }

    /// Moves the end up, unless it is sooner anyway or the lease is lost by `now`; returns whether it lives.
    pub(crate) fn shorten(&self, now: BootTime, until: BootTime) -> bool {
        let mut status = self.lock();
        let is_live = self.settle(&mut status, now).is_none();
        if is_live {
            status.until = status.until.min(until);
        }
        is_live
    }

    /// From here on a node can shrink the lease, and has not before this count began.
    pub(crate) fn attach(&self, until: BootTime) {
        self.lock().graced.get_or_insert(until);
    }

    /// Moves the end of the connection's count, unless the lease is lost by `now`.
    pub(crate) fn prove(&self, now: BootTime, until: BootTime) {
        let mut status = self.lock();
        if self.settle(&mut status, now).is_none() {
            status.graced = status.graced.map(|graced| graced.max(until));
        }
    }

    /// No node can shrink the lease as it is now, unless it is lost by `now`.
    pub(crate) fn detach(&self, now: BootTime) {
        let mut status = self.lock();
        if self.settle(&mut status, now).is_none() {
            status.graced = None;
        }
    }

    pub(crate) fn end(&self, loss: Loss) {
        let now = BootTime::now();
        let mut status = self.lock();
        if self.settle(&mut status, now).is_none() {
            status.loss = Some(loss);
            (status.until, status.graced) = (status.until.min(now), None);
            self.loss.send_replace(Some(loss));
        }
    }

    /// When the lease is lost if nothing is heard any more, or when it was lost.
    pub(crate) fn until(&self) -> BootTime {
        self.lock().end()
    }

    /// Waits until the lease is lost.
    pub(crate) async fn lost(&self) -> Loss {
        let mut told = self.loss.subscribe();
        loop {
            if let Some(loss) = self.loss() {
                return loss;
            }
            let left = self.until().since(BootTime::now());
            // The sender lives as long as `self`, so `changed` cannot fail; a time-out only means
            // that it is time to look at the clock.
            let _ = tokio::time::timeout(left.min(TICK), told.changed()).await;
        }
    }

    /// Waits until `at`, or until the lease is lost.
    pub(crate) async fn sleep_until(&self, at: BootTime) -> Option<Loss> {
        let sleep = async {
            loop {
                let left = at.since(BootTime::now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(TICK)).await;
            }
        };
        tokio::select! {
            biased;
            loss = self.lost() => Some(loss),
            () = sleep => self.loss(),
        }
    }

    /// The one place where the clock is compared with the end.
    fn settle(&self, status: &mut Status, now: BootTime) -> Option<Loss> {
        if status.loss.is_none() && now >= status.end() {
            status.loss = Some(Loss::Expired);
            self.loss.send_replace(Some(Loss::Expired));
        }
        status.loss
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // No code under this lock panics half-way through a change.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    //! The count of a lease against the clock, at chosen moments.

    use super::*;

    // M5
    #[test]
    fn count_leaves_one_percent_and_ten_milliseconds() {
        assert_eq!(counted(Duration::from_secs(10)), Duration::from_millis(9_890));
        assert_eq!(counted(Duration::from_millis(500)), Duration::from_millis(485));
        assert_eq!(counted(Duration::from_millis(5)), Duration::ZERO);
    }

    // M5
    #[test]
    fn late_reply_revives_nothing() {
        let start = BootTime::now();
        let end = start + Duration::from_secs(3600);
        let life = Life::new(end);
        assert_eq!(life.loss_at(start), None);
        // The reply arrives at the very moment the lease ends, or later, before anyone looked.
        assert!(!life.extend(end, end + Duration::from_secs(3600)));
        // The loss stays, even if the clock were read as earlier again.
        assert_eq!(life.loss_at(start), Some(Loss::Expired));
        assert_eq!(life.until(), end);
    }

    // M5
    #[test]
    fn reply_in_time_moves_the_end_and_never_back() {
        let start = BootTime::now();
        let end = start + Duration::from_secs(3600);
        let later = end + Duration::from_secs(60);
        let life = Life::new(end);
        assert!(life.extend(start, later));
        assert!(life.extend(start, end));
        assert_eq!(life.loss_at(end), None);
        assert_eq!(life.loss_at(later), Some(Loss::Expired));
    }

    // M6
    #[test]
    fn end_moves_up_only_while_the_lease_lives() {
        let start = BootTime::now();
        let (sooner, end) = (start + Duration::from_secs(1000), start + Duration::from_secs(3600));
        let life = Life::new(end);
        assert!(life.shorten(start, sooner));
        assert!(life.shorten(start, end));
        assert_eq!(life.until(), sooner);
        assert!(!life.shorten(sooner, start), "it is lost");
        assert_eq!(life.until(), sooner);
    }

    #[test]
    fn first_loss_stays() {
        let life = Life::new(BootTime::now() + Duration::from_secs(3600));
        life.end(Loss::Ended);
        life.end(Loss::Closed);
        assert_eq!(life.loss(), Some(Loss::Ended));
        assert!(life.until() <= BootTime::now());
    }

    // M5: nobody need look for the loss to be told.
    #[tokio::test]
    async fn loss_is_told_when_the_clock_reaches_the_end() {
        let life = Life::new(BootTime::now() + Duration::from_millis(30));
        let told = tokio::time::timeout(Duration::from_secs(20), life.lost()).await;
        assert_eq!(told, Ok(Loss::Expired));
        assert!(BootTime::now() >= life.until());
    }

    // M5: a timer that is late does not make the loss late for whoever looks.
    #[tokio::test]
    async fn check_needs_no_timer() {
        let life = Life::new(BootTime::now());
        assert_eq!(life.loss(), Some(Loss::Expired));
        assert_eq!(life.lost().await, Loss::Expired);
    }

    // M6
    #[test]
    fn connection_count_ends_a_lease_that_has_time_left() {
        let start = BootTime::now();
        let (proof, later) = (start + Duration::from_secs(1000), start + Duration::from_secs(2000));
        let end = start + Duration::from_secs(3600);
        let life = Life::new(end);
        life.attach(proof);
        // A second attachment proves nothing by itself.
        life.attach(later);
        assert_eq!(life.until(), proof);
        life.prove(start, later);
        life.prove(start, proof);
        assert_eq!(life.until(), later);
        // What is proven too late revives nothing, and neither does letting go.
        life.prove(later, end);
        life.detach(start);
        assert_eq!(life.loss_at(start), Some(Loss::Expired));
        assert_eq!(life.until(), later);
    }

    // M6
    #[test]
    fn detached_lease_counts_from_its_renewal_alone() {
        let start = BootTime::now();
        let end = start + Duration::from_secs(3600);
        let life = Life::new(end);
        life.prove(start, start + Duration::from_secs(7));
        assert_eq!(life.until(), end, "nothing is attached that could be proven");
        life.attach(start + Duration::from_secs(5));
        life.detach(start);
        assert_eq!(life.until(), end);
    }
}
