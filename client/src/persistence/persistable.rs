//! What can be stored.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::id::Id;

/// Why an object could not be encoded.
pub type EncodeError = Box<dyn std::error::Error + Send + Sync>;

/// An object that stores keep.
///
/// It is a class, metadata to find it by, a body of bytes, and other such objects that it refers to: its
/// *children*. Each of them is stored on its own, once, under an id of its own, however many refer to it;
/// children may refer back to their parents. A body says nothing of ids: it may name a child by its place
/// among the children, which come back in the same order.
///
/// An object is looked at only while it is being saved. It must not change meanwhile: a store asks for its
/// children once, and then for its body once.
pub trait Persistable: Send + Sync {
    /// What kind of object it is: 1 to 1024 bytes.
    fn class_name(&self) -> &str;

    /// What it can be found by: at most 64 entries (63 if it has children), names of 1 to 1024 bytes, 8 KiB
    /// in all. Names that begin with `_` belong to the library.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The objects that it refers to, in an order of its own.
    fn children(&self) -> Vec<Arc<dyn Persistable>> {
        Vec::new()
    }

    /// Its body: at most 64 MiB, of which each child takes 8 bytes.
    ///
    /// # Errors
    /// Whatever keeps it from being encoded; the save fails with it, and nothing is stored.
    fn encode(&self) -> Result<Vec<u8>, EncodeError>;

    /// Where its id is kept.
    fn identity(&self) -> &Identity;
}

/// The id of an object, which it has from its first save on.
///
/// A save that fails, or whose outcome is unknown, leaves the id with the object: saving it again writes to
/// the same place.
#[derive(Debug, Default)]
pub struct Identity(OnceLock<Id>);

impl Identity {
    /// Of an object that was never saved.
    #[must_use]
    pub const fn new() -> Identity {
        Identity(OnceLock::new())
    }

    /// Of an object that is stored under this id.
    #[must_use]
    pub fn of(id: Id) -> Identity {
        Identity(OnceLock::from(id))
    }

    /// The id, if it has one.
    #[must_use]
    pub fn get(&self) -> Option<Id> {
        self.0.get().copied()
    }

    /// Takes this id unless it has one, and returns the one that it has then.
    pub(crate) fn settle(&self, id: Id) -> Id {
        *self.0.get_or_init(|| id)
    }
}

/// A plain object: whatever bytes, and children of the same kind.
#[derive(Debug)]
pub struct Object {
    /// Its class.
    pub class_name: String,
    /// What it can be found by.
    pub metadata: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
    /// What it refers to.
    pub children: Vec<Arc<Object>>,
    identity: Identity,
}

impl Object {
    /// One without metadata and children, never saved.
    #[must_use]
    pub fn new(class_name: impl Into<String>, body: impl Into<Vec<u8>>) -> Object {
        Object {
            class_name: class_name.into(),
            metadata: BTreeMap::new(),
            body: body.into(),
            children: Vec::new(),
            identity: Identity::new(),
        }
    }

    /// The same object, stored under this id.
    #[must_use]
    pub fn with_id(mut self, id: Id) -> Object {
        self.identity = Identity::of(id);
        self
    }

    /// Its id, if it was saved.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        self.identity.get()
    }
}

impl Drop for Object {
    /// Without recursion: a chain of children may be longer than a stack is deep.
    fn drop(&mut self) {
        let mut doomed = std::mem::take(&mut self.children);
        while let Some(child) = doomed.pop() {
            if let Some(mut last) = Arc::into_inner(child) {
                doomed.append(&mut last.children);
            }
        }
    }
}

impl Persistable for Object {
    fn class_name(&self) -> &str {
        &self.class_name
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.clone()
    }

    fn children(&self) -> Vec<Arc<dyn Persistable>> {
        self.children.iter().map(|child| child.clone() as Arc<dyn Persistable>).collect()
    }

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        Ok(self.body.clone())
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }
}
