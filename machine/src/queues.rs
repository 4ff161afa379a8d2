//! Queues for change sources: whoever waits for one gets it in the order in which they came.
//!
//! # Model
//!
//! A place in a queue is a lease that waits for a change source, with a ticket: the revision at which it
//! joined. When a change source becomes free and somebody waits for it, it is noted as freed; a step of its
//! own then grants it to the first whose lease lives, with a revision, and so a fence, of its own. A group of
//! change sources (`groups.rs`) has one queue; here it goes by the id of its head.
//!
//! # Invariants
//!
//! - A lease has at most one place for each change source; a place goes with its lease.
//! - A change source is noted as freed exactly while it is free and has a queue.
//! - Nobody overtakes: before a command touches a freed change source, its queue is served.
//!
//! # What it leaves out
//!
//! Telling the one who waited: that is an event like any other grant.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::limits::{PLACES_PER_LEASE_MAX, WAITERS_PER_SOURCE_MAX};
use crate::machine::Stop;
use crate::table::{Table, Txn, Value, View};
use crate::{Refusal, leases};

/// Places by namespace, change source and ticket.
const QUEUES: Table<(String, i64, u64), Place> = Table::new(0x43, "place");
/// Tickets by lease and change source.
const TICKETS: Table<(u64, i64), u64> = Table::new(0x44, "ticket");
/// Change sources that are free and waited for, by namespace and id.
const FREED: Table<(String, i64), ()> = Table::new(0x45, "freed");

/// A place in a queue. Never changes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    lease: u64,
}

impl Value for Place {
    const VERSION: u8 = 1;
    type At<'a> = Place;
}

/// Puts a lease into a queue, behind all others; it stays where it is if it waits already. Says how many
/// are ahead of it.
pub(crate) fn join(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    lease: u64,
) -> Result<u64, Stop> {
    let queue: Vec<u64> = QUEUES
        .keys(txn.view(), (namespace, changesource))
        .map(|key| key.map(|(_, _, ticket)| ticket))
        .collect::<Result<_, _>>()?;
    if let Some(ticket) = TICKETS.get(txn.view(), (lease, changesource))? {
        return Ok(queue.iter().filter(|other| **other < ticket).count() as u64);
    }
    let actual = queue.len() as u64;
    if actual >= WAITERS_PER_SOURCE_MAX {
        let allowed = WAITERS_PER_SOURCE_MAX;
        return Err(Refusal::TooManyWaiters { changesource, actual, allowed }.into());
    }
    let places = TICKETS.keys(txn.view(), lease).count() as u64;
    if places >= PLACES_PER_LEASE_MAX {
        let (actual, allowed) = (places, PLACES_PER_LEASE_MAX);
        return Err(Refusal::TooManyPlaces { lease, actual, allowed }.into());
    }
    let ticket = txn.revision;
    QUEUES.put(txn, (namespace, changesource, ticket), &Place { lease })?;
    TICKETS.put(txn, (lease, changesource), &ticket)?;
    Ok(actual)
}

/// Takes a lease out of a queue; false if it does not wait there.
pub(crate) fn leave(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    lease: u64,
) -> Result<bool, Fault> {
    let Some(ticket) = TICKETS.get(txn.view(), (lease, changesource))? else {
        return Ok(false);
    };
    if !QUEUES.contains(txn.view(), (namespace, changesource, ticket)) {
        // It waits for what has this id in another namespace, by an import.
        return Ok(false);
    }
    TICKETS.delete(txn, (lease, changesource));
    QUEUES.delete(txn, (namespace, changesource, ticket));
    if first(txn.view(), namespace, changesource)?.is_none() {
        FREED.delete(txn, (namespace, changesource));
    }
    Ok(true)
}

/// Takes a lease that ends out of all queues.
pub(crate) fn leave_all(txn: &mut Txn<'_>, namespace: &str, lease: u64) -> Result<(), Fault> {
    let sources: Vec<i64> = TICKETS
        .keys(txn.view(), lease)
        .map(|key| key.map(|(_, changesource)| changesource))
        .collect::<Result<_, _>>()?;
    for changesource in sources {
        leave(txn, namespace, changesource, lease)?;
    }
    Ok(())
}

/// Notes that a change source has become free.
pub(crate) fn note_freed(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
) -> Result<(), Fault> {
    if first(txn.view(), namespace, changesource)?.is_some() {
        FREED.put(txn, (namespace, changesource), &())?;
    }
    Ok(())
}

/// Whether a change source is free and waited for.
pub(crate) fn is_freed(view: View<'_>, namespace: &str, changesource: i64) -> bool {
    FREED.contains(view, (namespace, changesource))
}

/// A change source that is free and waited for.
pub(crate) fn first_freed(view: View<'_>) -> Result<Option<(String, i64)>, Fault> {
    let first = FREED.scan_all(view).next().transpose()?;
    Ok(first.map(|(key, ())| key))
}

/// Takes the first whose lease lives out of a freed change source's queue, and those before it.
pub(crate) fn take_first(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
) -> Result<Option<u64>, Fault> {
    while let Some((ticket, lease)) = first(txn.view(), namespace, changesource)? {
        QUEUES.delete(txn, (namespace, changesource, ticket));
        TICKETS.delete(txn, (lease, changesource));
        match leases::live(txn.view(), namespace, lease) {
            Ok(_) => return Ok(Some(lease)),
            // Its rows are still there: it is over all the same.
            Err(Stop::Refused(_)) => {}
            Err(Stop::Fault(fault)) => return Err(fault),
        }
    }
    Ok(None)
}

/// Notes that a change source is owned again, or that nobody waits for it any more.
pub(crate) fn note_served(txn: &mut Txn<'_>, namespace: &str, changesource: i64) {
    FREED.delete(txn, (namespace, changesource));
}

fn first(view: View<'_>, namespace: &str, changesource: i64) -> Result<Option<(u64, u64)>, Fault> {
    let first = QUEUES.scan(view, (namespace, changesource)).next().transpose()?;
    Ok(first.map(|((_, _, ticket), place)| (ticket, place.lease)))
}

/// The leases that live and wait for a change source, in the order in which they will get it.
pub(crate) fn waiting(
    view: View<'_>,
    namespace: &str,
    changesource: i64,
) -> Result<Vec<u64>, Fault> {
    let mut waiting = Vec::new();
    for row in QUEUES.scan(view, (namespace, changesource)) {
        let (_, Place { lease }) = row?;
        match leases::live(view, namespace, lease) {
            Ok(_) => waiting.push(lease),
            Err(Stop::Refused(_)) => {}
            Err(Stop::Fault(fault)) => return Err(fault),
        }
    }
    Ok(waiting)
}

/// How many places there are in all queues, those of leases that have just lapsed among them.
pub(crate) fn places(view: View<'_>) -> u64 {
    QUEUES.rows(view)
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    let of_queue = QUEUES.describe(key, value);
    of_queue.or_else(|| TICKETS.describe(key, value)).or_else(|| FREED.describe(key, value))
}

/// Appends what does not hold of this file's invariants. `is_free` says so of a change source; None if there can
/// be no queue for it, because it is not the head of its group.
pub(crate) fn audit(
    view: View<'_>,
    is_free: impl Fn(&str, i64) -> Result<Option<bool>, Fault>,
    broken: &mut Vec<String>,
) -> Result<(), Fault> {
    let mut places = 0;
    for row in QUEUES.scan_all(view) {
        let ((namespace, changesource, ticket), Place { lease }) = row?;
        places += 1;
        if TICKETS.get(view, (lease, changesource))? != Some(ticket) {
            broken.push(format!("lease {lease} does not know that it waits for {changesource}"));
        }
        if leases::named(view, lease)?.namespace != namespace {
            broken.push(format!("lease {lease} waits in {namespace}"));
        }
        let is_noted = is_freed(view, &namespace, changesource);
        if is_free(&namespace, changesource)? != Some(is_noted) {
            broken.push(format!("{changesource} has a queue, and freed is {is_noted}"));
        }
    }
    if places != TICKETS.scan_all(view).count() {
        broken.push(format!("{places} places have more tickets"));
    }
    for row in FREED.scan_all(view) {
        let ((namespace, changesource), ()) = row?;
        if first(view, &namespace, changesource)?.is_none() {
            broken.push(format!("{changesource} is freed, and nobody waits for it"));
        }
    }
    Ok(())
}
