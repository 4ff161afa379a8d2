//! Variables with versions, read and written by optimistic transactions (after Axon.STM.Store).
//!
//! # Model
//!
//! A variable is a key, an opaque value and a tag that says what the value's bytes are. Its version begins
//! at 1 when it is created and rises by one with each write; its modification revision is that of the write.
//! A commit compares some variables and writes some. It is carried out if all comparisons hold, and else
//! nothing is written and the reply names those that failed. A deleted variable has no row; one that is
//! created again begins at version 1, under another modification revision.
//!
//! # Invariants
//!
//! - All of a commit is written, or nothing, and all of it under one modification revision.
//! - A modification revision names one state of one variable for good: it never comes back.
//! - A variable's version is the number of its writes since it was created; a write of the value that is there
//!   already is one of them.
//! - A comparison that names a modification revision, other than 0 for absent, and fails never holds again.
//! - A commit that writes nothing changes nothing.
//!
//! # What it leaves out
//!
//! Isolation levels: what a transaction has read, and so compares, is the client's affair. The encoding of
//! keys, and what values mean.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::encoding::{Beginning, ByteString, raw};
use crate::fault::Fault;
use crate::limits::{
    CONFLICTS_NAMED_MAX, PAGE_BYTES_MAX, PAGE_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_KEYS_MAX,
    VALUE_BYTES_MAX,
};
use crate::machine::Stop;
#[cfg(feature = "plant")]
use crate::plant::{self, Plant};
use crate::refusal::{Field, check_name};
use crate::state::{Page, spell_value};
use crate::table::{Table, Txn, Value, View};
use crate::{Bytes, Refusal, State, growth, limits};

/// Variables by namespace and key.
const VARIABLES: Table<(String, ByteString), Variable<'static>> = Table::new(0x50, "variable");

/// What the bytes of a value are. Nothing here looks into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// Bytes that mean what the programs have agreed on.
    Bytes,
    /// A JSON text.
    Json,
    /// A Python pickle.
    Pickle,
}

/// A variable's row. All fields change with each write; comparisons are decided by the first two.
#[derive(Serialize, Deserialize)]
struct Variable<'a> {
    /// How often it has been written since it was created.
    version: u64,
    /// The revision that wrote it last.
    mod_revision: u64,
    codec: Codec,
    #[serde(borrow, serialize_with = "raw::serialize")]
    value: &'a [u8],
}

impl std::fmt::Debug for Variable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable")
            .field("version", &self.version)
            .field("mod_revision", &self.mod_revision)
            .field("codec", &self.codec)
            .field("value", &spell_value(self.value))
            .finish()
    }
}

impl Value for Variable<'_> {
    const VERSION: u8 = 1;
    type At<'a> = Variable<'a>;
}

/// A commit: what must hold, and what is then written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Where the variables are.
    pub namespace: String,
    /// All of them must hold. No key twice.
    pub comparisons: Vec<Comparison>,
    /// No key twice.
    pub writes: Vec<Write>,
}

/// What a variable must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The variable.
    #[serde(with = "raw")]
    pub key: Bytes,
    /// Its version; 0: it is not there.
    pub version: u64,
    /// The revision that wrote it last, 0 if it is not there; None: only versions are compared.
    pub mod_revision: Option<u64>,
}

/// What becomes of a variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are what their names say")]
pub enum Write {
    /// It has this value, whether or not it was there.
    Put {
        #[serde(with = "raw")]
        key: Bytes,
        codec: Codec,
        #[serde(with = "raw")]
        value: Bytes,
    },
    /// It is not there any more, if it was.
    Delete {
        #[serde(with = "raw")]
        key: Bytes,
    },
}

/// What came of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// All comparisons held. The response's revision is the modification revision of all that was written.
    Committed,
    /// Nothing was written.
    Conflict {
        /// The comparisons that failed, by their places from 0 on, in order; at most
        /// [`CONFLICTS_NAMED_MAX`].
        failed: Vec<u32>,
        /// How many failed in all.
        total: u32,
    },
}

impl Write {
    /// The variable.
    pub fn key(&self) -> &Bytes {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Write::Put { value, .. } => value.len(),
            Write::Delete { .. } => 0,
        }
    }
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::Namespace, &self.namespace)?;
        let (compared, written) = (self.comparisons.len(), self.writes.len());
        // Each list is looked through only if it can be below the limit.
        check_size(Field::Keys, compared.max(written), TRANSACTION_KEYS_MAX)?;
        let compared = self.comparisons.iter().map(|comparison| &comparison.key);
        let written = self.writes.iter().map(Write::key);
        check_keys(Field::Comparisons, compared.clone())?;
        check_keys(Field::Writes, written.clone())?;
        let keys: BTreeSet<&Bytes> = compared.chain(written).collect();
        check_size(Field::Keys, keys.len(), TRANSACTION_KEYS_MAX)?;
        for write in &self.writes {
            let (actual, allowed) = (write.value_bytes() as u64, VALUE_BYTES_MAX as u64);
            if actual > allowed {
                return Err(Refusal::ValueTooLarge { actual, allowed });
            }
        }
        check_size(Field::Bytes, self.bytes(), TRANSACTION_BYTES_MAX)
    }

    /// The bytes of its keys, each as often as it is named, and of its values: what its limit is about.
    fn bytes(&self) -> usize {
        let compared = self.comparisons.iter().map(|comparison| comparison.key.len());
        let written = self.writes.iter().map(|write| write.key().len() + write.value_bytes());
        compared.chain(written).sum()
    }

    /// About how many bytes it takes in an entry; never less than its names and values do.
    pub(crate) fn text_bytes(&self) -> usize {
        /// More than the numbers and lengths of a comparison or a write take.
        const PART_BYTES: usize = 32;
        let parts = self.comparisons.len() + self.writes.len();
        self.namespace.len() + self.bytes() + parts * PART_BYTES
    }

    /// The keys that it writes, as rows.
    pub(crate) fn written_keys(&self) -> impl Iterator<Item = Vec<u8>> {
        self.writes.iter().map(|write| self.row_key(write.key()))
    }

    /// The keys that it compares, as rows.
    pub(crate) fn compared_keys(&self) -> impl Iterator<Item = Vec<u8>> {
        self.comparisons.iter().map(|comparison| self.row_key(&comparison.key))
    }

    fn row_key(&self, key: &[u8]) -> Vec<u8> {
        VARIABLES.key((self.namespace.as_str(), key))
    }
}

fn check_size(field: Field, actual: usize, allowed: usize) -> Result<(), Refusal> {
    let (actual, allowed) = (actual as u64, allowed as u64);
    match actual > allowed {
        true => Err(Refusal::TransactionTooLarge { field, actual, allowed }),
        false => Ok(()),
    }
}

/// Refuses keys that are empty or too long, and one that comes twice.
fn check_keys<'a>(list: Field, keys: impl Iterator<Item = &'a Bytes>) -> Result<(), Refusal> {
    let mut places = BTreeMap::new();
    for (again, key) in (0_u64..).zip(keys) {
        check_name(Field::Key, key)?;
        if let Some(first) = places.insert(key, again) {
            return Err(Refusal::DuplicateKey { field: list, first, again });
        }
    }
    Ok(())
}

/// Carries out a commit.
pub(crate) fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply, Stop> {
    let (namespace, mod_revision) = (command.namespace.as_str(), txn.revision);
    // The step's own revision is one above the state's.
    if let Some(conflict) = conflict(txn.view(), mod_revision - 1, command)? {
        return Ok(conflict);
    }
    for write in &command.writes {
        match write {
            Write::Put { key, codec, value } => {
                let key = (namespace, &**key);
                let before = VARIABLES.get(txn.view(), key)?.map_or(0, |found| found.version);
                let exhausted = Fault::CounterExhausted { counter: "versions of a variable" };
                let version = before.checked_add(1).ok_or(exhausted)?;
                VARIABLES.put(
                    txn,
                    key,
                    &Variable { version, mod_revision, codec: *codec, value },
                )?;
            }
            Write::Delete { key } => {
                VARIABLES.delete(txn, (namespace, &**key));
            }
        }
    }
    Ok(Reply::Committed)
}

/// The reply to a commit that would change nothing in a state of this revision. The leader asks before it
/// proposes.
pub(crate) fn known(
    view: View<'_>,
    revision: u64,
    command: &Command,
) -> Result<Option<Reply>, Stop> {
    let conflict = conflict(view, revision, command)?;
    Ok(conflict.or_else(|| command.writes.is_empty().then_some(Reply::Committed)))
}

/// Why a commit is not carried out in a state of this revision; None if all comparisons hold.
fn conflict(view: View<'_>, revision: u64, command: &Command) -> Result<Option<Reply>, Stop> {
    let (mut failed, mut total) = (Vec::new(), 0);
    for (nth, comparison) in (0_u32..).zip(&command.comparisons) {
        #[cfg(feature = "plant")]
        if plant::is(Plant::OnlyFirstCompared) && nth > 0 {
            break;
        }
        let found = VARIABLES.get(view, (command.namespace.as_str(), &*comparison.key))?;
        let found = found.map_or((0, 0), |found| (found.version, found.mod_revision));
        if !comparison.holds(nth, found, revision)? {
            total += 1;
            if failed.len() < CONFLICTS_NAMED_MAX {
                failed.push(nth);
            }
        }
    }
    Ok((total > 0).then_some(Reply::Conflict { failed, total }))
}

impl Comparison {
    /// Whether it holds of a variable with this version and modification revision, in a state of this
    /// revision. Refused if it names what that variable has never had.
    fn holds(
        &self,
        nth: u32,
        (version, mod_revision): (u64, u64),
        revision: u64,
    ) -> Result<bool, Refusal> {
        let from_future = |field, actual, found| {
            Err(Refusal::VersionFromFuture { nth: nth.into(), field, actual, found })
        };
        let is_same = self.version == version;
        match self.mod_revision {
            None if self.version > version => from_future(Field::Version, self.version, version),
            None => Ok(is_same),
            Some(named) if named > revision => from_future(Field::ModRevision, named, mod_revision),
            Some(named) if named == mod_revision && !is_same => {
                from_future(Field::Version, self.version, version)
            }
            Some(named) => Ok(named == mod_revision),
        }
    }
}

/// At most how many bytes a commit adds.
pub(crate) fn growth(view: View<'_>, command: &Command) -> Result<u64, Fault> {
    let namespace = command.namespace.as_str();
    let mut bytes = 0;
    for write in &command.writes {
        let Write::Put { key, value, .. } = write else { continue };
        bytes += match VARIABLES.get(view, (namespace, &**key))? {
            Some(found) => value.len().saturating_sub(found.value.len()) as u64,
            None => growth::of_rows(1, VARIABLES.key((namespace, &**key)).len() + value.len()),
        };
    }
    Ok(bytes)
}

/// A variable as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// How often it has been written since it was created.
    pub version: u64,
    /// The revision that wrote it last.
    pub mod_revision: u64,
    /// What the bytes of its value are.
    pub codec: Codec,
    /// The value, byte for byte as it was written.
    pub value: &'a [u8],
}

impl<'a> From<Variable<'a>> for Found<'a> {
    fn from(variable: Variable<'a>) -> Self {
        let Variable { version, mod_revision, codec, value } = variable;
        Found { version, mod_revision, codec, value }
    }
}

/// A variable in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its key.
    pub key: Vec<u8>,
    /// What it is.
    pub found: Found<'a>,
}

/// One variable; None if it is not there.
pub fn get<'a>(state: &'a State, namespace: &str, key: &[u8]) -> Result<Option<Found<'a>>, Fault> {
    Ok(VARIABLES.get(state.view(), (namespace, key))?.map(Found::from))
}

/// The variables of a namespace whose keys begin with `prefix` and come behind `after` (empty for the first
/// page), in order of their keys.
///
/// A page ends at [`PAGE_MAX`] variables, or once its keys and values take [`PAGE_BYTES_MAX`].
pub fn list<'a>(
    state: &'a State,
    namespace: &str,
    prefix: &[u8],
    after: &[u8],
) -> Result<Page<Listed<'a>>, Fault> {
    let mut page = Page { items: Vec::new(), more: false };
    let mut bytes = 0;
    let leading = (namespace, Beginning(prefix));
    for row in VARIABLES.scan_after(state.view(), leading, (namespace, after)) {
        if page.items.len() == PAGE_MAX || bytes >= PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let ((_, ByteString(key)), variable) = row?;
        bytes += key.len() + variable.value.len();
        page.items.push(Listed { key, found: variable.into() });
    }
    Ok(page)
}

/// A variable was written or deleted.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: Vec<u8>,
    /// Its version; 0: it was deleted.
    pub version: u64,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("namespace", &self.namespace)
            .field("key", &format_args!("\"{}\"", self.key.escape_ascii()))
            .field("version", &self.version)
            .finish()
    }
}

/// Whether a row is one that those who watch learn of.
pub(crate) fn is_event(key: &[u8]) -> bool {
    VARIABLES.has(key)
}

/// The event of a changed row; None if it is none of this connector's.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<Event, Fault>> {
    VARIABLES.row(key, value).map(|row| {
        let ((namespace, ByteString(key)), variable) = row?;
        let version = variable.map_or(0, |variable| variable.version);
        Ok(Event { namespace, key, version })
    })
}

/// Spells a row of this file's table.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    VARIABLES.describe(key, value)
}

/// Appends what does not hold of this file's invariants.
pub(crate) fn audit(view: View<'_>, revision: u64, broken: &mut Vec<String>) -> Result<(), Fault> {
    for row in VARIABLES.scan_all(view) {
        let ((namespace, key), variable) = row?;
        let Variable { version, mod_revision, value, .. } = variable;
        let is_numbered = version > 0 && (1..=revision).contains(&mod_revision);
        let is_within = (1..=limits::NAME_BYTES_MAX).contains(&key.0.len());
        if !is_numbered || !is_within || value.len() > VALUE_BYTES_MAX {
            broken.push(format!("variable {key:?} of {namespace}: {variable:?}"));
        }
    }
    Ok(())
}
