//! The calls of the wire API as types, so that one engine can send any of them.

use std::future::Future;
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::endpoint::Connection;
use crate::pipeline::Pipeline;
use crate::stream::{Opened, Part};

/// Largest response that is taken in, in bytes: 256 values of 1 MiB, the most that one read can
/// return, with room for their names.
const RESPONSE_BYTES_MAX: usize = 260 << 20;

/// A request that is sent as it is.
pub(crate) trait Call: Clone + Send + Sync + 'static {
    type Response: Headed;
    /// Name for messages, as `service.call`.
    const NAME: &'static str;
    fn send(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send;

    /// Sends it on the stream that many calls share; None if it goes by itself.
    fn send_piped(
        &self,
        _: &Pipeline,
        _: Duration,
    ) -> impl Future<Output = Option<Result<Self::Response, Status>>> + Send {
        async { None }
    }
}

/// Sends a request that is of use for so long.
pub(crate) async fn send<C: Call>(
    connection: &Connection,
    request: C,
    timeout: Duration,
) -> Result<C::Response, Status> {
    if let Some(result) = request.send_piped(&connection.pipeline, timeout).await {
        return result;
    }
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    Ok(C::send(connection.channel.clone(), request).await?.into_inner())
}

/// A request that is carried out at most once for each seq of its session.
pub(crate) trait Write: Call {
    fn set_context(&mut self, context: proto::WriteContext);
}

/// A response, all of which begin with a header.
pub(crate) trait Headed: Send + 'static {
    fn header(&self) -> Option<&proto::ResponseHeader>;
}

// A macro, because Rust has no other way to be generic over the generated clients' methods.
macro_rules! calls {
    ($(
        $client:ident . $method:ident ( $request:ident ) -> $response:ident
        $(, piped in $service:ident)?;
    )*) => {$(
        impl Call for proto::$request {
            type Response = proto::$response;
            const NAME: &'static str = concat!(stringify!($client), ".", stringify!($method));
            async fn send(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<Self::Response>, Status> {
                clients::$client(channel).$method(request).await
            }
            $(
                async fn send_piped(
                    &self,
                    pipeline: &Pipeline,
                    timeout: Duration,
                ) -> Option<Result<Self::Response, Status>> {
                    let method = method(stringify!($service), stringify!($request));
                    Some(match pipeline.call(method, timeout, self).await? {
                        Ok(message) => decode(&message),
                        Err(status) => Err(status),
                    })
                }
            )?
        }
        impl Headed for proto::$response {
            fn header(&self) -> Option<&proto::ResponseHeader> {
                self.header.as_ref()
            }
        }
    )*};
}

macro_rules! streams {
    ($($client:ident . $method:ident ( $request:ident ) -> $response:ident;)*) => {$(
        impl Call for proto::$request {
            type Response = Opened<proto::$response>;
            const NAME: &'static str = concat!(stringify!($client), ".", stringify!($method));
            async fn send(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<Self::Response>, Status> {
                Opened::of(clients::$client(channel).$method(request).await?).await
            }
        }
        impl Headed for proto::$response {
            fn header(&self) -> Option<&proto::ResponseHeader> {
                self.header.as_ref()
            }
        }
        impl Part for proto::$response {
            fn is_last(&self) -> bool {
                self.is_last
            }
        }
    )*};
}

/// The path of a call, whose request is named after it.
fn method(service: &str, request: &str) -> String {
    let name = request.strip_suffix("Request").unwrap_or(request);
    format!("/holdfast.v1.{service}/{name}")
}

fn decode<M: prost::Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::internal(format!("a malformed response: {error}")))
}

macro_rules! writes {
    ($($request:ident)*) => {$(
        impl Write for proto::$request {
            fn set_context(&mut self, context: proto::WriteContext) {
                self.context = Some(context);
            }
        }
    )*};
}

calls! {
    state.get_object_id(GetObjectIdRequest) -> GetObjectIdResponse, piped in State;
    state.get_state(GetStateRequest) -> GetStateResponse, piped in State;
    state.get_state_many(GetStateManyRequest) -> GetStateManyResponse;
    state.set_state(SetStateRequest) -> SetStateResponse, piped in State;
    state.create_state(CreateStateRequest) -> CreateStateResponse, piped in State;
    state.ask_to_create(AskToCreateRequest) -> AskToCreateResponse, piped in State;
    state.keep_creating(KeepCreatingRequest) -> KeepCreatingResponse, piped in State;
    state.abandon_creating(AbandonCreatingRequest) -> AbandonCreatingResponse, piped in State;
    state.import(ImportRequest) -> ImportResponse;
    state.delete_state(DeleteStateRequest) -> DeleteStateResponse, piped in State;
    state.list_objects(ListObjectsRequest) -> ListObjectsResponse;
    state.list_state(ListStateRequest) -> ListStateResponse;
    masters.find_master_id(FindMasterIdRequest) -> FindMasterIdResponse, piped in Masters;
    masters.set_master_state(SetMasterStateRequest) -> SetMasterStateResponse, piped in Masters;
    masters.get_master(GetMasterRequest) -> GetMasterResponse, piped in Masters;
    masters.list_masters(ListMastersRequest) -> ListMastersResponse;
    masters.open_lease(OpenLeaseRequest) -> OpenLeaseResponse, piped in Masters;
    masters.keep_alive(KeepAliveRequest) -> KeepAliveResponse, piped in Masters;
    masters.close_lease(CloseLeaseRequest) -> CloseLeaseResponse, piped in Masters;
    changesources.find_change_source_id(FindChangeSourceIdRequest)
        -> FindChangeSourceIdResponse, piped in ChangeSources;
    changesources.set_change_source_master(SetChangeSourceMasterRequest)
        -> SetChangeSourceMasterResponse, piped in ChangeSources;
    changesources.get_change_source(GetChangeSourceRequest)
        -> GetChangeSourceResponse, piped in ChangeSources;
    changesources.list_change_sources(ListChangeSourcesRequest) -> ListChangeSourcesResponse;
    changesources.claim(ClaimRequest) -> ClaimResponse, piped in ChangeSources;
    changesources.release(ReleaseRequest) -> ReleaseResponse, piped in ChangeSources;
    changesources.await_claim(AwaitClaimRequest) -> AwaitClaimResponse, piped in ChangeSources;
    changesources.stop_awaiting(StopAwaitingRequest)
        -> StopAwaitingResponse, piped in ChangeSources;
    changesources.set_group(SetGroupRequest) -> SetGroupResponse, piped in ChangeSources;
    objects.lease_ids(LeaseIdsRequest) -> LeaseIdsResponse, piped in Objects;
    objects.save_objects(SaveObjectsRequest) -> SaveObjectsResponse, piped in Objects;
    objects.open_upload(OpenUploadRequest) -> OpenUploadResponse, piped in Objects;
    objects.commit_upload(CommitUploadRequest) -> CommitUploadResponse, piped in Objects;
    objects.abandon_upload(AbandonUploadRequest) -> AbandonUploadResponse, piped in Objects;
    objects.remove_objects(RemoveObjectsRequest) -> RemoveObjectsResponse, piped in Objects;
    stm.get_variables(GetVariablesRequest) -> GetVariablesResponse;
    stm.commit(CommitRequest) -> CommitResponse, piped in Stm;
    cluster.open_session(OpenSessionRequest) -> OpenSessionResponse, piped in Cluster;
    cluster.keep_session(KeepSessionRequest) -> KeepSessionResponse, piped in Cluster;
    cluster.close_session(CloseSessionRequest) -> CloseSessionResponse;
    cluster.status(StatusRequest) -> StatusResponse;
    cluster.list_members(ListMembersRequest) -> ListMembersResponse;
    cluster.join(JoinRequest) -> JoinResponse;
    cluster.remove_member(RemoveMemberRequest) -> RemoveMemberResponse;
    cluster.move_lead(MoveLeadRequest) -> MoveLeadResponse;
}

streams! {
    state.export(ExportRequest) -> ExportResponse;
    objects.load_objects(LoadObjectsRequest) -> LoadObjectsResponse;
    objects.list_stored_objects(ListStoredObjectsRequest) -> ListStoredObjectsResponse;
    stm.list_variables(ListVariablesRequest) -> ListVariablesResponse;
}

writes! {
    GetObjectIdRequest SetStateRequest CreateStateRequest DeleteStateRequest
    AskToCreateRequest KeepCreatingRequest AbandonCreatingRequest
    FindMasterIdRequest SetMasterStateRequest OpenLeaseRequest KeepAliveRequest CloseLeaseRequest
    FindChangeSourceIdRequest SetChangeSourceMasterRequest ClaimRequest ReleaseRequest
    AwaitClaimRequest StopAwaitingRequest SetGroupRequest
    LeaseIdsRequest SaveObjectsRequest OpenUploadRequest CommitUploadRequest AbandonUploadRequest
    RemoveObjectsRequest
    CommitRequest
}

pub(crate) use clients::{masters, objects, pipeline, watch};

mod clients {
    //! The generated clients, with the response limit raised.

    use holdfast_proto::v1 as proto;
    use tonic::transport::Channel;

    use super::RESPONSE_BYTES_MAX;

    pub(super) fn state(channel: Channel) -> proto::state_client::StateClient<Channel> {
        proto::state_client::StateClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(crate) fn masters(channel: Channel) -> proto::masters_client::MastersClient<Channel> {
        proto::masters_client::MastersClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(super) fn changesources(
        channel: Channel,
    ) -> proto::change_sources_client::ChangeSourcesClient<Channel> {
        proto::change_sources_client::ChangeSourcesClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(crate) fn objects(channel: Channel) -> proto::objects_client::ObjectsClient<Channel> {
        proto::objects_client::ObjectsClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(super) fn stm(channel: Channel) -> proto::stm_client::StmClient<Channel> {
        proto::stm_client::StmClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(crate) fn watch(channel: Channel) -> proto::watch_client::WatchClient<Channel> {
        proto::watch_client::WatchClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(crate) fn pipeline(channel: Channel) -> proto::pipeline_client::PipelineClient<Channel> {
        proto::pipeline_client::PipelineClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub(super) fn cluster(channel: Channel) -> proto::cluster_client::ClusterClient<Channel> {
        proto::cluster_client::ClusterClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }
}
