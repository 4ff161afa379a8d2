//! An object and all that it refers to, as it came out of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::Error;
use super::id::Id;
use super::record::Record;

/// An object as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: Id,
    /// Its class.
    pub class_name: String,
    /// What it can be found by.
    pub metadata: BTreeMap<String, String>,
    /// Its body, byte for byte.
    pub body: Vec<u8>,
    /// What it refers to, in its order.
    pub children: Vec<Id>,
}

impl Stored {
    pub(super) fn of(id: Id, record: Record) -> Result<Stored, Error> {
        let damaged = |reason| Error::Damaged { what: format!("object {id}"), reason };
        let (children, record) = record.split().map_err(damaged)?;
        let Record { class_name, metadata, body } = record;
        Ok(Stored { id, class_name, metadata, body, children })
    }
}

/// An object and all that it refers to: each once, all as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: Id,
    objects: BTreeMap<Id, Stored>,
}

impl Tree {
    /// The object that was asked for.
    ///
    /// # Panics
    /// Never: a tree has its root.
    #[must_use]
    pub fn root(&self) -> &Stored {
        self.get(self.root).expect("a tree has its root")
    }

    /// One of its objects.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Stored> {
        self.objects.get(&id)
    }

    /// All its objects, in order of their ids.
    pub fn objects(&self) -> impl Iterator<Item = &Stored> {
        self.objects.values()
    }

    /// How many objects it has; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is empty")]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// The object that was asked for, alone.
    ///
    /// # Panics
    /// Never: a tree has its root.
    #[must_use]
    pub fn into_root(mut self) -> Stored {
        self.objects.remove(&self.root).expect("a tree has its root")
    }

    /// Makes the caller's own objects of it: children before those that refer to them, each once. Does not
    /// recurse.
    ///
    /// # Errors
    /// What `make` fails with; [`Error::Cycle`] if objects refer to each other in a circle, which has to be
    /// rebuilt from [`Tree::objects`].
    ///
    /// # Panics
    /// Never: a tree has whatever its objects refer to.
    pub fn build<T, E: From<Error>>(
        &self,
        mut make: impl FnMut(&Stored, Vec<Arc<T>>) -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut made: BTreeMap<Id, Arc<T>> = BTreeMap::new();
        // Those whose children are being made.
        let mut begun: BTreeSet<Id> = BTreeSet::new();
        let mut waiting = vec![self.root];
        while let Some(&id) = waiting.last() {
            if made.contains_key(&id) {
                waiting.pop();
                continue;
            }
            let stored = self.get(id).expect("a tree has what its objects refer to");
            if begun.insert(id) {
                for child in stored.children.iter().filter(|child| !made.contains_key(child)) {
                    if begun.contains(child) {
                        return Err(Error::Cycle { id: *child }.into());
                    }
                    waiting.push(*child);
                }
                continue;
            }
            let children = stored.children.iter().map(|child| made[child].clone()).collect();
            made.insert(id, Arc::new(make(stored, children)?));
            waiting.pop();
        }
        Ok(made.remove(&self.root).expect("the root is made last"))
    }
}

/// A tree on its way out of a store, level by level.
pub(super) struct Growing {
    root: Id,
    objects: BTreeMap<Id, Stored>,
    /// What is to be fetched next, each with one that refers to it.
    level: BTreeMap<Id, Option<Id>>,
}

impl Growing {
    pub(super) fn from_root(root: Id) -> Growing {
        Growing { root, objects: BTreeMap::new(), level: BTreeMap::from([(root, None)]) }
    }

    /// The ids of the level to be fetched; empty once the tree is complete.
    pub(super) fn wanted(&self) -> Vec<Id> {
        self.level.keys().copied().collect()
    }

    /// Who refers to one of the level.
    pub(super) fn parent(&self, id: Id) -> Option<Id> {
        self.level.get(&id).copied().flatten()
    }

    /// Takes in the level: all that were wanted.
    pub(super) fn grow(&mut self, fetched: Vec<Stored>) {
        self.level.clear();
        let mut referred = Vec::new();
        for stored in fetched {
            referred.extend(stored.children.iter().map(|child| (*child, Some(stored.id))));
            self.objects.insert(stored.id, stored);
        }
        referred.retain(|(child, _)| !self.objects.contains_key(child));
        self.level.extend(referred);
    }

    pub(super) fn finish(self) -> Tree {
        assert!(self.level.is_empty(), "a tree has what its objects refer to");
        Tree { root: self.root, objects: self.objects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(nth: u64) -> Id {
        Id::new(Id::LOWEST.get() + nth).unwrap()
    }

    fn stored(nth: u64, children: &[u64]) -> Stored {
        Stored {
            id: id(nth),
            class_name: "Node".to_owned(),
            metadata: BTreeMap::new(),
            body: nth.to_string().into_bytes(),
            children: children.iter().copied().map(id).collect(),
        }
    }

    fn tree(objects: &[(u64, &[u64])]) -> Tree {
        let mut growing = Growing::from_root(id(0));
        while let [_, ..] = growing.wanted().as_slice() {
            let wanted = growing.wanted();
            let found = objects.iter().map(|(nth, children)| stored(*nth, children));
            growing.grow(found.filter(|found| wanted.contains(&found.id)).collect());
        }
        growing.finish()
    }

    fn text(tree: &Tree) -> Result<(Arc<String>, usize), Error> {
        let mut count = 0;
        let built = tree.build(|stored, children: Vec<Arc<String>>| {
            count += 1;
            let inner: Vec<&str> = children.iter().map(|child| child.as_str()).collect();
            let body = String::from_utf8_lossy(&stored.body).into_owned();
            Ok::<_, Error>(format!("{body}({})", inner.join(" ")))
        });
        built.map(|built| (built, count))
    }

    // P3
    #[test]
    fn children_are_made_once_and_before_their_parents() {
        let diamond = tree(&[(0, &[1, 2, 1]), (1, &[3]), (2, &[3]), (3, &[])]);
        let (built, count) = text(&diamond).unwrap();
        assert_eq!((built.as_str(), count), ("0(1(3()) 2(3()) 1(3()))", 4));
        assert_eq!(diamond.len(), 4);
    }

    // P3
    #[test]
    fn circles_load_and_are_not_made_one_in_the_other() {
        let circle = tree(&[(0, &[1]), (1, &[2]), (2, &[1, 0])]);
        assert_eq!(circle.len(), 3);
        assert!(matches!(text(&circle), Err(Error::Cycle { .. })));
        assert!(
            matches!(text(&tree(&[(0, &[0])])), Err(Error::Cycle { id }) if id == super::tests::id(0))
        );
    }

    // P3
    #[test]
    fn chain_of_100_000_needs_no_deep_stack() {
        let last = 99_999;
        let mut growing = Growing::from_root(id(0));
        for nth in 0..=last {
            assert_eq!(growing.wanted(), [id(nth)]);
            let next = [nth + 1];
            growing.grow(vec![stored(nth, if nth < last { &next } else { &[] })]);
        }
        let tree = growing.finish();
        let depth = tree.build(|_, children: Vec<Arc<usize>>| {
            Ok::<usize, Error>(1 + children.first().map_or(0, |depth| **depth))
        });
        assert_eq!(*depth.unwrap(), 100_000);
    }
}
