from holdfast._wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_BYTES: _ClassVar[Codec]
    CODEC_JSON: _ClassVar[Codec]
    CODEC_PICKLE: _ClassVar[Codec]
CODEC_UNSPECIFIED: Codec
CODEC_BYTES: Codec
CODEC_JSON: Codec
CODEC_PICKLE: Codec

class Variable(_message.Message):
    __slots__ = ("key", "version", "mod_revision", "codec", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    version: int
    mod_revision: int
    codec: Codec
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., version: _Optional[int] = ..., mod_revision: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., value: _Optional[bytes] = ...) -> None: ...

class GetVariablesRequest(_message.Message):
    __slots__ = ("read", "namespace", "keys", "only_versions")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ONLY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    only_versions: bool
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., keys: _Optional[_Iterable[bytes]] = ..., only_versions: bool = ...) -> None: ...

class GetVariablesResponse(_message.Message):
    __slots__ = ("header", "variables")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping[str, _Any]]]] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("key", "version", "mod_revision")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    version: int
    mod_revision: int
    def __init__(self, key: _Optional[bytes] = ..., version: _Optional[int] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class VariableWrite(_message.Message):
    __slots__ = ("key", "delete", "codec", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    delete: bool
    codec: Codec
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., delete: bool = ..., codec: _Optional[_Union[Codec, str]] = ..., value: _Optional[bytes] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("context", "namespace", "comparisons", "writes")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    context: _common_pb2.WriteContext
    namespace: str
    comparisons: _containers.RepeatedCompositeFieldContainer[Comparison]
    writes: _containers.RepeatedCompositeFieldContainer[VariableWrite]
    def __init__(self, context: _Optional[_Union[_common_pb2.WriteContext, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., comparisons: _Optional[_Iterable[_Union[Comparison, _Mapping[str, _Any]]]] = ..., writes: _Optional[_Iterable[_Union[VariableWrite, _Mapping[str, _Any]]]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("header", "committed", "conflicts", "conflicts_total")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    committed: bool
    conflicts: _containers.RepeatedCompositeFieldContainer[ConflictingVariable]
    conflicts_total: int
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., committed: bool = ..., conflicts: _Optional[_Iterable[_Union[ConflictingVariable, _Mapping[str, _Any]]]] = ..., conflicts_total: _Optional[int] = ...) -> None: ...

class ConflictingVariable(_message.Message):
    __slots__ = ("variable", "has_value")
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    HAS_VALUE_FIELD_NUMBER: _ClassVar[int]
    variable: Variable
    has_value: bool
    def __init__(self, variable: _Optional[_Union[Variable, _Mapping[str, _Any]]] = ..., has_value: bool = ...) -> None: ...

class ListVariablesRequest(_message.Message):
    __slots__ = ("read", "namespace", "key_prefix", "only_keys")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ONLY_KEYS_FIELD_NUMBER: _ClassVar[int]
    read: _common_pb2.ReadOptions
    namespace: str
    key_prefix: bytes
    only_keys: bool
    def __init__(self, read: _Optional[_Union[_common_pb2.ReadOptions, _Mapping[str, _Any]]] = ..., namespace: _Optional[str] = ..., key_prefix: _Optional[bytes] = ..., only_keys: bool = ...) -> None: ...

class ListVariablesResponse(_message.Message):
    __slots__ = ("header", "variables", "is_last")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.ResponseHeader
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    is_last: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.ResponseHeader, _Mapping[str, _Any]]] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping[str, _Any]]]] = ..., is_last: bool = ...) -> None: ...
