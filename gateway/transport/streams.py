"""Methods of the `Link` service, frames as bytes on the wire, and the words of opening and ending a stream."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from federation.errors import ChaotianError
from gateway.transport.frames import StreamError, error_from_wire, error_to_wire
from protos.chaotian.v1 import link_pb2 as pb

SERVICE = "chaotian.v1.Link"
METHODS = {"control": "Control", "queries": "Queries", "bulk": "Bulk"}
SESSION_BYTES = 16
END: Any = vars(grpc.aio)["EOF"]  # what `read` returns at the end of a stream; missing from the library's stubs


def method(stream: str) -> str:
    """Return the full name of a stream's method."""
    return f"/{SERVICE}/{METHODS[stream]}"


def encode(frame: Any) -> bytes:
    """Return a frame's bytes."""
    data: bytes = frame.SerializeToString()
    return data


def decode(data: bytes) -> Any:
    """Return the frame of `data`; garbage is MALFORMED and ends the stream."""
    try:
        return pb.Frame.FromString(data)
    except DecodeError:
        raise StreamError("MALFORMED", "expected a frame, got bytes that are none") from None


def goodbye(error: ChaotianError) -> Any:
    """Return the frame that ends a stream for `error`."""
    return pb.Frame(goodbye=pb.Goodbye(error=error_to_wire(error)))


def goodbye_error(frame: Any) -> ChaotianError | None:
    """Return why the other side ends the stream, where `frame` says so."""
    return error_from_wire(frame.goodbye.error) if frame.WhichOneof("body") == "goodbye" else None
