//! What one call is.

use std::time::Duration;

use holdfast_client::persistence::{self, ClusterStore, Id, Object, Store as _};
use holdfast_client::stm::{self, Codec, CommitError, Content, Key};
use holdfast_client::{Claimed, Client, ClientConfig, Error, Instance, LeaseHolder, Opened, State};
use tokio::task::JoinSet;

use super::target::Target;
use crate::args::{BenchArgs, Workload};
use crate::codes::Code;
use crate::connect;
use crate::errors::{Failure, Outcome};

/// The namespace of all that is written.
const NAMESPACE: &str = "_bench";
/// How long a call may take before it counts as failed.
pub(super) const CALL_MAX: Duration = Duration::from_secs(10);
/// How long tidying up may take.
const CLEAN_WITHIN: Duration = Duration::from_secs(10);
/// Keys of one client, used in turn.
const KEYS: u64 = 10;
/// Reads for each write of the mixed workload.
const READS_PER_WRITE: u64 = 3;
/// Long enough that nobody loses a lease because the machine is busy.
const LEASE: Duration = Duration::from_secs(60);

/// One client, ready to call.
#[derive(Debug)]
pub(super) struct Caller {
    client: Client,
    kind: Kind,
    calls: u64,
}

#[derive(Debug)]
enum Kind {
    State { state: State, object: i64, value: Value, reads_per_write: u64 },
    Claim { holder: LeaseHolder, source: i64, token: Option<u64> },
    Stm { variables: Vec<stm::Value>, value: Value },
    Object { store: ClusterStore, ids: Vec<Id>, value: Value },
}

/// Makes values of one size that all differ: one that is there already is not written again.
#[derive(Debug)]
struct Value {
    bytes: usize,
    /// Differs from run to run.
    seed: u64,
}

/// So many clients, each connected and with a session of its own.
pub(super) async fn callers(args: &BenchArgs, target: &Target, count: u32) -> Outcome<Vec<Caller>> {
    let mut making = JoinSet::new();
    for index in 0..count {
        let (workload, bytes) = (args.workload, args.value_bytes);
        // Spread over the nodes, as the masters of a site are; each soon finds the leader.
        let mut endpoints = target.endpoints.clone();
        let shift = usize::try_from(index).unwrap_or(0) % endpoints.len().max(1);
        endpoints.rotate_left(shift);
        making.spawn(async move { caller(workload, endpoints, index, bytes).await });
    }
    let mut callers = Vec::new();
    while let Some(made) = making.join_next().await {
        let made = made.map_err(|error| Failure::bug(error.to_string()))?;
        callers.push(made.map_err(|failed| failed.failure())?);
    }
    Ok(callers)
}

async fn caller(
    workload: Workload,
    endpoints: Vec<String>,
    index: u32,
    value_bytes: u32,
) -> Result<Caller, Failed> {
    let client = Client::connect(ClientConfig {
        namespace: NAMESPACE.to_owned(),
        call_timeout: CALL_MAX,
        ..ClientConfig::new(endpoints)
    });
    let name = format!("client-{index}");
    let kind = match workload {
        Workload::State | Workload::Mixed | Workload::Failover => {
            let state = client.state();
            let object = state.get_object_id(&name, "bench").await?;
            let reads_per_write = if workload == Workload::Mixed { READS_PER_WRITE } else { 0 };
            let value = Value::of(value_bytes);
            // So that there is something to read, and a session to write with.
            state.set(object, &key(0), value.number(u64::MAX)).await?;
            Kind::State { state, object, value, reads_per_write }
        }
        Workload::Claim => {
            let source = client.change_sources().find_id(&name).await?;
            let holder = loop {
                match LeaseHolder::open(&client, &name, &Instance::random(), LEASE).await? {
                    Opened::Granted(holder) => break holder,
                    // A run that was killed left it behind.
                    Opened::HeldBy(held) => {
                        client.masters().set_state(held.master, false).await?;
                    }
                }
            };
            Kind::Claim { holder, source, token: None }
        }
        Workload::Stm => {
            let value = Value::of(value_bytes);
            // A commit counts as failed when a call does, and not before.
            let store = client.stm().with_budget(CALL_MAX);
            let mut variables = Vec::new();
            for number in 0..KEYS {
                let name = Key::new((name.as_str(), number)).expect("a short key");
                variables.push(store.usevar(&name).await?);
            }
            Kind::Stm { variables, value }
        }
        Workload::Object => {
            let store = ClusterStore::of_client(&client);
            let value = Value::of(value_bytes);
            let mut ids = Vec::new();
            for number in 0..KEYS {
                ids.push(store.save(&Object::new("bench", value.number(number))).await?);
            }
            Kind::Object { store, ids, value }
        }
    };
    Ok(Caller { client, kind, calls: 0 })
}

impl Caller {
    /// Makes the next call.
    pub(super) async fn call(&mut self) -> Result<(), Failed> {
        let number = self.calls;
        self.calls += 1;
        match &mut self.kind {
            Kind::State { state, object, value, reads_per_write } => {
                let each = *reads_per_write + 1;
                let key = key((number / each) % KEYS);
                match number % each {
                    0 => {
                        state.set(*object, &key, value.number(number)).await?;
                    }
                    _ => {
                        state.get(*object, &key).await?.ok_or(Failed::Wrong("a key is gone"))?;
                    }
                }
            }
            Kind::Claim { holder, source, token } => match token.take() {
                None => match holder.claim(*source).await? {
                    Claimed::Granted { token: granted } => *token = Some(granted),
                    Claimed::AlreadyClaimed(_) => {
                        return Err(Failed::Wrong("somebody else has claimed it"));
                    }
                },
                Some(granted) => {
                    if !holder.release(*source, granted).await? {
                        return Err(Failed::Wrong("the claim was not held any more"));
                    }
                }
            },
            Kind::Stm { variables, value } => {
                let nth = usize::try_from(number).unwrap_or(usize::MAX) % variables.len();
                variables[nth].set_content(Content::new(Codec::Json, value.number(number)));
                variables[nth].commit().await?;
            }
            Kind::Object { store, ids, value } => {
                let nth = usize::try_from(number % KEYS).unwrap_or(0);
                let object = Object::new("bench", value.number(number)).with_id(ids[nth]);
                store.save(&object).await?;
            }
        }
        Ok(())
    }
}

/// Why a call does not count.
#[derive(Debug)]
pub(super) enum Failed {
    /// The call failed.
    Call(Error),
    /// A store failed.
    Store(Box<persistence::Error>),
    /// It was answered, and not as it had to be.
    Wrong(&'static str),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Call(error)
    }
}

impl From<CommitError> for Failed {
    fn from(error: CommitError) -> Failed {
        match error {
            CommitError::BusyRetry { cause: error }
            | CommitError::CommitUncertain { cause: error }
            | CommitError::Refused(error) => Failed::Call(error),
            CommitError::ConcurrentUpdate(_) => Failed::Wrong("somebody else has written it"),
        }
    }
}

impl From<persistence::Error> for Failed {
    fn from(error: persistence::Error) -> Failed {
        Failed::Store(Box::new(error))
    }
}

impl Failed {
    /// As people see it.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Call(error) => connect::failure(error),
            Self::Store(error) => match error.of_call() {
                Some(error) => connect::failure(error),
                None => Failure::bug(error.to_string()),
            },
            Self::Wrong(what) => Failure::new(Code::Bug, *what).help("please report this"),
        }
    }
}

/// Ends the clients' sessions and leases, and deletes what they wrote unless the cluster goes away.
/// What cannot be deleted is left: a run that ended is not spoilt by that.
pub(super) async fn clean_up(callers: Vec<Caller>, is_scratch: bool) {
    let mut cleaning = JoinSet::new();
    for caller in callers {
        cleaning.spawn(async move {
            match caller.kind {
                Kind::State { state, object, .. } if !is_scratch => {
                    for number in 0..KEYS {
                        let _left = state.delete(object, &key(number)).await;
                    }
                }
                Kind::Stm { variables, .. } if !is_scratch => {
                    for mut variable in variables {
                        variable.clear();
                        let _left = variable.commit().await;
                    }
                }
                Kind::Object { store, ids, .. } if !is_scratch => {
                    for id in ids {
                        let _left = store.remove(id).await;
                    }
                }
                Kind::State { .. } | Kind::Stm { .. } | Kind::Object { .. } => {}
                Kind::Claim { holder, .. } => {
                    let _lapses = holder.close().await;
                }
            }
            connect::close(&caller.client).await;
        });
    }
    let _left = tokio::time::timeout(CLEAN_WITHIN, cleaning.join_all()).await;
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos() & u128::from(u64::MAX)).unwrap_or(0)
}

impl Value {
    fn of(bytes: u32) -> Value {
        Value { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), seed: seed() }
    }

    /// A JSON string of exactly the size, another one for each number and run.
    fn number(&self, number: u64) -> Vec<u8> {
        let distinct = format!("\"{:016x}{number:016x}", self.seed);
        let mut value = distinct.into_bytes();
        value.resize(self.bytes - 1, b'.');
        value.push(b'"');
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        for bytes in [40, 200] {
            let value = Value { bytes, seed: 7 };
            let (one, two) = (value.number(1), value.number(u64::MAX));
            assert_eq!((one.len(), two.len()), (bytes, bytes));
            assert_ne!(one, two);
            assert_ne!(Value { bytes, seed: 8 }.number(1), one);
            assert!(serde_json::from_slice::<String>(&one).is_ok());
        }
    }
}
