//! The right to create a value: of all callers in the cluster that would create it, one at a time does.
//!
//! # Model
//!
//! A caller that would create an item's value asks for the right to. Those who ask stand in a queue in the
//! order in which they came; a caller's token is the revision at which it asked. The first one has the
//! right: it does whatever creating takes, and then creates the value under its token
//! ([`state::Command::Create`]). If it gives the right up, or does not renew it in the time that it named,
//! it leaves the queue and the next one has the right. Whoever waits leaves the queue once it has waited for
//! as long as it wanted to. A write of the value, whoever makes it, ends the queue: it is everybody's value.
//!
//! # Invariants
//!
//! - An item that has a value has no queue.
//! - Of a queue that has rows, one caller has the right. Tokens rise from one creator to the next.
//! - A place whose deadline is not above the clock is over, whether or not its rows are still there: before
//!   a command comes to a queue, the first live one has the right.
//! - A write under a token that does not have the right (any more) changes nothing.
//!
//! # What it leaves out
//!
//! Telling those who wait: the value, and who has the right, are events. Whether a creator still does what
//! it was to do: only its time says so.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::limits::{
    CREATE_TTL_MS_MAX, CREATE_TTL_MS_MIN, CREATE_WAIT_MS_MAX, CREATE_WAIT_MS_MIN,
    CREATORS_PER_ITEM_MAX,
};
use crate::machine::Stop;
use crate::refusal::{Field, check_bounds, check_id, check_name};
use crate::table::{Table, Txn, Value, View};
use crate::{Bytes, Refusal, State, growth, state};

/// Places by namespace, object, name and token.
const QUEUES: Table<(String, i64, String, u64), Place> = Table::new(0x23, "creation place");
/// Whose place is over when: by deadline and token.
const DEADLINES: Table<(u64, u64), Subject> = Table::new(0x24, "creation deadline");
/// Who has the right, by namespace, object and name.
const CREATORS: Table<(String, i64, String), u64> = Table::new(0x25, "creator");

/// A place in a queue.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    /// How long the right lasts without a renewal. Never changes.
    ttl_ms: u64,
    /// The cluster clock at which the place is over. Counted anew from when the caller gets the right, and
    /// from each renewal of it.
    deadline_ms: u64,
}

impl Value for Place {
    const VERSION: u8 = 1;
    type At<'a> = Place;
}

/// The item that a place is about. Never changes.
#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    namespace: String,
    object: i64,
    name: String,
}

impl Value for Subject {
    const VERSION: u8 = 1;
    type At<'a> = Subject;
}

/// An item: its namespace, object and name.
type Item<'a> = (&'a str, i64, &'a str);

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are what their names say; the others are described")]
pub enum Command {
    /// Asks for the right to create a value, unless there is one.
    Ask {
        namespace: String,
        object: i64,
        name: String,
        /// How long the right lasts without a renewal.
        ttl_ms: u64,
        /// How long to wait for it.
        wait_ms: u64,
    },
    /// Renews the right; of a caller that waits, says how it stands.
    Keep { namespace: String, object: i64, name: String, token: u64 },
    /// Gives the right up, or does not wait any more.
    Abandon { namespace: String, object: i64, name: String, token: u64 },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// There is a value, so there is nothing to create.
    Exists {
        /// The revision of the value.
        mod_revision: u64,
        /// The value, if it is not above
        /// [`REPLY_VALUE_BYTES_MAX`](crate::limits::REPLY_VALUE_BYTES_MAX); else it must be read.
        value: Option<Bytes>,
    },
    /// The caller has the right.
    Creating {
        /// What it has it under.
        token: u64,
        /// How long it lasts from here.
        ttl_ms: u64,
    },
    /// Somebody else has the right; the caller waits.
    Waiting {
        /// What the caller will have the right under.
        token: u64,
        /// How many are before it, the one that has the right included.
        ahead: u64,
    },
    /// Whether the caller had the right, or waited.
    Abandoned(bool),
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        let (namespace, object, name) = self.item();
        check_name(Field::Namespace, namespace)?;
        check_id(Field::ObjectId, object)?;
        check_name(Field::Name, name)?;
        match self {
            Command::Ask { ttl_ms, wait_ms, .. } => {
                check_bounds(Field::TtlMs, *ttl_ms, CREATE_TTL_MS_MIN..=CREATE_TTL_MS_MAX)?;
                check_bounds(Field::WaitMs, *wait_ms, CREATE_WAIT_MS_MIN..=CREATE_WAIT_MS_MAX)
            }
            Command::Keep { .. } | Command::Abandon { .. } => Ok(()),
        }
    }

    /// How many bytes its names take.
    pub(crate) fn text_bytes(&self) -> usize {
        let (namespace, _, name) = self.item();
        namespace.len() + name.len()
    }

    /// The key of the item whose value the answer depends on alone, if there is such a value.
    pub(crate) fn item_key(&self) -> Option<Vec<u8>> {
        match self {
            Command::Ask { .. } => Some(state::item_key(self.item())),
            Command::Keep { .. } | Command::Abandon { .. } => None,
        }
    }

    fn item(&self) -> Item<'_> {
        match self {
            Command::Ask { namespace, object, name, .. }
            | Command::Keep { namespace, object, name, .. }
            | Command::Abandon { namespace, object, name, .. } => (namespace, *object, name),
        }
    }
}

/// Carries out a command.
pub(crate) fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply, Stop> {
    let item = command.item();
    let standing = state::standing(txn.view(), item)?;
    match command {
        Command::Abandon { token, .. } => Ok(Reply::Abandoned(abandon(txn, item, *token)?)),
        Command::Ask { .. } | Command::Keep { .. } if let Some(standing) = standing => {
            Ok(exists(standing))
        }
        Command::Ask { ttl_ms, wait_ms, .. } => ask(txn, item, *ttl_ms, *wait_ms),
        Command::Keep { token, .. } => keep(txn, item, *token),
    }
}

/// The answer to a caller that asks for the right where there is a value; None for all other commands.
pub(crate) fn known(view: View<'_>, command: &Command) -> Result<Option<Reply>, Stop> {
    match command {
        Command::Ask { .. } => Ok(state::standing(view, command.item())?.map(exists)),
        Command::Keep { .. } | Command::Abandon { .. } => Ok(None),
    }
}

/// At most how many bytes a command adds. Asking grows, as the value would: better no creation than one
/// whose value finds no room.
pub(crate) fn growth(view: View<'_>, command: &Command) -> u64 {
    match command {
        Command::Ask { .. } if !view.rows.contains_key(&*state::item_key(command.item())) => {
            growth::of_rows(3, 3 * command.text_bytes())
        }
        Command::Ask { .. } | Command::Keep { .. } | Command::Abandon { .. } => 0,
    }
}

/// Refuses a writer that does not have the right.
pub(crate) fn check(view: View<'_>, item: Item<'_>, token: u64) -> Result<(), Stop> {
    let (namespace, object, name) = item;
    let place = QUEUES.get(view, (namespace, object, name, token))?;
    let is_live = place.is_some_and(|place| place.deadline_ms > view.clock_ms);
    match CREATORS.get(view, item)? {
        Some(creator) if creator == token && is_live => Ok(()),
        Some(_) | None => Err(Refusal::CreationLost { token }.into()),
    }
}

/// Ends the queue of an item that gets its value in this step.
pub(crate) fn dismiss(txn: &mut Txn<'_>, item: Item<'_>) -> Result<(), Fault> {
    if !CREATORS.delete(txn, item) {
        return Ok(());
    }
    while let Some((token, place)) = first(txn.view(), item)? {
        remove(txn, item, token, place);
    }
    Ok(())
}

/// The place whose time is over first, of those that still have their rows: its deadline and token.
pub(crate) fn first_deadline(view: View<'_>) -> Result<Option<(u64, u64)>, Fault> {
    let first = DEADLINES.scan_all(view).next().transpose()?;
    Ok(first.map(|(key, _)| key))
}

/// The place whose time was over first, of those that still have their rows: its deadline and token.
pub(crate) fn first_lapsed(view: View<'_>) -> Result<Option<(u64, u64)>, Fault> {
    Ok(first_deadline(view)?.filter(|(deadline_ms, _)| *deadline_ms <= view.clock_ms))
}

/// Takes a place whose time is over out of its queue, and if it was the first one, those behind it whose
/// time is over too. Says how many they were.
pub(crate) fn expire(txn: &mut Txn<'_>, deadline: (u64, u64)) -> Result<u64, Fault> {
    let (_, token) = deadline;
    let missing = Fault::Contradiction { what: "a deadline without its place", id: token };
    let Some(Subject { namespace, object, name }) = DEADLINES.get(txn.view(), deadline)? else {
        return Err(missing);
    };
    let item = (namespace.as_str(), object, name.as_str());
    let Some(place) = QUEUES.get(txn.view(), (item.0, item.1, item.2, token))? else {
        return Err(missing);
    };
    remove(txn, item, token, place);
    Ok(1 + settle(txn, item)?)
}

fn exists((mod_revision, value): (u64, Option<Bytes>)) -> Reply {
    Reply::Exists { mod_revision, value }
}

fn ask(txn: &mut Txn<'_>, item: Item<'_>, ttl_ms: u64, wait_ms: u64) -> Result<Reply, Stop> {
    settle(txn, item)?;
    let ahead = QUEUES.keys(txn.view(), item).count() as u64;
    if ahead >= CREATORS_PER_ITEM_MAX {
        let (actual, allowed) = (ahead, CREATORS_PER_ITEM_MAX);
        return Err(Refusal::TooManyCreators { actual, allowed }.into());
    }
    let token = txn.revision;
    let deadline_ms = txn.clock_ms.saturating_add(if ahead == 0 { ttl_ms } else { wait_ms });
    put(txn, item, token, Place { ttl_ms, deadline_ms })?;
    if ahead > 0 {
        return Ok(Reply::Waiting { token, ahead });
    }
    CREATORS.put(txn, item, &token)?;
    Ok(Reply::Creating { token, ttl_ms })
}

fn keep(txn: &mut Txn<'_>, item: Item<'_>, token: u64) -> Result<Reply, Stop> {
    settle(txn, item)?;
    let (namespace, object, name) = item;
    let place = QUEUES.get(txn.view(), (namespace, object, name, token))?;
    let Some(place) = place.filter(|place| place.deadline_ms > txn.clock_ms) else {
        return Err(Refusal::CreationLost { token }.into());
    };
    if CREATORS.get(txn.view(), item)? == Some(token) {
        give(txn, item, token, place)?;
        return Ok(Reply::Creating { token, ttl_ms: place.ttl_ms });
    }
    let mut ahead = 0;
    for key in QUEUES.keys(txn.view(), item) {
        let (_, _, _, other) = key?;
        ahead += u64::from(other < token);
    }
    Ok(Reply::Waiting { token, ahead })
}

fn abandon(txn: &mut Txn<'_>, item: Item<'_>, token: u64) -> Result<bool, Fault> {
    let (namespace, object, name) = item;
    let Some(place) = QUEUES.get(txn.view(), (namespace, object, name, token))? else {
        return Ok(false);
    };
    remove(txn, item, token, place);
    settle(txn, item)?;
    Ok(place.deadline_ms > txn.clock_ms)
}

/// Sees to it that the first live caller in a queue has the right; those before it, whose time is over,
/// go. Says how many they were.
fn settle(txn: &mut Txn<'_>, item: Item<'_>) -> Result<u64, Fault> {
    let mut gone = 0;
    while let Some((token, place)) = first(txn.view(), item)? {
        if place.deadline_ms <= txn.clock_ms {
            remove(txn, item, token, place);
            gone += 1;
            continue;
        }
        if CREATORS.get(txn.view(), item)? != Some(token) {
            CREATORS.put(txn, item, &token)?;
            give(txn, item, token, place)?;
        }
        return Ok(gone);
    }
    CREATORS.delete(txn, item);
    Ok(gone)
}

/// Counts a caller's right from here.
fn give(txn: &mut Txn<'_>, item: Item<'_>, token: u64, place: Place) -> Result<(), Fault> {
    DEADLINES.delete(txn, (place.deadline_ms, token));
    let deadline_ms = txn.clock_ms.saturating_add(place.ttl_ms);
    put(txn, item, token, Place { deadline_ms, ..place })
}

fn put(txn: &mut Txn<'_>, item: Item<'_>, token: u64, place: Place) -> Result<(), Fault> {
    let (namespace, object, name) = item;
    let subject = Subject { namespace: namespace.to_owned(), object, name: name.to_owned() };
    DEADLINES.put(txn, (place.deadline_ms, token), &subject)?;
    QUEUES.put(txn, (namespace, object, name, token), &place)
}

fn remove(txn: &mut Txn<'_>, (namespace, object, name): Item<'_>, token: u64, place: Place) {
    DEADLINES.delete(txn, (place.deadline_ms, token));
    QUEUES.delete(txn, (namespace, object, name, token));
}

fn first(view: View<'_>, item: Item<'_>) -> Result<Option<(u64, Place)>, Fault> {
    let first = QUEUES.scan(view, item).next().transpose()?;
    Ok(first.map(|((_, _, _, token), place)| (token, place)))
}

/// The callers whose time is not over, in order: the first one has the right to create the item's value.
pub fn callers(state: &State, namespace: &str, object: i64, name: &str) -> Result<Vec<u64>, Fault> {
    let view = state.view();
    let mut callers = Vec::new();
    for row in QUEUES.scan(view, (namespace, object, name)) {
        let ((_, _, _, token), place) = row?;
        if place.deadline_ms > view.clock_ms {
            callers.push(token);
        }
    }
    Ok(callers)
}

/// Whether a row is one that those who watch learn of.
pub(crate) fn is_event(key: &[u8]) -> bool {
    CREATORS.has(key)
}

/// The event of a changed row; None if it is none of this file's.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<state::Event, Fault>> {
    CREATORS.row(key, value).map(|row| {
        let ((namespace, object, name), token) = row?;
        Ok(state::Event::CreatorChanged { namespace, object, name, token })
    })
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    let of_queue = QUEUES.describe(key, value);
    of_queue.or_else(|| DEADLINES.describe(key, value)).or_else(|| CREATORS.describe(key, value))
}

/// Appends what does not hold of this file's invariants.
pub(crate) fn audit(view: View<'_>, revision: u64, broken: &mut Vec<String>) -> Result<(), Fault> {
    let (mut places, mut queues, mut last) = (0, 0, None);
    for row in QUEUES.scan_all(view) {
        let ((namespace, object, name, token), place) = row?;
        let item = (namespace.as_str(), object, name.as_str());
        places += 1;
        if token > revision || !DEADLINES.contains(view, (place.deadline_ms, token)) {
            broken.push(format!("token {token} has no deadline: {place:?}"));
        }
        let is_first = last.as_ref() != Some(&(namespace.clone(), object, name.clone()));
        if is_first {
            queues += 1;
            if CREATORS.get(view, item)? != Some(token) {
                broken.push(format!("token {token} is first, and somebody else creates {name}"));
            }
            // An object that is not there has no items either.
            if !matches!(state::standing(view, item), Ok(None)) {
                broken.push(format!("there is a queue to create {name}, which has a value"));
            }
        }
        last = Some((namespace, object, name));
    }
    if places != DEADLINES.scan_all(view).count() || queues != CREATORS.scan_all(view).count() {
        broken.push(format!("{places} creation places in {queues} queues have more rows"));
    }
    Ok(())
}
