from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ResponseHeader(_message.Message):
    __slots__ = ("cluster_id", "node_id", "revision", "term", "leader_id", "leader_endpoint")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    node_id: int
    revision: int
    term: int
    leader_id: int
    leader_endpoint: str
    def __init__(self, cluster_id: _Optional[str] = ..., node_id: _Optional[int] = ..., revision: _Optional[int] = ..., term: _Optional[int] = ..., leader_id: _Optional[int] = ..., leader_endpoint: _Optional[str] = ...) -> None: ...

class WriteContext(_message.Message):
    __slots__ = ("session_id", "seq", "first_incomplete", "resent")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FIRST_INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
    RESENT_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    seq: int
    first_incomplete: int
    resent: bool
    def __init__(self, session_id: _Optional[int] = ..., seq: _Optional[int] = ..., first_incomplete: _Optional[int] = ..., resent: bool = ...) -> None: ...

class ReadOptions(_message.Message):
    __slots__ = ("local",)
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    local: bool
    def __init__(self, local: bool = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("changesource_id", "token")
    CHANGESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    changesource_id: int
    token: int
    def __init__(self, changesource_id: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...
