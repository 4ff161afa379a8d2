//! The calls of the wire API as types, so that one engine can send any of them.

use std::future::Future;

use holdfast_proto::v1 as proto;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

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
    ($($client:ident . $method:ident ( $request:ident ) -> $response:ident;)*) => {$(
        impl Call for proto::$request {
            type Response = proto::$response;
            const NAME: &'static str = concat!(stringify!($client), ".", stringify!($method));
            async fn send(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<Self::Response>, Status> {
                clients::$client(channel).$method(request).await
            }
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
    state.get_object_id(GetObjectIdRequest) -> GetObjectIdResponse;
    state.get_state(GetStateRequest) -> GetStateResponse;
    state.get_state_many(GetStateManyRequest) -> GetStateManyResponse;
    state.set_state(SetStateRequest) -> SetStateResponse;
    state.create_state(CreateStateRequest) -> CreateStateResponse;
    state.ask_to_create(AskToCreateRequest) -> AskToCreateResponse;
    state.keep_creating(KeepCreatingRequest) -> KeepCreatingResponse;
    state.abandon_creating(AbandonCreatingRequest) -> AbandonCreatingResponse;
    state.import(ImportRequest) -> ImportResponse;
    state.delete_state(DeleteStateRequest) -> DeleteStateResponse;
    state.list_objects(ListObjectsRequest) -> ListObjectsResponse;
    state.list_state(ListStateRequest) -> ListStateResponse;
    masters.find_master_id(FindMasterIdRequest) -> FindMasterIdResponse;
    masters.set_master_state(SetMasterStateRequest) -> SetMasterStateResponse;
    masters.get_master(GetMasterRequest) -> GetMasterResponse;
    masters.list_masters(ListMastersRequest) -> ListMastersResponse;
    masters.open_lease(OpenLeaseRequest) -> OpenLeaseResponse;
    masters.keep_alive(KeepAliveRequest) -> KeepAliveResponse;
    masters.close_lease(CloseLeaseRequest) -> CloseLeaseResponse;
    changesources.find_change_source_id(FindChangeSourceIdRequest) -> FindChangeSourceIdResponse;
    changesources.set_change_source_master(SetChangeSourceMasterRequest)
        -> SetChangeSourceMasterResponse;
    changesources.get_change_source(GetChangeSourceRequest) -> GetChangeSourceResponse;
    changesources.list_change_sources(ListChangeSourcesRequest) -> ListChangeSourcesResponse;
    changesources.claim(ClaimRequest) -> ClaimResponse;
    changesources.release(ReleaseRequest) -> ReleaseResponse;
    changesources.await_claim(AwaitClaimRequest) -> AwaitClaimResponse;
    changesources.stop_awaiting(StopAwaitingRequest) -> StopAwaitingResponse;
    changesources.set_group(SetGroupRequest) -> SetGroupResponse;
    objects.lease_ids(LeaseIdsRequest) -> LeaseIdsResponse;
    objects.save_objects(SaveObjectsRequest) -> SaveObjectsResponse;
    objects.open_upload(OpenUploadRequest) -> OpenUploadResponse;
    objects.commit_upload(CommitUploadRequest) -> CommitUploadResponse;
    objects.abandon_upload(AbandonUploadRequest) -> AbandonUploadResponse;
    objects.remove_objects(RemoveObjectsRequest) -> RemoveObjectsResponse;
    stm.get_variables(GetVariablesRequest) -> GetVariablesResponse;
    stm.commit(CommitRequest) -> CommitResponse;
    cluster.open_session(OpenSessionRequest) -> OpenSessionResponse;
    cluster.keep_session(KeepSessionRequest) -> KeepSessionResponse;
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

pub(crate) use clients::{masters, objects, watch};

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

    pub(super) fn cluster(channel: Channel) -> proto::cluster_client::ClusterClient<Channel> {
        proto::cluster_client::ClusterClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }
}
