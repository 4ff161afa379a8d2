//! What every store does.

use std::collections::BTreeMap;
use std::fmt;

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::error::Error;
use super::id::Id;
use super::persistable::Persistable;
use super::tree::Tree;

/// Which objects are of interest. Start from [`Filter::default`], which is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this class; none: of any.
    pub class_name: Option<String>,
    /// Those that have all of these among their metadata; at most 64.
    pub metadata: BTreeMap<String, String>,
}

impl Filter {
    pub(super) fn passes(&self, class_name: &str, metadata: &BTreeMap<String, String>) -> bool {
        let is_of_class = self.class_name.as_deref().is_none_or(|wanted| wanted == class_name);
        is_of_class && self.metadata.iter().all(|(name, value)| metadata.get(name) == Some(value))
    }
}

/// What a store knows of an object without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Id,
    /// Its class.
    pub class_name: String,
    /// What it can be found by.
    pub metadata: BTreeMap<String, String>,
    /// The size of its body, in bytes, of which each child takes 8.
    pub body_bytes: u64,
}

/// A place where objects are kept. All calls need a tokio runtime.
///
/// Dropping the future of a save, a replace or a remove leaves open whether it is carried out; repeating it
/// is safe.
pub trait Store: fmt::Debug + Send + Sync {
    /// How the store is called in messages: its URI.
    fn name(&self) -> String;

    /// Saves an object and all that it refers to, in one atomic step, and returns its id. Those that have
    /// no id yet are given one, which they keep also if the save fails; those that have one are overwritten
    /// there.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Unstorable`] before anything was sent or written,
    /// [`Error::UnissuedId`] for an id of another store, and [`Error::Unavailable`].
    fn save<'a>(&'a self, object: &'a dyn Persistable) -> BoxFuture<'a, Result<Id, Error>>;

    /// As [`Store::save`], but the object itself is stored under this id, whatever its own is; its own does
    /// not change.
    ///
    /// # Errors
    /// As [`Store::save`].
    fn replace<'a>(
        &'a self,
        id: Id,
        object: &'a dyn Persistable,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// The object of this id and all that it refers to, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Load`] if one of them is not there; [`Error::Damaged`]; [`Error::Unavailable`].
    fn load(&self, id: Id) -> BoxFuture<'_, Result<Tree, Error>>;

    /// Removes an object, and not what it refers to. Silent if there is none, so that it can be repeated.
    /// Its id is not given out again.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn remove(&self, id: Id) -> BoxFuture<'_, Result<(), Error>>;

    /// The ids of the objects that pass a filter, in order, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::NotImplemented`] if this kind of store cannot; [`Error::Unavailable`].
    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Vec<Id>, Error>> {
        Box::pin(self.ids(filter.clone()).try_collect())
    }

    /// As [`Store::list`], one by one, for stores that hold more than fits in memory.
    ///
    /// # Errors
    /// The last item: as of [`Store::list`], and [`Error::BrokenOff`] half way if the rest cannot be had as it
    /// was at that moment.
    fn ids(&self, filter: Filter) -> BoxStream<'_, Result<Id, Error>> {
        let _unused = filter;
        cannot(self.name(), "list")
    }

    /// As [`Store::ids`], with what is known of each object.
    fn records(&self, filter: Filter) -> BoxStream<'_, Result<Listed, Error>> {
        let _unused = filter;
        cannot(self.name(), "list")
    }

    /// Forgets whatever the store has kept of earlier loads.
    fn invalidate_cache(&self) {}

    /// To be called before the program forks: lets go of what a child must not share. A program that
    /// forks without it is safe too; ids, connections and sessions are never used in two processes.
    fn pre_fork(&self) {}

    /// To be called after a fork, in parent and child.
    fn post_fork(&self) {}
}

fn cannot<T: Send + 'static>(
    store: String,
    operation: &'static str,
) -> BoxStream<'static, Result<T, Error>> {
    stream::once(async move { Err(Error::NotImplemented { operation, store }) }).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Bare;

    impl Store for Bare {
        fn name(&self) -> String {
            "bare://".to_owned()
        }
        fn save<'a>(&'a self, _: &'a dyn Persistable) -> BoxFuture<'a, Result<Id, Error>> {
            Box::pin(async { Ok(Id::LOWEST) })
        }
        fn replace<'a>(
            &'a self,
            _: Id,
            _: &'a dyn Persistable,
        ) -> BoxFuture<'a, Result<(), Error>> {
            Box::pin(async { Ok(()) })
        }
        fn load(&self, id: Id) -> BoxFuture<'_, Result<Tree, Error>> {
            Box::pin(async move { Err(Error::Load { id, parent: None, store: self.name() }) })
        }
        fn remove(&self, _: Id) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(async { Ok(()) })
        }
    }

    // P2
    #[tokio::test]
    async fn list_of_the_base_is_not_implemented() {
        let error = Bare.list(&Filter::default()).await.expect_err("it cannot list");
        assert_eq!(error.to_string(), "list is not implemented by bare://");
        let mut records = Bare.records(Filter::default());
        assert!(matches!(records.next().await, Some(Err(Error::NotImplemented { .. }))));
    }
}
