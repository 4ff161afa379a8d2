//! Transactions: a function that reads and writes variables, run until what it did could be applied at once.
//!
//! The model: each run (`transaction`) reads the cluster, and writes are kept until it ends. Then one commit
//! compares what was read and writes what was written. If something has moved, the function runs again.
//!
//! Invariants:
//! - The writes of at most one run are applied, and of that run all or none.
//! - Transactions of one client and its clones that touch the same variables commit one after the other; which
//!   is for speed alone (`queue`).

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use super::Store;
use super::commit::{Commit, CommitError};
use super::copies::Writes;
use super::key::Key;
use super::queue::{Footprint, Turn};
use super::transaction::{Interrupt, Isolation, Run, Transaction};
use super::value::Variable;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Cause, Error};
use crate::watch::{Event, WatchFilter, WatchOptions};

/// Pause after a conflict, doubled up to 64 times this, with jitter.
const CONFLICT_PAUSE: Duration = Duration::from_micros(500);
/// Pause while the cluster cannot be reached or has no leader, doubled up to 64 times this, with jitter.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Most filters of a watch for a change; beyond, all variables are watched.
const FILTERS_MAX: usize = 64;

/// How to go about a transaction. Start from [`TransactOptions::default`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactOptions {
    /// What it may notice of others.
    pub isolation: Isolation,
    /// Whether what it puts is written if the variable holds that already. Always, by default.
    pub writes: Writes,
    /// How long it may run again and again, [`Transaction::retry`] not counted; by default for as long as a
    /// call of the client may take.
    pub timeout: Option<Duration>,
}

/// Why a transaction was not applied, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The function failed; nothing was written.
    #[error("{0}")]
    Aborted(E),
    /// A read failed; nothing was written.
    #[error(transparent)]
    Read(Error),
    /// The commit was refused, or others came between for as long as it might take; nothing was written.
    #[error(transparent)]
    Commit(CommitError),
    /// The last run may have been applied, or may still be; committing again settles it.
    #[error("the outcome of the transaction is unknown: {cause}")]
    Uncertain {
        /// What to settle.
        commit: Box<Commit>,
        /// What happened.
        cause: Error,
    },
    /// The function waits for a change of what it read, and has read nothing.
    #[error("the transaction waits for a change, and has read nothing")]
    NothingRead,
}

/// A transaction from its first run to its last.
struct Runner<'a> {
    store: &'a Store,
    options: TransactOptions,
    timeout: Duration,
    deadline: Deadline,
    /// What the last run touched.
    footprint: Footprint,
    turn: Option<Turn>,
    /// Runs in vain since the first one, or since the last wait for a change.
    vain: u32,
}

/// How one run ended.
enum Ended<T, E> {
    Applied(T),
    /// It runs again, after this pause unless the time is over; then this is why.
    Again(Duration, TransactError<E>),
    Failed(TransactError<E>),
}

/// Runs `function` until what it did was applied at once, or it fails.
pub(super) async fn transact<T, E, Fut>(
    store: &Store,
    options: TransactOptions,
    mut function: impl FnMut(Transaction) -> Fut,
) -> Result<T, TransactError<E>>
where
    Fut: Future<Output = Result<T, E>>,
{
    let timeout = options.timeout.unwrap_or(store.client.call_timeout());
    let mut runner = Runner {
        store,
        options,
        timeout,
        deadline: Deadline::after(timeout),
        footprint: Footprint::new(),
        turn: None,
        vain: 0,
    };
    loop {
        let transaction = runner.begin().await.map_err(TransactError::Read)?;
        let returned = function(transaction.clone()).await;
        match runner.end(&transaction, returned).await {
            Ended::Applied(value) => return Ok(value),
            Ended::Failed(error) => return Err(error),
            Ended::Again(pause, error) => {
                if runner.deadline.remaining() <= pause {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl Runner<'_> {
    /// A new run.
    async fn begin(&self) -> Result<Transaction, Error> {
        let client = self.store.client.with_timeout(self.deadline.remaining());
        Transaction::begin(client, self.options.isolation, &self.footprint).await
    }

    /// What comes of a run of which the function has returned.
    async fn end<T, E>(
        &mut self,
        transaction: &Transaction,
        returned: Result<T, E>,
    ) -> Ended<T, E> {
        // At this level what is written must be as it was, too.
        if self.options.isolation == Isolation::SerializableSnapshot && returned.is_ok() {
            let unread = transaction.run().unread_writes();
            if !unread.is_empty() && transaction.run().interrupt.is_none() {
                // If this fails, it is noted.
                let _noted = transaction.fetch(&unread).await;
            }
        }
        // Whoever has kept a clone of the run writes into nothing from here on.
        let mut run = std::mem::take(&mut *transaction.run());
        self.turn = run.turn.take().or(self.turn.take());
        self.footprint = run.footprint();
        match &run.interrupt {
            None => {}
            Some(Interrupt::Read(error)) => {
                return Ended::Failed(TransactError::Read(error.clone()));
            }
            Some(Interrupt::Blocked) => return self.wait_for_change(&run).await,
            Some(Interrupt::Moved | Interrupt::Codec(_)) => {
                return moved(self.pause(CONFLICT_PAUSE));
            }
        }
        let value = match returned {
            Ok(value) => value,
            Err(error) => return Ended::Failed(TransactError::Aborted(error)),
        };
        let plan = run.plan(self.options.isolation, self.options.writes);
        let is_of_one_revision = transaction.is_snapshot() || run.reads.len() < 2;
        if plan.writes().is_empty() && (is_of_one_revision || !transaction.keeps_reads()) {
            return Ended::Applied(value);
        }
        if !self.take_turn().await {
            return moved(Duration::ZERO);
        }
        let mut commit = self.store.prepare(plan);
        match commit.commit_by(self.deadline).await {
            Ok(_) => Ended::Applied(value),
            Err(error @ CommitError::ConcurrentUpdate(_)) => {
                Ended::Again(self.pause(CONFLICT_PAUSE), TransactError::Commit(error))
            }
            Err(error @ CommitError::BusyRetry { .. }) => {
                Ended::Again(self.pause(BUSY_PAUSE), TransactError::Commit(error))
            }
            Err(error @ CommitError::Refused(_)) => Ended::Failed(TransactError::Commit(error)),
            Err(CommitError::CommitUncertain { cause }) => {
                Ended::Failed(TransactError::Uncertain { commit: Box::new(commit), cause })
            }
        }
    }

    /// Makes sure that no other transaction of this program commits what overlaps this one at the same time.
    /// False if another one has, probably, so that this run is in vain.
    async fn take_turn(&mut self) -> bool {
        if self.turn.as_ref().is_some_and(|turn| turn.covers(&self.footprint)) {
            return true;
        }
        // Given up first: whoever holds places takes no others.
        self.turn = None;
        let client = &self.store.client;
        self.turn = client.queue().take(client.shared_namespace(), &self.footprint).await;
        let has_waited = self.turn.as_ref().is_some_and(|turn| turn.has_waited);
        !has_waited || self.options.isolation == Isolation::ReadCommitted
    }

    fn pause(&mut self, first: Duration) -> Duration {
        let longest = first * (1 << self.vain.min(6));
        self.vain = self.vain.saturating_add(1);
        longest.mul_f64(rand::random_range(0.0..1.0))
    }

    /// Waits until something that the run read has changed.
    async fn wait_for_change<T, E>(&mut self, run: &Run) -> Ended<T, E> {
        let Some(oldest) = run.oldest.filter(|_| !run.reads.is_empty()) else {
            return Ended::Failed(TransactError::NothingRead);
        };
        // Others may go on.
        self.turn = None;
        if let Err(error) = changed(&self.store.client, &run.reads, oldest).await {
            return Ended::Failed(TransactError::Read(error));
        }
        self.vain = 0;
        self.deadline = Deadline::after(self.timeout);
        moved(Duration::ZERO)
    }
}

/// A run that is in vain, and so was not committed.
fn moved<T, E>(pause: Duration) -> Ended<T, E> {
    let summary = "others kept changing what the transaction reads".to_owned();
    let cause = Cause { summary, attempts: Vec::new() };
    let cause = Error::NotApplied { cause, header: None };
    Ended::Again(pause, TransactError::Commit(CommitError::BusyRetry { cause }))
}

/// Waits until one of these variables is not as it was read, at this revision or later.
async fn changed(
    client: &Client,
    reads: &BTreeMap<Key, Variable>,
    oldest: u64,
) -> Result<(), Error> {
    let filters = match reads.len() {
        ..=FILTERS_MAX => {
            reads.keys().map(|key| WatchFilter::Variable(key.as_bytes().to_vec())).collect()
        }
        _ => vec![WatchFilter::Variable(Vec::new())],
    };
    let options = WatchOptions { from_revision: Some(oldest + 1), filters };
    let mut watch = None;
    loop {
        let watching = match &mut watch {
            Some(watching) => watching,
            none => match client.watch(options.clone()).await {
                Ok(opened) => none.insert(opened),
                // Whatever has changed is not known any more, so it is read anew.
                Err(error) if error.reason() == Some("COMPACTED") => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        match watching.next().await {
            Ok(change) => {
                if let Event::Variable { key, .. } = &change.event
                    && reads
                        .get(&Key::from_bytes(key))
                        .is_some_and(|read| read.mod_revision < change.revision)
                {
                    return Ok(());
                }
            }
            // The watch goes on as soon as there is a node.
            Err(Error::Unavailable { .. }) => {}
            Err(error) if error.reason() == Some("COMPACTED") => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
