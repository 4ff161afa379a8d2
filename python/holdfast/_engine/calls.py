"""The calls of the wire API, each named once, so that one engine can send any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from holdfast._wire import changesources_pb2 as changesources
from holdfast._wire import cluster_pb2 as cluster
from holdfast._wire import masters_pb2 as masters
from holdfast._wire import objects_pb2 as objects
from holdfast._wire import state_pb2 as state
from holdfast._wire import stm_pb2 as stm
from holdfast._wire import watch_pb2 as watch

if TYPE_CHECKING:
    from google.protobuf.message import Message

Req = TypeVar("Req", bound="Message")
Res = TypeVar("Res", bound="Message")


class _Rpc(Generic[Req, Res]):
    def __init__(
        self,
        service: str,
        name: str,
        request: type[Req],
        response: type[Res],
        *,
        by_itself: bool = False,
    ) -> None:
        self.service = service
        self.name = name
        self.path = f"/holdfast.v1.{service}/{name}"
        self.request = request
        self.response = response
        self.by_itself = by_itself

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.service}.{self.name})"


class Call(_Rpc[Req, Res]):
    """A request that gets one response.

    One with a long request or response goes by itself: calls that shared a stream with it would
    wait (``pipeline``).
    """


class StreamCall(_Rpc[Req, Res]):
    """A request that gets a stream of responses."""


class ExchangeCall(_Rpc[Req, Res]):
    """A stream of requests that gets a stream of responses."""


GET_OBJECT_ID = Call("State", "GetObjectId", state.GetObjectIdRequest, state.GetObjectIdResponse)
GET_STATE = Call("State", "GetState", state.GetStateRequest, state.GetStateResponse)
GET_STATE_MANY = Call(
    "State", "GetStateMany", state.GetStateManyRequest, state.GetStateManyResponse, by_itself=True
)
SET_STATE = Call("State", "SetState", state.SetStateRequest, state.SetStateResponse)
CREATE_STATE = Call("State", "CreateState", state.CreateStateRequest, state.CreateStateResponse)
ASK_TO_CREATE = Call("State", "AskToCreate", state.AskToCreateRequest, state.AskToCreateResponse)
KEEP_CREATING = Call("State", "KeepCreating", state.KeepCreatingRequest, state.KeepCreatingResponse)
ABANDON_CREATING = Call(
    "State", "AbandonCreating", state.AbandonCreatingRequest, state.AbandonCreatingResponse
)
DELETE_STATE = Call("State", "DeleteState", state.DeleteStateRequest, state.DeleteStateResponse)
LIST_OBJECTS = Call(
    "State", "ListObjects", state.ListObjectsRequest, state.ListObjectsResponse, by_itself=True
)
LIST_STATE = Call(
    "State", "ListState", state.ListStateRequest, state.ListStateResponse, by_itself=True
)
EXPORT = StreamCall("State", "Export", state.ExportRequest, state.ExportResponse)
IMPORT = Call("State", "Import", state.ImportRequest, state.ImportResponse, by_itself=True)

FIND_MASTER_ID = Call(
    "Masters", "FindMasterId", masters.FindMasterIdRequest, masters.FindMasterIdResponse
)
SET_MASTER_STATE = Call(
    "Masters", "SetMasterState", masters.SetMasterStateRequest, masters.SetMasterStateResponse
)
GET_MASTER = Call("Masters", "GetMaster", masters.GetMasterRequest, masters.GetMasterResponse)
LIST_MASTERS = Call(
    "Masters",
    "ListMasters",
    masters.ListMastersRequest,
    masters.ListMastersResponse,
    by_itself=True,
)
OPEN_LEASE = Call("Masters", "OpenLease", masters.OpenLeaseRequest, masters.OpenLeaseResponse)
KEEP_ALIVE = Call("Masters", "KeepAlive", masters.KeepAliveRequest, masters.KeepAliveResponse)
CLOSE_LEASE = Call("Masters", "CloseLease", masters.CloseLeaseRequest, masters.CloseLeaseResponse)
ATTACH_LEASE = ExchangeCall(
    "Masters", "AttachLease", masters.AttachLeaseRequest, masters.AttachLeaseResponse
)

FIND_CHANGE_SOURCE_ID = Call(
    "ChangeSources",
    "FindChangeSourceId",
    changesources.FindChangeSourceIdRequest,
    changesources.FindChangeSourceIdResponse,
)
SET_CHANGE_SOURCE_MASTER = Call(
    "ChangeSources",
    "SetChangeSourceMaster",
    changesources.SetChangeSourceMasterRequest,
    changesources.SetChangeSourceMasterResponse,
)
GET_CHANGE_SOURCE = Call(
    "ChangeSources",
    "GetChangeSource",
    changesources.GetChangeSourceRequest,
    changesources.GetChangeSourceResponse,
)
LIST_CHANGE_SOURCES = Call(
    "ChangeSources",
    "ListChangeSources",
    changesources.ListChangeSourcesRequest,
    changesources.ListChangeSourcesResponse,
    by_itself=True,
)
CLAIM = Call("ChangeSources", "Claim", changesources.ClaimRequest, changesources.ClaimResponse)
RELEASE = Call(
    "ChangeSources", "Release", changesources.ReleaseRequest, changesources.ReleaseResponse
)
AWAIT_CLAIM = Call(
    "ChangeSources", "AwaitClaim", changesources.AwaitClaimRequest, changesources.AwaitClaimResponse
)
STOP_AWAITING = Call(
    "ChangeSources",
    "StopAwaiting",
    changesources.StopAwaitingRequest,
    changesources.StopAwaitingResponse,
)
SET_GROUP = Call(
    "ChangeSources", "SetGroup", changesources.SetGroupRequest, changesources.SetGroupResponse
)

STM_GET = Call(
    "Stm", "GetVariables", stm.GetVariablesRequest, stm.GetVariablesResponse, by_itself=True
)
STM_COMMIT = Call("Stm", "Commit", stm.CommitRequest, stm.CommitResponse)
STM_LIST = StreamCall("Stm", "ListVariables", stm.ListVariablesRequest, stm.ListVariablesResponse)

LEASE_IDS = Call("Objects", "LeaseIds", objects.LeaseIdsRequest, objects.LeaseIdsResponse)
SAVE_OBJECTS = Call(
    "Objects", "SaveObjects", objects.SaveObjectsRequest, objects.SaveObjectsResponse
)
OPEN_UPLOAD = Call("Objects", "OpenUpload", objects.OpenUploadRequest, objects.OpenUploadResponse)
UPLOAD = ExchangeCall("Objects", "Upload", objects.UploadRequest, objects.UploadResponse)
COMMIT_UPLOAD = Call(
    "Objects", "CommitUpload", objects.CommitUploadRequest, objects.CommitUploadResponse
)
ABANDON_UPLOAD = Call(
    "Objects", "AbandonUpload", objects.AbandonUploadRequest, objects.AbandonUploadResponse
)
LOAD_OBJECTS = StreamCall(
    "Objects", "LoadObjects", objects.LoadObjectsRequest, objects.LoadObjectsResponse
)
REMOVE_OBJECTS = Call(
    "Objects", "RemoveObjects", objects.RemoveObjectsRequest, objects.RemoveObjectsResponse
)
LIST_STORED_OBJECTS = StreamCall(
    "Objects",
    "ListStoredObjects",
    objects.ListStoredObjectsRequest,
    objects.ListStoredObjectsResponse,
)

OPEN_SESSION = Call(
    "Cluster", "OpenSession", cluster.OpenSessionRequest, cluster.OpenSessionResponse
)
KEEP_SESSION = Call(
    "Cluster", "KeepSession", cluster.KeepSessionRequest, cluster.KeepSessionResponse
)
CLOSE_SESSION = Call(
    "Cluster",
    "CloseSession",
    cluster.CloseSessionRequest,
    cluster.CloseSessionResponse,
    by_itself=True,
)
STATUS = Call("Cluster", "Status", cluster.StatusRequest, cluster.StatusResponse, by_itself=True)
LIST_MEMBERS = Call(
    "Cluster",
    "ListMembers",
    cluster.ListMembersRequest,
    cluster.ListMembersResponse,
    by_itself=True,
)

WATCH = StreamCall("Watch", "Watch", watch.WatchRequest, watch.WatchResponse)
