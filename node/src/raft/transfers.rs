//! Snapshots on their way from this node to others, and what of the log they still need.
//!
//! A node that takes in a snapshot goes on from the entry behind it. While it is busy the others
//! write, take snapshots and purge; without a hold on the log it would find that entry gone and
//! need the next snapshot, for ever if writes are fast enough (N3).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::runtime::{self, Instant};

/// For how long the log is held for one node, from the beginning of its transfer. Longer than a
/// transfer of the largest state takes; a node that is slower than that must not fill the disk.
const HOLD_MAX: Duration = Duration::from_secs(600);

/// The transfers of one node.
#[derive(Clone, Default)]
pub(crate) struct Transfers(Arc<Mutex<BTreeMap<u64, Transfer>>>);

#[derive(Clone, Copy)]
struct Transfer {
    /// The last index that the snapshot stands for.
    index: u64,
    began: Instant,
    under_way: bool,
}

/// One transfer; dropping it ends the transfer, successful or not, but not yet its hold.
pub(crate) struct UnderWay {
    transfers: Transfers,
    node: u64,
}

impl Transfers {
    /// Notes that a snapshot up to `index` goes to `node` from now on.
    pub(crate) fn begin(&self, node: u64, index: u64) -> UnderWay {
        let transfer = Transfer { index, began: runtime::now(), under_way: true };
        self.lock().insert(node, transfer);
        UnderWay { transfers: self.clone(), node }
    }

    /// The index behind which every entry is still needed, if any is.
    ///
    /// `matched` says up to which index each of the other nodes holds the log, and `purgeable` what
    /// may go if nobody needs it: a node that has reached that needs no hold any more.
    pub(crate) fn hold(
        &self,
        now: Instant,
        matched: &BTreeMap<u64, Option<u64>>,
        purgeable: u64,
    ) -> Option<u64> {
        let mut transfers = self.lock();
        transfers.retain(|node, transfer| {
            let Some(matched) = matched.get(node) else { return false };
            let has_ended = now.saturating_duration_since(transfer.began) > HOLD_MAX;
            if has_ended {
                tracing::warn!("n{node} has not caught up in {HOLD_MAX:?}; the log is not kept");
            }
            let has_caught_up = matched.is_some_and(|index| index >= purgeable);
            !has_ended && (transfer.under_way || !has_caught_up)
        });
        let needed = |(node, transfer): (&u64, &Transfer)| {
            transfer.index.max(matched.get(node).copied().flatten().unwrap_or(0))
        };
        transfers.iter().map(needed).min()
    }

    /// Forgets all holds: this node does not lead any more.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Transfer>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(transfer) = self.transfers.lock().get_mut(&self.node) {
            transfer.under_way = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: u64 = 4;

    fn matched(index: Option<u64>) -> BTreeMap<u64, Option<u64>> {
        BTreeMap::from([(2, Some(900)), (NEW, index)])
    }

    // N3
    #[test]
    fn the_log_is_held_from_the_snapshot_on_until_its_receiver_has_caught_up() {
        let (transfers, now) = (Transfers::default(), runtime::now());
        let hold = |index| transfers.hold(now, &matched(index), 500);
        assert_eq!(hold(None), None);
        let transfer = transfers.begin(NEW, 100);
        assert_eq!(hold(None), Some(100));
        // Sent, and taken in: now it fetches what came since.
        drop(transfer);
        assert_eq!(hold(None), Some(100));
        assert_eq!(hold(Some(300)), Some(300));
        assert_eq!(hold(Some(499)), Some(499));
        assert_eq!(hold(Some(500)), None);
        assert_eq!(hold(None), None, "and it stays forgotten");
    }

    // N3
    #[test]
    fn the_slowest_of_several_counts_and_who_has_left_does_not() {
        let (transfers, now) = (Transfers::default(), runtime::now());
        let (_first, _second) = (transfers.begin(2, 200), transfers.begin(NEW, 100));
        assert_eq!(transfers.hold(now, &matched(Some(150)), 500), Some(150));
        assert_eq!(transfers.hold(now, &BTreeMap::from([(2, None)]), 500), Some(200));
        transfers.clear();
        assert_eq!(transfers.hold(now, &matched(None), 500), None);
    }

    // N3 G9
    #[test]
    fn a_hold_has_an_end() {
        let transfers = Transfers::default();
        let _transfer = transfers.begin(NEW, 100);
        let begun = transfers.lock()[&NEW].began;
        assert_eq!(transfers.hold(begun + HOLD_MAX, &matched(None), 500), Some(100));
        let beyond = begun + HOLD_MAX + Duration::from_millis(1);
        assert_eq!(transfers.hold(beyond, &matched(None), 500), None);
    }
}
