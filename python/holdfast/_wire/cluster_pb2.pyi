from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_LEADER: _ClassVar[Role]
    ROLE_FOLLOWER: _ClassVar[Role]
    ROLE_CANDIDATE: _ClassVar[Role]
    ROLE_LEARNER: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_LEADER: Role
ROLE_FOLLOWER: Role
ROLE_CANDIDATE: Role
ROLE_LEARNER: Role

class OpenSessionRequest(_message.Message):
    __slots__ = ("idle_ms",)
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    idle_ms: int
    def __init__(self, idle_ms: _Optional[int] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("header", "session_id", "idle_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    session_id: int
    idle_ms: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., session_id: _Optional[int] = ..., idle_ms: _Optional[int] = ...) -> None: ...

class KeepSessionRequest(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ...) -> None: ...

class KeepSessionResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    def __init__(self, session_id: _Optional[int] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("header", "role", "ready", "last_log_index", "applied_index", "purged_index", "clock_ms", "members", "alarms", "changesources", "changesources_owned", "masters_alive", "version", "state_digest", "leader_since_unix_ms", "log_syncs", "log_entries", "requests_proposed", "snapshots_sent", "snapshots_installed", "process_syncs", "watches")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    PURGED_INDEX_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCES_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCES_OWNED_FIELD_NUMBER: _ClassVar[int]
    MASTERS_ALIVE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEADER_SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LOG_SYNCS_FIELD_NUMBER: _ClassVar[int]
    LOG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PROPOSED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_SENT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_INSTALLED_FIELD_NUMBER: _ClassVar[int]
    PROCESS_SYNCS_FIELD_NUMBER: _ClassVar[int]
    WATCHES_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    role: Role
    ready: bool
    last_log_index: int
    applied_index: int
    purged_index: int
    clock_ms: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    alarms: _containers.RepeatedScalarFieldContainer[str]
    changesources: int
    changesources_owned: int
    masters_alive: int
    version: str
    state_digest: bytes
    leader_since_unix_ms: int
    log_syncs: int
    log_entries: int
    requests_proposed: int
    snapshots_sent: int
    snapshots_installed: int
    process_syncs: int
    watches: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., role: _Optional[_Union[Role, str]] = ..., ready: bool = ..., last_log_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., purged_index: _Optional[int] = ..., clock_ms: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping[str, _Any]]]] = ..., alarms: _Optional[_Iterable[str]] = ..., changesources: _Optional[int] = ..., changesources_owned: _Optional[int] = ..., masters_alive: _Optional[int] = ..., version: _Optional[str] = ..., state_digest: _Optional[bytes] = ..., leader_since_unix_ms: _Optional[int] = ..., log_syncs: _Optional[int] = ..., log_entries: _Optional[int] = ..., requests_proposed: _Optional[int] = ..., snapshots_sent: _Optional[int] = ..., snapshots_installed: _Optional[int] = ..., process_syncs: _Optional[int] = ..., watches: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("node_id", "client_endpoint", "peer_endpoint", "voter", "leader", "matched_index", "silent_ms")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PEER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    MATCHED_INDEX_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    client_endpoint: str
    peer_endpoint: str
    voter: bool
    leader: bool
    matched_index: int
    silent_ms: int
    def __init__(self, node_id: _Optional[int] = ..., client_endpoint: _Optional[str] = ..., peer_endpoint: _Optional[str] = ..., voter: bool = ..., leader: bool = ..., matched_index: _Optional[int] = ..., silent_ms: _Optional[int] = ...) -> None: ...

class ListMembersRequest(_message.Message):
    __slots__ = ("read",)
    READ_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ...) -> None: ...

class ListMembersResponse(_message.Message):
    __slots__ = ("header", "members")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping[str, _Any]]]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("node_id", "incarnation", "client_endpoint", "peer_endpoint", "learner_only")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PEER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    LEARNER_ONLY_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    incarnation: int
    client_endpoint: str
    peer_endpoint: str
    learner_only: bool
    def __init__(self, node_id: _Optional[int] = ..., incarnation: _Optional[int] = ..., client_endpoint: _Optional[str] = ..., peer_endpoint: _Optional[str] = ..., learner_only: bool = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("header", "node_id", "cluster_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    node_id: int
    cluster_id: str
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., node_id: _Optional[int] = ..., cluster_id: _Optional[str] = ...) -> None: ...

class RemoveMemberRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class RemoveMemberResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ...) -> None: ...

class MoveLeadRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class MoveLeadResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ...) -> None: ...
