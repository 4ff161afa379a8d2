//! Time that also runs while the machine is suspended.
//!
//! Leases and sessions end by the cluster's clock, which does not stop when a laptop lid closes.
//! `std::time::Instant` and tokio's timers read CLOCK_MONOTONIC, which on Linux stands still in
//! suspend (`clock_gettime(2)`); everything here reads CLOCK_BOOTTIME instead. Timers of this crate
//! are tokio's, so they may fire late by the length of a suspend: whoever wakes compares
//! [`BootTime::now`] with its deadline first, and sleeps in short steps.

use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

// Elsewhere CLOCK_MONOTONIC is the nearest thing; on macOS it runs through sleep.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment on CLOCK_BOOTTIME: the time since the machine started, suspend included. It means
/// nothing on another machine or after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// The present moment.
    #[must_use]
    pub fn now() -> BootTime {
        let now = clock_gettime(CLOCK);
        let seconds = u64::try_from(now.tv_sec).expect("time since boot is not negative");
        let nanos = u32::try_from(now.tv_nsec).expect("nanoseconds stay below a second");
        BootTime(Duration::new(seconds, nanos))
    }

    /// Time from `earlier` to this moment; zero if that is the later one.
    #[must_use]
    pub fn since(self, earlier: BootTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Time between the machine's start and this moment.
    #[must_use]
    pub fn since_boot(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, span: Duration) -> BootTime {
        BootTime(self.0.saturating_add(span))
    }
}
