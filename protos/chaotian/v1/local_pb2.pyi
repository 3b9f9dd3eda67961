from protos.chaotian.v1 import link_pb2 as _link_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LocalRequest(_message.Message):
    __slots__ = ("version", "request_id", "method", "params")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    version: int
    request_id: str
    method: str
    params: bytes
    def __init__(self, version: _Optional[int] = ..., request_id: _Optional[str] = ..., method: _Optional[str] = ..., params: _Optional[bytes] = ...) -> None: ...

class LocalReply(_message.Message):
    __slots__ = ("result", "error")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    error: _link_pb2.Error
    def __init__(self, result: _Optional[bytes] = ..., error: _Optional[_Union[_link_pb2.Error, _Mapping]] = ...) -> None: ...
