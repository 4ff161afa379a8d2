//! The service `Masters`.

use holdfast_machine::masters::{self, Command};
use holdfast_machine::{Command as Any, Reply};
use holdfast_proto::v1;
use holdfast_proto::v1::masters_server::Masters as Service;
use tonic::{Request, Response, Status, Streaming};

use super::{Answered, Calls, attach, foreign, namespace};

/// How long an instance secret is, in bytes: long enough not to be guessed, short enough to keep.
const INSTANCE_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

fn master(master: masters::Master) -> v1::Master {
    v1::Master {
        master_id: master.id,
        name: master.name,
        active: master.active,
        lease_id: master.lease.unwrap_or(0),
        lease_remaining_ms: master.remaining_ms,
        last_active_unix_ms: master.last_active_ms,
        claims: master.claims,
    }
}

#[tonic::async_trait]
impl Service for Calls {
    type AttachLeaseStream = attach::Answers;

    async fn attach_lease(
        &self,
        request: Request<Streaming<v1::AttachLeaseRequest>>,
    ) -> Result<Response<attach::Answers>, Status> {
        Ok(Response::new(attach::begin(&self.0, request.into_inner())?))
    }

    async fn find_master_id(
        &self,
        request: Request<v1::FindMasterIdRequest>,
    ) -> Result<Response<v1::FindMasterIdResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, name) = (namespace(request.namespace), request.name);
        // A master keeps its id for ever, so whoever knows it may say so.
        let here = self.0.applied.state();
        if let Some(master_id) = self.checked(masters::find(&here, &namespace, &name))? {
            let header = Some(self.0.header_of(&here));
            return Ok(Response::new(v1::FindMasterIdResponse { header, master_id }));
        }
        let command = Any::Masters(Command::FindId { namespace, name });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::Masters(masters::Reply::Id(master_id)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::FindMasterIdResponse { header: Some(header), master_id }))
    }

    async fn set_master_state(
        &self,
        request: Request<v1::SetMasterStateRequest>,
    ) -> Result<Response<v1::SetMasterStateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::Masters(Command::SetState {
            namespace: namespace(request.namespace),
            master: request.master_id,
            active: request.active,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::Masters(masters::Reply::Changed(changed)) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::SetMasterStateResponse { header: Some(header), changed }))
    }

    async fn get_master(
        &self,
        request: Request<v1::GetMasterRequest>,
    ) -> Result<Response<v1::GetMasterResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let namespace = namespace(request.namespace);
        let found = self.checked(masters::get(&state, &namespace, request.master_id))?;
        let header = Some(self.0.header_of(&state));
        Ok(Response::new(v1::GetMasterResponse { header, master: found.map(master) }))
    }

    async fn list_masters(
        &self,
        request: Request<v1::ListMastersRequest>,
    ) -> Result<Response<v1::ListMastersResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let masters = self.checked(masters::list(&state, &namespace(request.namespace)))?;
        Ok(Response::new(v1::ListMastersResponse {
            header: Some(self.0.header_of(&state)),
            masters: masters.into_iter().map(master).collect(),
        }))
    }

    async fn open_lease(
        &self,
        request: Request<v1::OpenLeaseRequest>,
    ) -> Result<Response<v1::OpenLeaseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let bytes = request.instance.len();
        if !INSTANCE_BYTES.contains(&bytes) {
            return Err(self.0.bad_request(format!(
                "instance takes {bytes} bytes, {} to {} are allowed",
                INSTANCE_BYTES.start(),
                INSTANCE_BYTES.end()
            )));
        }
        let command = Any::Masters(Command::OpenLease {
            namespace: namespace(request.namespace),
            name: request.name,
            instance: blake3::hash(&request.instance).into(),
            ttl_ms: request.ttl_ms,
            grace_ms: request.grace_ms,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let outcome = match reply {
            Reply::Masters(masters::Reply::Lease { lease, master, ttl_ms }) => {
                let lease = v1::Lease { lease_id: lease, master_id: master, ttl_ms };
                v1::open_lease_response::Outcome::Lease(lease)
            }
            Reply::Masters(masters::Reply::HeldBy { master, name, lease, remaining_ms }) => {
                v1::open_lease_response::Outcome::HeldBy(v1::LeaseHolder {
                    master_id: master,
                    name,
                    lease_id: lease,
                    lease_remaining_ms: remaining_ms,
                })
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
        Ok(Response::new(v1::OpenLeaseResponse { header: Some(header), outcome }))
    }

    async fn keep_alive(
        &self,
        request: Request<v1::KeepAliveRequest>,
    ) -> Result<Response<v1::KeepAliveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (namespace, lease) = (namespace(request.namespace), request.lease_id);
        let command = Any::Masters(match request.within_grace {
            false => Command::KeepAlive { namespace, lease },
            true => Command::KeepWithinGrace { namespace, lease },
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::Masters(masters::Reply::Renewed { ttl_ms, renewal }) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::KeepAliveResponse { header: Some(header), ttl_ms, renewal }))
    }

    async fn close_lease(
        &self,
        request: Request<v1::CloseLeaseRequest>,
    ) -> Result<Response<v1::CloseLeaseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let command = Any::Masters(Command::CloseLease {
            namespace: namespace(request.namespace),
            lease: request.lease_id,
        });
        let Answered { reply, header } = self.write(&metadata, request.context, command).await?;
        let Reply::Masters(masters::Reply::Closed { freed }) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::CloseLeaseResponse { header: Some(header), freed }))
    }
}
