//! Object state: values under names, kept for objects that have a name and a class.
//!
//! # Model
//!
//! An object is a pair (name, class) with an id. Under each object are items: a name and a value, which is
//! an opaque string of bytes. A set that races with another session's write loses to the write that is
//! applied first: the leader notes the revision at which it admitted the set, and the set is not carried out
//! if another session has written the item since. To know that, an item keeps who wrote it, when, and when
//! somebody other than that writer last did.
//!
//! # Invariants
//!
//! - The same pair always gives the same id; ids are positive and never given to another object.
//! - Of all creates of one item, one is told that it created it, until the item is deleted.
//! - A set that begins after another was acknowledged never loses to it; a session never races with itself.
//! - A write with a fence changes nothing once the claim it names has moved on; a create with a token creates
//!   nothing unless the token has the right to.
//! - A value equal to the present one changes no row and no revision.
//!
//! # What it leaves out
//!
//! It does not parse values. Objects cannot be deleted. Who may create a value where only one is to do so is
//! in [`creators`].

use serde::{Deserialize, Serialize};

use crate::changesources::{self, Fence};
use crate::encoding::raw;
use crate::fault::Fault;
use crate::import::{self, Clash};
use crate::machine::Stop;
use crate::refusal::{Field, check_id, check_name};
use crate::table::{Counter, Table, Txn, Value, View};
use crate::{Bytes, Refusal, State, creators, growth, limits};

/// Objects by namespace and id.
const OBJECTS: Table<(String, i64), Named> = Table::new(0x20, "object");
/// Ids of objects by namespace, name and class.
const OBJECT_IDS: Table<(String, String, String), i64> = Table::new(0x21, "object id");
/// Items by namespace, object and name.
const ITEMS: Table<(String, i64, String), Item<'static>> = Table::new(0x22, "item");

/// What an object is called. Never changes.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    name: String,
    class_name: String,
}

impl Value for Named {
    const VERSION: u8 = 1;
    type At<'a> = Named;
}

/// A value and who wrote it. All fields change with each write; races are decided by them.
#[derive(Serialize, Deserialize)]
struct Item<'a> {
    /// The revision that wrote the value.
    mod_revision: u64,
    /// The session that wrote the value.
    writer: u64,
    /// The newest revision that wrote a value here from a session other than `writer`; 0 if none did.
    other_revision: u64,
    #[serde(borrow, serialize_with = "raw::serialize")]
    value: &'a [u8],
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item")
            .field("mod_revision", &self.mod_revision)
            .field("writer", &self.writer)
            .field("other_revision", &self.other_revision)
            .field("value", &spell_value(self.value))
            .finish()
    }
}

impl Value for Item<'_> {
    const VERSION: u8 = 1;
    type At<'a> = Item<'a>;
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields that all variants share are described here once")]
pub enum Command {
    /// Finds an object, or creates it.
    GetObjectId { namespace: String, name: String, class_name: String },
    /// Overwrites a value, unless it loses a race.
    Set {
        namespace: String,
        object: i64,
        name: String,
        #[serde(with = "raw")]
        value: Bytes,
        /// Write only if the item's revision is this one, 0 for absent. Takes the place of the note.
        if_revision: Option<u64>,
        /// Refused once this claim has moved on.
        fence: Option<Fence>,
        /// The state's revision when the leader admitted the set; filled in by [`State::admit`]. The set
        /// loses to a write by another session above it.
        noted_revision: Option<u64>,
    },
    /// Writes a value if there is none.
    Create {
        namespace: String,
        object: i64,
        name: String,
        #[serde(with = "raw")]
        value: Bytes,
        /// Refused once this claim has moved on.
        fence: Option<Fence>,
        /// Refused, if there is no value, unless this token has the right to create it.
        token: Option<u64>,
    },
    /// Removes a value.
    Delete {
        namespace: String,
        object: i64,
        name: String,
        /// Refused once this claim has moved on.
        fence: Option<Fence>,
    },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The object's id.
    ObjectId(i64),
    /// A set was carried out, or lost.
    Written {
        /// Whether the item has the value that was to be set.
        written: bool,
        /// The revision of the value that stands; 0 if there is none.
        mod_revision: u64,
        /// Whether the item has a value.
        found: bool,
        /// The value that stands, if the set lost and it is not above
        /// [`REPLY_VALUE_BYTES_MAX`](crate::limits::REPLY_VALUE_BYTES_MAX); else it must be read.
        value: Option<Bytes>,
    },
    /// A create was carried out, or found a value.
    Created {
        /// Whether this request created the value.
        created: bool,
        /// The revision of the value that stands.
        mod_revision: u64,
        /// The value that stands, if it was there before and is not above
        /// [`REPLY_VALUE_BYTES_MAX`](crate::limits::REPLY_VALUE_BYTES_MAX); else it must be read.
        value: Option<Bytes>,
    },
    /// Whether there was a value to remove.
    Deleted(bool),
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::Namespace, self.namespace())?;
        match self {
            Command::GetObjectId { name, class_name, .. } => {
                check_name(Field::Name, name)?;
                check_name(Field::ClassName, class_name)
            }
            Command::Set { object, name, value, fence, .. }
            | Command::Create { object, name, value, fence, .. } => {
                check_item(*object, name, *fence)?;
                let (actual, allowed) = (value.len() as u64, limits::VALUE_BYTES_MAX as u64);
                match actual > allowed {
                    true => Err(Refusal::ValueTooLarge { actual, allowed }),
                    false => Ok(()),
                }
            }
            Command::Delete { object, name, fence, .. } => check_item(*object, name, *fence),
        }
    }

    /// The key of the item that the command writes.
    pub(crate) fn item_key(&self) -> Option<Vec<u8>> {
        match self {
            Command::GetObjectId { .. } => None,
            Command::Set { namespace, object, name, .. }
            | Command::Create { namespace, object, name, .. }
            | Command::Delete { namespace, object, name, .. } => {
                Some(item_key((namespace, *object, name)))
            }
        }
    }

    /// How many bytes its names and value take.
    pub(crate) fn text_bytes(&self) -> usize {
        self.namespace().len()
            + match self {
                Command::GetObjectId { name, class_name, .. } => name.len() + class_name.len(),
                Command::Set { name, value, .. } | Command::Create { name, value, .. } => {
                    name.len() + value.len()
                }
                Command::Delete { name, .. } => name.len(),
            }
    }

    /// Notes the revision at which the leader first admits a set.
    pub(crate) fn note(&mut self, revision: u64) {
        if let Command::Set { if_revision: None, noted_revision, .. } = self {
            noted_revision.get_or_insert(revision);
        }
    }

    fn namespace(&self) -> &str {
        match self {
            Command::GetObjectId { namespace, .. }
            | Command::Set { namespace, .. }
            | Command::Create { namespace, .. }
            | Command::Delete { namespace, .. } => namespace,
        }
    }
}

fn check_item(object: i64, name: &str, fence: Option<Fence>) -> Result<(), Refusal> {
    check_id(Field::ObjectId, object)?;
    check_name(Field::Name, name)?;
    fence.map_or(Ok(()), |fence| check_id(Field::ChangeSourceId, fence.changesource))
}

/// Carries out a command of a session.
pub(crate) fn apply(txn: &mut Txn<'_>, session: u64, command: &Command) -> Result<Reply, Stop> {
    let (other_revision, is_absent) = match judge(txn.view(), session, command)? {
        Verdict::Stands(reply) => return Ok(reply),
        Verdict::Change { other_revision, is_absent } => (other_revision, is_absent),
    };
    let (writer, mod_revision) = (session, txn.revision);
    match command {
        Command::GetObjectId { namespace, name, class_name } => {
            let id = Counter::Objects.next_id(txn)?;
            let key = (namespace.as_str(), name.as_str(), class_name.as_str());
            OBJECT_IDS.put(txn, key, &id)?;
            let named = Named { name: name.clone(), class_name: class_name.clone() };
            OBJECTS.put(txn, (namespace.as_str(), id), &named)?;
            Ok(Reply::ObjectId(id))
        }
        Command::Set { namespace, object, name, value, .. } => {
            let item = Item { mod_revision, writer, other_revision, value };
            ITEMS.put(txn, (namespace.as_str(), *object, name.as_str()), &item)?;
            if is_absent {
                creators::dismiss(txn, (namespace, *object, name))?;
            }
            Ok(Reply::Written { written: true, mod_revision, found: true, value: None })
        }
        Command::Create { namespace, object, name, value, .. } => {
            let item = Item { mod_revision, writer, other_revision, value };
            ITEMS.put(txn, (namespace.as_str(), *object, name.as_str()), &item)?;
            creators::dismiss(txn, (namespace, *object, name))?;
            Ok(Reply::Created { created: true, mod_revision, value: None })
        }
        Command::Delete { namespace, object, name, .. } => {
            Ok(Reply::Deleted(ITEMS.delete(txn, (namespace.as_str(), *object, name.as_str()))))
        }
    }
}

/// Takes in an object from elsewhere; false if it is here already.
pub(crate) fn import_object(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: i64,
    name: &str,
    class_name: &str,
) -> Result<Result<bool, Clash>, Fault> {
    let named = Named { name: name.to_owned(), class_name: class_name.to_owned() };
    if let Some(found) = OBJECTS.get(txn.view(), (namespace, id))? {
        let is_same = (&found.name, &found.class_name) == (&named.name, &named.class_name);
        let clash = || Clash(import::spell_object(id, &found.name, &found.class_name));
        return Ok(if is_same { Ok(false) } else { Err(clash()) });
    }
    if let Some(other) = OBJECT_IDS.get(txn.view(), (namespace, name, class_name))? {
        return Ok(Err(Clash(import::spell_object(other, name, class_name))));
    }
    Counter::Objects.raise(txn, id)?;
    OBJECT_IDS.put(txn, (namespace, name, class_name), &id)?;
    OBJECTS.put(txn, (namespace, id), &named)?;
    Ok(Ok(true))
}

/// Takes in an item from elsewhere; false if it is here already.
pub(crate) fn import_item(
    txn: &mut Txn<'_>,
    session: u64,
    item: (&str, i64, &str),
    value: &[u8],
) -> Result<Result<bool, Clash>, Stop> {
    if let Some(found) = item_to_write(txn.view(), item, None)? {
        let clash = || Clash(import::spell_item(item.1, item.2, found.value));
        return Ok(if found.value == value { Ok(false) } else { Err(clash()) });
    }
    let (mod_revision, writer, other_revision) = (txn.revision, session, 0);
    ITEMS.put(txn, item, &Item { mod_revision, writer, other_revision, value })?;
    creators::dismiss(txn, item)?;
    Ok(Ok(true))
}

/// What a command comes to.
pub(crate) enum Verdict {
    /// It changes nothing, and this is the reply.
    Stands(Reply),
    /// It changes something.
    Change {
        /// The newest revision at which a session other than the caller's wrote the item; 0 if none did.
        other_revision: u64,
        /// Whether there is no item.
        is_absent: bool,
    },
}

/// Decides what a command comes to in this state. The leader asks it too, before it proposes.
pub(crate) fn judge(view: View<'_>, session: u64, command: &Command) -> Result<Verdict, Stop> {
    let (item, reply) = match command {
        Command::GetObjectId { namespace, name, class_name } => {
            let key = (namespace.as_str(), name.as_str(), class_name.as_str());
            (None, OBJECT_IDS.get(view, key)?.map(Reply::ObjectId))
        }
        Command::Set {
            namespace, object, name, value, if_revision, fence, noted_revision, ..
        } => {
            let item = item_to_write(view, (namespace, *object, name), *fence)?;
            let present = item.as_ref();
            let lost = match (if_revision, noted_revision) {
                (Some(revision), _) => present.map_or(0, |item| item.mod_revision) != *revision,
                (None, Some(noted)) => {
                    present.is_some_and(|item| item.others_wrote(session) > *noted)
                }
                (None, None) => false,
            };
            let is_equal = present.is_some_and(|item| item.value == &**value);
            let reply = (lost || is_equal).then(|| Reply::Written {
                written: !lost,
                mod_revision: present.map_or(0, |item| item.mod_revision),
                found: present.is_some(),
                value: present.filter(|_| lost).and_then(Item::value_for_reply),
            });
            (item, reply)
        }
        Command::Create { namespace, object, name, fence, token, .. } => {
            let item = item_to_write(view, (namespace, *object, name), *fence)?;
            if let (None, Some(token)) = (&item, token) {
                creators::check(view, (namespace, *object, name), *token)?;
            }
            let reply = item.as_ref().map(|item| Reply::Created {
                created: false,
                mod_revision: item.mod_revision,
                value: item.value_for_reply(),
            });
            (item, reply)
        }
        Command::Delete { namespace, object, name, fence } => {
            let item = item_to_write(view, (namespace, *object, name), *fence)?;
            let reply = item.is_none().then_some(Reply::Deleted(false));
            (item, reply)
        }
    };
    let is_absent = item.is_none();
    let other_revision = item.map_or(0, |item| item.others_wrote(session));
    Ok(reply.map_or(Verdict::Change { other_revision, is_absent }, Verdict::Stands))
}

/// At most how many bytes a command adds.
pub(crate) fn growth(view: View<'_>, command: &Command) -> Result<u64, Fault> {
    Ok(match command {
        Command::GetObjectId { namespace, name, class_name } => {
            let key = (namespace.as_str(), name.as_str(), class_name.as_str());
            match OBJECT_IDS.contains(view, key) {
                true => 0,
                false => growth::of_rows(2, 2 * command.text_bytes()),
            }
        }
        Command::Set { namespace, object, name, value, .. }
        | Command::Create { namespace, object, name, value, .. } => {
            match ITEMS.get(view, (namespace.as_str(), *object, name.as_str()))? {
                Some(item) => value.len().saturating_sub(item.value.len()) as u64,
                None => growth::of_rows(1, command.text_bytes()),
            }
        }
        Command::Delete { .. } => 0,
    })
}

impl Item<'_> {
    /// The newest revision at which a session other than this one wrote here.
    fn others_wrote(&self, session: u64) -> u64 {
        if self.writer == session { self.other_revision } else { self.mod_revision }
    }

    fn value_for_reply(&self) -> Option<Bytes> {
        (self.value.len() <= limits::REPLY_VALUE_BYTES_MAX).then(|| self.value.into())
    }
}

/// The key of an item's row.
pub(crate) fn item_key(item: (&str, i64, &str)) -> Vec<u8> {
    ITEMS.key(item)
}

/// The revision of an item's value, and the value if a reply can carry it; None if there is none. Refused
/// if there is no such object.
pub(crate) fn standing(
    view: View<'_>,
    item: (&str, i64, &str),
) -> Result<Option<(u64, Option<Bytes>)>, Stop> {
    let item = item_to_write(view, item, None)?;
    Ok(item.map(|item| (item.mod_revision, item.value_for_reply())))
}

/// The present item, once it is clear that the caller may write to it.
fn item_to_write<'a>(
    view: View<'a>,
    (namespace, object, name): (&str, i64, &str),
    fence: Option<Fence>,
) -> Result<Option<Item<'a>>, Stop> {
    if let Some(fence) = fence {
        changesources::check_fence(view, namespace, fence)?;
    }
    if !OBJECTS.contains(view, (namespace, object)) {
        return Err(Refusal::UnknownObject { id: object }.into());
    }
    Ok(ITEMS.get(view, (namespace, object, name))?)
}

/// A value as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The value, byte for byte as it was written.
    pub value: &'a [u8],
    /// The revision that wrote it.
    pub mod_revision: u64,
}

/// A value and the name it is kept under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its name within the object.
    pub name: String,
    /// The value, byte for byte as it was written.
    pub value: &'a [u8],
    /// The revision that wrote it.
    pub mod_revision: u64,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its class.
    pub class_name: String,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is in it, in order.
    pub items: Vec<T>,
    /// Whether there is more behind it.
    pub more: bool,
}

/// The id of an object, if it exists.
pub fn object_id(
    state: &State,
    namespace: &str,
    name: &str,
    class_name: &str,
) -> Result<Option<i64>, Fault> {
    OBJECT_IDS.get(state.view(), (namespace, name, class_name))
}

/// One value. None if there is no such item, or no such object.
pub fn get<'a>(
    state: &'a State,
    namespace: &str,
    object: i64,
    name: &str,
) -> Result<Option<Found<'a>>, Fault> {
    let item = ITEMS.get(state.view(), (namespace, object, name))?;
    Ok(item.map(|Item { value, mod_revision, .. }| Found { value, mod_revision }))
}

/// Those of several values that exist, in the order asked for. None if there is no such object.
pub fn get_many<'a, N: AsRef<str>>(
    state: &'a State,
    namespace: &str,
    object: i64,
    names: &[N],
) -> Result<Option<Vec<Listed<'a>>>, Fault> {
    if !OBJECTS.contains(state.view(), (namespace, object)) {
        return Ok(None);
    }
    let mut items = Vec::with_capacity(names.len());
    for name in names.iter().map(AsRef::as_ref) {
        if let Some(Found { value, mod_revision }) = get(state, namespace, object, name)? {
            items.push(Listed { name: name.to_owned(), value, mod_revision });
        }
    }
    Ok(Some(items))
}

/// The objects of a namespace behind an id (0 for the first page), in order of their ids.
///
/// A limit of 0, or above [`PAGE_MAX`](crate::limits::PAGE_MAX), means that many.
pub fn list_objects(
    state: &State,
    namespace: &str,
    after: i64,
    limit: usize,
) -> Result<Page<Object>, Fault> {
    let mut page = Page { items: Vec::new(), more: false };
    for row in OBJECTS.scan_after(state.view(), namespace, (namespace, after)) {
        if page.items.len() == page_limit(limit) {
            page.more = true;
            break;
        }
        let ((_, id), Named { name, class_name }) = row?;
        page.items.push(Object { id, name, class_name });
    }
    Ok(page)
}

/// The items of an object behind a name (empty for the first page), in order of their names.
///
/// A limit of 0, or above [`PAGE_MAX`](crate::limits::PAGE_MAX), means that many. A page also ends once its
/// values take [`PAGE_BYTES_MAX`](crate::limits::PAGE_BYTES_MAX). None if there is no such object.
pub fn list<'a>(
    state: &'a State,
    namespace: &str,
    object: i64,
    after_name: &str,
    limit: usize,
) -> Result<Option<Page<Listed<'a>>>, Fault> {
    let view = state.view();
    if !OBJECTS.contains(view, (namespace, object)) {
        return Ok(None);
    }
    let mut page = Page { items: Vec::new(), more: false };
    let mut bytes = 0;
    for row in ITEMS.scan_after(view, (namespace, object), (namespace, object, after_name)) {
        if page.items.len() == page_limit(limit) || bytes >= limits::PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let ((_, _, name), Item { value, mod_revision, .. }) = row?;
        bytes += value.len();
        page.items.push(Listed { name, value, mod_revision });
    }
    Ok(Some(page))
}

/// What those who watch learn of a changed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a new object.
    ObjectCreated {
        /// Its namespace.
        namespace: String,
        /// Its id.
        object: i64,
        /// Its name.
        name: String,
        /// Its class.
        class_name: String,
    },
    /// A value was written.
    Put {
        /// The object's namespace.
        namespace: String,
        /// The object.
        object: i64,
        /// The item's name.
        name: String,
        /// The value.
        value: Bytes,
    },
    /// A value was deleted.
    Deleted {
        /// The object's namespace.
        namespace: String,
        /// The object.
        object: i64,
        /// The item's name.
        name: String,
    },
    /// Another caller has the right to create a value, or nobody has.
    CreatorChanged {
        /// The object's namespace.
        namespace: String,
        /// The object.
        object: i64,
        /// The item's name.
        name: String,
        /// The caller's token.
        token: Option<u64>,
    },
}

impl Event {
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Event::ObjectCreated { namespace, .. }
            | Event::Put { namespace, .. }
            | Event::Deleted { namespace, .. }
            | Event::CreatorChanged { namespace, .. } => namespace,
        }
    }
}

/// Whether a row is one that those who watch learn of.
pub(crate) fn is_event(key: &[u8]) -> bool {
    OBJECTS.has(key) || ITEMS.has(key)
}

/// The event of a changed row; None if it is none of this connector's.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<Event, Fault>> {
    let object = OBJECTS.row(key, value).map(|row| {
        let ((namespace, object), named) = row?;
        let id = object.cast_unsigned();
        let named = named.ok_or(Fault::Contradiction { what: "a removed object", id })?;
        let Named { name, class_name } = named;
        Ok(Event::ObjectCreated { namespace, object, name, class_name })
    });
    object.or_else(|| {
        ITEMS.row(key, value).map(|row| {
            let ((namespace, object, name), item) = row?;
            Ok(match item {
                Some(item) => Event::Put { namespace, object, name, value: item.value.into() },
                None => Event::Deleted { namespace, object, name },
            })
        })
    })
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    let of_object = OBJECTS.describe(key, value);
    of_object.or_else(|| OBJECT_IDS.describe(key, value)).or_else(|| ITEMS.describe(key, value))
}

/// The beginning of a value, for people.
pub(crate) fn spell_value(value: &[u8]) -> String {
    const SHOWN_BYTES: usize = 40;
    match value.get(..SHOWN_BYTES) {
        None => String::from_utf8_lossy(value).into_owned(),
        Some(head) => format!("{}… {} bytes", String::from_utf8_lossy(head), value.len()),
    }
}

/// Appends what does not hold of this file's invariants.
pub(crate) fn audit(view: View<'_>, revision: u64, broken: &mut Vec<String>) -> Result<(), Fault> {
    let mut objects = 0;
    for row in OBJECTS.scan_all(view) {
        let ((namespace, id), Named { name, class_name }) = row?;
        objects += 1;
        let key = (namespace.as_str(), name.as_str(), class_name.as_str());
        if OBJECT_IDS.get(view, key)? != Some(id) {
            broken.push(format!("object {id} is not found by its name"));
        }
    }
    if objects != OBJECT_IDS.scan_all(view).count() {
        broken.push(format!("{objects} objects have more names"));
    }
    for row in ITEMS.scan_all(view) {
        let ((namespace, object, name), item) = row?;
        if !OBJECTS.contains(view, (namespace.as_str(), object)) {
            broken.push(format!("item {name} has no object {object}"));
        }
        if item.mod_revision > revision || item.other_revision >= item.mod_revision {
            broken.push(format!("item {name} of object {object} is out of order: {item:?}"));
        }
    }
    Ok(())
}

fn page_limit(asked: usize) -> usize {
    if asked == 0 { limits::PAGE_MAX } else { asked.min(limits::PAGE_MAX) }
}
