//! The service `Stm`.

use holdfast_machine::stm::{self, Codec, Comparison, Found, Listed, Write};
use holdfast_machine::{Bytes, Command as Any, Field, Refusal, Reply, State, limits};
use holdfast_proto::v1;
use holdfast_proto::v1::stm_server::Stm as Service;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::feed::{self, Ended, Feed, RESPONSE_BYTES, Responses};
use super::{Answered, Calls, foreign, namespace};

/// Largest request that is taken in, in bytes: beyond the largest transaction, so that one which is too
/// large is refused with its numbers, and what the state machine decodes.
pub(super) const REQUEST_BYTES_MAX: usize = limits::DECODE_BYTES_MAX;
/// Most bytes of values that a conflict carries (1 MiB): the largest value, or many small ones.
const CONFLICT_BYTES_MAX: usize = limits::VALUE_BYTES_MAX;

fn codec_to_wire(codec: Codec) -> v1::Codec {
    match codec {
        Codec::Bytes => v1::Codec::Bytes,
        Codec::Json => v1::Codec::Json,
        Codec::Pickle => v1::Codec::Pickle,
    }
}

/// None for a codec that is not set, or that this release does not know.
fn codec_from_wire(codec: i32) -> Option<Codec> {
    match v1::Codec::try_from(codec).ok()? {
        v1::Codec::Unspecified => None,
        v1::Codec::Bytes => Some(Codec::Bytes),
        v1::Codec::Json => Some(Codec::Json),
        v1::Codec::Pickle => Some(Codec::Pickle),
    }
}

/// A variable as it is read; version 0 if it is not there.
fn variable(key: Vec<u8>, found: Option<&Found<'_>>) -> v1::Variable {
    match found {
        None => v1::Variable { key, ..Default::default() },
        Some(Found { version, mod_revision, codec, value }) => v1::Variable {
            key,
            version: *version,
            mod_revision: *mod_revision,
            codec: codec_to_wire(*codec).into(),
            value: value.to_vec(),
        },
    }
}

fn too_large(field: Field, actual: usize, allowed: usize) -> Refusal {
    Refusal::TransactionTooLarge { field, actual: actual as u64, allowed: allowed as u64 }
}

impl Calls {
    fn write_from_wire(&self, nth: usize, write: v1::VariableWrite) -> Result<Write, Status> {
        let key = write.key.into();
        if write.delete {
            return Ok(Write::Delete { key });
        }
        let codec = codec_from_wire(write.codec).ok_or_else(|| {
            self.0.bad_request(format!(
                "writes[{nth}].codec is {}; say what the bytes of the value are, CODEC_BYTES if \
                 nothing else",
                write.codec
            ))
        })?;
        Ok(Write::Put { key, codec, value: write.value.into() })
    }

    /// A state at this revision or a later one.
    async fn at_least(&self, metadata: &MetadataMap, revision: u64) -> Result<State, Status> {
        let here = self.0.applied.state();
        if here.header().revision >= revision {
            return Ok(here);
        }
        // The leader has decided, and this node has not come to it yet.
        self.read(metadata, None).await
    }

    /// The variables whose comparisons failed, as they are in this state.
    fn conflicting(
        &self,
        state: &State,
        namespace: &str,
        keys: impl Iterator<Item = Bytes>,
    ) -> Result<Vec<v1::ConflictingVariable>, Status> {
        let mut conflicts = Vec::new();
        let (mut bytes, mut has_value) = (0, true);
        for key in keys {
            let found = self.checked(stm::get(state, namespace, &key))?;
            let mut variable = variable(key.to_vec(), found.as_ref());
            bytes += variable.value.len();
            has_value &= bytes <= CONFLICT_BYTES_MAX;
            if !has_value {
                variable.value.clear();
            }
            conflicts.push(v1::ConflictingVariable { variable: Some(variable), has_value });
        }
        Ok(conflicts)
    }
}

#[tonic::async_trait]
impl Service for Calls {
    type ListVariablesStream = Responses<v1::ListVariablesResponse>;

    async fn get_variables(
        &self,
        request: Request<v1::GetVariablesRequest>,
    ) -> Result<Response<v1::GetVariablesResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let keys = request.keys.len();
        if keys > limits::TRANSACTION_KEYS_MAX {
            let refusal = too_large(Field::Keys, keys, limits::TRANSACTION_KEYS_MAX);
            let revision = self.0.applied.state().header().revision;
            return Err(self.0.refused(&refusal, revision));
        }
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let mut found = Vec::with_capacity(keys);
        for key in &request.keys {
            let mut one = self.checked(stm::get(&state, &namespace, key))?;
            if let (true, Some(one)) = (request.only_versions, &mut one) {
                one.value = &[];
            }
            found.push(one);
        }
        let bytes: usize = found.iter().flatten().map(|found| found.value.len()).sum();
        if bytes > limits::TRANSACTION_BYTES_MAX {
            let refusal = too_large(Field::Bytes, bytes, limits::TRANSACTION_BYTES_MAX);
            return Err(self.0.refused(&refusal, state.header().revision));
        }
        let variables = request.keys.into_iter().zip(&found);
        Ok(Response::new(v1::GetVariablesResponse {
            header: Some(self.0.header_of(&state)),
            variables: variables.map(|(key, found)| variable(key, found.as_ref())).collect(),
        }))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let namespace = namespace(request.namespace);
        let comparisons = request.comparisons.into_iter().map(|comparison| Comparison {
            key: comparison.key.into(),
            version: comparison.version,
            mod_revision: comparison.mod_revision,
        });
        let comparisons: Vec<Comparison> = comparisons.collect();
        let compared: Vec<Bytes> = comparisons.iter().map(|one| one.key.clone()).collect();
        let writes = request.writes.into_iter().enumerate();
        let writes: Result<_, _> =
            writes.map(|(nth, write)| self.write_from_wire(nth, write)).collect();
        let command = stm::Command { namespace: namespace.clone(), comparisons, writes: writes? };
        let Answered { reply, header } =
            self.write(&metadata, request.context, Any::Stm(command)).await?;
        let Reply::Stm(reply) = reply else { return Err(foreign(&reply)) };
        let (conflicts, conflicts_total) = match &reply {
            stm::Reply::Committed => (Vec::new(), 0),
            stm::Reply::Conflict { failed, total } => {
                let state = self.at_least(&metadata, header.revision).await?;
                let failed = failed.iter().filter_map(|nth| compared.get(*nth as usize)).cloned();
                (self.conflicting(&state, &namespace, failed)?, *total)
            }
        };
        let (header, committed) = (Some(header), conflicts_total == 0);
        Ok(Response::new(v1::CommitResponse { header, committed, conflicts, conflicts_total }))
    }

    async fn list_variables(
        &self,
        request: Request<v1::ListVariablesRequest>,
    ) -> Result<Response<Responses<v1::ListVariablesResponse>>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let run = |feed| list(feed, state, request);
        Ok(Response::new(feed::stream(&self.0, "listing", run)))
    }
}

/// Streams the variables of a namespace as they are in this state.
async fn list(
    feed: Feed<v1::ListVariablesResponse>,
    state: State,
    request: v1::ListVariablesRequest,
) -> Result<(), Ended> {
    let v1::ListVariablesRequest { key_prefix, only_keys, .. } = request;
    let namespace = namespace(request.namespace);
    let header = Some(feed.header_of(&state));
    let mut response = v1::ListVariablesResponse { header: header.clone(), ..Default::default() };
    let (mut bytes, mut after) = (0, Vec::new());
    loop {
        let page = feed.read(stm::list(&state, &namespace, &key_prefix, &after)).await?;
        for Listed { key, found } in page.items {
            after.clone_from(&key);
            let value = if only_keys { &[] } else { found.value };
            response.variables.push(variable(key, Some(&Found { value, ..found })));
            bytes += after.len() + value.len();
            if bytes >= RESPONSE_BYTES {
                bytes = 0;
                let header = header.clone();
                let next = v1::ListVariablesResponse { header, ..Default::default() };
                feed.send(std::mem::replace(&mut response, next)).await?;
            }
        }
        if !page.more {
            response.is_last = true;
            return feed.send(response).await;
        }
    }
}
