from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Master(_message.Message):
    __slots__ = ("master_id", "name", "active", "lease_id", "lease_remaining_ms", "last_active_unix_ms", "claims")
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    name: str
    active: bool
    lease_id: int
    lease_remaining_ms: int
    last_active_unix_ms: int
    claims: int
    def __init__(self, master_id: _Optional[int] = ..., name: _Optional[str] = ..., active: bool = ..., lease_id: _Optional[int] = ..., lease_remaining_ms: _Optional[int] = ..., last_active_unix_ms: _Optional[int] = ..., claims: _Optional[int] = ...) -> None: ...

class FindMasterIdRequest(_message.Message):
    __slots__ = ("context", "namespace", "name")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    name: str
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class FindMasterIdResponse(_message.Message):
    __slots__ = ("header", "master_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    master_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., master_id: _Optional[int] = ...) -> None: ...

class SetMasterStateRequest(_message.Message):
    __slots__ = ("context", "namespace", "master_id", "active")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    master_id: int
    active: bool
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., master_id: _Optional[int] = ..., active: bool = ...) -> None: ...

class SetMasterStateResponse(_message.Message):
    __slots__ = ("header", "changed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    changed: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., changed: bool = ...) -> None: ...

class GetMasterRequest(_message.Message):
    __slots__ = ("read", "namespace", "master_id")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    master_id: int
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., master_id: _Optional[int] = ...) -> None: ...

class GetMasterResponse(_message.Message):
    __slots__ = ("header", "master")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    master: Master
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., master: _Optional[_Union[Master, _Mapping[str, _Any]]] = ...) -> None: ...

class ListMastersRequest(_message.Message):
    __slots__ = ("read", "namespace")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ...) -> None: ...

class ListMastersResponse(_message.Message):
    __slots__ = ("header", "masters")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MASTERS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    masters: _containers.RepeatedCompositeFieldContainer[Master]
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., masters: _Optional[_Iterable[_Union[Master, _Mapping[str, _Any]]]] = ...) -> None: ...

class OpenLeaseRequest(_message.Message):
    __slots__ = ("context", "namespace", "name", "instance", "ttl_ms", "grace_ms")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    name: str
    instance: bytes
    ttl_ms: int
    grace_ms: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., instance: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class OpenLeaseResponse(_message.Message):
    __slots__ = ("header", "lease", "held_by")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    lease: Lease
    held_by: LeaseHolder
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., lease: _Optional[_Union[Lease, _Mapping[str, _Any]]] = ..., held_by: _Optional[_Union[LeaseHolder, _Mapping[str, _Any]]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "master_id", "ttl_ms")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    master_id: int
    ttl_ms: int
    def __init__(self, lease_id: _Optional[int] = ..., master_id: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class LeaseHolder(_message.Message):
    __slots__ = ("master_id", "name", "lease_id", "lease_remaining_ms")
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    name: str
    lease_id: int
    lease_remaining_ms: int
    def __init__(self, master_id: _Optional[int] = ..., name: _Optional[str] = ..., lease_id: _Optional[int] = ..., lease_remaining_ms: _Optional[int] = ...) -> None: ...

class KeepAliveRequest(_message.Message):
    __slots__ = ("context", "namespace", "lease_id", "within_grace")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    WITHIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    lease_id: int
    within_grace: bool
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., lease_id: _Optional[int] = ..., within_grace: bool = ...) -> None: ...

class KeepAliveResponse(_message.Message):
    __slots__ = ("header", "ttl_ms", "renewal")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    ttl_ms: int
    renewal: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., ttl_ms: _Optional[int] = ..., renewal: _Optional[int] = ...) -> None: ...

class CloseLeaseRequest(_message.Message):
    __slots__ = ("context", "namespace", "lease_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    lease_id: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., lease_id: _Optional[int] = ...) -> None: ...

class CloseLeaseResponse(_message.Message):
    __slots__ = ("header", "freed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FREED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    freed: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., freed: _Optional[int] = ...) -> None: ...

class AttachLeaseRequest(_message.Message):
    __slots__ = ("namespace", "lease_id", "renewal", "silence_ms")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    SILENCE_MS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    lease_id: int
    renewal: int
    silence_ms: int
    def __init__(self, namespace: _Optional[str] = ..., lease_id: _Optional[int] = ..., renewal: _Optional[int] = ..., silence_ms: _Optional[int] = ...) -> None: ...

class AttachLeaseResponse(_message.Message):
    __slots__ = ("header", "renewal")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    renewal: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., renewal: _Optional[int] = ...) -> None: ...
