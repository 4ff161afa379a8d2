from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetObjectIdRequest(_message.Message):
    __slots__ = ("context", "namespace", "name", "class_name", "only_existing")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    ONLY_EXISTING_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    name: str
    class_name: str
    only_existing: bool
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., class_name: _Optional[str] = ..., only_existing: bool = ...) -> None: ...

class GetObjectIdResponse(_message.Message):
    __slots__ = ("header", "object_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    object_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., object_id: _Optional[int] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ("read", "namespace", "object_id", "name")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    object_id: int
    name: str
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("header", "found", "value", "mod_revision")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    found: bool
    value: bytes
    mod_revision: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., found: bool = ..., value: _Optional[bytes] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class GetStateManyRequest(_message.Message):
    __slots__ = ("read", "namespace", "object_id", "names")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    object_id: int
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class GetStateManyResponse(_message.Message):
    __slots__ = ("header", "items")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    items: _containers.RepeatedCompositeFieldContainer[StateItem]
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., items: _Optional[_Iterable[_Union[StateItem, _Mapping[str, _Any]]]] = ...) -> None: ...

class StateItem(_message.Message):
    __slots__ = ("name", "value", "mod_revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    mod_revision: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class SetStateRequest(_message.Message):
    __slots__ = ("context", "namespace", "object_id", "name", "value", "if_revision", "fence")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    object_id: int
    name: str
    value: bytes
    if_revision: int
    fence: _common_pb2.Fence
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[bytes] = ..., if_revision: _Optional[int] = ..., fence: _Optional[_Union[_common_pb2.Fence, _Mapping[str, _Any]]] = ...) -> None: ...

class SetStateResponse(_message.Message):
    __slots__ = ("header", "written", "value", "mod_revision", "found")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    written: bool
    value: bytes
    mod_revision: int
    found: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., written: bool = ..., value: _Optional[bytes] = ..., mod_revision: _Optional[int] = ..., found: bool = ...) -> None: ...

class CreateStateRequest(_message.Message):
    __slots__ = ("context", "namespace", "object_id", "name", "value", "fence", "token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    object_id: int
    name: str
    value: bytes
    fence: _common_pb2.Fence
    token: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[bytes] = ..., fence: _Optional[_Union[_common_pb2.Fence, _Mapping[str, _Any]]] = ..., token: _Optional[int] = ...) -> None: ...

class CreateStateResponse(_message.Message):
    __slots__ = ("header", "created", "value", "mod_revision")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    created: bool
    value: bytes
    mod_revision: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., created: bool = ..., value: _Optional[bytes] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class AskToCreateRequest(_message.Message):
    __slots__ = ("context", "namespace", "object_id", "name", "ttl_ms", "wait_ms")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    object_id: int
    name: str
    ttl_ms: int
    wait_ms: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class AskToCreateResponse(_message.Message):
    __slots__ = ("header", "exists", "creating", "waiting")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    CREATING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    exists: StateValue
    creating: Creating
    waiting: WaitingToCreate
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., exists: _Optional[_Union[StateValue, _Mapping[str, _Any]]] = ..., creating: _Optional[_Union[Creating, _Mapping[str, _Any]]] = ..., waiting: _Optional[_Union[WaitingToCreate, _Mapping[str, _Any]]] = ...) -> None: ...

class StateValue(_message.Message):
    __slots__ = ("value", "mod_revision", "is_gone")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_GONE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    mod_revision: int
    is_gone: bool
    def __init__(self, value: _Optional[bytes] = ..., mod_revision: _Optional[int] = ..., is_gone: bool = ...) -> None: ...

class Creating(_message.Message):
    __slots__ = ("token", "ttl_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    token: int
    ttl_ms: int
    def __init__(self, token: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class WaitingToCreate(_message.Message):
    __slots__ = ("token", "ahead")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    token: int
    ahead: int
    def __init__(self, token: _Optional[int] = ..., ahead: _Optional[int] = ...) -> None: ...

class KeepCreatingRequest(_message.Message):
    __slots__ = ("context", "namespace", "object_id", "name", "token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    object_id: int
    name: str
    token: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class KeepCreatingResponse(_message.Message):
    __slots__ = ("header", "exists", "creating", "waiting")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    CREATING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    exists: StateValue
    creating: Creating
    waiting: WaitingToCreate
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., exists: _Optional[_Union[StateValue, _Mapping[str, _Any]]] = ..., creating: _Optional[_Union[Creating, _Mapping[str, _Any]]] = ..., waiting: _Optional[_Union[WaitingToCreate, _Mapping[str, _Any]]] = ...) -> None: ...

class AbandonCreatingRequest(_message.Message):
    __slots__ = ("context", "namespace", "object_id", "name", "token")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    object_id: int
    name: str
    token: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class AbandonCreatingResponse(_message.Message):
    __slots__ = ("header", "abandoned")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ABANDONED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    abandoned: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., abandoned: bool = ...) -> None: ...

class DeleteStateRequest(_message.Message):
    __slots__ = ("context", "namespace", "object_id", "name", "fence")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    object_id: int
    name: str
    fence: _common_pb2.Fence
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ..., fence: _Optional[_Union[_common_pb2.Fence, _Mapping[str, _Any]]] = ...) -> None: ...

class DeleteStateResponse(_message.Message):
    __slots__ = ("header", "deleted")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    deleted: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., deleted: bool = ...) -> None: ...

class ListObjectsRequest(_message.Message):
    __slots__ = ("read", "namespace", "after_object_id", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AFTER_OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    after_object_id: int
    limit: int
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., after_object_id: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListObjectsResponse(_message.Message):
    __slots__ = ("header", "objects", "more")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    objects: _containers.RepeatedCompositeFieldContainer[ObjectItem]
    more: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., objects: _Optional[_Iterable[_Union[ObjectItem, _Mapping[str, _Any]]]] = ..., more: bool = ...) -> None: ...

class ObjectItem(_message.Message):
    __slots__ = ("object_id", "name", "class_name")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name: str
    class_name: str
    def __init__(self, object_id: _Optional[int] = ..., name: _Optional[str] = ..., class_name: _Optional[str] = ...) -> None: ...

class ListStateRequest(_message.Message):
    __slots__ = ("read", "namespace", "object_id", "after_name", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    object_id: int
    after_name: str
    limit: int
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., object_id: _Optional[int] = ..., after_name: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListStateResponse(_message.Message):
    __slots__ = ("header", "items", "more")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    items: _containers.RepeatedCompositeFieldContainer[StateItem]
    more: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., items: _Optional[_Iterable[_Union[StateItem, _Mapping[str, _Any]]]] = ..., more: bool = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("read", "namespace")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("header", "rows", "is_last")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    is_last: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping[str, _Any]]]] = ..., is_last: bool = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("master", "changesource", "object", "state")
    MASTER_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    master: MasterRow
    changesource: ChangeSourceRow
    object: ObjectItem
    state: StateRow
    def __init__(self, master: _Optional[_Union[MasterRow, _Mapping[str, _Any]]] = ..., changesource: _Optional[_Union[ChangeSourceRow, _Mapping[str, _Any]]] = ..., object: _Optional[_Union[ObjectItem, _Mapping[str, _Any]]] = ..., state: _Optional[_Union[StateRow, _Mapping[str, _Any]]] = ...) -> None: ...

class MasterRow(_message.Message):
    __slots__ = ("master_id", "name", "last_active_ms")
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVE_MS_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    name: str
    last_active_ms: int
    def __init__(self, master_id: _Optional[int] = ..., name: _Optional[str] = ..., last_active_ms: _Optional[int] = ...) -> None: ...

class ChangeSourceRow(_message.Message):
    __slots__ = ("changesource_id", "name", "group")
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    changesource_id: int
    name: str
    group: str
    def __init__(self, changesource_id: _Optional[int] = ..., name: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class StateRow(_message.Message):
    __slots__ = ("object_id", "name", "value")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name: str
    value: bytes
    def __init__(self, object_id: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("context", "namespace", "rows")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping[str, _Any]]]] = ...) -> None: ...

class ImportResponse(_message.Message):
    __slots__ = ("header", "written")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    written: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., written: _Optional[int] = ...) -> None: ...
