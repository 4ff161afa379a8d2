from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChangeSource(_message.Message):
    __slots__ = ("changesource_id", "name", "claimant", "group")
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLAIMANT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    changesource_id: int
    name: str
    claimant: Claimant
    group: str
    def __init__(self, changesource_id: _Optional[int] = ..., name: _Optional[str] = ..., claimant: _Optional[_Union[Claimant, _Mapping[str, _Any]]] = ..., group: _Optional[str] = ...) -> None: ...

class Claimant(_message.Message):
    __slots__ = ("master_id", "master_name", "token", "lease_id", "lease_remaining_ms")
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    master_name: str
    token: int
    lease_id: int
    lease_remaining_ms: int
    def __init__(self, master_id: _Optional[int] = ..., master_name: _Optional[str] = ..., token: _Optional[int] = ..., lease_id: _Optional[int] = ..., lease_remaining_ms: _Optional[int] = ...) -> None: ...

class FindChangeSourceIdRequest(_message.Message):
    __slots__ = ("context", "namespace", "name")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    name: str
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class FindChangeSourceIdResponse(_message.Message):
    __slots__ = ("header", "changesource_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    changesource_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., changesource_id: _Optional[int] = ...) -> None: ...

class SetChangeSourceMasterRequest(_message.Message):
    __slots__ = ("context", "namespace", "changesource_id", "master_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    changesource_id: int
    master_id: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ..., master_id: _Optional[int] = ...) -> None: ...

class SetChangeSourceMasterResponse(_message.Message):
    __slots__ = ("header", "token", "already_claimed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALREADY_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    token: int
    already_claimed: Claimant
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., token: _Optional[int] = ..., already_claimed: _Optional[_Union[Claimant, _Mapping[str, _Any]]] = ...) -> None: ...

class GetChangeSourceRequest(_message.Message):
    __slots__ = ("read", "namespace", "changesource_id")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    changesource_id: int
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ...) -> None: ...

class GetChangeSourceResponse(_message.Message):
    __slots__ = ("header", "changesource")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    changesource: ChangeSource
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., changesource: _Optional[_Union[ChangeSource, _Mapping[str, _Any]]] = ...) -> None: ...

class ListChangeSourcesRequest(_message.Message):
    __slots__ = ("read", "namespace", "active", "master_id")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    active: bool
    master_id: int
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., active: bool = ..., master_id: _Optional[int] = ...) -> None: ...

class ListChangeSourcesResponse(_message.Message):
    __slots__ = ("header", "changesources")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCES_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    changesources: _containers.RepeatedCompositeFieldContainer[ChangeSource]
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., changesources: _Optional[_Iterable[_Union[ChangeSource, _Mapping[str, _Any]]]] = ...) -> None: ...

class ClaimRequest(_message.Message):
    __slots__ = ("context", "namespace", "changesource_id", "lease_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    changesource_id: int
    lease_id: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ..., lease_id: _Optional[int] = ...) -> None: ...

class ClaimResponse(_message.Message):
    __slots__ = ("header", "token", "already_claimed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ALREADY_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    token: int
    already_claimed: Claimant
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., token: _Optional[int] = ..., already_claimed: _Optional[_Union[Claimant, _Mapping[str, _Any]]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("context", "namespace", "changesource_id", "token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    changesource_id: int
    token: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("header", "released")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    released: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., released: bool = ...) -> None: ...

class AwaitClaimRequest(_message.Message):
    __slots__ = ("context", "namespace", "changesource_id", "lease_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    changesource_id: int
    lease_id: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ..., lease_id: _Optional[int] = ...) -> None: ...

class AwaitClaimResponse(_message.Message):
    __slots__ = ("header", "token", "waiting")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    token: int
    waiting: Waiting
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., token: _Optional[int] = ..., waiting: _Optional[_Union[Waiting, _Mapping[str, _Any]]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("ahead",)
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    ahead: int
    def __init__(self, ahead: _Optional[int] = ...) -> None: ...

class StopAwaitingRequest(_message.Message):
    __slots__ = ("context", "namespace", "changesource_id", "lease_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    changesource_id: int
    lease_id: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ..., lease_id: _Optional[int] = ...) -> None: ...

class StopAwaitingResponse(_message.Message):
    __slots__ = ("header", "waited")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    WAITED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    waited: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., waited: bool = ...) -> None: ...

class SetGroupRequest(_message.Message):
    __slots__ = ("context", "namespace", "changesource_id", "group")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    changesource_id: int
    group: str
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., changesource_id: _Optional[int] = ..., group: _Optional[str] = ...) -> None: ...

class SetGroupResponse(_message.Message):
    __slots__ = ("header", "changed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    changed: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., changed: bool = ...) -> None: ...
