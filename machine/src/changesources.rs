//! Change sources: each is owned by at most one master, and each grant has a fence.
//!
//! # Model
//!
//! A change source is a name with an id, and perhaps a claim: the master that owns it and the token of the
//! grant. Two ways lead to a claim. [`Command::SetMaster`] is Buildbot's: any present owner answers *already
//! claimed*, and unsetting works for everybody. [`Command::Claim`] and [`Command::Release`] are for holders
//! of a lease: a repeated claim gets its token again, and a release works only under the token it names.
//! [`Command::Await`] is a claim that waits for its turn; see `queues.rs`. What is said here of a change source
//! holds of all members of its group together, if it is in one; see `groups.rs`.
//!
//! # Invariants
//!
//! - A change source has at most one owner, and an owner never is a master whose lease has lapsed.
//! - A token is the revision of its grant: it rises with every grant and is never given again.
//! - When a master's lease ends, or it is set inactive, all its claims go in the same step.
//! - A freed change source goes to whoever waits for it before anybody else can claim it.

use serde::{Deserialize, Serialize};

use crate::claims::{
    self, Claim, Record, SOURCES, claimant, free, grant, known_head, known_record,
};
use crate::fault::Fault;
use crate::import::{self, Clash};
use crate::machine::Stop;
#[cfg(feature = "plant")]
use crate::plant::{self, Plant};
use crate::refusal::{Field, check_id, check_name};
use crate::table::{Counter, Table, Txn, View};
use crate::{Refusal, State, groups, growth, leases, masters, queues};

/// Ids of change sources by namespace and name.
const SOURCE_IDS: Table<(String, String), i64> = Table::new(0x41, "change source id");

/// Proof that a writer still owns a change source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The change source.
    pub changesource: i64,
    /// The token of the grant.
    pub token: u64,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are what their names say; the others are described")]
pub enum Command {
    /// Finds a change source, or creates it, unowned.
    FindId { namespace: String, name: String },
    /// Gives a change source to a master if nobody owns it; without a master, takes it from whoever does.
    SetMaster { namespace: String, changesource: i64, master: Option<i64> },
    /// Gives a change source to the master of a lease if nobody owns it.
    Claim { namespace: String, changesource: i64, lease: u64 },
    /// Gives a change source back, if it is owned under this token.
    Release { namespace: String, changesource: i64, token: u64 },
    /// Gives a change source to the master of a lease as soon as nobody owns it and it is its turn.
    Await { namespace: String, changesource: i64, lease: u64 },
    /// Does not wait any more.
    StopAwaiting { namespace: String, changesource: i64, lease: u64 },
    /// Puts a change source that nobody owns into a group that nobody owns; without a group, takes it out.
    SetGroup { namespace: String, changesource: i64, group: Option<String> },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The change source's id.
    Id(i64),
    /// The change source is the master's.
    Granted {
        /// The fence: the revision of the grant.
        token: u64,
    },
    /// Nobody owns the change source now.
    Unset,
    /// Somebody owns the change source; nothing changed.
    AlreadyClaimed(Claimant),
    /// Whether the change source was owned under that token.
    Released(bool),
    /// Somebody owns the change source; the lease waits for it.
    Waiting {
        /// How many wait before it.
        ahead: u64,
    },
    /// Whether the lease waited.
    Stopped(bool),
    /// Whether the change source was in another group before, or in none.
    GroupSet(bool),
}

/// Who owns a change source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// The master's id.
    pub master: i64,
    /// The master's name.
    pub master_name: String,
    /// The revision that granted the claim.
    pub token: u64,
    /// The lease that the claim lives under, if it lives under one.
    pub lease: Option<u64>,
    /// How long the lease has to run by the cluster clock; 0 without a lease.
    pub remaining_ms: u64,
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::Namespace, self.namespace())?;
        match self {
            Command::FindId { name, .. } => check_name(Field::Name, name),
            Command::SetMaster { changesource, master, .. } => {
                check_id(Field::ChangeSourceId, *changesource)?;
                master.map_or(Ok(()), |master| check_id(Field::MasterId, master))
            }
            Command::Claim { changesource, .. }
            | Command::Release { changesource, .. }
            | Command::Await { changesource, .. }
            | Command::StopAwaiting { changesource, .. } => {
                check_id(Field::ChangeSourceId, *changesource)
            }
            Command::SetGroup { changesource, group, .. } => {
                check_id(Field::ChangeSourceId, *changesource)?;
                group.as_deref().map_or(Ok(()), |group| check_name(Field::Group, group))
            }
        }
    }

    /// How many bytes its names take.
    pub(crate) fn text_bytes(&self) -> usize {
        self.namespace().len()
            + match self {
                Command::FindId { name, .. } => name.len(),
                Command::SetGroup { group, .. } => group.as_ref().map_or(0, String::len),
                Command::SetMaster { .. }
                | Command::Claim { .. }
                | Command::Release { .. }
                | Command::Await { .. }
                | Command::StopAwaiting { .. } => 0,
            }
    }

    fn namespace(&self) -> &str {
        match self {
            Command::FindId { namespace, .. }
            | Command::SetMaster { namespace, .. }
            | Command::Claim { namespace, .. }
            | Command::Release { namespace, .. }
            | Command::Await { namespace, .. }
            | Command::StopAwaiting { namespace, .. }
            | Command::SetGroup { namespace, .. } => namespace,
        }
    }
}

/// Carries out a command.
pub(crate) fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply, Stop> {
    match command {
        Command::FindId { namespace, name } => Ok(Reply::Id(find_or_create(txn, namespace, name)?)),
        Command::SetMaster { namespace, changesource, master } => {
            set_master(txn, namespace, *changesource, *master)
        }
        Command::Claim { namespace, changesource, lease } => {
            claim(txn, namespace, *changesource, *lease)
        }
        Command::Release { namespace, changesource, token } => {
            release(txn, namespace, *changesource, *token)
        }
        Command::Await { namespace, changesource, lease } => {
            wait(txn, namespace, *changesource, *lease)
        }
        Command::StopAwaiting { namespace, changesource, lease } => {
            let head = known_head(txn.view(), namespace, *changesource)?;
            Ok(Reply::Stopped(queues::leave(txn, namespace, head, *lease)?))
        }
        Command::SetGroup { namespace, changesource, group } => {
            groups::set(txn, namespace, *changesource, group.as_deref())
        }
    }
}

/// The id that a command looks for, if there is one already; None for all other commands.
pub(crate) fn known(view: View<'_>, command: &Command) -> Result<Option<Reply>, Fault> {
    match command {
        Command::FindId { namespace, name } => {
            let id = SOURCE_IDS.get(view, (namespace.as_str(), name.as_str()))?;
            Ok(id.map(Reply::Id))
        }
        Command::SetMaster { .. }
        | Command::Claim { .. }
        | Command::Release { .. }
        | Command::Await { .. }
        | Command::StopAwaiting { .. }
        | Command::SetGroup { .. } => Ok(None),
    }
}

/// At most how many bytes a command adds, but for claims and places in queues: a fail-over needs them.
pub(crate) fn growth(view: View<'_>, command: &Command) -> u64 {
    match command {
        Command::FindId { namespace, name } => {
            match SOURCE_IDS.contains(view, (namespace.as_str(), name.as_str())) {
                true => 0,
                false => growth::of_rows(2, 2 * command.text_bytes()),
            }
        }
        Command::SetGroup { namespace, changesource, group: Some(group) }
            if !groups::has_member(view, namespace, group, *changesource) =>
        {
            growth::of_rows(1, 2 * command.text_bytes())
        }
        Command::SetMaster { .. }
        | Command::Claim { .. }
        | Command::Release { .. }
        | Command::Await { .. }
        | Command::StopAwaiting { .. }
        | Command::SetGroup { .. } => 0,
    }
}

/// The change source that a command is about, if there is one, and its namespace.
fn subject(command: &Command) -> Option<(&str, i64)> {
    match command {
        Command::FindId { .. } => None,
        Command::SetMaster { namespace, changesource, .. }
        | Command::Claim { namespace, changesource, .. }
        | Command::Release { namespace, changesource, .. }
        | Command::Await { namespace, changesource, .. }
        | Command::StopAwaiting { namespace, changesource, .. }
        | Command::SetGroup { namespace, changesource, .. } => Some((namespace, *changesource)),
    }
}

/// The heads of all change sources that a command would come upon: its own, and that of the group to join.
fn heads<'a>(view: View<'_>, command: &'a Command) -> Result<Vec<(&'a str, i64)>, Fault> {
    let Some((namespace, changesource)) = subject(command) else { return Ok(vec![]) };
    let Some(record) = SOURCES.get(view, (namespace, changesource))? else { return Ok(vec![]) };
    let mut heads = vec![groups::head(view, namespace, changesource, record.group.as_deref())?];
    if let Command::SetGroup { group: Some(group), .. } = command {
        heads.extend(groups::first_member(view, namespace, group)?);
    }
    Ok(heads.into_iter().map(|head| (namespace, head)).collect())
}

/// The head of what a command would come upon, if that is free and others wait for it.
pub(crate) fn freed_in_the_way<'a>(
    view: View<'_>,
    command: &'a Command,
) -> Result<Option<(&'a str, i64)>, Fault> {
    let mut heads = heads(view, command)?.into_iter();
    Ok(heads.find(|(namespace, head)| queues::is_freed(view, namespace, *head)))
}

/// A lapsed lease that has to end before this command can be run: an owner's, or the new owner's.
pub(crate) fn lapsed_in_the_way(view: View<'_>, command: &Command) -> Result<Option<u64>, Fault> {
    // A claim's own lease lives, or the claim is refused.
    let next = match command {
        Command::SetMaster { namespace, master, .. } => {
            master.map(|master| (namespace.as_str(), master))
        }
        Command::FindId { .. }
        | Command::Claim { .. }
        | Command::Release { .. }
        | Command::Await { .. }
        | Command::StopAwaiting { .. }
        | Command::SetGroup { .. } => None,
    };
    let mut owners = Vec::new();
    for (namespace, head) in heads(view, command)? {
        let record = SOURCES.get(view, (namespace, head))?;
        owners.extend(record.and_then(|r| r.claim).map(|claim| (namespace, claim.master)));
    }
    for (namespace, master) in owners.into_iter().chain(next) {
        if let Some(lease) = masters::lapsed_lease(view, namespace, master)? {
            return Ok(Some(lease));
        }
    }
    Ok(None)
}

/// Refuses a writer whose claim has moved on.
pub(crate) fn check_fence(view: View<'_>, namespace: &str, fence: Fence) -> Result<(), Stop> {
    let Fence { changesource, token } = fence;
    let record = known_record(view, namespace, changesource)?;
    #[cfg(feature = "plant")]
    if plant::is(Plant::FenceNotChecked) {
        return Ok(());
    }
    match claimant(view, namespace, &record)? {
        Some(holder) if holder.token == token => Ok(()),
        Some(_) | None => Err(Refusal::StaleFence { changesource, token }.into()),
    }
}

fn find_or_create(txn: &mut Txn<'_>, namespace: &str, name: &str) -> Result<i64, Fault> {
    if let Some(id) = SOURCE_IDS.get(txn.view(), (namespace, name))? {
        return Ok(id);
    }
    let id = Counter::ChangeSources.next_id(txn)?;
    SOURCE_IDS.put(txn, (namespace, name), &id)?;
    SOURCES.put(
        txn,
        (namespace, id),
        &Record { name: name.to_owned(), claim: None, group: None },
    )?;
    Ok(id)
}

/// Takes in a change source from elsewhere, unowned; false if it is here already.
pub(crate) fn import(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: i64,
    name: &str,
    group: Option<&str>,
) -> Result<Result<bool, Clash>, Stop> {
    if let Some(found) = SOURCES.get(txn.view(), (namespace, id))? {
        let is_same = found.name == name && found.group.as_deref() == group;
        let clash = || Clash(import::spell_source(id, &found.name, found.group.as_deref()));
        return Ok(if is_same { Ok(false) } else { Err(clash()) });
    }
    if let Some(other) = SOURCE_IDS.get(txn.view(), (namespace, name))? {
        return Ok(Err(Clash(import::spell_named("change source", other, name))));
    }
    Counter::ChangeSources.raise(txn, id)?;
    SOURCE_IDS.put(txn, (namespace, name), &id)?;
    let record = Record { name: name.to_owned(), claim: None, group: None };
    SOURCES.put(txn, (namespace, id), &record)?;
    if let Some(group) = group {
        // A group that is free and waited for goes to whoever waits before it changes.
        if let Some(first) = groups::first_member(txn.view(), namespace, group)?
            && queues::is_freed(txn.view(), namespace, first)
        {
            return Err(Refusal::ChangeSourceInUse { changesource: first }.into());
        }
        groups::set(txn, namespace, id, Some(group))?;
    }
    Ok(Ok(true))
}

fn set_master(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    master: Option<i64>,
) -> Result<Reply, Stop> {
    let record = known_record(txn.view(), namespace, changesource)?;
    let Some(master) = master else {
        free(txn, namespace, changesource, record)?;
        return Ok(Reply::Unset);
    };
    if let Some(holder) = claimant(txn.view(), namespace, &record)? {
        return Ok(Reply::AlreadyClaimed(holder));
    }
    grant(txn, namespace, changesource, record, master)
}

fn claim(txn: &mut Txn<'_>, namespace: &str, changesource: i64, lease: u64) -> Result<Reply, Stop> {
    let master = leases::live(txn.view(), namespace, lease)?.master;
    let record = known_record(txn.view(), namespace, changesource)?;
    match claimant(txn.view(), namespace, &record)? {
        Some(holder) if holder.lease == Some(lease) => Ok(Reply::Granted { token: holder.token }),
        Some(holder) => Ok(Reply::AlreadyClaimed(holder)),
        None => grant(txn, namespace, changesource, record, master),
    }
}

fn wait(txn: &mut Txn<'_>, namespace: &str, changesource: i64, lease: u64) -> Result<Reply, Stop> {
    let reply = claim(txn, namespace, changesource, lease)?;
    if let Reply::AlreadyClaimed(_) = reply {
        let head = known_head(txn.view(), namespace, changesource)?;
        let ahead = queues::join(txn, namespace, head, lease)?;
        return Ok(Reply::Waiting { ahead });
    }
    Ok(reply)
}

/// Grants a freed change source to the first who waits for it, and with a head its whole group. Who may own
/// no more is passed over.
pub(crate) fn serve(txn: &mut Txn<'_>, namespace: &str, head: i64) -> Result<(), Fault> {
    while let Some(lease) = queues::take_first(txn, namespace, head)? {
        match claim(txn, namespace, head, lease) {
            Ok(_) => break,
            Err(Stop::Refused(_)) => {}
            Err(Stop::Fault(fault)) => return Err(fault),
        }
    }
    queues::note_served(txn, namespace, head);
    Ok(())
}

fn release(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    token: u64,
) -> Result<Reply, Stop> {
    let record = known_record(txn.view(), namespace, changesource)?;
    let held = record.claim.is_some_and(|claim| claim.token == token);
    #[cfg(feature = "plant")]
    let held = held || (plant::is(Plant::ReleaseUnchecked) && record.claim.is_some());
    if held {
        free(txn, namespace, changesource, record)?;
    }
    Ok(Reply::Released(held))
}

/// A change source as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSource {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Who owns it; never a master whose lease has lapsed.
    pub claimant: Option<Claimant>,
    /// The group it is in, all members of which have the same owner and token.
    pub group: Option<String>,
}

/// How many change sources there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Those that somebody owns.
    pub owned: u64,
    /// Places in all their queues.
    pub places: u64,
}

/// One change source.
pub fn get(
    state: &State,
    namespace: &str,
    changesource: i64,
) -> Result<Option<ChangeSource>, Fault> {
    let view = state.view();
    let Some(record) = SOURCES.get(view, (namespace, changesource))? else {
        return Ok(None);
    };
    let claimant = claimant(view, namespace, &record)?;
    let Record { name, group, .. } = record;
    Ok(Some(ChangeSource { id: changesource, name, claimant, group }))
}

/// The id of a change source, if it exists.
pub fn find(state: &State, namespace: &str, name: &str) -> Result<Option<i64>, Fault> {
    SOURCE_IDS.get(state.view(), (namespace, name))
}

/// The change sources of a namespace, in order of their ids.
///
/// With `active`, only those that have an owner (true) or none (false); with `master`, only those that
/// this master owns.
pub fn list(
    state: &State,
    namespace: &str,
    active: Option<bool>,
    master: Option<i64>,
) -> Result<Vec<ChangeSource>, Fault> {
    let view = state.view();
    let mut sources = Vec::new();
    for row in SOURCES.scan(view, namespace) {
        let ((_, id), record) = row?;
        let claimant = claimant(view, namespace, &record)?;
        let owner = claimant.as_ref().map(|claimant| claimant.master);
        if active.is_none_or(|active| active == owner.is_some())
            && master.is_none_or(|master| owner == Some(master))
        {
            let Record { name, group, .. } = record;
            sources.push(ChangeSource { id, name, claimant, group });
        }
    }
    Ok(sources)
}

/// The leases that wait for a change source or for its group, in the order in which they will get it.
pub fn waiting(state: &State, namespace: &str, changesource: i64) -> Result<Vec<u64>, Fault> {
    let view = state.view();
    let Some(record) = SOURCES.get(view, (namespace, changesource))? else { return Ok(vec![]) };
    let head = groups::head(view, namespace, changesource, record.group.as_deref())?;
    queues::waiting(view, namespace, head)
}

/// How many change sources there are, in all namespaces.
pub fn counts(state: &State) -> Result<Counts, Fault> {
    let view = state.view();
    let mut counts = Counts::default();
    for row in SOURCES.scan_all(view) {
        let ((namespace, _), record) = row?;
        counts.total += 1;
        counts.owned += u64::from(claimant(view, &namespace, &record)?.is_some());
    }
    counts.places = queues::places(view);
    Ok(counts)
}

/// What those who watch learn of a change source: who owns it from this revision on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its namespace.
    pub namespace: String,
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The owner's id and the token of the grant; None if nobody owns it.
    pub owner: Option<(i64, u64)>,
    /// The group it is in.
    pub group: Option<String>,
}

/// Whether a row is one that those who watch learn of.
pub(crate) fn is_event(key: &[u8]) -> bool {
    SOURCES.has(key)
}

/// The event of a changed row; None if it is none of this connector's.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<Event, Fault>> {
    SOURCES.row(key, value).map(|row| {
        let ((namespace, id), record) = row?;
        let what = "a removed change source";
        let Record { name, claim, group } =
            record.ok_or(Fault::Contradiction { what, id: id.cast_unsigned() })?;
        let owner = claim.map(|Claim { master, token }| (master, token));
        Ok(Event { namespace, id, name, owner, group })
    })
}

/// Spells a row of a change source or a claim.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    SOURCE_IDS.describe(key, value).or_else(|| claims::describe(key, value))
}

/// Appends what does not hold of this file's invariants.
pub(crate) fn audit(view: View<'_>, revision: u64, broken: &mut Vec<String>) -> Result<(), Fault> {
    let (mut sources, mut claimed, mut grouped) = (0, 0, 0);
    for row in SOURCES.scan_all(view) {
        let ((namespace, id), record) = row?;
        sources += 1;
        claimed += usize::from(record.claim.is_some());
        grouped += usize::from(record.group.is_some());
        if SOURCE_IDS.get(view, (namespace.as_str(), record.name.as_str()))? != Some(id) {
            broken.push(format!("change source {id} is not found by its name"));
        }
        claims::audit_one(view, revision, (&namespace, id), &record, broken)?;
    }
    if sources != SOURCE_IDS.scan_all(view).count() || claimed != claims::indexed_count(view) {
        broken.push(format!("{sources} change sources and {claimed} claims have more rows"));
    }
    groups::audit(view, grouped, broken)?;
    // Whether the change source at which a queue is is free; None if no queue may be there.
    let is_free_head = |namespace: &str, id| {
        let record = claims::existing(view, namespace, id)?;
        let head = groups::head(view, namespace, id, record.group.as_deref())?;
        Ok((head == id).then_some(record.claim.is_none()))
    };
    queues::audit(view, is_free_head, broken)
}
