//! The service `ChangeSources`.

use holdfast_machine::changesources::{self, Command};
use holdfast_machine::{Command as Any, Reply};
use holdfast_proto::v1;
use holdfast_proto::v1::change_sources_server::ChangeSources as Service;
use tonic::{Request, Response, Status};

use super::{Answered, Calls, foreign, namespace};

fn claimant(claimant: changesources::Claimant) -> v1::Claimant {
    v1::Claimant {
        master_id: claimant.master,
        master_name: claimant.master_name,
        token: claimant.token,
        lease_id: claimant.lease.unwrap_or(0),
        lease_remaining_ms: claimant.remaining_ms,
    }
}

fn changesource(source: changesources::ChangeSource) -> v1::ChangeSource {
    v1::ChangeSource {
        changesource_id: source.id,
        name: source.name,
        claimant: source.claimant.map(claimant),
        group: source.group.unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl Service for Calls {
    async fn find_change_source_id(
        &self,
        request: Request<v1::FindChangeSourceIdRequest>,
    ) -> Result<Response<v1::FindChangeSourceIdResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, name) = (namespace(request.namespace), request.name);
        // A change source keeps its id for ever, so whoever knows it may say so.
        let here = self.0.applied.state();
        if let Some(changesource_id) =
            self.checked(changesources::find(&here, &namespace, &name))?
        {
            let header = Some(self.0.header_of(&here));
            return Ok(Response::new(v1::FindChangeSourceIdResponse { header, changesource_id }));
        }
        let command = Any::ChangeSources(Command::FindId { namespace, name });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::ChangeSources(changesources::Reply::Id(changesource_id)) = reply else {
            return Err(foreign(&reply));
        };
        let header = Some(header);
        Ok(Response::new(v1::FindChangeSourceIdResponse { header, changesource_id }))
    }

    async fn set_change_source_master(
        &self,
        request: Request<v1::SetChangeSourceMasterRequest>,
    ) -> Result<Response<v1::SetChangeSourceMasterResponse>, Status> {
        use v1::set_change_source_master_response::Outcome;
        let (metadata, _, request) = request.into_parts();
        let command = Any::ChangeSources(Command::SetMaster {
            namespace: namespace(request.namespace),
            changesource: request.changesource_id,
            master: request.master_id,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let outcome = match reply {
            Reply::ChangeSources(changesources::Reply::Granted { token }) => Outcome::Token(token),
            Reply::ChangeSources(changesources::Reply::Unset) => Outcome::Token(0),
            Reply::ChangeSources(changesources::Reply::AlreadyClaimed(holder)) => {
                Outcome::AlreadyClaimed(claimant(holder))
            }
            reply @ (Reply::Session(_)
            | Reply::State(_)
            | Reply::Masters(_)
            | Reply::ChangeSources(_)
            | Reply::Creators(_)
            | Reply::Import(_)
            | Reply::Objects(_)
            | Reply::Stm(_)) => return Err(foreign(&reply)),
        };
        let outcome = Some(outcome);
        Ok(Response::new(v1::SetChangeSourceMasterResponse { header: Some(header), outcome }))
    }

    async fn get_change_source(
        &self,
        request: Request<v1::GetChangeSourceRequest>,
    ) -> Result<Response<v1::GetChangeSourceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let found = changesources::get(&state, &namespace, request.changesource_id);
        let found = self.checked(found)?.map(changesource);
        let header = Some(self.0.header_of(&state));
        Ok(Response::new(v1::GetChangeSourceResponse { header, changesource: found }))
    }

    async fn list_change_sources(
        &self,
        request: Request<v1::ListChangeSourcesRequest>,
    ) -> Result<Response<v1::ListChangeSourcesResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let found = changesources::list(&state, &namespace, request.active, request.master_id);
        let found = self.checked(found)?;
        Ok(Response::new(v1::ListChangeSourcesResponse {
            header: Some(self.0.header_of(&state)),
            changesources: found.into_iter().map(changesource).collect(),
        }))
    }

    async fn claim(
        &self,
        request: Request<v1::ClaimRequest>,
    ) -> Result<Response<v1::ClaimResponse>, Status> {
        use v1::claim_response::Outcome;
        let (metadata, _, request) = request.into_parts();
        let command = Any::ChangeSources(Command::Claim {
            namespace: namespace(request.namespace),
            changesource: request.changesource_id,
            lease: request.lease_id,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let outcome = match reply {
            Reply::ChangeSources(changesources::Reply::Granted { token }) => Outcome::Token(token),
            Reply::ChangeSources(changesources::Reply::AlreadyClaimed(holder)) => {
                Outcome::AlreadyClaimed(claimant(holder))
            }
            reply @ (Reply::Session(_)
            | Reply::State(_)
            | Reply::Masters(_)
            | Reply::ChangeSources(_)
            | Reply::Creators(_)
            | Reply::Import(_)
            | Reply::Objects(_)
            | Reply::Stm(_)) => return Err(foreign(&reply)),
        };
        Ok(Response::new(v1::ClaimResponse { header: Some(header), outcome: Some(outcome) }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::ChangeSources(Command::Release {
            namespace: namespace(request.namespace),
            changesource: request.changesource_id,
            token: request.token,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::ChangeSources(changesources::Reply::Released(released)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::ReleaseResponse { header: Some(header), released }))
    }

    async fn await_claim(
        &self,
        request: Request<v1::AwaitClaimRequest>,
    ) -> Result<Response<v1::AwaitClaimResponse>, Status> {
        use v1::await_claim_response::Outcome;
        let (metadata, _, request) = request.into_parts();
        let command = Any::ChangeSources(Command::Await {
            namespace: namespace(request.namespace),
            changesource: request.changesource_id,
            lease: request.lease_id,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let outcome = match reply {
            Reply::ChangeSources(changesources::Reply::Granted { token }) => Outcome::Token(token),
            Reply::ChangeSources(changesources::Reply::Waiting { ahead }) => {
                Outcome::Waiting(v1::Waiting { ahead })
            }
            reply @ (Reply::Session(_)
            | Reply::State(_)
            | Reply::Masters(_)
            | Reply::ChangeSources(_)
            | Reply::Creators(_)
            | Reply::Import(_)
            | Reply::Objects(_)
            | Reply::Stm(_)) => return Err(foreign(&reply)),
        };
        Ok(Response::new(v1::AwaitClaimResponse { header: Some(header), outcome: Some(outcome) }))
    }

    async fn stop_awaiting(
        &self,
        request: Request<v1::StopAwaitingRequest>,
    ) -> Result<Response<v1::StopAwaitingResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::ChangeSources(Command::StopAwaiting {
            namespace: namespace(request.namespace),
            changesource: request.changesource_id,
            lease: request.lease_id,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::ChangeSources(changesources::Reply::Stopped(waited)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::StopAwaitingResponse { header: Some(header), waited }))
    }

    async fn set_group(
        &self,
        request: Request<v1::SetGroupRequest>,
    ) -> Result<Response<v1::SetGroupResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::ChangeSources(Command::SetGroup {
            namespace: namespace(request.namespace),
            changesource: request.changesource_id,
            group: request.group,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::ChangeSources(changesources::Reply::GroupSet(changed)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::SetGroupResponse { header: Some(header), changed }))
    }
}
