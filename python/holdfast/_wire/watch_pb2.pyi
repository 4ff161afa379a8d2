from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRequest(_message.Message):
    __slots__ = ("namespace", "from_revision", "filters", "progress_ms")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_MS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    from_revision: int
    filters: _containers.RepeatedCompositeFieldContainer[WatchFilter]
    progress_ms: int
    def __init__(self, namespace: _Optional[str] = ..., from_revision: _Optional[int] = ..., filters: _Optional[_Iterable[_Union[WatchFilter, _Mapping[str, _Any]]]] = ..., progress_ms: _Optional[int] = ...) -> None: ...

class WatchFilter(_message.Message):
    __slots__ = ("state", "masters", "changesources", "stored_objects", "variables")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MASTERS_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCES_FIELD_NUMBER: _ClassVar[int]
    STORED_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    state: StateFilter
    masters: MasterFilter
    changesources: ChangeSourceFilter
    stored_objects: StoredObjectFilter
    variables: VariableFilter
    def __init__(self, state: _Optional[_Union[StateFilter, _Mapping[str, _Any]]] = ..., masters: _Optional[_Union[MasterFilter, _Mapping[str, _Any]]] = ..., changesources: _Optional[_Union[ChangeSourceFilter, _Mapping[str, _Any]]] = ..., stored_objects: _Optional[_Union[StoredObjectFilter, _Mapping[str, _Any]]] = ..., variables: _Optional[_Union[VariableFilter, _Mapping[str, _Any]]] = ...) -> None: ...

class StateFilter(_message.Message):
    __slots__ = ("object_id", "name_prefix")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name_prefix: str
    def __init__(self, object_id: _Optional[int] = ..., name_prefix: _Optional[str] = ...) -> None: ...

class MasterFilter(_message.Message):
    __slots__ = ("master_id",)
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    def __init__(self, master_id: _Optional[int] = ...) -> None: ...

class ChangeSourceFilter(_message.Message):
    __slots__ = ("changesource_id",)
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    changesource_id: int
    def __init__(self, changesource_id: _Optional[int] = ...) -> None: ...

class StoredObjectFilter(_message.Message):
    __slots__ = ("object_id",)
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    def __init__(self, object_id: _Optional[int] = ...) -> None: ...

class VariableFilter(_message.Message):
    __slots__ = ("key_prefix",)
    KEY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    key_prefix: bytes
    def __init__(self, key_prefix: _Optional[bytes] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("header", "events")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    events: _containers.RepeatedCompositeFieldContainer[WatchEvent]
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., events: _Optional[_Iterable[_Union[WatchEvent, _Mapping[str, _Any]]]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("revision", "object_created", "state_put", "state_deleted", "master_changed", "changesource_changed", "creator_changed", "stored_object_changed", "variable_changed")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_CREATED_FIELD_NUMBER: _ClassVar[int]
    STATE_PUT_FIELD_NUMBER: _ClassVar[int]
    STATE_DELETED_FIELD_NUMBER: _ClassVar[int]
    MASTER_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHANGESOURCE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CREATOR_CHANGED_FIELD_NUMBER: _ClassVar[int]
    STORED_OBJECT_CHANGED_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    object_created: ObjectCreated
    state_put: StatePut
    state_deleted: StateDeleted
    master_changed: MasterChanged
    changesource_changed: ChangeSourceChanged
    creator_changed: CreatorChanged
    stored_object_changed: StoredObjectChanged
    variable_changed: VariableChanged
    def __init__(self, revision: _Optional[int] = ..., object_created: _Optional[_Union[ObjectCreated, _Mapping[str, _Any]]] = ..., state_put: _Optional[_Union[StatePut, _Mapping[str, _Any]]] = ..., state_deleted: _Optional[_Union[StateDeleted, _Mapping[str, _Any]]] = ..., master_changed: _Optional[_Union[MasterChanged, _Mapping[str, _Any]]] = ..., changesource_changed: _Optional[_Union[ChangeSourceChanged, _Mapping[str, _Any]]] = ..., creator_changed: _Optional[_Union[CreatorChanged, _Mapping[str, _Any]]] = ..., stored_object_changed: _Optional[_Union[StoredObjectChanged, _Mapping[str, _Any]]] = ..., variable_changed: _Optional[_Union[VariableChanged, _Mapping[str, _Any]]] = ...) -> None: ...

class ObjectCreated(_message.Message):
    __slots__ = ("object_id", "name", "class_name")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name: str
    class_name: str
    def __init__(self, object_id: _Optional[int] = ..., name: _Optional[str] = ..., class_name: _Optional[str] = ...) -> None: ...

class StatePut(_message.Message):
    __slots__ = ("object_id", "name", "value")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name: str
    value: bytes
    def __init__(self, object_id: _Optional[int] = ..., name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class StateDeleted(_message.Message):
    __slots__ = ("object_id", "name")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name: str
    def __init__(self, object_id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class CreatorChanged(_message.Message):
    __slots__ = ("object_id", "name", "token")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    name: str
    token: int
    def __init__(self, object_id: _Optional[int] = ..., name: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class MasterChanged(_message.Message):
    __slots__ = ("master_id", "name", "active", "lease_id", "claims")
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    name: str
    active: bool
    lease_id: int
    claims: int
    def __init__(self, master_id: _Optional[int] = ..., name: _Optional[str] = ..., active: bool = ..., lease_id: _Optional[int] = ..., claims: _Optional[int] = ...) -> None: ...

class ChangeSourceChanged(_message.Message):
    __slots__ = ("changesource_id", "name", "master_id", "token", "group")
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    changesource_id: int
    name: str
    master_id: int
    token: int
    group: str
    def __init__(self, changesource_id: _Optional[int] = ..., name: _Optional[str] = ..., master_id: _Optional[int] = ..., token: _Optional[int] = ..., group: _Optional[str] = ...) -> None: ...

class StoredObjectChanged(_message.Message):
    __slots__ = ("object_id", "class_name", "mod_revision")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    class_name: str
    mod_revision: int
    def __init__(self, object_id: _Optional[int] = ..., class_name: _Optional[str] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class VariableChanged(_message.Message):
    __slots__ = ("key", "version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    version: int
    def __init__(self, key: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...
