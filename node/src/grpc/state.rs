//! The service `State`.

use holdfast_machine::changesources::Fence;
use holdfast_machine::state::{self, Command};
use holdfast_machine::{Command as Any, Refusal, Reply, State, creators, import, limits};
use holdfast_proto::v1;
use holdfast_proto::v1::state_server::State as Service;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::export::{self, from_wire};
use super::{Answered, Calls, foreign, namespace};

fn fence(fence: Option<v1::Fence>) -> Option<Fence> {
    fence.map(|fence| Fence { changesource: fence.changesource_id, token: fence.token })
}

fn item(listed: &state::Listed<'_>) -> v1::StateItem {
    v1::StateItem {
        name: listed.name.clone(),
        value: listed.value.to_vec(),
        mod_revision: listed.mod_revision,
    }
}

impl Calls {
    fn unknown_object(&self, id: i64, state: &State) -> Status {
        self.0.refused(&Refusal::UnknownObject { id }, state.header().revision)
    }

    /// The value that stands, where the reply could not hold it. It may be a later one than the
    /// one that won: whatever stands now was written after the caller's own attempt.
    async fn read_again(
        &self,
        metadata: &MetadataMap,
        (namespace, object, name): (&str, i64, &str),
        held: Option<&holdfast_machine::Bytes>,
    ) -> Result<(Vec<u8>, bool), Status> {
        if let Some(value) = held {
            return Ok((value.to_vec(), true));
        }
        let state = self.read(metadata, None).await?;
        let found = self.checked(state::get(&state, namespace, object, name))?;
        Ok(found.map_or((Vec::new(), false), |found| (found.value.to_vec(), true)))
    }
}

/// How a caller stands that would create a value.
enum Told {
    Exists(v1::StateValue),
    Creating(v1::Creating),
    Waiting(v1::WaitingToCreate),
}

impl Calls {
    /// Carries out a command that tells a caller how it stands.
    async fn creation(
        &self,
        metadata: &MetadataMap,
        context: Option<v1::WriteContext>,
        key: (&str, i64, &str),
        command: creators::Command,
    ) -> Result<(Told, v1::ResponseHeader), Status> {
        let Answered { reply, header } =
            self.write(metadata, context, Any::Creators(command)).await?;
        let Reply::Creators(reply) = reply else { return Err(foreign(&reply)) };
        let told = match reply {
            creators::Reply::Exists { mod_revision, value } => {
                let (value, found) = self.read_again(metadata, key, value.as_ref()).await?;
                Told::Exists(v1::StateValue { value, mod_revision, is_gone: !found })
            }
            creators::Reply::Creating { token, ttl_ms } => {
                Told::Creating(v1::Creating { token, ttl_ms })
            }
            creators::Reply::Waiting { token, ahead } => {
                Told::Waiting(v1::WaitingToCreate { token, ahead })
            }
            creators::Reply::Abandoned(_) => return Err(foreign(&Reply::Creators(reply))),
        };
        Ok((told, header))
    }
}

#[tonic::async_trait]
impl Service for Calls {
    type ExportStream = export::Responses;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<export::Responses>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        Ok(Response::new(Calls::export(self, state, namespace(request.namespace))))
    }

    async fn import(
        &self,
        request: Request<v1::ImportRequest>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let rows: Option<Vec<_>> = request.rows.into_iter().map(from_wire).collect();
        let rows =
            rows.ok_or_else(|| self.0.bad_request("rows: one of them says nothing".to_owned()))?;
        let namespace = namespace(request.namespace);
        let command = Any::Import(import::Command { namespace, rows });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::Import(import::Reply { written }) = reply else { return Err(foreign(&reply)) };
        Ok(Response::new(v1::ImportResponse { header: Some(header), written }))
    }

    async fn get_object_id(
        &self,
        request: Request<v1::GetObjectIdRequest>,
    ) -> Result<Response<v1::GetObjectIdResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let namespace = namespace(request.namespace);
        let (name, class_name) = (request.name, request.class_name);
        // An object keeps its id for ever, so whoever knows it may say so.
        let here = self.0.applied.state();
        let known = self.checked(state::object_id(&here, &namespace, &name, &class_name))?;
        if let Some(object_id) = known {
            let header = Some(self.0.header_of(&here));
            return Ok(Response::new(v1::GetObjectIdResponse { header, object_id }));
        }
        if request.only_existing {
            let state = self.read(&metadata, None).await?;
            let known = self.checked(state::object_id(&state, &namespace, &name, &class_name))?;
            let revision = state.header().revision;
            let object_id =
                known.ok_or_else(|| self.0.unknown_name(&class_name, &name, revision))?;
            let header = Some(self.0.header_of(&state));
            return Ok(Response::new(v1::GetObjectIdResponse { header, object_id }));
        }
        let command = Any::State(Command::GetObjectId { namespace, name, class_name });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::State(state::Reply::ObjectId(object_id)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::GetObjectIdResponse { header: Some(header), object_id }))
    }

    async fn get_state(
        &self,
        request: Request<v1::GetStateRequest>,
    ) -> Result<Response<v1::GetStateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let found =
            self.checked(state::get(&state, &namespace, request.object_id, &request.name))?;
        let header = Some(self.0.header_of(&state));
        Ok(Response::new(match found {
            None => v1::GetStateResponse { header, ..Default::default() },
            Some(state::Found { value, mod_revision }) => {
                v1::GetStateResponse { header, found: true, value: value.to_vec(), mod_revision }
            }
        }))
    }

    async fn get_state_many(
        &self,
        request: Request<v1::GetStateManyRequest>,
    ) -> Result<Response<v1::GetStateManyResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let names = request.names.len();
        if names > limits::NAMES_PER_GET_MAX {
            return Err(self.0.bad_request(format!(
                "names has {names} entries, {} are allowed; ask in parts",
                limits::NAMES_PER_GET_MAX
            )));
        }
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let found =
            self.checked(state::get_many(&state, &namespace, request.object_id, &request.names))?;
        let found = found.ok_or_else(|| self.unknown_object(request.object_id, &state))?;
        let items = found.iter().map(item).collect();
        let header = Some(self.0.header_of(&state));
        Ok(Response::new(v1::GetStateManyResponse { header, items }))
    }

    async fn set_state(
        &self,
        request: Request<v1::SetStateRequest>,
    ) -> Result<Response<v1::SetStateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, object, name) =
            (namespace(request.namespace), request.object_id, request.name);
        let command = Any::State(Command::Set {
            namespace: namespace.clone(),
            object,
            name: name.clone(),
            value: request.value.into(),
            if_revision: request.if_revision,
            fence: fence(request.fence),
            noted_revision: None,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::State(state::Reply::Written { written, mod_revision, found, value }) = reply
        else {
            return Err(foreign(&reply));
        };
        let header = Some(header);
        if written || !found {
            let value = Vec::new();
            let response = v1::SetStateResponse { header, written, value, mod_revision, found };
            return Ok(Response::new(response));
        }
        let key = (namespace.as_str(), object, name.as_str());
        let (value, found) = self.read_again(&metadata, key, value.as_ref()).await?;
        Ok(Response::new(v1::SetStateResponse { header, written, value, mod_revision, found }))
    }

    async fn create_state(
        &self,
        request: Request<v1::CreateStateRequest>,
    ) -> Result<Response<v1::CreateStateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, object, name) =
            (namespace(request.namespace), request.object_id, request.name);
        let command = Any::State(Command::Create {
            namespace: namespace.clone(),
            object,
            name: name.clone(),
            value: request.value.into(),
            fence: fence(request.fence),
            token: request.token,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::State(state::Reply::Created { created, mod_revision, value }) = reply else {
            return Err(foreign(&reply));
        };
        let value = if created {
            Vec::new()
        } else {
            let key = (namespace.as_str(), object, name.as_str());
            self.read_again(&metadata, key, value.as_ref()).await?.0
        };
        let header = Some(header);
        Ok(Response::new(v1::CreateStateResponse { header, created, value, mod_revision }))
    }

    async fn ask_to_create(
        &self,
        request: Request<v1::AskToCreateRequest>,
    ) -> Result<Response<v1::AskToCreateResponse>, Status> {
        use v1::ask_to_create_response::Outcome;
        let (metadata, _, request) = request.into_parts();
        let or = |asked: u64, default| if asked == 0 { default } else { asked };
        let (namespace, object, name) =
            (namespace(request.namespace), request.object_id, request.name);
        let command = creators::Command::Ask {
            namespace: namespace.clone(),
            object,
            name: name.clone(),
            ttl_ms: or(request.ttl_ms, limits::CREATE_TTL_MS_DEFAULT),
            wait_ms: or(request.wait_ms, limits::CREATE_WAIT_MS_DEFAULT),
        };
        let key = (namespace.as_str(), object, name.as_str());
        let (told, header) = self.creation(&metadata, request.context, key, command).await?;
        let outcome = Some(match told {
            Told::Exists(value) => Outcome::Exists(value),
            Told::Creating(creating) => Outcome::Creating(creating),
            Told::Waiting(waiting) => Outcome::Waiting(waiting),
        });
        Ok(Response::new(v1::AskToCreateResponse { header: Some(header), outcome }))
    }

    async fn keep_creating(
        &self,
        request: Request<v1::KeepCreatingRequest>,
    ) -> Result<Response<v1::KeepCreatingResponse>, Status> {
        use v1::keep_creating_response::Outcome;
        let (metadata, _, request) = request.into_parts();
        let (namespace, object, name) =
            (namespace(request.namespace), request.object_id, request.name);
        let command = creators::Command::Keep {
            namespace: namespace.clone(),
            object,
            name: name.clone(),
            token: request.token,
        };
        let key = (namespace.as_str(), object, name.as_str());
        let (told, header) = self.creation(&metadata, request.context, key, command).await?;
        let outcome = Some(match told {
            Told::Exists(value) => Outcome::Exists(value),
            Told::Creating(creating) => Outcome::Creating(creating),
            Told::Waiting(waiting) => Outcome::Waiting(waiting),
        });
        Ok(Response::new(v1::KeepCreatingResponse { header: Some(header), outcome }))
    }

    async fn abandon_creating(
        &self,
        request: Request<v1::AbandonCreatingRequest>,
    ) -> Result<Response<v1::AbandonCreatingResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::Creators(creators::Command::Abandon {
            namespace: namespace(request.namespace),
            object: request.object_id,
            name: request.name,
            token: request.token,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::Creators(creators::Reply::Abandoned(abandoned)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::AbandonCreatingResponse { header: Some(header), abandoned }))
    }

    async fn delete_state(
        &self,
        request: Request<v1::DeleteStateRequest>,
    ) -> Result<Response<v1::DeleteStateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::State(Command::Delete {
            namespace: namespace(request.namespace),
            object: request.object_id,
            name: request.name,
            fence: fence(request.fence),
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::State(state::Reply::Deleted(deleted)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::DeleteStateResponse { header: Some(header), deleted }))
    }

    async fn list_objects(
        &self,
        request: Request<v1::ListObjectsRequest>,
    ) -> Result<Response<v1::ListObjectsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let limit = page_limit(request.limit);
        let page =
            self.checked(state::list_objects(&state, &namespace, request.after_object_id, limit))?;
        let objects = page.items.into_iter().map(|object| v1::ObjectItem {
            object_id: object.id,
            name: object.name,
            class_name: object.class_name,
        });
        Ok(Response::new(v1::ListObjectsResponse {
            header: Some(self.0.header_of(&state)),
            objects: objects.collect(),
            more: page.more,
        }))
    }

    async fn list_state(
        &self,
        request: Request<v1::ListStateRequest>,
    ) -> Result<Response<v1::ListStateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let (object, after) = (request.object_id, request.after_name.as_str());
        let limit = page_limit(request.limit);
        let page = self.checked(state::list(&state, &namespace, object, after, limit))?;
        let page = page.ok_or_else(|| self.unknown_object(object, &state))?;
        Ok(Response::new(v1::ListStateResponse {
            header: Some(self.0.header_of(&state)),
            items: page.items.iter().map(item).collect(),
            more: page.more,
        }))
    }
}

/// What the state machine takes: 0 means its own limit, more than that is cut to it.
fn page_limit(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(limits::PAGE_MAX)
}
