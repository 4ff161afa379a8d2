//! Typed tables over the one ordered map of bytes, and the writes of one step.
//!
//! # Model
//!
//! [`Rows`] is the map. A [`Table`] is a prefix byte and the types of its keys and values; it reads from a
//! [`View`] and writes to a [`Txn`]. A transaction writes into the map at once, so that it reads its own
//! writes in every lookup and scan, and remembers what each row was before: [`Txn::finish`] hands out the net
//! difference, [`Txn::undo`] puts everything back. Both cost what was touched, not what is stored.
//!
//! # Invariants
//!
//! - A row that ends up with the value it had is no change.
//! - Changes come in the order of their keys.
//! - Prefixes are never given to another table. In use: 0x00 header, 0x01 counters, 0x10–0x12 sessions,
//!   0x20–0x22 state, 0x23–0x25 creators, 0x30–0x33 masters, 0x40–0x46 change sources,
//!   0x50 variables, 0x60–0x66 stored objects. Removed: none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::encoding::{self, CodecError, DecodeKey, EncodeKey};
use crate::fault::{Fault, spell_key};
use crate::limits::ROW_BYTES_MAX;
use crate::{Bytes, Hash};

/// All rows but the header. A clone shares everything with the original.
pub(crate) type Rows = imbl::OrdMap<Bytes, Bytes>;

/// A kind of value that rows can hold.
pub(crate) trait Value {
    /// The version byte that it is stored with.
    const VERSION: u8;
    /// The most that its stored form may take, in bytes.
    const BYTES_MAX: usize = ROW_BYTES_MAX;
    /// What is written, and what reading gives back; it may borrow from the row.
    type At<'a>: Serialize + Deserialize<'a> + Debug;
}

impl Value for () {
    const VERSION: u8 = 1;
    type At<'a> = ();
}

impl Value for i64 {
    const VERSION: u8 = 1;
    type At<'a> = i64;
}

impl Value for u64 {
    const VERSION: u8 = 1;
    type At<'a> = u64;
}

/// The rows at one moment, and the time it is then.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// The rows.
    pub(crate) rows: &'a Rows,
    /// The cluster clock, in milliseconds. What has a deadline at or before it has lapsed.
    pub(crate) clock_ms: u64,
}

/// The writes of one step: all are kept, or none.
pub(crate) struct Txn<'a> {
    rows: &'a mut Rows,
    /// What each touched row was before, and what it is now.
    touched: BTreeMap<Bytes, Touched>,
    /// The bytes of chunks that came in with this step, needed or not.
    bodies: BTreeMap<Hash, Bytes>,
    /// The cluster clock, in milliseconds.
    pub(crate) clock_ms: u64,
    /// The leader's wall clock, in milliseconds since 1970. For display only.
    pub(crate) wall_ms: u64,
    /// The revision that this step gets if it changes rows.
    pub(crate) revision: u64,
}

/// A row that a step wrote or removed, perhaps more than once.
pub(crate) struct Touched {
    /// Its value before the step.
    pub(crate) before: Option<Bytes>,
    /// Its value after the step.
    pub(crate) after: Option<Bytes>,
}

impl<'a> Txn<'a> {
    /// Begins a step.
    pub(crate) fn new(rows: &'a mut Rows, clock_ms: u64, wall_ms: u64, revision: u64) -> Self {
        let (touched, bodies) = (BTreeMap::new(), BTreeMap::new());
        Txn { rows, touched, bodies, clock_ms, wall_ms, revision }
    }

    /// The rows as this step has left them so far.
    pub(crate) fn view(&self) -> View<'_> {
        View { rows: self.rows, clock_ms: self.clock_ms }
    }

    /// Holds the bytes of a chunk ready, in case that its row is new.
    pub(crate) fn keep_body(&mut self, hash: Hash, bytes: &Bytes) {
        self.bodies.insert(hash, Bytes::clone(bytes));
    }

    /// Ends the step and says which rows it changed, by their keys, and which chunks came in.
    pub(crate) fn finish(self) -> (impl Iterator<Item = (Bytes, Touched)>, BTreeMap<Hash, Bytes>) {
        let changed = self.touched.into_iter().filter(|(_, row)| row.before != row.after);
        (changed, self.bodies)
    }

    /// Ends the step as if it had never been.
    pub(crate) fn undo(self) {
        for (key, row) in self.touched {
            match row.before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes) {
        let before = self.rows.insert(key.clone(), value.clone());
        self.touch(key, before, Some(value));
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        match self.rows.remove_with_key(key) {
            Some((key, before)) => {
                self.touch(key, Some(before), None);
                true
            }
            None => false,
        }
    }

    fn touch(&mut self, key: Bytes, before: Option<Bytes>, after: Option<Bytes>) {
        match self.touched.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Touched { before, after });
            }
            Entry::Occupied(mut entry) => entry.get_mut().after = after,
        }
    }
}

/// One table: the rows whose keys begin with its prefix, and what they mean.
pub(crate) struct Table<K, V> {
    /// What one of its rows is, for people.
    name: &'static str,
    prefix: u8,
    types: PhantomData<fn() -> (K, V)>,
}

/// The key of a row, and its value; none if the row was removed.
type Row<'a, K, V> = (K, Option<<V as Value>::At<'a>>);

impl<K: DecodeKey, V: Value> Table<K, V> {
    /// Declares a table. The prefix belongs into the list at the top of this file.
    pub(crate) const fn new(prefix: u8, name: &'static str) -> Self {
        Table { name, prefix, types: PhantomData }
    }

    /// The bytes of a whole key.
    pub(crate) fn key(&self, key: impl EncodeKey<Owned = K>) -> Vec<u8> {
        self.bytes(&key)
    }

    /// The value of a row, if there is one.
    pub(crate) fn get<'a>(
        &self,
        view: View<'a>,
        key: impl EncodeKey<Owned = K>,
    ) -> Result<Option<V::At<'a>>, Fault> {
        match view.rows.get_key_value(self.bytes(&key).as_slice()) {
            Some((key, value)) => Ok(Some(decode_value::<V>(key, value)?)),
            None => Ok(None),
        }
    }

    /// Whether there is such a row.
    pub(crate) fn contains(&self, view: View<'_>, key: impl EncodeKey<Owned = K>) -> bool {
        view.rows.contains_key(self.bytes(&key).as_slice())
    }

    /// Writes a row.
    pub(crate) fn put(
        &self,
        txn: &mut Txn<'_>,
        key: impl EncodeKey<Owned = K>,
        value: &V::At<'_>,
    ) -> Result<(), Fault> {
        let key = self.bytes(&key);
        let value = encoding::encode(V::VERSION, value, V::BYTES_MAX)
            .map_err(|source| Fault::UnstorableRow { key: spell_key(&key), source })?;
        txn.put(key.into(), value.into());
        Ok(())
    }

    /// Removes a row; false if there is none.
    pub(crate) fn delete(&self, txn: &mut Txn<'_>, key: impl EncodeKey<Owned = K>) -> bool {
        txn.delete(&self.bytes(&key))
    }

    /// The rows whose keys begin with these leading parts, in order.
    pub(crate) fn scan<'a>(
        &self,
        view: View<'a>,
        leading: impl EncodeKey,
    ) -> impl Iterator<Item = Result<(K, V::At<'a>), Fault>> {
        let leading = self.bytes(&leading);
        let end = behind(&leading);
        rows_between::<K, V>(view, Bound::Included(&leading), end)
    }

    /// The rows whose keys begin with these leading parts and come behind `after`, in order.
    pub(crate) fn scan_after<'a>(
        &self,
        view: View<'a>,
        leading: impl EncodeKey,
        after: impl EncodeKey<Owned = K>,
    ) -> impl Iterator<Item = Result<(K, V::At<'a>), Fault>> {
        let (leading, after) = (self.bytes(&leading), self.bytes(&after));
        let start =
            if after < leading { Bound::Included(&*leading) } else { Bound::Excluded(&*after) };
        rows_between::<K, V>(view, start, behind(&leading))
    }

    /// All rows, in order.
    pub(crate) fn scan_all<'a>(
        &self,
        view: View<'a>,
    ) -> impl Iterator<Item = Result<(K, V::At<'a>), Fault>> {
        rows_between::<K, V>(view, Bound::Included(&[self.prefix]), behind(&[self.prefix]))
    }

    /// How many rows there are.
    pub(crate) fn rows(&self, view: View<'_>) -> u64 {
        between(view, Bound::Included(&[self.prefix]), behind(&[self.prefix])).count() as u64
    }

    /// The keys that begin with these leading parts, in order.
    pub(crate) fn keys(
        &self,
        view: View<'_>,
        leading: impl EncodeKey,
    ) -> impl Iterator<Item = Result<K, Fault>> {
        let leading = self.bytes(&leading);
        let end = behind(&leading);
        between(view, Bound::Included(&leading), end).map(|(key, _)| decode_key(key))
    }

    /// Whether a key is of this table.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        key.first() == Some(&self.prefix)
    }

    /// The parts of a row, or of its removal; None if it is another table's.
    pub(crate) fn row<'a>(
        &self,
        key: &[u8],
        value: Option<&'a [u8]>,
    ) -> Option<Result<Row<'a, K, V>, Fault>> {
        self.has(key).then(|| {
            let value = value.map(|value| decode_value::<V>(key, value)).transpose()?;
            Ok((decode_key(key)?, value))
        })
    }

    /// Spells a row, or its removal, for people; None if it is another table's.
    pub(crate) fn describe(&self, key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>>
    where
        K: Debug,
    {
        self.row(key, value).map(|row| {
            let (name, (parts, value)) = (self.name, row?);
            Ok(match value {
                Some(value) => format!("{name} {parts:?} = {value:?}"),
                None => format!("{name} {parts:?} removed"),
            })
        })
    }

    fn bytes(&self, key: &impl EncodeKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(self.prefix);
        key.encode_key(&mut bytes);
        bytes
    }
}

fn rows_between<'a, K: DecodeKey, V: Value>(
    view: View<'a>,
    start: Bound<&[u8]>,
    end: Bound<Vec<u8>>,
) -> impl Iterator<Item = Result<(K, V::At<'a>), Fault>> + use<'a, K, V> {
    between(view, start, end)
        .map(|(key, value)| Ok((decode_key(key)?, decode_value::<V>(key, value)?)))
}

fn between<'a>(
    view: View<'a>,
    start: Bound<&[u8]>,
    end: Bound<Vec<u8>>,
) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> + use<'a> {
    view.rows.range::<_, [u8]>((start, end.as_ref().map(Vec::as_slice)))
}

fn decode_key<K: DecodeKey>(key: &[u8]) -> Result<K, Fault> {
    let mut parts = &key[1..];
    let decoded = K::decode_key(&mut parts).map_err(|source| corrupt(key, source))?;
    match parts.is_empty() {
        true => Ok(decoded),
        false => Err(corrupt(key, CodecError::MalformedKey)),
    }
}

/// The end of the range of keys that begin with `leading`.
fn behind(leading: &[u8]) -> Bound<Vec<u8>> {
    let mut end = leading.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

fn decode_value<'a, V: Value>(key: &[u8], value: &'a [u8]) -> Result<V::At<'a>, Fault> {
    encoding::decode(V::VERSION, value, V::BYTES_MAX).map_err(|source| corrupt(key, source))
}

fn corrupt(key: &[u8], source: CodecError) -> Fault {
    Fault::CorruptRow { key: spell_key(key), source }
}

/// Numbers that only rise, and the numbers of sessions and uploads.
const COUNTERS: Table<u8, u64> = Table::new(0x01, "counter");

/// Spells a row of this file's table.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    COUNTERS.describe(key, value)
}

/// One of the counters. The number is its key and never changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    /// The last object id given out.
    Objects = 1,
    /// The last master id given out.
    Masters = 2,
    /// The last change source id given out.
    ChangeSources = 3,
    /// How many sessions there are.
    Sessions = 4,
    /// How many ids of stored objects were given out.
    StoredObjects = 5,
    /// How many uploads there are.
    Uploads = 6,
}

impl Counter {
    /// Its present value; 0 at first.
    pub(crate) fn get(self, view: View<'_>) -> Result<u64, Fault> {
        Ok(COUNTERS.get(view, self as u8)?.unwrap_or(0))
    }

    /// Sets it.
    pub(crate) fn set(self, txn: &mut Txn<'_>, value: u64) -> Result<(), Fault> {
        COUNTERS.put(txn, self as u8, &value)
    }

    /// Raises it by one and gives the new value as an id: positive, and never given before.
    pub(crate) fn next_id(self, txn: &mut Txn<'_>) -> Result<i64, Fault> {
        let exhausted = || Fault::CounterExhausted { counter: self.name() };
        let next = self.get(txn.view())?.checked_add(1).ok_or_else(exhausted)?;
        let id = i64::try_from(next).map_err(|_| exhausted())?;
        self.set(txn, next)?;
        Ok(id)
    }

    /// Sees to it that no id up to this one is given any more.
    pub(crate) fn raise(self, txn: &mut Txn<'_>, id: i64) -> Result<(), Fault> {
        match id.unsigned_abs() {
            id if id > self.get(txn.view())? => self.set(txn, id),
            _ => Ok(()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Counter::Objects => "object ids",
            Counter::Masters => "master ids",
            Counter::ChangeSources => "change source ids",
            Counter::Sessions => "sessions",
            Counter::StoredObjects => "stored object ids",
            Counter::Uploads => "uploads",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Table<(String, u64), u64> = Table::new(0x7f, "number");

    fn rows(numbers: &[(&str, u64, u64)]) -> Rows {
        let mut rows = Rows::new();
        let mut txn = Txn::new(&mut rows, 0, 0, 1);
        for (text, key, value) in numbers {
            NUMBERS.put(&mut txn, (*text, *key), value).expect("it is short");
        }
        drop(txn);
        rows
    }

    #[test]
    fn a_step_reads_its_own_writes_in_order() {
        let mut rows = rows(&[("a", 1, 10), ("a", 3, 30), ("b", 1, 11)]);
        let mut txn = Txn::new(&mut rows, 0, 0, 1);
        NUMBERS.put(&mut txn, ("a", 2u64), &20).expect("it is short");
        assert!(NUMBERS.delete(&mut txn, ("a", 3u64)));
        assert!(!NUMBERS.delete(&mut txn, ("a", 4u64)));
        let scan = |from: Vec<_>| from.into_iter().map(|((_, key), value)| (key, value)).collect();
        let view = txn.view();
        let of_a: Result<Vec<_>, Fault> = NUMBERS.scan(view, "a").collect();
        assert_eq!(of_a.map(scan), Ok(vec![(1, 10), (2, 20)]));
        let behind: Result<Vec<_>, Fault> = NUMBERS.scan_after(view, "a", ("a", 1u64)).collect();
        assert_eq!(behind.map(scan), Ok(vec![(2, 20)]));
        let of_b: Result<Vec<_>, Fault> = NUMBERS.scan_after(view, "b", ("a", 1u64)).collect();
        assert_eq!(of_b.map(scan), Ok(vec![(1, 11)]), "only what begins with the leading parts");
        assert_eq!(NUMBERS.scan_all(view).count(), 3);
        let of_b: Vec<_> = NUMBERS.keys(view, "b").collect();
        assert_eq!(of_b, [Ok(("b".to_owned(), 1))]);
    }

    #[test]
    fn undo_puts_everything_back() {
        let mut rows = rows(&[("a", 1, 10), ("a", 2, 20)]);
        let before = rows.clone();
        let mut txn = Txn::new(&mut rows, 0, 0, 1);
        for value in [11, 12] {
            NUMBERS.put(&mut txn, ("a", 1u64), &value).expect("it is short");
            NUMBERS.put(&mut txn, ("a", 3u64), &value).expect("it is short");
        }
        NUMBERS.delete(&mut txn, ("a", 2u64));
        NUMBERS.delete(&mut txn, ("a", 3u64));
        txn.undo();
        assert_eq!(rows, before);
    }

    #[test]
    fn differences_are_net_and_in_order() {
        let mut rows = rows(&[("a", 1, 10), ("a", 2, 20), ("a", 3, 30)]);
        let mut txn = Txn::new(&mut rows, 0, 0, 1);
        // Written and written back, the same again, put and removed: no change.
        NUMBERS.put(&mut txn, ("a", 1u64), &99).expect("it is short");
        NUMBERS.put(&mut txn, ("a", 1u64), &10).expect("it is short");
        NUMBERS.put(&mut txn, ("a", 2u64), &20).expect("it is short");
        NUMBERS.put(&mut txn, ("a", 5u64), &50).expect("it is short");
        NUMBERS.delete(&mut txn, ("a", 5u64));
        // Two changes, made in the other order.
        NUMBERS.put(&mut txn, ("b", 1u64), &11).expect("it is short");
        NUMBERS.delete(&mut txn, ("a", 3u64));
        let changed: Vec<_> = txn.finish().0.map(|(key, row)| (key, row.after.is_some())).collect();
        let expected = [(NUMBERS.key(("a", 3u64)), false), (NUMBERS.key(("b", 1u64)), true)];
        assert_eq!(changed, expected.map(|(key, is_put)| (Bytes::from(key), is_put)));
    }

    #[test]
    fn a_table_ends_where_the_next_begins() {
        assert_eq!(behind(&[1, 2]), Bound::Excluded(vec![1, 3]));
        assert_eq!(behind(&[1, 0xff]), Bound::Excluded(vec![2]));
        assert_eq!(behind(&[0xff, 0xff]), Bound::Unbounded);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_a_fault() {
        let mut rows = Rows::new();
        rows.insert(NUMBERS.key(("a", 1u64)).into(), [9, 1].as_slice().into());
        let view = View { rows: &rows, clock_ms: 0 };
        let source = CodecError::UnknownVersion { found: 9, known: 1 };
        let key = "7f61000000000000000000 01".replace(' ', "");
        assert_eq!(NUMBERS.get(view, ("a", 1u64)), Err(Fault::CorruptRow { key, source }));
        let mut key = NUMBERS.key(("a", 1u64));
        key.push(0);
        rows.insert(key.into(), [1, 1].as_slice().into());
        let view = View { rows: &rows, clock_ms: 0 };
        assert!(matches!(NUMBERS.scan(view, "a").last(), Some(Err(Fault::CorruptRow { .. }))));
    }
}
