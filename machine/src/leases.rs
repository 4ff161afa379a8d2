//! The rows of leases, and the order in which they lapse.
//!
//! # Model
//!
//! A lease belongs to one master ([`masters`](crate::masters)) and lives until the cluster clock reaches its
//! deadline; a renewal sets the deadline anew, and has a number. A lease with a *grace* can be shrunk: by the number
//! of its last renewal its deadline moves up to the grace from then. An index orders leases by deadline.
//!
//! # Invariants
//!
//! - Each lease has exactly one row in the index, at its deadline.
//! - A lease whose deadline is not above the clock has lapsed, whether or not its rows are still there.
//! - Ids are revisions: they rise and are never given again, so a late renewal revives nothing.
//! - Only a renewal moves a deadline on; whoever shrinks a lease does not know of a later renewal, or does nothing.
//!   A renewal moves it back only if its holder asks for the grace alone.

use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::fault::Fault;
use crate::machine::Stop;
#[cfg(feature = "plant")]
use crate::plant::{self, Plant};
use crate::table::{Table, Txn, Value, View};

/// Leases by id.
const LEASES: Table<u64, Lease> = Table::new(0x32, "lease");
/// Leases by deadline and id.
const DEADLINES: Table<(u64, u64), ()> = Table::new(0x33, "lease deadline");

/// A lease. A renewal changes the last three fields, and shrinking it the deadline; the others never change.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Where its master is.
    pub(crate) namespace: String,
    /// The master that it makes active.
    pub(crate) master: i64,
    /// Who may open another one while it lives.
    pub(crate) instance: Instance,
    /// How long it lives without a renewal.
    pub(crate) ttl_ms: u64,
    /// How long it lives at most once its holder's connection has broken; 0 if that means nothing to it.
    pub(crate) grace_ms: u64,
    /// The number of its last renewal; 0 as it was opened. Whether it can be shrunk depends on it.
    pub(crate) renewal: u64,
    /// The cluster clock at which it has lapsed. Claims depend on it.
    pub(crate) deadline_ms: u64,
    /// When it was last renewed; wall clock, for display only.
    pub(crate) renewed_wall_ms: u64,
}

impl Value for Lease {
    const VERSION: u8 = 1;
    type At<'a> = Lease;
}

/// The hash of the secret of one running installation.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance(pub(crate) [u8; 32]);

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Lease {
    /// How long it has to run; 0 once it has lapsed.
    pub(crate) fn remaining_ms(&self, clock_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(clock_ms)
    }

    pub(crate) fn has_lapsed(&self, clock_ms: u64) -> bool {
        #[cfg(feature = "plant")]
        if plant::is(Plant::ExpireByPresence) {
            return false;
        }
        self.deadline_ms <= clock_ms
    }
}

/// Opens a lease; its id is the revision of this step, and its time is counted from here.
pub(crate) fn open(
    txn: &mut Txn<'_>,
    namespace: &str,
    master: i64,
    instance: Instance,
    (ttl_ms, grace_ms): (u64, u64),
) -> Result<u64, Fault> {
    let (id, namespace, renewal) = (txn.revision, namespace.to_owned(), 0);
    let (deadline_ms, renewed_wall_ms) = (txn.clock_ms.saturating_add(ttl_ms), txn.wall_ms);
    let lease = Lease {
        namespace,
        master,
        instance,
        ttl_ms,
        grace_ms,
        renewal,
        deadline_ms,
        renewed_wall_ms,
    };
    put(txn, id, &lease)?;
    Ok(id)
}

/// Gives a lease this time from here, whatever it had; gives the renewal's number.
pub(crate) fn renew(txn: &mut Txn<'_>, id: u64, lease: Lease, time_ms: u64) -> Result<u64, Fault> {
    DEADLINES.delete(txn, (lease.deadline_ms, id));
    let (deadline_ms, renewed_wall_ms) = (txn.clock_ms.saturating_add(time_ms), txn.wall_ms);
    let renewal = lease.renewal.saturating_add(1);
    put(txn, id, &Lease { renewal, deadline_ms, renewed_wall_ms, ..lease })?;
    Ok(renewal)
}

/// Leaves a lease no more than its grace from here; gives what it has left.
pub(crate) fn shrink(txn: &mut Txn<'_>, id: u64, lease: Lease) -> Result<u64, Fault> {
    DEADLINES.delete(txn, (lease.deadline_ms, id));
    let grace_end_ms = txn.clock_ms.saturating_add(lease.grace_ms);
    let lease = Lease { deadline_ms: lease.deadline_ms.min(grace_end_ms), ..lease };
    put(txn, id, &lease)?;
    Ok(lease.remaining_ms(txn.clock_ms))
}

fn put(txn: &mut Txn<'_>, id: u64, lease: &Lease) -> Result<(), Fault> {
    DEADLINES.put(txn, (lease.deadline_ms, id), &())?;
    LEASES.put(txn, id, lease)
}

/// Removes a lease's rows.
pub(crate) fn remove(txn: &mut Txn<'_>, id: u64, lease: &Lease) {
    DEADLINES.delete(txn, (lease.deadline_ms, id));
    LEASES.delete(txn, id);
}

/// A lease that must have its rows, because another row names it; lapsed or not.
pub(crate) fn named(view: View<'_>, id: u64) -> Result<Lease, Fault> {
    LEASES.get(view, id)?.ok_or(Fault::Contradiction { what: "a lease without its row", id })
}

/// A lease of this namespace that lives; refused otherwise.
pub(crate) fn live(view: View<'_>, namespace: &str, id: u64) -> Result<Lease, Stop> {
    match LEASES.get(view, id)? {
        Some(lease) if !lease.has_lapsed(view.clock_ms) && lease.namespace == namespace => {
            Ok(lease)
        }
        Some(_) | None => Err(Refusal::LeaseLost { lease: id }.into()),
    }
}

/// The earliest deadline of all leases that still have their rows, and whose it is.
pub(crate) fn first_deadline(view: View<'_>) -> Result<Option<(u64, u64)>, Fault> {
    let first = DEADLINES.scan_all(view).next().transpose()?;
    Ok(first.map(|(key, ())| key))
}

/// How many leases live, in all namespaces.
pub(crate) fn live_count(view: View<'_>) -> Result<u64, Fault> {
    let mut live = 0;
    for row in DEADLINES.scan_all(view) {
        let ((deadline_ms, _), ()) = row?;
        live += u64::from(deadline_ms > view.clock_ms);
    }
    Ok(live)
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    LEASES.describe(key, value).or_else(|| DEADLINES.describe(key, value))
}

/// Appends what does not hold of this file's invariants; says how many leases there are.
pub(crate) fn audit(view: View<'_>, broken: &mut Vec<String>) -> Result<usize, Fault> {
    let mut leases = 0;
    for row in LEASES.scan_all(view) {
        let (id, lease) = row?;
        leases += 1;
        if !DEADLINES.contains(view, (lease.deadline_ms, id)) {
            broken.push(format!("lease {id} has no deadline"));
        }
    }
    if leases != DEADLINES.scan_all(view).count() {
        broken.push(format!("{leases} leases have more deadlines"));
    }
    Ok(leases)
}
