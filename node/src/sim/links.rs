//! The network: a delay for each message, and links that are cut or slow, each direction by itself.
//!
//! The model is that of connections over TCP. What is sent on a cut link waits there, and arrives
//! late if the link heals soon: that is where stale messages come from. If it does not heal, the
//! connection breaks, as keep-alives make it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;

use crate::runtime;

/// What a message takes on a link in order.
const DELAY: Range<Duration> = Duration::from_micros(100)..Duration::from_micros(1500);
/// One message in so many takes longer: a packet was lost, or somebody was busy.
const LATE_ONE_IN: u32 = 100;
const LATE: Range<Duration> = Duration::from_millis(5)..Duration::from_millis(60);
/// When a link has healed, packets are sent again after a while.
const RESEND: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(250);
/// A connection that has been silent for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The connection broke: what was sent may or may not have arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken;

/// All links, by sender and receiver. Clients are node 0.
pub(super) struct Links {
    inner: Mutex<Inner>,
    healed: Notify,
}

struct Inner {
    random: SmallRng,
    links: BTreeMap<(u64, u64), Link>,
}

/// One direction between two nodes.
#[derive(Clone, Copy, Default)]
struct Link {
    cut: bool,
    /// Added to what a message takes, give or take a half.
    slow: Duration,
}

impl Links {
    pub(super) fn new(seed: u64) -> Links {
        let inner = Inner { random: SmallRng::seed_from_u64(seed), links: BTreeMap::new() };
        Links { inner: Mutex::new(inner), healed: Notify::new() }
    }

    pub(super) fn cut(&self, from: u64, to: u64) {
        self.lock().links.entry((from, to)).or_default().cut = true;
    }

    /// Puts one link in order.
    pub(super) fn mend(&self, from: u64, to: u64) {
        self.lock().links.remove(&(from, to));
        self.healed.notify_waiters();
    }

    pub(super) fn slow(&self, from: u64, to: u64, slow: Duration) {
        self.lock().links.entry((from, to)).or_default().slow = slow;
    }

    /// Puts every link in order.
    pub(super) fn heal(&self) {
        self.lock().links.clear();
        self.healed.notify_waiters();
    }

    /// Takes what a message takes that was sent at this time; fails if it never arrives.
    pub(super) async fn cross(&self, from: u64, to: u64, sent: Duration) -> Result<(), Broken> {
        let arrives = sent + self.delay(from, to);
        runtime::sleep(arrives.saturating_sub(runtime::since_start())).await;
        let given_up = runtime::now() + SILENCE_MAX;
        loop {
            let healed = self.healed.notified();
            if !self.is_cut(from, to) {
                return Ok(());
            }
            runtime::until(given_up, healed).await.ok_or(Broken)?;
            let again = self.lock().random.random_range(RESEND);
            runtime::sleep(again).await;
        }
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.lock().links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    fn delay(&self, from: u64, to: u64) -> Duration {
        let mut inner = self.lock();
        let slow = inner.links.get(&(from, to)).map_or(Duration::ZERO, |link| link.slow);
        let late = inner.random.random_ratio(1, LATE_ONE_IN);
        let delay = inner.random.random_range(if late { LATE } else { DELAY });
        if slow.is_zero() {
            return delay;
        }
        delay + inner.random.random_range(slow / 2..slow * 3 / 2)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds this lock")
    }
}
