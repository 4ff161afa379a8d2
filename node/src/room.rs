//! Whether there is room to grow: the quota of the state, and the disks of the voters.
//!
//! The model: the leader asks here before it proposes a request that adds to the state. A refusal is
//! the leader's alone and part of no entry, so that nodes with other settings apply the same.
//! Whatever does not grow (see [`State::growth`](holdfast_machine::State::growth)) goes on: beyond
//! the quota there is memory, and below the floor there is disk, which nothing else can use up.
//!
//! Invariants:
//! - What is admitted never brings the state beyond its quota, also when all that is on its way is
//!   applied first.
//! - What begins at one value ends only at another one, so that nothing flaps at a limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

/// Once more than this part of what is left above the floor was admitted, or of the floor itself,
/// disks are looked at: somebody else may have filled them meanwhile.
const LOOK_SHARE: u64 = 64;

/// Growth for which there is no room. It was not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error(
        "the state has {actual} bytes and would have up to {asked} more, and its quota is \
         {allowed}; delete something, or raise --quota-bytes on all nodes"
    )]
    Quota { actual: u64, asked: u64, allowed: u64 },
    #[error(
        "n{node} has {actual} bytes of disk left and keeps {allowed} free; free some, or lower \
         --disk-floor-bytes"
    )]
    Disk { node: u64, actual: u64, allowed: u64 },
}

/// What one node knows of the disk that its data is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) node: u64,
    pub(crate) free_bytes: u64,
    pub(crate) floor_bytes: u64,
    /// It fell below the floor, and has not risen well above it since.
    pub(crate) is_low: bool,
}

impl Space {
    fn no_room(self) -> NoRoom {
        NoRoom::Disk { node: self.node, actual: self.free_bytes, allowed: self.floor_bytes }
    }
}

/// See the head of this file.
pub(crate) struct Room {
    quota_bytes: u64,
    floor_bytes: u64,
    /// Growth that was admitted and is not known to be applied.
    on_its_way: Arc<AtomicU64>,
    disks: Mutex<Disks>,
    /// Told when so much was admitted that disks are to be looked at before their time.
    look_soon: Notify,
    refused_quota: AtomicU64,
    refused_disk: AtomicU64,
}

#[derive(Default)]
struct Disks {
    own: Option<Space>,
    /// Growth that was admitted since then.
    admitted: u64,
    /// Why nothing may grow, while this node leads.
    no_room: Option<NoRoom>,
}

/// Growth on its way into the state, until it is dropped.
#[derive(Debug)]
pub(crate) struct Growth {
    bytes: u64,
    on_its_way: Arc<AtomicU64>,
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.on_its_way.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Room {
    pub(crate) fn new(quota_bytes: u64, floor_bytes: u64) -> Room {
        Room {
            quota_bytes,
            floor_bytes,
            on_its_way: Arc::default(),
            disks: Mutex::default(),
            look_soon: Notify::new(),
            refused_quota: AtomicU64::new(0),
            refused_disk: AtomicU64::new(0),
        }
    }

    /// Admits a request that adds so many bytes, or says why not; `state_bytes` tells how many the
    /// newest applied state has.
    pub(crate) fn admit(
        &self,
        growth: u64,
        state_bytes: impl FnOnce() -> u64,
    ) -> Result<Growth, NoRoom> {
        if growth == 0 {
            return Ok(self.growth(0));
        }
        if let Some(no_room) = self.lock().admit(growth, &self.look_soon) {
            self.refused_disk.fetch_add(1, Ordering::Relaxed);
            return Err(no_room);
        }
        // In this order: what is applied between the two looks is counted twice, not never. One
        // task admits, so nothing is added meanwhile.
        let on_its_way = self.on_its_way.load(Ordering::Acquire);
        let actual = state_bytes().saturating_add(on_its_way);
        let allowed = self.quota_bytes;
        if actual.saturating_add(growth) > allowed {
            self.refused_quota.fetch_add(1, Ordering::Relaxed);
            return Err(NoRoom::Quota { actual, asked: growth, allowed });
        }
        Ok(self.growth(growth))
    }

    fn growth(&self, bytes: u64) -> Growth {
        self.on_its_way.fetch_add(bytes, Ordering::AcqRel);
        Growth { bytes, on_its_way: Arc::clone(&self.on_its_way) }
    }

    /// Notes how much of this node's disk is free.
    pub(crate) fn note_free(&self, node: u64, free_bytes: u64) -> Space {
        let floor_bytes = self.floor_bytes;
        let mut disks = self.lock();
        let was_low = disks.own.is_some_and(|own| own.is_low);
        let is_low = is_low(was_low, free_bytes, floor_bytes);
        let own = Space { node, free_bytes, floor_bytes, is_low };
        disks.own = Some(own);
        disks.admitted = 0;
        own
    }

    /// Waits until it is time to look at disks, whatever the time.
    pub(crate) async fn look_is_due(&self) {
        self.look_soon.notified().await;
    }

    /// Decides for or against growth by the disks of the voters that answered, the own among them;
    /// none: this node does not lead.
    pub(crate) fn note_voters(&self, voters: Option<(&[Space], usize)>) {
        let own = self.space().map_or(0, |own| own.node);
        let no_room = voters.and_then(|(spaces, voters)| judge(own, spaces, voters));
        self.lock().no_room = no_room;
    }

    /// This node's disk as it was last looked at.
    pub(crate) fn space(&self) -> Option<Space> {
        self.lock().own
    }

    pub(crate) fn quota_bytes(&self) -> u64 {
        self.quota_bytes
    }

    /// How often growth was refused since the start: for the quota, and for a disk.
    pub(crate) fn refused(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.refused_quota), count(&self.refused_disk))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Disks> {
        self.disks.lock().expect("no code panics while it holds this lock")
    }
}

impl Disks {
    /// Why nothing may grow; else counts the growth. What is admitted comes to the disk several
    /// times, in log and state, so a look is due once it is a small part of what is left.
    fn admit(&mut self, growth: u64, look_soon: &Notify) -> Option<NoRoom> {
        if self.no_room.is_some() {
            return self.no_room;
        }
        self.admitted = self.admitted.saturating_add(growth);
        if let Some(own) = self.own
            && own.floor_bytes > 0
        {
            let above = own.free_bytes.saturating_sub(own.floor_bytes);
            if self.admitted > above.min(own.floor_bytes) / LOOK_SHARE {
                look_soon.notify_one();
            }
        }
        None
    }
}

/// Low below the floor, and from there on until an eighth more than the floor is free.
fn is_low(was_low: bool, free_bytes: u64, floor_bytes: u64) -> bool {
    let enough = if was_low { floor_bytes.saturating_add(floor_bytes / 8) } else { floor_bytes };
    free_bytes < enough
}

/// Nothing grows while the leader's own disk is low, nor while so many voters' are that the rest
/// is no quorum.
fn judge(own: u64, spaces: &[Space], voters: usize) -> Option<NoRoom> {
    let low: Vec<Space> = spaces.iter().copied().filter(|space| space.is_low).collect();
    if let Some(space) = low.iter().find(|space| space.node == own) {
        return Some(space.no_room());
    }
    let is_quorum_left = voters - low.len() > voters / 2;
    let lowest = low.into_iter().min_by_key(|space| space.free_bytes);
    lowest.filter(|_| !is_quorum_left).map(Space::no_room)
}

/// How the state stands against its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuotaLevel {
    /// At 80 % or above, and from there on until below 75 %.
    pub(crate) is_near: bool,
    /// Growth was refused, and from there on until nothing was refused between two looks and less
    /// than 95 % are used.
    pub(crate) is_full: bool,
}

impl QuotaLevel {
    pub(crate) fn next(self, used: u64, quota: u64, was_refused: bool) -> QuotaLevel {
        let is_above = |percent| u128::from(used) * 100 >= u128::from(quota) * percent;
        QuotaLevel {
            is_near: is_above(if self.is_near { 75 } else { 80 }),
            is_full: was_refused || (self.is_full && is_above(95)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(node: u64, is_low: bool) -> Space {
        Space { node, free_bytes: node, floor_bytes: 100, is_low }
    }

    // G9
    #[test]
    fn at_the_quota_and_one_byte_beyond() {
        let room = Room::new(1000, 0);
        let first = room.admit(300, || 600).expect("below it");
        let last = room.admit(100, || 600).expect("at it");
        let refused = room.admit(1, || 600).expect_err("one byte beyond");
        assert_eq!(refused, NoRoom::Quota { actual: 1000, asked: 1, allowed: 1000 });
        assert!(refused.to_string().starts_with(
            "the state has 1000 bytes and would have up to 1 more, and its quota is 1000;"
        ));
        assert!(room.admit(0, || 5000).is_ok(), "what does not grow goes on");
        drop(last);
        assert!(room.admit(101, || 600).is_err(), "the first is still on its way");
        drop(first);
        assert!(room.admit(400, || 600).is_ok());
        assert_eq!(room.refused(), (2, 0));
    }

    // G9
    #[test]
    fn a_disk_is_low_below_its_floor_until_well_above_it() {
        let room = Room::new(1000, 800);
        for (free, is_low) in
            [(801, false), (800, false), (799, true), (800, true), (899, true), (900, false)]
        {
            assert_eq!(room.note_free(1, free).is_low, is_low, "{free}");
        }
        assert!(room.note_free(1, 0).is_low);
        assert!(!Room::new(1000, 0).note_free(1, 0).is_low, "no floor");
    }

    // G9
    #[test]
    fn nothing_grows_while_the_leader_or_half_of_the_voters_are_low() {
        let judged = |low: &[u64], voters: u64| {
            let spaces: Vec<Space> = (1..=voters).map(|n| space(n, low.contains(&n))).collect();
            judge(1, &spaces, spaces.len()).is_some()
        };
        assert!(!judged(&[], 3));
        assert!(judged(&[1], 3), "the leader itself");
        assert!(!judged(&[3], 3), "the other two are a quorum");
        assert!(judged(&[2, 3], 3));
        assert!(judged(&[2], 2), "both are needed");
        assert!(!judged(&[4, 5], 5));
        assert!(judged(&[3, 4, 5], 5));
        let unheard = [space(1, false), space(2, true)];
        assert_eq!(judge(1, &unheard, 3), None, "one that says nothing is not counted as low");
    }

    // G9
    #[test]
    fn growth_is_refused_for_a_disk_until_there_is_room() {
        let room = Room::new(1000, 800);
        let own = room.note_free(1, 5);
        room.note_voters(Some((&[own], 1)));
        let refused = room.admit(1, || 0).expect_err("its disk is low");
        assert_eq!(refused, NoRoom::Disk { node: 1, actual: 5, allowed: 800 });
        assert!(room.admit(0, || 0).is_ok(), "what does not grow goes on");
        let own = room.note_free(1, 900);
        room.note_voters(Some((&[own], 1)));
        assert!(room.admit(1, || 0).is_ok());
        assert_eq!(room.refused(), (0, 1));
    }

    // G9
    #[test]
    fn a_look_is_due_once_a_part_of_what_is_left_was_admitted() {
        use futures::FutureExt as _;
        let room = Room::new(u64::MAX, 1000 * LOOK_SHARE);
        let is_due = || room.look_is_due().now_or_never().is_some();
        let nearly_full = 1010 * LOOK_SHARE;
        room.note_free(1, nearly_full);
        assert!(room.admit(10, || 0).is_ok());
        assert!(!is_due());
        assert!(room.admit(1, || 0).is_ok());
        assert!(is_due());
        room.note_free(1, nearly_full);
        assert!(room.admit(0, || 0).is_ok() && room.admit(10, || 0).is_ok());
        assert!(!is_due(), "it was looked at meanwhile");
        room.note_free(1, u64::MAX);
        assert!(room.admit(1000, || 0).is_ok());
        assert!(!is_due());
        assert!(room.admit(1, || 0).is_ok());
        assert!(is_due(), "much is left, or was when somebody looked");
    }

    // G9
    #[test]
    fn alarms_of_the_quota_do_not_flap() {
        let mut level = QuotaLevel::default();
        for (used, refused, near, full) in [
            (799, false, false, false),
            (800, false, true, false),
            (750, false, true, false),
            (749, false, false, false),
            (990, true, true, true),
            (950, false, true, true),
            (949, true, true, true),
            (949, false, true, false),
        ] {
            level = level.next(used, 1000, refused);
            assert_eq!(level, QuotaLevel { is_near: near, is_full: full }, "{used}");
        }
    }
}
