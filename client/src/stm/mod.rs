//! Variables with versions, read and written by optimistic transactions (after Axon.STM.Store).
//!
//! ```no_run
//! # async fn example(client: holdfast_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use holdfast_client::stm::{Interrupt, Key};
//!
//! let store = client.stm();
//! let (alice, bob) = (Key::new(("account", "alice"))?, Key::new(("account", "bob"))?);
//!
//! // A copy, worked on and committed: refused if others have written meanwhile.
//! let mut balance = store.usevar(&alice).await?;
//! balance.set(&100)?;
//! balance.commit().await?;
//!
//! // A function, run until what it did could be applied at once.
//! store
//!     .transact(|transaction| {
//!         let (alice, bob) = (alice.clone(), bob.clone());
//!         async move {
//!             let from: i64 = transaction.get(&alice).await?.unwrap_or(0);
//!             let to: i64 = transaction.get(&bob).await?.unwrap_or(0);
//!             transaction.put(&alice, &(from - 10))?;
//!             transaction.put(&bob, &(to + 10))?;
//!             Ok::<_, Interrupt>(())
//!         }
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # The model
//! A variable has a version, which is 1 when it is created and rises by one with each write, and the
//! revision that wrote it last. One that is not there has version 0. A commit compares variables with what
//! they were read as, and writes some, all or none. Programs work on copies and commit them, or give a
//! function that reads and writes, and runs again until its commit has gone through.
//!
//! # Invariants
//! - A commit is applied at most once, however often it was sent, and whoever asked for it can tell whether it
//!   was applied, was not, or is uncertain.
//! - Everything is serialised before anything is sent.
//! - A pickle is bytes here, and is never taken apart.
//!
//! # Where things are
//! `key` the canonical encoding of keys, with `number` and `text` · `literal` keys as Python literals ·
//! `value` variables and what they hold · `copies` what a caller works on · `commit` one commit, sent until
//! its outcome is known · `transact` functions, with `transaction` for one run and `queue` for those of one
//! program · `listing` all variables at one revision.

mod commit;
mod copies;
mod key;
mod listing;
mod literal;
mod number;
mod queue;
mod text;
mod transact;
mod transaction;
mod value;

use std::future::Future;
use std::time::Duration;

pub use commit::{Commit, CommitError, Conflict, Plan};
pub use copies::{Collection, Member, Value, Writes};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Part, Prefix};
pub use listing::Listing;
pub use num_bigint::BigInt;
pub(crate) use queue::Queue;
pub use text::Text;
pub use transact::{TransactError, TransactOptions};
pub use transaction::{Interrupt, Isolation, Transaction};
pub use value::{Codec, CodecError, Content, Snapshot, Variable};

use crate::client::Client;
use crate::error::Error;

/// How long a commit may take before it is given up, if it is certain that it was not applied.
const BUDGET: Duration = Duration::from_millis(250);

/// The variables of a namespace. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    budget: Duration,
    writes: Writes,
}

impl Store {
    pub(crate) fn new(client: Client) -> Store {
        Store { client, budget: BUDGET, writes: Writes::All }
    }

    /// The same store with another time after which a commit that was certainly not applied is given up with
    /// [`CommitError::BusyRetry`]; 250 ms unless set. One that may have been applied goes on until a call of the
    /// client has to end.
    #[must_use]
    pub fn with_budget(&self, budget: Duration) -> Store {
        Store { budget, ..self.clone() }
    }

    /// The same store, in which commits of copies write all of them, or only those that have changed.
    #[must_use]
    pub fn with_writes(&self, writes: Writes) -> Store {
        Store { writes, ..self.clone() }
    }

    /// A copy of a variable; of one that is not there, with version 0 and nothing in it. Linearizable, and
    /// never a write.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn usevar(&self, key: &Key) -> Result<Value, Error> {
        let (_, mut variables) =
            commit::read(&self.client, std::slice::from_ref(key), false).await?;
        let none = || Variable { key: key.clone(), version: 0, mod_revision: 0, content: None };
        Ok(Value::new(self.clone(), variables.pop().unwrap_or_else(none)))
    }

    /// Copies of several variables, all as they were at one revision. Linearizable, and never a write.
    ///
    /// # Errors
    /// Those of a read; refused as `TRANSACTION_TOO_LARGE` beyond 4,096 keys or 8 MiB.
    pub async fn using(&self, keys: impl IntoIterator<Item = Key>) -> Result<Collection, Error> {
        let Snapshot { variables, .. } = self.read(keys).await?;
        Ok(Collection::new(self.clone(), variables))
    }

    /// Several variables at one revision, in the order asked for. Linearizable.
    ///
    /// # Errors
    /// As [`Store::using`].
    pub async fn read(&self, keys: impl IntoIterator<Item = Key>) -> Result<Snapshot, Error> {
        self.read_with(keys, false).await
    }

    /// As [`Store::read`], but whatever the node that answers has applied, which may be out of date; true at the
    /// revision that comes with it. Needs no quorum.
    ///
    /// # Errors
    /// As [`Store::using`].
    pub async fn read_local(&self, keys: impl IntoIterator<Item = Key>) -> Result<Snapshot, Error> {
        self.read_with(keys, true).await
    }

    async fn read_with(
        &self,
        keys: impl IntoIterator<Item = Key>,
        local: bool,
    ) -> Result<Snapshot, Error> {
        let keys: Vec<Key> = keys.into_iter().collect();
        let (revision, variables) = commit::read(&self.client, &keys, local).await?;
        Ok(Snapshot { revision, variables })
    }

    /// Commits a copy: [`Value::commit`], as Axon spells it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn set(&self, value: &mut Value) -> Result<u64, CommitError> {
        value.commit().await
    }

    /// Commits copies: [`Collection::commit`], as Axon spells it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn set_values(&self, values: &mut Collection) -> Result<u64, CommitError> {
        values.commit().await
    }

    /// A commit of one's own making; nothing is sent before [`Commit::commit`].
    #[must_use]
    pub fn prepare(&self, plan: Plan) -> Commit {
        Commit::new(self.client.clone(), self.budget, plan)
    }

    /// Deletes a variable, whatever it holds; returns whether it was there.
    ///
    /// # Errors
    /// As [`Store::transact`].
    pub async fn delete(&self, key: &Key) -> Result<bool, TransactError<Interrupt>> {
        self.transact(|transaction| async move {
            let was_there = transaction.get_content(key).await?.is_some();
            transaction.delete(key);
            Ok(was_there)
        })
        .await
    }

    /// Runs `function`, which reads and writes variables through the [`Transaction`] that it is given, until
    /// what it did could be applied at once; at the level [`Isolation::SerializableSnapshot`]. What one run
    /// did is then applied exactly once, and what it returned is returned. `function` may run many times and
    /// should have no effects of its own; it returns early with whatever its transaction fails with, and when
    /// it fails by itself, nothing is written.
    ///
    /// Dropping the future gives it up: the commit of the last run may then be applied or not.
    ///
    /// # Errors
    /// See [`TransactError`].
    pub async fn transact<T, E, Fut>(
        &self,
        function: impl FnMut(Transaction) -> Fut,
    ) -> Result<T, TransactError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        self.transact_with(TransactOptions::default(), function).await
    }

    /// As [`Store::transact`], with options.
    ///
    /// # Errors
    /// See [`TransactError`].
    pub async fn transact_with<T, E, Fut>(
        &self,
        options: TransactOptions,
        function: impl FnMut(Transaction) -> Fut,
    ) -> Result<T, TransactError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        transact::transact(self, options, function).await
    }

    /// All variables, with what they hold, at one revision.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub async fn dump(&self) -> Result<Snapshot, Error> {
        self.snapshot(&Prefix::all()).await
    }

    /// The variables whose keys begin with a prefix, with what they hold, at one revision.
    ///
    /// # Errors
    /// Those of a read; [`Error::Unavailable`] if the stream broke.
    pub async fn snapshot(&self, prefix: &Prefix) -> Result<Snapshot, Error> {
        self.collect(prefix, false).await
    }

    /// The keys that begin with a prefix, in order, at one revision.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub async fn keys(&self, prefix: &Prefix) -> Result<Vec<Key>, Error> {
        let Snapshot { variables, .. } = self.versions(prefix).await?;
        Ok(variables.into_iter().map(|variable| variable.key).collect())
    }

    /// As [`Store::snapshot`], without what the variables hold.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub async fn versions(&self, prefix: &Prefix) -> Result<Snapshot, Error> {
        self.collect(prefix, true).await
    }

    /// As [`Store::snapshot`], one part after the other, so that not all need to be in memory at once.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn list(&self, prefix: &Prefix) -> Result<Listing, Error> {
        Listing::open(&self.client, prefix, false).await
    }

    async fn collect(&self, prefix: &Prefix, only_keys: bool) -> Result<Snapshot, Error> {
        let mut listing = Listing::open(&self.client, prefix, only_keys).await?;
        let revision = listing.header().revision;
        let mut variables = Vec::new();
        while let Some(part) = listing.next().await? {
            variables.extend(part);
        }
        Ok(Snapshot { revision, variables })
    }
}
