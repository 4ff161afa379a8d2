//! Copies of variables that a caller works on and commits.
//!
//! Invariant: a copy's version and modification revision are those of what it was read as, or of its last
//! commit; whatever else the caller does to it, the next commit compares with them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::commit::{Commit, CommitError, Plan};
use super::key::Key;
use super::value::{CodecError, Content, Variable};
use crate::deadline::Deadline;

/// What a commit writes of the copies that are committed together. All of them are compared either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Writes {
    /// Each of them, so that each version rises; as Axon's store does it.
    #[default]
    All,
    /// Those that hold something else than before. Two callers that only read a common variable never
    /// get into each other's way.
    Changed,
}

/// A caller's copy of a variable.
#[derive(Debug, Clone)]
pub struct Member {
    seen: Variable,
    content: Option<Content>,
}

impl Member {
    fn new(seen: Variable) -> Member {
        let content = seen.content.clone();
        Member { seen, content }
    }

    /// The variable's name.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.seen.key
    }

    /// How often the variable has been written; 0: it is not there.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.seen.version
    }

    /// The revision that wrote the variable last; 0: it is not there.
    #[must_use]
    pub fn mod_revision(&self) -> u64 {
        self.seen.mod_revision
    }

    /// What the copy holds; none if the variable is not there, or is to be deleted.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// What the copy holds, read as JSON.
    ///
    /// # Errors
    /// [`CodecError`] if it is no such value.
    pub fn get<T: DeserializeOwned>(&self) -> Result<Option<T>, CodecError> {
        self.content.as_ref().map(Content::parse).transpose()
    }

    /// Has the copy hold a value, as JSON. Nothing is sent before it is committed.
    ///
    /// # Errors
    /// [`CodecError::Encode`] if JSON has no form for it; then the copy holds what it did.
    pub fn set<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.content = Some(Content::json(value)?);
        Ok(())
    }

    /// Has the copy hold this.
    pub fn set_content(&mut self, content: Content) {
        self.content = Some(content);
    }

    /// Has the copy hold nothing: a commit deletes the variable.
    pub fn clear(&mut self) {
        self.content = None;
    }

    /// Whether the copy holds something else than when it was read or last committed.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.content != self.seen.content
    }
}

/// A copy of one variable.
pub struct Value {
    store: Store,
    members: Members,
}

impl Value {
    pub(super) fn new(store: Store, variable: Variable) -> Value {
        Value { store, members: Members::new([variable]) }
    }

    /// Writes what the copy holds, if the variable is still what the copy says; the copy follows. Returns the
    /// revision.
    ///
    /// After [`CommitError::CommitUncertain`], and if its future was dropped, committing again first settles
    /// that commit; what the copy was made to hold since is then committed on top.
    ///
    /// # Errors
    /// See [`CommitError`]. After [`CommitError::ConcurrentUpdate`] the copy is out of date for good: take a
    /// new one.
    pub async fn commit(&mut self) -> Result<u64, CommitError> {
        self.members.commit(&self.store).await
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members.fmt(f)
    }
}

impl Deref for Value {
    type Target = Member;

    fn deref(&self) -> &Member {
        self.members.by_key.values().next().expect("a value is one member")
    }
}

impl DerefMut for Value {
    fn deref_mut(&mut self) -> &mut Member {
        self.members.by_key.values_mut().next().expect("a value is one member")
    }
}

/// Copies of several variables, read at one revision and committed together.
pub struct Collection {
    store: Store,
    members: Members,
}

impl Collection {
    pub(super) fn new(store: Store, variables: Vec<Variable>) -> Collection {
        Collection { store, members: Members::new(variables) }
    }

    /// The copy of a variable, if it is in the collection.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Member> {
        self.members.by_key.get(key)
    }

    /// The copy of a variable, if it is in the collection.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Member> {
        self.members.by_key.get_mut(key)
    }

    /// The copies, in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.by_key.values()
    }

    /// The copies, in order of their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.by_key.values_mut()
    }

    /// Compares all members and writes them, all or none; the copies follow. Returns the revision. What is
    /// written of those that hold what they did is for [`Store::with_writes`] to say.
    ///
    /// # Errors
    /// As [`Value::commit`].
    pub async fn commit(&mut self) -> Result<u64, CommitError> {
        self.members.commit(&self.store).await
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members.fmt(f)
    }
}

/// Copies that are committed together, and their commit while it may be applied.
struct Members {
    by_key: BTreeMap<Key, Member>,
    open: Option<Commit>,
}

impl fmt::Debug for Members {
    /// Without the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("copies", &self.by_key.values().collect::<Vec<_>>())
            .field("is_uncertain", &self.open.is_some())
            .finish()
    }
}

impl Members {
    fn new(variables: impl IntoIterator<Item = Variable>) -> Members {
        let member = |seen: Variable| (seen.key.clone(), Member::new(seen));
        Members { by_key: variables.into_iter().map(member).collect(), open: None }
    }

    async fn commit(&mut self, store: &Store) -> Result<u64, CommitError> {
        let deadline = Deadline::after(store.client.call_timeout());
        if self.open.is_some() {
            match self.settle(deadline).await {
                Ok(revision) if !self.by_key.values().any(Member::is_changed) => {
                    return Ok(revision);
                }
                Ok(_) | Err(CommitError::BusyRetry { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.open = Some(store.prepare(self.plan(store.writes)));
        self.settle(deadline).await
    }

    fn plan(&self, writes: Writes) -> Plan {
        let mut plan = Plan::new();
        for (key, Member { seen, content }) in &self.by_key {
            plan = plan.expect(seen);
            let is_written = match writes {
                Writes::All => true,
                Writes::Changed => *content != seen.content,
            };
            plan = match content {
                Some(content) if is_written => plan.put(key.clone(), content.clone()),
                None if is_written && seen.version > 0 => plan.delete(key.clone()),
                Some(_) | None => plan,
            };
        }
        plan
    }

    /// Sends the open commit, and lets the copies follow if it was applied.
    async fn settle(&mut self, deadline: Deadline) -> Result<u64, CommitError> {
        let Some(commit) = &mut self.open else { unreachable!("only called with an open commit") };
        let result = commit.commit_by(deadline).await;
        if let Err(CommitError::CommitUncertain { .. }) = result {
            return result;
        }
        if let (Ok(revision), Some(commit)) = (&result, self.open.take()) {
            for (key, content) in commit.plan().writes() {
                if let Some(Member { seen, .. }) = self.by_key.get_mut(key) {
                    let is_there = content.is_some();
                    seen.version = if is_there { seen.version + 1 } else { 0 };
                    seen.mod_revision = if is_there { *revision } else { 0 };
                    seen.content.clone_from(content);
                }
            }
        }
        self.open = None;
        result
    }
}
