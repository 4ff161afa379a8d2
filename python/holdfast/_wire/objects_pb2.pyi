from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseIdsRequest(_message.Message):
    __slots__ = ("context", "namespace", "count")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    count: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class LeaseIdsResponse(_message.Message):
    __slots__ = ("header", "first_id", "count")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    first_id: int
    count: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., first_id: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class ObjectRecord(_message.Message):
    __slots__ = ("id", "class_name", "metadata", "body_bytes", "mod_revision")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    id: int
    class_name: str
    metadata: _containers.ScalarMap[str, str]
    body_bytes: int
    mod_revision: int
    def __init__(self, id: _Optional[int] = ..., class_name: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., body_bytes: _Optional[int] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class SaveObjectsRequest(_message.Message):
    __slots__ = ("context", "namespace", "objects")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    objects: _containers.RepeatedCompositeFieldContainer[SmallObject]
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., objects: _Optional[_Iterable[_Union[SmallObject, _Mapping[str, _Any]]]] = ...) -> None: ...

class SmallObject(_message.Message):
    __slots__ = ("record", "body")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    record: ObjectRecord
    body: bytes
    def __init__(self, record: _Optional[_Union[ObjectRecord, _Mapping[str, _Any]]] = ..., body: _Optional[bytes] = ...) -> None: ...

class SaveObjectsResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ...) -> None: ...

class OpenUploadRequest(_message.Message):
    __slots__ = ("context", "namespace", "idle_ms")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    idle_ms: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., idle_ms: _Optional[int] = ...) -> None: ...

class OpenUploadResponse(_message.Message):
    __slots__ = ("header", "upload_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    upload_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., upload_id: _Optional[int] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("namespace", "upload_id", "number", "chunk", "objects")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    upload_id: int
    number: int
    chunk: bytes
    objects: StagedObjects
    def __init__(self, namespace: _Optional[str] = ..., upload_id: _Optional[int] = ..., number: _Optional[int] = ..., chunk: _Optional[bytes] = ..., objects: _Optional[_Union[StagedObjects, _Mapping[str, _Any]]] = ...) -> None: ...

class StagedObjects(_message.Message):
    __slots__ = ("objects",)
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[StagedObject]
    def __init__(self, objects: _Optional[_Iterable[_Union[StagedObject, _Mapping[str, _Any]]]] = ...) -> None: ...

class StagedObject(_message.Message):
    __slots__ = ("record", "body", "chunks")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    record: ObjectRecord
    body: bytes
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, record: _Optional[_Union[ObjectRecord, _Mapping[str, _Any]]] = ..., body: _Optional[bytes] = ..., chunks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("header", "number")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    number: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., number: _Optional[int] = ...) -> None: ...

class CommitUploadRequest(_message.Message):
    __slots__ = ("context", "namespace", "upload_id", "objects")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    upload_id: int
    objects: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., upload_id: _Optional[int] = ..., objects: _Optional[int] = ...) -> None: ...

class CommitUploadResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ...) -> None: ...

class AbandonUploadRequest(_message.Message):
    __slots__ = ("context", "namespace", "upload_id")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    upload_id: int
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., upload_id: _Optional[int] = ...) -> None: ...

class AbandonUploadResponse(_message.Message):
    __slots__ = ("header", "abandoned")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ABANDONED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    abandoned: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., abandoned: bool = ...) -> None: ...

class LoadObjectsRequest(_message.Message):
    __slots__ = ("read", "namespace", "ids", "only_records")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ONLY_RECORDS_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    ids: _containers.RepeatedScalarFieldContainer[int]
    only_records: bool
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., ids: _Optional[_Iterable[int]] = ..., only_records: bool = ...) -> None: ...

class LoadObjectsResponse(_message.Message):
    __slots__ = ("header", "pieces", "is_last")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    pieces: _containers.RepeatedCompositeFieldContainer[LoadPiece]
    is_last: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., pieces: _Optional[_Iterable[_Union[LoadPiece, _Mapping[str, _Any]]]] = ..., is_last: bool = ...) -> None: ...

class LoadPiece(_message.Message):
    __slots__ = ("record", "missing_id", "body")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    MISSING_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    record: ObjectRecord
    missing_id: int
    body: bytes
    def __init__(self, record: _Optional[_Union[ObjectRecord, _Mapping[str, _Any]]] = ..., missing_id: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class RemoveObjectsRequest(_message.Message):
    __slots__ = ("context", "namespace", "ids")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RemoveObjectsResponse(_message.Message):
    __slots__ = ("header", "removed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    removed: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., removed: _Optional[int] = ...) -> None: ...

class ListStoredObjectsRequest(_message.Message):
    __slots__ = ("read", "namespace", "class_name", "metadata", "after_id", "only_ids")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    ONLY_IDS_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    class_name: str
    metadata: _containers.ScalarMap[str, str]
    after_id: int
    only_ids: bool
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., class_name: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., after_id: _Optional[int] = ..., only_ids: bool = ...) -> None: ...

class ListStoredObjectsResponse(_message.Message):
    __slots__ = ("header", "objects", "is_last")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    objects: _containers.RepeatedCompositeFieldContainer[ObjectRecord]
    is_last: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., objects: _Optional[_Iterable[_Union[ObjectRecord, _Mapping[str, _Any]]]] = ..., is_last: bool = ...) -> None: ...
