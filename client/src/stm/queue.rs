//! Transactions of one program that touch the same variables go one after the other.
//!
//! The model: a variable has a place in which several that only read it may stand, or one that writes it. A
//! transaction takes the places of all that it touched, in order of their keys, so that no two wait for each
//! other; and first come, first served. What a run touches is known when it has ended; but if somebody stands
//! in the place of the first variable that it reads, it stands in line there before it reads.
//!
//! This is for speed alone. Whether a transaction is applied is for the cluster to decide; so one that has
//! waited for long goes on without its places.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::key::Key;

/// Longest wait for places: some round trips of those in front. A transaction that runs another one inside it
/// would wait for itself.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A variable: namespace and key.
type Name = (Arc<str>, Key);

/// How a transaction touches a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touch {
    Reads,
    Writes,
}

/// What a transaction touches.
pub(super) type Footprint = BTreeMap<Key, Touch>;

/// The places of all variables that somebody stands in.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    // A std lock: held to look up or forget a few places, never across an await.
    places: Mutex<HashMap<Name, Arc<RwLock<()>>>>,
}

/// The places of one transaction. Dropping it gives them up.
#[derive(Debug)]
pub(super) struct Turn {
    queue: Arc<Queue>,
    held: Vec<(Name, Touch, Held)>,
    /// Whether somebody else stood in one of them before.
    pub(super) has_waited: bool,
}

#[derive(Debug)]
enum Held {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

impl Queue {
    /// Takes the places of a transaction; none if that takes too long.
    pub(super) async fn take(
        self: &Arc<Queue>,
        namespace: &Arc<str>,
        footprint: &Footprint,
    ) -> Option<Turn> {
        let mut turn = Turn { queue: self.clone(), held: Vec::new(), has_waited: false };
        let taking = async {
            for (key, touch) in footprint {
                let name = (namespace.clone(), key.clone());
                let held = match turn.queue.take_now(&name, *touch) {
                    Ok(held) => held,
                    Err(place) => {
                        turn.has_waited = true;
                        match touch {
                            Touch::Reads => Held::Shared { _guard: place.read_owned().await },
                            Touch::Writes => Held::Alone { _guard: place.write_owned().await },
                        }
                    }
                };
                turn.held.push((name, *touch, held));
            }
            turn
        };
        tokio::time::timeout(WAIT_MAX, taking).await.ok()
    }

    /// If somebody writes this variable, or is about to, stands in line and takes its place to write it, too.
    pub(super) async fn join(self: &Arc<Queue>, namespace: &Arc<str>, key: &Key) -> Option<Turn> {
        let place = self.lock().get(&(namespace.clone(), key.clone())).cloned();
        if place.is_none_or(|place| place.try_read().is_ok()) {
            return None;
        }
        let alone = Footprint::from([(key.clone(), Touch::Writes)]);
        self.take(namespace, &alone).await
    }

    /// A place, if nobody stands in the way.
    fn take_now(&self, name: &Name, touch: Touch) -> Result<Held, Arc<RwLock<()>>> {
        let place = self.lock().entry(name.clone()).or_default().clone();
        let held = match touch {
            Touch::Reads => place.clone().try_read_owned().map(|_guard| Held::Shared { _guard }),
            Touch::Writes => place.clone().try_write_owned().map(|_guard| Held::Alone { _guard }),
        };
        held.map_err(|_| place)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Arc<RwLock<()>>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether it has all places that this needs.
    pub(super) fn covers(&self, footprint: &Footprint) -> bool {
        footprint.iter().all(|(key, touch)| {
            self.held
                .binary_search_by(|((_, held), ..)| held.cmp(key))
                .is_ok_and(|at| self.held[at].1 >= *touch)
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let names: Vec<Name> = self.held.drain(..).map(|(name, ..)| name).collect();
        let mut places = self.queue.lock();
        for name in names {
            // Whoever else stands or waits there has it too.
            if places.get(&name).is_some_and(|place| Arc::strong_count(place) == 1) {
                places.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(touches: &[(i32, Touch)]) -> Footprint {
        touches.iter().map(|(n, touch)| (Key::new(*n).expect("a key"), *touch)).collect()
    }

    async fn take(queue: &Arc<Queue>, touches: &[(i32, Touch)]) -> Option<Turn> {
        queue.take(&Arc::from("default"), &footprint(touches)).await
    }

    #[tokio::test]
    async fn readers_share_a_place_and_writers_do_not() {
        let queue = Arc::new(Queue::default());
        let one = take(&queue, &[(1, Touch::Reads), (2, Touch::Writes)]).await.expect("free");
        let two = take(&queue, &[(1, Touch::Reads), (3, Touch::Writes)]).await.expect("shared");
        assert!(!one.has_waited && !two.has_waited);
        assert!(one.covers(&footprint(&[(1, Touch::Reads), (2, Touch::Reads)])));
        assert!(!one.covers(&footprint(&[(1, Touch::Writes)])));
        assert!(!one.covers(&footprint(&[(3, Touch::Reads)])));

        let mut writer = Box::pin(take(&queue, &[(1, Touch::Writes)]));
        assert!(futures::poll!(&mut writer).is_pending());
        drop(one);
        assert!(futures::poll!(&mut writer).is_pending());
        drop(two);
        let writer = writer.await.expect("its turn");
        assert!(writer.has_waited);
        // Other namespaces have other variables.
        let other = queue.take(&Arc::from("other"), &footprint(&[(1, Touch::Writes)])).await;
        assert!(!other.expect("free").has_waited);
        drop(writer);
        assert!(queue.lock().is_empty(), "places that nobody needs are forgotten");
    }

    #[tokio::test]
    async fn whoever_finds_a_writer_stands_in_line() {
        let queue = Arc::new(Queue::default());
        let (namespace, key) = (Arc::from("default"), Key::new(1).expect("a key"));
        assert!(queue.join(&namespace, &key).await.is_none(), "nobody is there");
        let reader = take(&queue, &[(1, Touch::Reads)]).await;
        assert!(queue.join(&namespace, &key).await.is_none(), "nobody writes");
        drop(reader);
        let writer = take(&queue, &[(1, Touch::Writes)]).await;
        let mut joining = Box::pin(queue.join(&namespace, &key));
        assert!(futures::poll!(&mut joining).is_pending());
        drop(writer);
        let turn = joining.await.expect("its turn");
        assert!(turn.covers(&footprint(&[(1, Touch::Writes)])));
        drop(turn);
        assert!(queue.lock().is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_for_long_goes_on_without() {
        let queue = Arc::new(Queue::default());
        let first = take(&queue, &[(1, Touch::Writes)]).await;
        assert!(take(&queue, &[(0, Touch::Writes), (1, Touch::Reads)]).await.is_none());
        drop(first);
        assert!(queue.lock().is_empty());
    }
}
