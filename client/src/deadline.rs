//! When a call must be over.

use std::time::Duration;

use tokio::time::Instant;

use crate::boottime::BootTime;
use crate::config::CALL_TIMEOUT_MAX;

/// Longest sleep before the clock that runs through suspend is looked at again.
const TICK: Duration = Duration::from_secs(1);

/// The end of a call, on tokio's clock (for its timers) and on CLOCK_BOOTTIME (so that a call that
/// slept through a suspend sends nothing afterwards).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    timer: Instant,
    boot: BootTime,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Deadline {
        let timeout = timeout.min(CALL_TIMEOUT_MAX);
        Deadline { timer: Instant::now() + timeout, boot: BootTime::now() + timeout }
    }

    /// The earlier of this deadline and `timeout` from now.
    pub(crate) fn at_most(self, timeout: Duration) -> Deadline {
        let other = Deadline::after(timeout);
        Deadline { timer: self.timer.min(other.timer), boot: self.boot.min(other.boot) }
    }

    /// What is left, zero once the deadline has passed on either clock.
    pub(crate) fn remaining(self) -> Duration {
        let timer = self.timer.saturating_duration_since(Instant::now());
        timer.min(self.boot.since(BootTime::now()))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits until the deadline has passed on either clock.
    pub(crate) async fn reached(self) {
        loop {
            let remaining = self.remaining();
            if remaining.is_zero() {
                return;
            }
            tokio::time::sleep(remaining.min(TICK)).await;
        }
    }
}
