//! A commit: compares some variables and writes some, all or none.
//!
//! Invariants:
//! - Everything is put together and checked before anything is sent.
//! - A commit has one number for as long as it may be applied, so however often it is sent, it is applied
//!   once. Only one that was definitely not applied gets another number.
//! - [`CommitError::BusyRetry`] is never said of a commit that was applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tonic::Code;

use super::key::Key;
use super::value::{Content, Variable};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pending::{Pending, Sent};

/// Most variables that one commit compares and writes.
pub(super) const TRANSACTION_KEYS_MAX: usize = 4096;
/// Most bytes of a commit: its keys, as often as each is named, and its values (8 MiB).
pub(super) const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// Longest value, in bytes (1 MiB).
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Keys that a message names at most; the others are counted.
const NAMED_MAX: usize = 4;

/// What a commit compares and writes. Each key comes at most once in either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    comparisons: BTreeMap<Key, Expected>,
    writes: BTreeMap<Key, Option<Content>>,
}

/// What a variable must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    version: u64,
    mod_revision: Option<u64>,
}

impl Plan {
    /// Compares nothing and writes nothing.
    #[must_use]
    pub fn new() -> Plan {
        Plan::default()
    }

    /// The variable must be as it was found: by its modification revision, so that one deleted and created
    /// again is noticed.
    #[must_use]
    pub fn expect(mut self, found: &Variable) -> Plan {
        let Variable { version, mod_revision, .. } = *found;
        let expected = Expected { version, mod_revision: Some(mod_revision) };
        self.comparisons.insert(found.key.clone(), expected);
        self
    }

    /// The variable must have this version, however it came to it; 0: it must not be there.
    #[must_use]
    pub fn expect_version(mut self, key: Key, version: u64) -> Plan {
        self.comparisons.insert(key, Expected { version, mod_revision: None });
        self
    }

    /// The variable is written, whether or not it is there.
    #[must_use]
    pub fn put(mut self, key: Key, content: Content) -> Plan {
        self.writes.insert(key, Some(content));
        self
    }

    /// The variable is deleted, if it is there.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Plan {
        self.writes.insert(key, None);
        self
    }

    /// What is written; none for what is deleted.
    pub(super) fn writes(&self) -> &BTreeMap<Key, Option<Content>> {
        &self.writes
    }

    /// Whether the cluster takes it, as far as its size says.
    fn check(&self) -> Result<(), Error> {
        let largest = self.writes.values().flatten().map(|c| c.bytes().len()).max();
        let largest = largest.unwrap_or(0);
        check("VALUE_TOO_LARGE", "a value", "bytes", largest, VALUE_BYTES_MAX)?;
        let keys: BTreeSet<&Key> = self.comparisons.keys().chain(self.writes.keys()).collect();
        let what = "a transaction";
        check("TRANSACTION_TOO_LARGE", what, "keys", keys.len(), TRANSACTION_KEYS_MAX)?;
        let compared = self.comparisons.keys().map(|key| key.as_bytes().len());
        let written = self.writes.iter().map(|(key, content)| {
            key.as_bytes().len() + content.as_ref().map_or(0, |content| content.bytes().len())
        });
        let bytes = compared.chain(written).sum();
        check("TRANSACTION_TOO_LARGE", what, "bytes", bytes, TRANSACTION_BYTES_MAX)
    }

    fn to_wire(&self, namespace: &str) -> proto::CommitRequest {
        let comparisons = self.comparisons.iter().map(|(key, expected)| proto::Comparison {
            key: key.as_bytes().to_vec(),
            version: expected.version,
            mod_revision: expected.mod_revision,
        });
        let writes = self.writes.iter().map(|(key, content)| proto::VariableWrite {
            key: key.as_bytes().to_vec(),
            delete: content.is_none(),
            codec: content.as_ref().map_or(0, |content| content.codec().to_wire().into()),
            value: content.as_ref().map_or_else(Vec::new, |content| content.bytes().to_vec()),
        });
        proto::CommitRequest {
            context: None,
            namespace: namespace.to_owned(),
            comparisons: comparisons.collect(),
            writes: writes.collect(),
        }
    }

    /// Variables that would be others for good, had this been applied.
    fn telling(&self) -> Vec<(Key, u64)> {
        let seen = |key: &Key| self.comparisons.get(key)?.mod_revision.filter(|seen| *seen > 0);
        self.writes.keys().filter_map(|key| Some((key.clone(), seen(key)?))).collect()
    }
}

fn check(reason: &str, what: &str, unit: &str, actual: usize, allowed: usize) -> Result<(), Error> {
    if actual <= allowed {
        return Ok(());
    }
    Err(Error::Refused {
        reason: reason.to_owned(),
        code: Code::InvalidArgument,
        message: format!("{what} has {actual} {unit}, and at most {allowed} are allowed"),
        fields: BTreeMap::from([
            ("field".to_owned(), unit.to_owned()),
            ("actual".to_owned(), actual.to_string()),
            ("allowed".to_owned(), allowed.to_string()),
        ]),
        header: None,
    })
}

/// A commit on its way. Sending it again settles it: it is applied at most once.
#[derive(Debug)]
pub struct Commit {
    client: Client,
    budget: Duration,
    plan: Plan,
    /// While it may be applied.
    pending: Option<Pending<proto::CommitRequest>>,
    /// The revision, once it has been applied.
    applied: Option<u64>,
}

/// Why a commit was not applied, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Definitely not applied: the cluster could not be reached, or has no leader, for longer than the
    /// budget. Committing again is safe.
    #[error("busy, nothing was committed: {cause}")]
    BusyRetry {
        /// What happened.
        cause: Error,
    },
    /// Nothing was written: others have written what was compared.
    #[error("{0}")]
    ConcurrentUpdate(Conflict),
    /// It may have been applied, or may still be. Committing again settles it, and applies it at most once,
    /// for as long as the session lasts ([`ClientConfig::session_idle`](crate::ClientConfig)); afterwards
    /// the variables have to be read anew.
    #[error("the outcome of the commit is unknown, commit again to settle it: {cause}")]
    CommitUncertain {
        /// What happened.
        cause: Error,
    },
    /// The cluster refused it, or it is too large to be sent: nothing was written.
    #[error(transparent)]
    Refused(Error),
}

/// Which comparisons did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The variables as they are now: at most 256, and with what they hold only as long as all that takes no
    /// more than 1 MiB.
    pub variables: Vec<Variable>,
    /// Of how many variables the comparison failed.
    pub total: u32,
    /// The revision at which these are the variables, or a later one.
    pub revision: u64,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was committed: others have changed")?;
        for (i, variable) in self.variables.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{} {}", if i == 0 { "" } else { "," }, variable.key)?;
        }
        let named = u32::try_from(self.variables.len().min(NAMED_MAX)).unwrap_or(u32::MAX);
        match self.total.saturating_sub(named) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Commit {
    pub(super) fn new(client: Client, budget: Duration, plan: Plan) -> Commit {
        Commit { client, budget, plan, pending: None, applied: None }
    }

    /// What is compared and written.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sends it, and returns the revision of what was written (of a state in which all comparisons hold, if
    /// nothing is). Once it was applied, sends nothing more. May be dropped and called again, as after
    /// [`CommitError::CommitUncertain`].
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&mut self) -> Result<u64, CommitError> {
        self.commit_by(Deadline::after(self.client.call_timeout())).await
    }

    pub(super) async fn commit_by(&mut self, deadline: Deadline) -> Result<u64, CommitError> {
        if let Some(revision) = self.applied {
            return Ok(revision);
        }
        let budget = deadline.at_most(self.budget);
        let pending = match &mut self.pending {
            Some(pending) => pending,
            pending @ None => {
                self.plan.check().map_err(CommitError::Refused)?;
                let request = self.plan.to_wire(self.client.namespace());
                let begun = Pending::begin(&self.client, request, budget).await;
                pending.insert(begun.map_err(not_applied)?)
            }
        };
        let result = match pending.send_within(budget, deadline).await {
            Sent::Open(cause) => return Err(CommitError::CommitUncertain { cause }),
            Sent::Forgotten(cause) if self.is_unapplied(deadline).await => {
                Err(CommitError::BusyRetry { cause })
            }
            Sent::Forgotten(cause) => return Err(CommitError::CommitUncertain { cause }),
            Sent::Decided(Err(error)) => Err(not_applied(error)),
            Sent::Decided(Ok(response)) => outcome(response),
        };
        self.pending = None;
        self.applied = result.as_ref().ok().copied();
        result
    }

    /// Whether the variables say that a commit was not applied which will not be any more.
    async fn is_unapplied(&self, deadline: Deadline) -> bool {
        let telling = self.plan.telling();
        let keys: Vec<Key> = telling.iter().map(|(key, _)| key.clone()).collect();
        let client = self.client.with_timeout(deadline.remaining());
        match read_versions(&client, &keys).await {
            Ok((_, variables)) => {
                variables.iter().zip(&telling).any(|(now, (_, seen))| now.mod_revision == *seen)
            }
            // It stays uncertain.
            Err(_) => false,
        }
    }
}

/// The error of a commit that was definitely not applied.
fn not_applied(error: Error) -> CommitError {
    match error {
        Error::Refused { .. } => CommitError::Refused(error),
        Error::NotApplied { .. }
        | Error::SessionExpired { .. }
        | Error::Unavailable { .. }
        | Error::LeaseLost { .. } => CommitError::BusyRetry { cause: error },
        Error::OutcomeUnknown { .. } => CommitError::CommitUncertain { cause: error },
    }
}

fn outcome(response: proto::CommitResponse) -> Result<u64, CommitError> {
    let revision = response.header.map_or(0, |header| header.revision);
    if response.committed {
        return Ok(revision);
    }
    let conflicts = response.conflicts.into_iter().filter_map(|conflict| {
        let has_value = conflict.has_value;
        Some(Variable::from_wire(conflict.variable?, has_value))
    });
    let variables = conflicts.collect();
    let total = response.conflicts_total;
    Err(CommitError::ConcurrentUpdate(Conflict { variables, total, revision }))
}

/// Several variables at one revision, in the order asked for.
pub(super) async fn read(
    client: &Client,
    keys: &[Key],
    local: bool,
) -> Result<(u64, Vec<Variable>), Error> {
    get(client, keys, local, false).await
}

/// As [`read`], linearizable and without what they hold.
pub(super) async fn read_versions(
    client: &Client,
    keys: &[Key],
) -> Result<(u64, Vec<Variable>), Error> {
    get(client, keys, false, true).await
}

async fn get(
    client: &Client,
    keys: &[Key],
    local: bool,
    only_versions: bool,
) -> Result<(u64, Vec<Variable>), Error> {
    let request = proto::GetVariablesRequest {
        read: Some(proto::ReadOptions { local }),
        namespace: client.namespace().to_owned(),
        keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        only_versions,
    };
    let response = client.read(request).await?;
    let revision = response.header.map_or(0, |header| header.revision);
    let variables = response.variables.into_iter();
    let variables = variables.map(|found| Variable::from_wire(found, !only_versions));
    Ok((revision, variables.collect()))
}

#[cfg(test)]
mod tests {
    //! Limits, and what a message names.

    use super::super::value::Codec;
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(number).expect("a number is a key")
    }

    fn content(bytes: usize) -> Content {
        Content::new(Codec::Bytes, vec![0; bytes])
    }

    fn refused(plan: &Plan) -> String {
        plan.check().expect_err("it is too large").to_string()
    }

    // G9
    #[test]
    fn too_large_a_commit_is_refused_before_it_is_sent() {
        let plan = (0..TRANSACTION_KEYS_MAX)
            .fold(Plan::new(), |plan, n| plan.expect_version(key(n), 1).delete(key(n)));
        assert!(plan.check().is_ok(), "a key that is compared and written counts once");
        let plan = plan.delete(key(TRANSACTION_KEYS_MAX));
        assert_eq!(refused(&plan), "a transaction has 4097 keys, and at most 4096 are allowed");

        let plan = Plan::new().put(key(0), content(VALUE_BYTES_MAX));
        assert!(plan.check().is_ok());
        let plan = Plan::new().put(key(0), content(VALUE_BYTES_MAX + 1));
        assert_eq!(refused(&plan), "a value has 1048577 bytes, and at most 1048576 are allowed");

        let full = (0..7).fold(Plan::new(), |plan, n| plan.put(key(n), content(VALUE_BYTES_MAX)));
        let keys: usize = (0..8).map(|n| key(n).as_bytes().len()).sum();
        let plan = full.clone().put(key(7), content(VALUE_BYTES_MAX - keys));
        assert!(plan.check().is_ok());
        let plan = full.put(key(7), content(VALUE_BYTES_MAX - keys + 1));
        assert_eq!(
            refused(&plan),
            "a transaction has 8388609 bytes, and at most 8388608 are allowed"
        );
    }

    #[test]
    fn conflict_names_some_and_counts_the_others() {
        let variable = |n| Variable { key: key(n), version: 1, mod_revision: 9, content: None };
        let conflict = |named, total| Conflict {
            variables: (0..named).map(variable).collect(),
            total,
            revision: 9,
        };
        assert_eq!(conflict(2, 2).to_string(), "nothing was committed: others have changed 0, 1");
        assert_eq!(
            conflict(256, 4096).to_string(),
            "nothing was committed: others have changed 0, 1, 2, 3 and 4092 more"
        );
    }

    // A variable that was absent may be so again.
    #[test]
    fn only_what_was_there_and_is_written_tells_of_a_commit() {
        let found = |n, mod_revision| Variable {
            mod_revision,
            ..Variable { key: key(n), version: 1, mod_revision: 0, content: None }
        };
        let plan = Plan::new()
            .expect(&found(0, 7))
            .expect(&found(1, 0))
            .expect(&found(2, 8))
            .expect_version(key(3), 1);
        let plan = [0, 1, 3, 4].into_iter().fold(plan, |plan, n| plan.delete(key(n)));
        assert_eq!(plan.telling(), [(key(0), 7)]);
    }
}
