//! An object and all that it refers to, on its way into a store.
//!
//! The objects are walked breadth first from the root, each of them once, however often it is referred to
//! and whether or not they refer to each other in circles; nothing here recurses. All of them are encoded
//! and checked before the first is given an id, and all have ids before any is handed out: so nothing has
//! been sent when one of them cannot be stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::error::Error;
use super::id::Id;
use super::persistable::Persistable;
use super::record::{Encoded, Record};

/// An object and what it refers to, encoded.
pub(super) struct Family<'a> {
    /// The root first.
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    object: Relative<'a>,
    encoded: Encoded,
    /// Where its children are among the members.
    children: Vec<usize>,
}

enum Relative<'a> {
    Root(&'a dyn Persistable),
    Child(Arc<dyn Persistable>),
}

impl Relative<'_> {
    fn get(&self) -> &dyn Persistable {
        match self {
            Relative::Root(root) => *root,
            Relative::Child(child) => &**child,
        }
    }
}

impl<'a> Family<'a> {
    /// Walks and encodes; blocks for as long as the objects take to encode themselves.
    pub(super) fn of(root: &'a dyn Persistable) -> Result<Family<'a>, Error> {
        let mut objects = vec![Relative::Root(root)];
        // Only ever looked up, so that its order cannot be seen.
        let mut places = HashMap::from([(address(root), 0)]);
        let mut members = Vec::new();
        let mut next = 0;
        while let Some(object) = objects.get(next) {
            next += 1;
            let of_object = object.get().children();
            let encoded = Encoded::of(object.get(), of_object.len())?;
            let mut children = Vec::with_capacity(of_object.len());
            for child in of_object {
                let place = *places.entry(address(&*child)).or_insert_with(|| {
                    objects.push(Relative::Child(child));
                    objects.len() - 1
                });
                children.push(place);
            }
            members.push((encoded, children));
        }
        let members = objects.into_iter().zip(members);
        let members =
            members.map(|(object, (encoded, children))| Member { object, encoded, children });
        Ok(Family { members: members.collect() })
    }

    /// How many of them have no id, where the root is to have this one if it is given.
    pub(super) fn unnamed(&self, root: Option<Id>) -> usize {
        let is_unnamed = |member: &&Member<'_>| member.object.get().identity().get().is_none();
        let without_root = self.members.iter().skip(usize::from(root.is_some()));
        without_root.filter(is_unnamed).count()
    }

    /// The records of all, the root last. Those without an id take one of the fresh ones, of which there
    /// are as many as [`Family::unnamed`] says; a root that is given an id here is only stored under it.
    pub(super) fn name(self, root: Option<Id>, fresh: Vec<Id>) -> Result<Vec<(Id, Record)>, Error> {
        let mut fresh = fresh.into_iter();
        let mut ids = Vec::with_capacity(self.members.len());
        let mut taken = BTreeMap::new();
        for (place, member) in self.members.iter().enumerate() {
            let object = member.object.get();
            let id = match (root.filter(|_| place == 0), object.identity().get()) {
                (Some(id), _) | (None, Some(id)) => id,
                // Another save may name it first, and then keeps it.
                (None, None) => object
                    .identity()
                    .settle(fresh.next().expect("a fresh id was asked for each without one")),
            };
            if taken.insert(id, place).is_some() {
                let reason = format!("another object of the same tree has its id, {id}");
                return Err(Error::Unstorable {
                    class_name: object.class_name().to_owned(),
                    reason,
                });
            }
            ids.push(id);
        }
        let records = self.members.into_iter().zip(&ids).map(|(member, id)| {
            let children = member.children.iter().map(|place| ids[*place]);
            (*id, member.encoded.with_children(children))
        });
        let mut records: Vec<(Id, Record)> = records.collect();
        records.reverse();
        Ok(records)
    }
}

/// What tells objects apart: each lives in a place of its own while it is borrowed.
fn address(object: &dyn Persistable) -> *const () {
    std::ptr::from_ref(object).cast()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, Weak};

    use super::super::persistable::{EncodeError, Identity, Object};
    use super::*;

    fn id(nth: u64) -> Id {
        Id::new(Id::LOWEST.get() + nth).unwrap()
    }

    fn fresh(count: usize) -> Vec<Id> {
        (0..u64::try_from(count).unwrap()).map(id).collect()
    }

    fn parent(class_name: &str, children: &[&Arc<Object>]) -> Arc<Object> {
        let mut object = Object::new(class_name, class_name.as_bytes());
        object.children = children.iter().copied().cloned().collect();
        Arc::new(object)
    }

    // P3
    #[test]
    fn shared_child_is_stored_once() {
        let shared = parent("shared", &[]);
        let (left, right) = (parent("left", &[&shared]), parent("right", &[&shared, &shared]));
        let root = parent("root", &[&left, &right]);
        let family = Family::of(&*root).unwrap();
        assert_eq!(family.unnamed(None), 4);
        let records = family.name(None, fresh(4)).unwrap();
        let classes: Vec<&str> = records.iter().map(|(_, r)| r.class_name.as_str()).collect();
        assert_eq!(classes, ["shared", "right", "left", "root"]);
        let (children, _) = records[1].1.clone().split().unwrap();
        assert_eq!(children, [shared.id().unwrap(); 2]);
        // All have ids now, and keep them.
        let family = Family::of(&*root).unwrap();
        assert_eq!(family.unnamed(None), 0);
        assert_eq!(family.name(None, Vec::new()).unwrap(), records);
    }

    // P3
    #[test]
    fn chain_of_100_000_needs_no_deep_stack() {
        let mut chain = parent("link", &[]);
        for _ in 1..100_000 {
            chain = parent("link", &[&chain]);
        }
        let family = Family::of(&*chain).unwrap();
        let records = family.name(None, fresh(100_000)).unwrap();
        assert_eq!(records.len(), 100_000);
    }

    /// Refers back to its parent.
    struct Child {
        parent: Mutex<Weak<Child>>,
        children: Mutex<Vec<Arc<Child>>>,
        identity: Identity,
    }

    impl Persistable for Child {
        fn class_name(&self) -> &'static str {
            "Child"
        }
        fn children(&self) -> Vec<Arc<dyn Persistable>> {
            let parent = self.parent.lock().unwrap().upgrade();
            let children = self.children.lock().unwrap().clone();
            let all = children.into_iter().chain(parent);
            all.map(|child| child as Arc<dyn Persistable>).collect()
        }
        fn encode(&self) -> Result<Vec<u8>, EncodeError> {
            Ok(Vec::new())
        }
        fn identity(&self) -> &Identity {
            &self.identity
        }
    }

    // P3
    #[test]
    fn children_may_refer_back() {
        let child = || {
            Arc::new(Child {
                parent: Mutex::default(),
                children: Mutex::default(),
                identity: Identity::new(),
            })
        };
        let (root, leaf) = (child(), child());
        root.children.lock().unwrap().push(leaf.clone());
        *leaf.parent.lock().unwrap() = Arc::downgrade(&root);
        let records = Family::of(&*root).unwrap().name(Some(id(7)), fresh(1)).unwrap();
        let of = |nth: usize| records[nth].1.clone().split().unwrap().0;
        assert_eq!((records[0].0, of(0)), (id(0), vec![id(7)]));
        assert_eq!((records[1].0, of(1)), (id(7), vec![id(0)]));
        assert_eq!(root.identity.get(), None, "it is only stored there");
    }

    #[test]
    fn two_objects_of_one_id_are_refused() {
        let twin = || Arc::new(Object::new("twin", b"".to_vec()).with_id(id(1)));
        let root = parent("root", &[&twin(), &twin()]);
        let refused = Family::of(&*root).unwrap().name(None, fresh(1));
        assert!(matches!(refused, Err(Error::Unstorable { .. })), "{refused:?}");
    }
}
