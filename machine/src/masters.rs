//! Masters and their leases: who may own change sources, and until when.
//!
//! # Model
//!
//! A master is a name with an id. It is active or not. A lease makes it active until the cluster clock
//! reaches the lease's deadline; keeping it alive moves the deadline on. A master can also be marked active
//! without a lease; nothing but a command makes such a one inactive again.
//!
//! A node that sees the connection of a lease's holder break can shrink the lease to its *grace*, if it was opened
//! with one. It names the last renewal that the holder told it of: a holder that has moved to another node has
//! renewed since. It has done so for the grace alone, until it is attached to the other node: nobody would see
//! it go meanwhile.
//!
//! # Invariants
//!
//! - A master has at most one lease, and each lease (`leases.rs`) one master that names it.
//! - When a lease ends (closed, lapsed, replaced, or its master set inactive), its master is inactive and
//!   owns nothing, in the same step. A lease begins with no claims, so all claims of a leased master are the
//!   lease's.
//! - A lease whose deadline is not above the clock has lapsed: no command renews it, no read shows it, and
//!   before a command that comes upon it is run, it is ended. Expiry only clears such rows away.
//! - While a lease lives, only its own instance can replace it.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::import::{self, Clash};
use crate::leases::{self, Instance, Lease};
use crate::machine::Stop;
#[cfg(feature = "plant")]
use crate::plant::{self, Plant};
use crate::refusal::{Field, check_id, check_name};
use crate::table::{Counter, Table, Txn, Value, View};
use crate::{Refusal, State, claims, growth, limits, queues};

/// Masters by namespace and id.
const MASTERS: Table<(String, i64), Record> = Table::new(0x30, "master");
/// Ids of masters by namespace and name.
const MASTER_IDS: Table<(String, String), i64> = Table::new(0x31, "master id");

/// A master.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Never changes.
    pub(crate) name: String,
    /// Set by the client, by opening a lease, and by the end of one. Claims do not depend on it.
    active: bool,
    /// The lease that makes it active. Claims live as long as it does.
    lease: Option<u64>,
    /// When it was last heard of, not counting its present lease; wall clock, for display only.
    last_active_ms: u64,
    /// How many change sources it owns. Changed by claims and releases; bounds them.
    pub(crate) claims: u32,
}

impl Value for Record {
    const VERSION: u8 = 1;
    type At<'a> = Record;
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are what their names say; the others are described")]
pub enum Command {
    /// Finds a master, or creates it, inactive.
    FindId { namespace: String, name: String },
    /// Marks a master active or inactive. Inactive ends its lease and all its claims.
    SetState { namespace: String, master: i64, active: bool },
    /// Makes a master active for a time; creates the master if there is none of that name.
    OpenLease {
        namespace: String,
        name: String,
        /// The hash of a secret of one running installation.
        instance: [u8; 32],
        /// How long it lives without a renewal.
        ttl_ms: u64,
        /// How long it lives at most once its holder's connection has broken; 0: as long as ever.
        grace_ms: u64,
    },
    /// Renews a lease.
    KeepAlive { namespace: String, lease: u64 },
    /// Ends a lease.
    CloseLease { namespace: String, lease: u64 },
    /// Lets a lease live no longer than its grace from here, unless it has been renewed since the renewal of this
    /// number. Nodes make it, in no session: repeating it changes nothing.
    ShrinkLease { namespace: String, lease: u64, renewal: u64 },
    /// Renews a lease for its grace alone, also if it had longer to run: its holder is not attached to any node
    /// that could see it go.
    KeepWithinGrace { namespace: String, lease: u64 },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The master's id.
    Id(i64),
    /// Whether the master was in the other state before.
    Changed(bool),
    /// The lease is open.
    Lease {
        /// Its id: the revision that opened it.
        lease: u64,
        /// The master that it makes active.
        master: i64,
        /// How long it lives without a renewal.
        ttl_ms: u64,
    },
    /// Another instance holds a live lease of that name; nothing changed.
    HeldBy {
        /// The master.
        master: i64,
        /// The master's name.
        name: String,
        /// The lease that lives.
        lease: u64,
        /// How long it has to run.
        remaining_ms: u64,
    },
    /// The lease is renewed.
    Renewed {
        /// How long it lives from here: its full time, or its grace.
        ttl_ms: u64,
        /// The renewal's number: 1 for the first of a lease, and rising by 1.
        renewal: u64,
    },
    /// The lease is closed.
    Closed {
        /// How many change sources it had.
        freed: u32,
    },
    /// The lease lives no longer than its grace.
    Shrunk {
        /// How long it has to run.
        remaining_ms: u64,
    },
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::Namespace, self.namespace())?;
        match self {
            Command::FindId { name, .. } => check_name(Field::Name, name),
            Command::SetState { master, .. } => check_id(Field::MasterId, *master),
            Command::OpenLease { name, ttl_ms, grace_ms, .. } => {
                check_name(Field::Name, name)?;
                check_times(*ttl_ms, *grace_ms)
            }
            Command::KeepAlive { .. }
            | Command::CloseLease { .. }
            | Command::ShrinkLease { .. }
            | Command::KeepWithinGrace { .. } => Ok(()),
        }
    }

    /// Whether it is a node that makes it, and not a client in a session.
    pub(crate) fn is_of_nodes(&self) -> bool {
        match self {
            Command::ShrinkLease { .. } => true,
            Command::FindId { .. }
            | Command::SetState { .. }
            | Command::OpenLease { .. }
            | Command::KeepAlive { .. }
            | Command::KeepWithinGrace { .. }
            | Command::CloseLease { .. } => false,
        }
    }

    /// How many bytes its names take.
    pub(crate) fn text_bytes(&self) -> usize {
        self.namespace().len()
            + match self {
                Command::FindId { name, .. } | Command::OpenLease { name, .. } => name.len(),
                Command::SetState { .. }
                | Command::KeepAlive { .. }
                | Command::KeepWithinGrace { .. }
                | Command::CloseLease { .. }
                | Command::ShrinkLease { .. } => 0,
            }
    }

    fn namespace(&self) -> &str {
        match self {
            Command::FindId { namespace, .. }
            | Command::SetState { namespace, .. }
            | Command::OpenLease { namespace, .. }
            | Command::KeepAlive { namespace, .. }
            | Command::KeepWithinGrace { namespace, .. }
            | Command::CloseLease { namespace, .. }
            | Command::ShrinkLease { namespace, .. } => namespace,
        }
    }
}

/// Refuses a lease that is too short or too long, or has a grace that it cannot have.
fn check_times(ttl_ms: u64, grace_ms: u64) -> Result<(), Refusal> {
    let (actual, min, max) = (ttl_ms, limits::LEASE_TTL_MS_MIN, limits::LEASE_TTL_MS_MAX);
    if !(min..=max).contains(&actual) {
        return Err(Refusal::BadTtl { actual, min, max });
    }
    let (actual, min, max) = (grace_ms, limits::LEASE_GRACE_MS_MIN, ttl_ms);
    match actual == 0 || (min..=max).contains(&actual) {
        true => Ok(()),
        false => Err(Refusal::OutOfBounds { field: Field::GraceMs, actual, min, max }),
    }
}

/// Carries out a command.
pub(crate) fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply, Stop> {
    match command {
        Command::FindId { namespace, name } => Ok(Reply::Id(find_or_create(txn, namespace, name)?)),
        Command::SetState { namespace, master, active } => {
            set_state(txn, namespace, *master, *active)
        }
        Command::OpenLease { namespace, name, instance, ttl_ms, grace_ms } => {
            open_lease(txn, namespace, name, Instance(*instance), (*ttl_ms, *grace_ms))
        }
        Command::KeepAlive { namespace, lease: id } => {
            #[cfg(feature = "plant")]
            if plant::is(Plant::RenewEnded) && leases::live(txn.view(), namespace, *id).is_err() {
                return Ok(Reply::Renewed { ttl_ms: limits::LEASE_TTL_MS_MIN, renewal: 0 });
            }
            let lease = leases::live(txn.view(), namespace, *id)?;
            let ttl_ms = lease.ttl_ms;
            let renewal = leases::renew(txn, *id, lease, ttl_ms)?;
            Ok(Reply::Renewed { ttl_ms, renewal })
        }
        Command::KeepWithinGrace { namespace, lease: id } => {
            let lease = live_with_grace(txn.view(), namespace, *id)?;
            let ttl_ms = lease.grace_ms;
            let renewal = leases::renew(txn, *id, lease, ttl_ms)?;
            Ok(Reply::Renewed { ttl_ms, renewal })
        }
        Command::CloseLease { namespace, lease } => {
            let master = leases::live(txn.view(), namespace, *lease)?.master;
            Ok(Reply::Closed { freed: end(txn, namespace, master)? })
        }
        Command::ShrinkLease { namespace, lease, renewal } => {
            shrink_lease(txn, namespace, *lease, *renewal)
        }
    }
}

/// The id that a command looks for, if there is one already; None for all other commands.
pub(crate) fn known(view: View<'_>, command: &Command) -> Result<Option<Reply>, Fault> {
    match command {
        Command::FindId { namespace, name } => {
            let id = MASTER_IDS.get(view, (namespace.as_str(), name.as_str()))?;
            Ok(id.map(Reply::Id))
        }
        Command::SetState { .. }
        | Command::OpenLease { .. }
        | Command::KeepAlive { .. }
        | Command::KeepWithinGrace { .. }
        | Command::CloseLease { .. }
        | Command::ShrinkLease { .. } => Ok(None),
    }
}

/// At most how many bytes a command adds.
pub(crate) fn growth(view: View<'_>, command: &Command) -> u64 {
    match command {
        Command::FindId { namespace, name } | Command::OpenLease { namespace, name, .. } => {
            match MASTER_IDS.contains(view, (namespace.as_str(), name.as_str())) {
                true => 0,
                false => growth::of_rows(2, 2 * command.text_bytes()),
            }
        }
        Command::SetState { .. }
        | Command::KeepAlive { .. }
        | Command::KeepWithinGrace { .. }
        | Command::CloseLease { .. }
        | Command::ShrinkLease { .. } => 0,
    }
}

fn find_or_create(txn: &mut Txn<'_>, namespace: &str, name: &str) -> Result<i64, Fault> {
    if let Some(id) = MASTER_IDS.get(txn.view(), (namespace, name))? {
        return Ok(id);
    }
    let id = Counter::Masters.next_id(txn)?;
    MASTER_IDS.put(txn, (namespace, name), &id)?;
    let name = name.to_owned();
    let last_active_ms = txn.wall_ms;
    let record = Record { name, active: false, lease: None, last_active_ms, claims: 0 };
    MASTERS.put(txn, (namespace, id), &record)?;
    Ok(id)
}

/// Takes in a master from elsewhere, inactive; false if it is here already.
pub(crate) fn import(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: i64,
    name: &str,
    last_active_ms: u64,
) -> Result<Result<bool, Clash>, Fault> {
    if let Some(found) = record(txn.view(), namespace, id)? {
        let clash = || Clash(import::spell_named("master", id, &found.name));
        return Ok(if found.name == name { Ok(false) } else { Err(clash()) });
    }
    if let Some(other) = MASTER_IDS.get(txn.view(), (namespace, name))? {
        return Ok(Err(Clash(import::spell_named("master", other, name))));
    }
    Counter::Masters.raise(txn, id)?;
    MASTER_IDS.put(txn, (namespace, name), &id)?;
    let name = name.to_owned();
    let record = Record { name, active: false, lease: None, last_active_ms, claims: 0 };
    MASTERS.put(txn, (namespace, id), &record)?;
    Ok(Ok(true))
}

fn set_state(txn: &mut Txn<'_>, namespace: &str, master: i64, active: bool) -> Result<Reply, Stop> {
    let Some(record) = record(txn.view(), namespace, master)? else {
        return Err(Refusal::UnknownMaster { id: master }.into());
    };
    let changed = record.active != active;
    if active {
        let record = Record { active, last_active_ms: txn.wall_ms, ..record };
        MASTERS.put(txn, (namespace, master), &record)?;
    } else {
        end(txn, namespace, master)?;
    }
    Ok(Reply::Changed(changed))
}

fn open_lease(
    txn: &mut Txn<'_>,
    namespace: &str,
    name: &str,
    instance: Instance,
    times: (u64, u64),
) -> Result<Reply, Stop> {
    let master = find_or_create(txn, namespace, name)?;
    if let Some((lease, holder)) = lease_of(txn.view(), namespace, master)?
        && holder.instance != instance
    {
        let (name, remaining_ms) = (name.to_owned(), holder.remaining_ms(txn.clock_ms));
        return Ok(Reply::HeldBy { master, name, lease, remaining_ms });
    }
    let (record, _) = end_all(txn, namespace, master)?;
    let lease = leases::open(txn, namespace, master, instance, times)?;
    let record = Record { active: true, lease: Some(lease), ..record };
    MASTERS.put(txn, (namespace, master), &record)?;
    Ok(Reply::Lease { lease, master, ttl_ms: times.0 })
}

fn shrink_lease(txn: &mut Txn<'_>, namespace: &str, id: u64, renewal: u64) -> Result<Reply, Stop> {
    let lease = live_with_grace(txn.view(), namespace, id)?;
    if lease.renewal != renewal {
        return Err(Refusal::LeaseRenewed { lease: id, renewal }.into());
    }
    Ok(Reply::Shrunk { remaining_ms: leases::shrink(txn, id, lease)? })
}

fn live_with_grace(view: View<'_>, namespace: &str, id: u64) -> Result<Lease, Stop> {
    let lease = leases::live(view, namespace, id)?;
    match lease.grace_ms {
        0 => Err(Refusal::NoGrace { lease: id }.into()),
        _ => Ok(lease),
    }
}

/// Ends a master's lease, frees all it owns, makes it inactive, and says how much it owned.
fn end(txn: &mut Txn<'_>, namespace: &str, master: i64) -> Result<u32, Fault> {
    let (record, freed) = end_all(txn, namespace, master)?;
    MASTERS.put(txn, (namespace, master), &record)?;
    Ok(freed)
}

/// Ends a master's lease, if it has one, and frees all it owns. Gives its row for the caller to store.
fn end_all(txn: &mut Txn<'_>, namespace: &str, master: i64) -> Result<(Record, u32), Fault> {
    let Some(record) = record(txn.view(), namespace, master)? else {
        return Err(Fault::Contradiction {
            what: "a lease of no master",
            id: master.cast_unsigned(),
        });
    };
    let mut last_active_ms = record.last_active_ms;
    if let Some(id) = record.lease {
        let lease = leases::named(txn.view(), id)?;
        leases::remove(txn, id, &lease);
        queues::leave_all(txn, namespace, id)?;
        last_active_ms = lease.renewed_wall_ms;
    }
    let freed = claims::free_all(txn, namespace, master)?;
    Ok((Record { active: false, lease: None, claims: 0, last_active_ms, ..record }, freed))
}

/// The lease that lapsed first, of those that still have their rows.
pub(crate) fn first_lapsed(view: View<'_>) -> Result<Option<u64>, Fault> {
    let first = leases::first_deadline(view)?;
    #[cfg(feature = "plant")]
    let first = first.map(|(deadline_ms, lease)| (plant::cleared_at(deadline_ms), lease));
    Ok(first.filter(|(deadline_ms, _)| *deadline_ms <= view.clock_ms).map(|(_, lease)| lease))
}

/// Ends a lease that has lapsed.
pub(crate) fn expire(txn: &mut Txn<'_>, lease: u64) -> Result<(), Fault> {
    let Lease { namespace, master, .. } = leases::named(txn.view(), lease)?;
    end(txn, &namespace, master)?;
    Ok(())
}

/// A master's lease, if it has lapsed and still has its rows.
pub(crate) fn lapsed_lease(
    view: View<'_>,
    namespace: &str,
    master: i64,
) -> Result<Option<u64>, Fault> {
    let lease = lease_of(view, namespace, master)?;
    Ok(lease.filter(|(_, lease)| lease.has_lapsed(view.clock_ms)).map(|(id, _)| id))
}

/// A lapsed lease that has to end before this command can be run.
pub(crate) fn lapsed_in_the_way(view: View<'_>, command: &Command) -> Result<Option<u64>, Fault> {
    match command {
        Command::SetState { namespace, master, .. } => lapsed_lease(view, namespace, *master),
        Command::OpenLease { namespace, name, .. } => {
            match MASTER_IDS.get(view, (namespace.as_str(), name.as_str()))? {
                Some(master) => lapsed_lease(view, namespace, master),
                None => Ok(None),
            }
        }
        // The first concerns no lease; the others only one that lives.
        Command::FindId { .. }
        | Command::KeepAlive { .. }
        | Command::KeepWithinGrace { .. }
        | Command::CloseLease { .. }
        | Command::ShrinkLease { .. } => Ok(None),
    }
}

/// A master's row as it is stored.
pub(crate) fn record(
    view: View<'_>,
    namespace: &str,
    master: i64,
) -> Result<Option<Record>, Fault> {
    MASTERS.get(view, (namespace, master))
}

/// Stores how many change sources a master owns.
pub(crate) fn set_claims(
    txn: &mut Txn<'_>,
    namespace: &str,
    master: i64,
    record: Record,
    claims: u32,
) -> Result<(), Fault> {
    MASTERS.put(txn, (namespace, master), &Record { claims, ..record })
}

/// The lease that a master has, lapsed or not.
fn lease_of(view: View<'_>, namespace: &str, master: i64) -> Result<Option<(u64, Lease)>, Fault> {
    match record(view, namespace, master)?.and_then(|record| record.lease) {
        Some(id) => Ok(Some((id, leases::named(view, id)?))),
        None => Ok(None),
    }
}

/// A master as it is read. One whose lease has lapsed reads as it will be once the lease is cleared away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
    /// Its lease, if it has a live one.
    pub lease: Option<u64>,
    /// How long the lease has to run by the cluster clock; 0 without a lease.
    pub remaining_ms: u64,
    /// When it was last heard of: the leader's wall clock, in milliseconds since 1970. For display only.
    pub last_active_ms: u64,
    /// How many change sources it owns.
    pub claims: u32,
}

/// One master.
pub fn get(state: &State, namespace: &str, master: i64) -> Result<Option<Master>, Fault> {
    read(state.view(), namespace, master)
}

/// The id of a master, if it exists.
pub fn find(state: &State, namespace: &str, name: &str) -> Result<Option<i64>, Fault> {
    MASTER_IDS.get(state.view(), (namespace, name))
}

/// All masters of a namespace, in order of their ids.
pub fn list(state: &State, namespace: &str) -> Result<Vec<Master>, Fault> {
    let view = state.view();
    let mut masters = Vec::new();
    for row in MASTERS.scan(view, namespace) {
        let ((_, id), record) = row?;
        masters.push(present(view, id, record)?);
    }
    Ok(masters)
}

/// How many leases live, in all namespaces.
pub fn alive_count(state: &State) -> Result<u64, Fault> {
    leases::live_count(state.view())
}

/// A master as it is to be seen at this time.
pub(crate) fn read(view: View<'_>, namespace: &str, id: i64) -> Result<Option<Master>, Fault> {
    record(view, namespace, id)?.map(|record| present(view, id, record)).transpose()
}

fn present(view: View<'_>, id: i64, record: Record) -> Result<Master, Fault> {
    let Record { name, active, lease, last_active_ms, claims } = record;
    let Some(lease_id) = lease else {
        let remaining_ms = 0;
        return Ok(Master { id, name, active, lease, remaining_ms, last_active_ms, claims });
    };
    let lease = leases::named(view, lease_id)?;
    let last_active_ms = lease.renewed_wall_ms;
    Ok(match lease.remaining_ms(view.clock_ms) {
        0 => {
            let (active, lease, remaining_ms, claims) = (false, None, 0, 0);
            Master { id, name, active, lease, remaining_ms, last_active_ms, claims }
        }
        remaining_ms => {
            let lease = Some(lease_id);
            Master { id, name, active, lease, remaining_ms, last_active_ms, claims }
        }
    })
}

/// What those who watch learn of a master: what it is from this revision on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its namespace.
    pub namespace: String,
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Whether it is active.
    pub active: bool,
    /// Its lease, if it has one.
    pub lease: Option<u64>,
    /// How many change sources it owns.
    pub claims: u32,
}

/// Whether a row is one that those who watch learn of.
pub(crate) fn is_event(key: &[u8]) -> bool {
    MASTERS.has(key)
}

/// The event of a changed row; None if it is none of this connector's.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<Event, Fault>> {
    MASTERS.row(key, value).map(|row| {
        let ((namespace, id), record) = row?;
        let removed = Fault::Contradiction { what: "a removed master", id: id.cast_unsigned() };
        let Record { name, active, lease, claims, .. } = record.ok_or(removed)?;
        Ok(Event { namespace, id, name, active, lease, claims })
    })
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    MASTERS.describe(key, value).or_else(|| MASTER_IDS.describe(key, value))
}

/// Appends what does not hold of this file's invariants.
pub(crate) fn audit(view: View<'_>, revision: u64, broken: &mut Vec<String>) -> Result<(), Fault> {
    let (mut masters, mut leases) = (0, 0);
    for row in MASTERS.scan_all(view) {
        let ((namespace, id), record) = row?;
        masters += 1;
        let name = record.name.as_str();
        if MASTER_IDS.get(view, (namespace.as_str(), name))? != Some(id) {
            broken.push(format!("master {id} is not found by its name"));
        }
        if claims::owned_count(view, &namespace, id) != record.claims as usize {
            broken.push(format!("master {id} owns another number: {record:?}"));
        }
        let Some(lease_id) = record.lease else { continue };
        leases += 1;
        let lease = leases::named(view, lease_id)?;
        if (lease.namespace.as_str(), lease.master) != (namespace.as_str(), id)
            || !record.active
            || lease_id > revision
        {
            broken.push(format!("master {id} and its lease differ: {record:?}, {lease:?}"));
        }
    }
    if masters != MASTER_IDS.scan_all(view).count() || leases != leases::audit(view, broken)? {
        broken.push(format!("{masters} masters and {leases} leases have more rows"));
    }
    Ok(())
}
