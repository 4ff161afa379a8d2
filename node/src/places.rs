//! A bounded number of places for calls that wait, and for the bytes that they hold.
//!
//! Invariant: what was let in is never turned out; what is turned away learns how much is there and
//! how much may be, and a place is free again when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the head of this file; clones share the places.
#[derive(Clone)]
pub(crate) struct Places {
    limits: Limits,
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    turned_away: Arc<AtomicU64>,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// What the calls wait for, to end a sentence that begins with their number.
    pub(crate) waiting: &'static str,
    pub(crate) calls_max: usize,
    /// Bytes of all calls together; a single call takes less.
    pub(crate) bytes_max: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _call: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// There is no place left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Crowded {
    #[error("{actual} calls {waiting} already, and {allowed} may")]
    Calls { waiting: &'static str, actual: usize, allowed: usize },
    #[error(
        "calls of {actual} bytes {waiting} already, this one has {asked}, and {allowed} bytes may"
    )]
    Bytes { waiting: &'static str, actual: usize, asked: usize, allowed: usize },
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Places {
        Places {
            limits,
            calls: Arc::new(Semaphore::new(limits.calls_max)),
            bytes: Arc::new(Semaphore::new(limits.bytes_max)),
            turned_away: Arc::default(),
        }
    }

    /// Takes a place for a call of so many bytes, at once or not at all.
    pub(crate) fn take(&self, bytes: usize) -> Result<Place, Crowded> {
        self.try_take(bytes).inspect_err(|_| {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn try_take(&self, bytes: usize) -> Result<Place, Crowded> {
        let Limits { waiting, calls_max, bytes_max } = self.limits;
        let calls = Arc::clone(&self.calls).try_acquire_owned();
        let call =
            calls.map_err(|_| Crowded::Calls { waiting, actual: calls_max, allowed: calls_max })?;
        let crowded = || {
            let actual = bytes_max - self.bytes.available_permits();
            Crowded::Bytes { waiting, actual, asked: bytes, allowed: bytes_max }
        };
        let asked = u32::try_from(bytes).map_err(|_| crowded())?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(asked);
        Ok(Place { _call: call, _bytes: bytes.map_err(|_| crowded())? })
    }

    /// How many calls wait.
    pub(crate) fn taken(&self) -> usize {
        self.limits.calls_max - self.calls.available_permits()
    }

    /// How many bytes they hold.
    pub(crate) fn taken_bytes(&self) -> usize {
        self.limits.bytes_max - self.bytes.available_permits()
    }

    /// How many calls found no place since the start.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(calls_max: usize, bytes_max: usize) -> Places {
        Places::new(Limits { waiting: "wait for a test", calls_max, bytes_max })
    }

    // G9
    #[test]
    fn at_the_limit_of_calls_and_one_beyond() {
        let places = places(3, 1000);
        let mut taken: Vec<Place> = (0..3).map(|_| places.take(1).expect("below it")).collect();
        assert_eq!(places.taken(), 3);
        let crowded = places.take(1).expect_err("one beyond");
        assert_eq!(crowded.to_string(), "3 calls wait for a test already, and 3 may");
        assert_eq!(places.turned_away(), 1);
        taken.pop();
        assert!(places.take(1).is_ok(), "one has gone");
    }

    // G9
    #[test]
    fn at_the_limit_of_bytes_and_one_beyond() {
        let places = places(10, 1000);
        let most = places.take(999).expect("below it");
        let last = places.take(1).expect("at it");
        let crowded = places.take(1).expect_err("one beyond").to_string();
        let said =
            "calls of 1000 bytes wait for a test already, this one has 1, and 1000 bytes may";
        assert_eq!(crowded, said);
        assert_eq!((places.taken(), places.taken_bytes()), (2, 1000), "it left nothing behind");
        drop(last);
        assert!(places.take(2).is_err(), "a byte too many");
        drop(most);
        assert!(places.take(1000).is_ok());
        assert!(places.take(usize::MAX).is_err(), "no such number of permits");
    }
}
