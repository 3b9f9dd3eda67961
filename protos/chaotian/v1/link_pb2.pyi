from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PartType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PART_TYPE_UNSPECIFIED: _ClassVar[PartType]
    PART_TYPE_REQUEST: _ClassVar[PartType]
    PART_TYPE_REPLY: _ClassVar[PartType]
    PART_TYPE_ERROR: _ClassVar[PartType]
PART_TYPE_UNSPECIFIED: PartType
PART_TYPE_REQUEST: PartType
PART_TYPE_REPLY: PartType
PART_TYPE_ERROR: PartType

class Frame(_message.Message):
    __slots__ = ("hello", "welcome", "part", "ping", "pong", "resume", "have", "goodbye", "word", "arrived", "credit")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    welcome: Welcome
    part: Part
    ping: Ping
    pong: Pong
    resume: Resume
    have: Have
    goodbye: Goodbye
    word: Word
    arrived: _containers.RepeatedScalarFieldContainer[bytes]
    credit: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., have: _Optional[_Union[Have, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., word: _Optional[_Union[Word, _Mapping]] = ..., arrived: _Optional[_Iterable[bytes]] = ..., credit: _Optional[int] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Hello(_message.Message):
    __slots__ = ("versions", "session", "connection", "credit", "software")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    session: bytes
    connection: int
    credit: int
    software: str
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., session: _Optional[bytes] = ..., connection: _Optional[int] = ..., credit: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "session", "credit")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    version: int
    session: bytes
    credit: int
    def __init__(self, version: _Optional[int] = ..., session: _Optional[bytes] = ..., credit: _Optional[int] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("id", "type", "kind", "request", "total", "offset", "digest", "deadline", "body")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    type: PartType
    kind: str
    request: bytes
    total: int
    offset: int
    digest: bytes
    deadline: int
    body: bytes
    def __init__(self, id: _Optional[bytes] = ..., type: _Optional[_Union[PartType, str]] = ..., kind: _Optional[str] = ..., request: _Optional[bytes] = ..., total: _Optional[int] = ..., offset: _Optional[int] = ..., digest: _Optional[bytes] = ..., deadline: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "detail", "hint", "member")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    hint: str
    member: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ..., member: _Optional[str] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Have(_message.Message):
    __slots__ = ("id", "offset")
    ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    offset: int
    def __init__(self, id: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: Error
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("version", "document")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    document: bytes
    def __init__(self, version: _Optional[int] = ..., document: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("document", "error")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    error: Error
    def __init__(self, document: _Optional[bytes] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...
