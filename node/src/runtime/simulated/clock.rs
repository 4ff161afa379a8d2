//! Clocks that run fast or slow, and the instants they show.
//!
//! Invariant: what waits for an instant of a clock wakes when that clock shows it, never earlier.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use super::{Host, since_start};

/// What a clock shows when it begins to run, in nanoseconds: a day, so that a time-out can be
/// subtracted from it.
const BEGIN_NANOS: u64 = 86_400 * 1_000_000_000;
/// The rate of a clock that is right.
pub(crate) const RIGHT: u64 = 1_000_000;

/// A monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When it began to run, in nanoseconds since the start of the simulation.
    began: u64,
    /// How many microseconds it counts in a second.
    rate: u64,
}

impl Clock {
    /// One that begins now.
    pub(crate) fn start(rate: u64) -> Clock {
        Clock { began: nanos(since_start()), rate }
    }

    /// That of the present host, or of the simulation outside of any.
    pub(crate) fn current() -> Clock {
        Host::current().map_or(Clock { began: 0, rate: RIGHT }, |host| host.clock())
    }

    pub(crate) fn now(self) -> Instant {
        let true_nanos = u128::from(nanos(since_start()) - self.began);
        let shown = true_nanos * u128::from(self.rate) / u128::from(RIGHT);
        Instant(BEGIN_NANOS + u64::try_from(shown).expect("a simulation lasts less than 500 years"))
    }

    /// How long it takes until the clock has counted this much.
    pub(super) fn to_pass(self, duration: Duration) -> Duration {
        self.until(self.now() + duration)
    }

    /// How long it takes until the clock shows this.
    pub(super) fn until(self, deadline: Instant) -> Duration {
        let shown = u128::from(deadline.0.saturating_sub(BEGIN_NANOS));
        let true_nanos = (shown * u128::from(RIGHT)).div_ceil(u128::from(self.rate));
        let at = u64::try_from(true_nanos).unwrap_or(u64::MAX / 4).saturating_add(self.began);
        Duration::from_nanos(at.saturating_sub(nanos(since_start())))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// What a host's clock shows, in nanoseconds. Those of different hosts have nothing to do with each
/// other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(u64);

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0.saturating_sub(BEGIN_NANOS)))
    }
}

impl Instant {
    pub(crate) fn elapsed(&self) -> Duration {
        openraft::Instant::elapsed(self)
    }

    pub(crate) fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        *self - earlier
    }
}

impl openraft::Instant for Instant {
    fn now() -> Instant {
        Clock::current().now()
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.checked_sub(nanos(duration)).expect("a clock begins at a day"))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// Zero if the other is later, as in tokio.
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
