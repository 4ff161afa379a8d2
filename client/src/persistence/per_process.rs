//! What must not be shared over a fork.

use std::process;
use std::sync::OnceLock;

/// A value for each process: a child that inherits it by a fork gets one of its own at its first use.
///
/// A fork copies the memory of one thread only, so that a lock which another one held stays locked in the
/// child for good. So there is none here: values of earlier processes stay where they are, and a new one is
/// put behind them.
#[derive(Debug)]
pub(super) struct PerProcess<T> {
    first: OnceLock<Box<Link<T>>>,
}

#[derive(Debug)]
struct Link<T> {
    process: u32,
    value: T,
    next: OnceLock<Box<Link<T>>>,
}

impl<T> PerProcess<T> {
    pub(super) const fn new() -> PerProcess<T> {
        PerProcess { first: OnceLock::new() }
    }

    /// This process's value.
    pub(super) fn get(&self, make: impl Fn() -> T) -> &T {
        self.of(process::id(), make)
    }

    fn of(&self, process: u32, make: impl Fn() -> T) -> &T {
        let mut place = &self.first;
        loop {
            let new = || Box::new(Link { process, value: make(), next: OnceLock::new() });
            let link = place.get_or_init(new);
            // Only the last one can be ours: those before it are of processes that we descend from.
            if link.process == process && link.next.get().is_none() {
                return &link.value;
            }
            place = &link.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    // P4 P1: what a parent has is never used by its child.
    #[test]
    fn each_process_has_its_own() {
        let per_process = PerProcess::new();
        let made = AtomicU32::new(0);
        let make = || made.fetch_add(1, Ordering::Relaxed);
        assert_eq!((*per_process.of(10, make), *per_process.of(10, make)), (0, 0));
        assert_eq!((*per_process.of(11, make), *per_process.of(11, make)), (1, 1));
        // A grandchild may be given the number of a process that is gone.
        assert_eq!((*per_process.of(10, make), *per_process.of(10, make)), (2, 2));
    }
}
