//! An object as every store keeps it: a class, metadata and one body of bytes.
//!
//! References to children stand in front of the body, 8 bytes each, big-endian; how many there are says the
//! metadata entry `_children`, in decimal. An object without children has neither, so that its body is kept
//! byte for byte. Stores of other languages keep the same form (docs/formats.md).

use std::collections::BTreeMap;

use super::error::Error;
use super::id::Id;
use super::persistable::Persistable;

/// Longest body, in bytes, references included (64 MiB): what a node takes, and what a client can hold.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest name of a class or a metadata entry, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Most metadata entries, that of the children included.
const METADATA_MAX: usize = 64;
/// Most bytes of names and values of all metadata entries together.
const METADATA_BYTES_MAX: usize = 8 << 10;
/// The metadata entry that says how many children there are.
const CHILDREN: &str = "_children";
/// Bytes of one reference.
const REFERENCE_BYTES: usize = 8;

/// An object as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) class_name: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An object of which all is known but the ids of its children.
pub(super) struct Encoded {
    record: Record,
    children: usize,
}

impl Encoded {
    /// Encodes an object with so many children, and checks it against all limits.
    pub(super) fn of(object: &dyn Persistable, children: usize) -> Result<Encoded, Error> {
        let class_name = object.class_name().to_owned();
        let unstorable =
            |reason: String| Error::Unstorable { class_name: class_name.clone(), reason };
        let mut metadata = object.metadata();
        if let Some(name) = metadata.keys().find(|name| name.starts_with('_')) {
            let reason = format!("the metadata name {name:?} begins with _, as only our own do");
            return Err(unstorable(reason));
        }
        if children > 0 {
            metadata.insert(CHILDREN.to_owned(), children.to_string());
        }
        let body = object.encode().map_err(|error| unstorable(error.to_string()))?;
        let record = Record { class_name, metadata, body };
        let encoded = Encoded { record, children };
        encoded.check()?;
        Ok(encoded)
    }

    fn check(&self) -> Result<(), Error> {
        let Record { class_name, metadata, body } = &self.record;
        let at_most = |what: String, actual: usize, allowed: usize| match actual <= allowed {
            true => Ok(()),
            false => Err(Error::TooLarge { what, actual: wide(actual), allowed: wide(allowed) }),
        };
        let entries = metadata.len();
        let metadata_bytes = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let longest = metadata.keys().chain([class_name]).map(String::len).max().unwrap_or(0);
        if metadata.keys().chain([class_name]).any(String::is_empty) {
            let reason = "its class or the name of a metadata entry is empty".to_owned();
            return Err(Error::Unstorable { class_name: class_name.clone(), reason });
        }
        let whose = |what: &str| format!("the {what} of an object of class {class_name:?} are");
        at_most(
            "the bytes of the longest name of an object are".to_owned(),
            longest,
            NAME_BYTES_MAX,
        )?;
        at_most(whose("metadata entries"), entries, METADATA_MAX)?;
        at_most(whose("metadata bytes"), metadata_bytes, METADATA_BYTES_MAX)?;
        let references = self.children.saturating_mul(REFERENCE_BYTES);
        at_most(whose("body bytes"), body.len().saturating_add(references), BODY_BYTES_MAX)
    }

    /// The object, with the ids of its children, of which there are as many as it was encoded for.
    pub(super) fn with_children(self, children: impl IntoIterator<Item = Id>) -> Record {
        let Encoded { mut record, children: expected } = self;
        let mut references = Vec::with_capacity(expected * REFERENCE_BYTES + record.body.len());
        let mut given = 0;
        for id in children {
            references.extend_from_slice(&id.get().to_be_bytes());
            given += 1;
        }
        assert_eq!(given, expected, "each child has an id");
        if given > 0 {
            references.append(&mut record.body);
            record.body = references;
        }
        record
    }
}

impl Record {
    /// Takes the references off: the children, and the object as its class made it.
    pub(super) fn split(self) -> Result<(Vec<Id>, Record), String> {
        let Record { class_name, mut metadata, mut body } = self;
        let Some(count) = metadata.remove(CHILDREN) else {
            return Ok((Vec::new(), Record { class_name, metadata, body }));
        };
        let bytes = count.parse().ok().and_then(|n: usize| n.checked_mul(REFERENCE_BYTES));
        let Some(bytes) = bytes.filter(|bytes| *bytes <= body.len()) else {
            return Err(format!("it has {} bytes, and {count} references in them", body.len()));
        };
        let payload = body.split_off(bytes);
        let mut children = Vec::with_capacity(bytes / REFERENCE_BYTES);
        for reference in body.chunks_exact(REFERENCE_BYTES) {
            let number = reference.iter().fold(0, |high, byte| high << 8 | u64::from(*byte));
            children.push(Id::new(number).map_err(|bad| format!("one of its references: {bad}"))?);
        }
        Ok((children, Record { class_name, metadata, body: payload }))
    }
}

/// The metadata without what is ours.
pub(crate) fn own_metadata(mut metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    metadata.remove(CHILDREN);
    metadata
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    //! There and back, and the limits.

    use super::super::persistable::Object;
    use super::*;

    fn id(nth: u64) -> Id {
        Id::new(Id::LOWEST.get() + nth).unwrap()
    }

    fn actual_and_allowed(object: &Object, children: usize) -> Option<(u64, u64)> {
        match Encoded::of(object, children) {
            Err(Error::TooLarge { actual, allowed, .. }) => Some((actual, allowed)),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    }

    // P3
    #[test]
    fn references_come_off_again() {
        for count in [0, 1, 3] {
            let mut object = Object::new("Task", b"body".to_vec());
            object.metadata.insert("state".to_owned(), "NEW".to_owned());
            let children: Vec<Id> = (0..count).map(id).collect();
            let encoded = Encoded::of(&object, children.len()).unwrap();
            let record = encoded.with_children(children.clone());
            assert_eq!(record.body.len(), 4 + 8 * children.len());
            let (found, plain) = record.split().unwrap();
            assert_eq!(found, children);
            assert_eq!((plain.metadata, plain.body), (object.metadata.clone(), b"body".to_vec()));
        }
    }

    #[test]
    fn damaged_references_are_seen() {
        let record = |count: &str, body: &[u8]| Record {
            class_name: "Task".to_owned(),
            metadata: BTreeMap::from([(CHILDREN.to_owned(), count.to_owned())]),
            body: body.to_vec(),
        };
        assert!(record("2", &[0; 15]).split().unwrap_err().contains("15 bytes, and 2 ref"));
        assert!(record("x", b"").split().is_err());
        assert!(record("18446744073709551615", b"").split().is_err());
        assert!(record("1", &[0; 8]).split().unwrap_err().contains("no id"));
    }

    // P3 G9
    #[test]
    fn limits_hold_and_one_more_is_refused_with_both_numbers() {
        let body = |bytes| Object::new("Big", vec![0; bytes]);
        assert_eq!(actual_and_allowed(&body(BODY_BYTES_MAX), 0), None);
        let beyond = Some((wide(BODY_BYTES_MAX) + 1, wide(BODY_BYTES_MAX)));
        assert_eq!(actual_and_allowed(&body(BODY_BYTES_MAX + 1), 0), beyond);
        assert_eq!(actual_and_allowed(&body(BODY_BYTES_MAX - 8), 1), None);
        assert_eq!(actual_and_allowed(&body(BODY_BYTES_MAX - 7), 1), beyond);

        let entries = |count: usize| {
            let mut object = Object::new("Task", b"".to_vec());
            object.metadata = (0..count).map(|n| (format!("name-{n}"), String::new())).collect();
            object
        };
        assert_eq!(actual_and_allowed(&entries(64), 0), None);
        assert_eq!(actual_and_allowed(&entries(65), 0), Some((65, 64)));
        assert_eq!(actual_and_allowed(&entries(64), 1), Some((65, 64)), "one is ours then");

        let sized = |name: usize, value: usize| {
            let mut object = Object::new("T", b"".to_vec());
            object.metadata.insert("n".repeat(name), "v".repeat(value));
            object
        };
        assert_eq!(actual_and_allowed(&sized(1024, 7168), 0), None);
        assert_eq!(actual_and_allowed(&sized(1024, 7169), 0), Some((8193, 8192)));
        assert_eq!(actual_and_allowed(&sized(1025, 0), 0), Some((1025, 1024)));
        let class = |bytes| Object::new("C".repeat(bytes), b"".to_vec());
        assert_eq!(actual_and_allowed(&class(1024), 0), None);
        assert_eq!(actual_and_allowed(&class(1025), 0), Some((1025, 1024)));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let named = |name: &str| {
            let mut object = Object::new("Task", b"".to_vec());
            object.metadata.insert(name.to_owned(), "1".to_owned());
            object
        };
        for object in [named("_children"), named("_x"), named(""), Object::new("", b"".to_vec())] {
            let refused = Encoded::of(&object, 0);
            assert!(matches!(refused, Err(Error::Unstorable { .. })));
        }
    }
}
