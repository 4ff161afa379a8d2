//! Which states are still being read, so that the bodies they name stay for as long.
//!
//! The model: a reader of bodies pins the index of the state that it has; whoever removes a body at an
//! index waits until nobody sees a state from before it any more.
//!
//! Invariant: a pin is taken while its state is the published one, under the lock that publishing takes.
//! So once an index is published, no new pin is behind it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The pins of one node; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many pins there are of each index.
    live: Mutex<BTreeMap<u64, usize>>,
    /// The index of the state that readers get.
    published: AtomicU64,
}

/// Keeps the bodies of one state; dropping it ends that.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    index: u64,
}

impl Pins {
    /// Pins the published state, whose index this is.
    pub fn pin(&self, index: u64) -> Pin {
        *self.live().entry(index).or_default() += 1;
        Pin { pins: self.clone(), index }
    }

    /// Notes that readers get a state of this index from now on.
    pub fn publish(&self, index: u64) {
        self.0.published.store(index, Ordering::Release);
    }

    /// Whether nobody sees, or will see, a state from before this index.
    pub fn are_behind(&self, index: u64) -> bool {
        // In this order: whoever pins an earlier one has done so before this index was published.
        self.0.published.load(Ordering::Acquire) >= index
            && self.live().keys().next().is_none_or(|oldest| *oldest >= index)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut live = self.pins.live();
        if let Some(count) = live.get_mut(&self.index) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pin_sees_stays_until_it_goes() {
        let pins = Pins::default();
        pins.publish(5);
        let (early, again) = (pins.pin(5), pins.pin(5));
        assert!(pins.are_behind(5) && !pins.are_behind(6), "readers still get 5");
        pins.publish(6);
        assert!(!pins.are_behind(6), "two see 5");
        drop(early);
        assert!(!pins.are_behind(6));
        drop(again);
        assert!(pins.are_behind(6) && !pins.are_behind(7));
        let _late = pins.pin(6);
        assert!(pins.are_behind(6));
    }
}
