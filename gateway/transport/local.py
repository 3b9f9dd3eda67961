"""The local API of a node or platform: gRPC on a Unix socket in its home, for programs of the same user.

The socket has mode 0600 in a folder of mode 0700: whoever can open it may call everything. Parameters and results are
JSON objects. Errors cross as (code, detail, hint, member) and are raised again as the same `ChaotianError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import socket
import stat
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from federation.errors import ChaotianError
from gateway.storage.files import read_limited, write_atomic
from gateway.transport.frames import error_from_wire, error_to_wire
from protos.chaotian.v1 import local_pb2 as pb

log = logging.getLogger("chaotian.local")
SERVICE = "chaotian.v1.Local"
VERSION = 1
MAX_MESSAGE = 32 << 20
_LONGEST_PATH = 100  # the system allows 107 bytes
_LONGEST_WATCH = 24 * 3600.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]] | dict[str, Any]]
WatchHandler = Callable[[dict[str, Any]], AsyncIterator[dict[str, Any]]]


def socket_path(home: Path) -> Path:
    """Return where the local API of `home` listens, or would: in the home, or where a pointer file there says."""
    name = "platform.sock" if (home / "platform.toml").exists() else "node.sock"
    path = home.absolute() / name
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    pointer = path.with_suffix(".path")
    if pointer.is_file():
        return Path(read_limited(pointer, 4096).decode("utf-8", "strict"))
    return path


def _place_socket(home: Path) -> Path:
    """Return a path for the socket that the system can bind, leaving a pointer in the home where that is elsewhere."""
    path = socket_path(home)
    if len(os.fsencode(path)) <= _LONGEST_PATH and (path.parent == home.absolute() or path.parent.is_dir()):
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if runtime and Path(runtime).is_dir() and len(runtime) < 60 else tempfile.gettempdir()
    short = Path(tempfile.mkdtemp(prefix="chaotian-", dir=base)) / "s"  # mode 0700
    name = "platform.path" if (home / "platform.toml").exists() else "node.path"
    write_atomic(home / name, str(short).encode())
    return short


def _answers(path: Path) -> bool:
    """Whether something listens on the socket."""
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.settimeout(1.0)
        probe.connect(str(path))
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _to_bytes(document: dict[str, Any]) -> bytes:
    try:
        data = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise ChaotianError("INTERNAL", "a document of the local API is not JSON") from None
    if len(data) > MAX_MESSAGE - 4096:
        raise ChaotianError("OVERSIZED", f"a document of the local API has {len(data)} bytes")
    return data


def _from_bytes(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        raise ChaotianError("MALFORMED", "expected a JSON object") from None
    if not isinstance(document, dict):
        raise ChaotianError("MALFORMED", "expected a JSON object")
    return document


class LocalServer:
    """The node's side: methods by name; handlers raise ChaotianError.

    Args:
        home: the folder that holds the socket.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._handlers: dict[str, Handler] = {}
        self._watches: dict[str, WatchHandler] = {}
        self._server: grpc.aio.Server | None = None
        self._path: Path | None = None

    def register(self, method: str, handler: Handler) -> None:
        """Answer `method`; a handler that is no coroutine function runs in a thread."""
        self._check_free(method)
        self._handlers[method] = handler

    def register_watch(self, method: str, handler: WatchHandler) -> None:
        """Answer `method` with a stream of documents: `handler` is an asynchronous generator function."""
        self._check_free(method)
        self._watches[method] = handler

    def _check_free(self, method: str) -> None:
        if method in self._handlers or method in self._watches:
            raise ValueError(f"two handlers for {method}")

    async def start(self) -> None:
        """Open the socket.

        Raises:
            ChaotianError: EXISTS where another process answers on it; CONFIG where it cannot be opened.
        """
        path = await asyncio.to_thread(_place_socket, self._home)
        if await asyncio.to_thread(_answers, path):
            raise ChaotianError("EXISTS", f"another process serves {self._home} already", hint="Stop it first.")
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()  # left behind by a process that was killed
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.max_metadata_size", 16 * 1024),
            ]
        )
        handlers = {
            "Call": grpc.unary_unary_rpc_method_handler(
                self._call, response_serializer=pb.LocalReply.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch, response_serializer=pb.LocalReply.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        before = os.umask(0o177)  # the socket is private from the first moment
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError:
            raise ChaotianError("CONFIG", f"the socket {path} cannot be opened") from None
        finally:
            os.umask(before)
        await server.start()
        path.chmod(0o600)
        self._server, self._path = server, path

    async def stop(self, grace: float = 1.0) -> None:
        """Close the socket; calls under way have `grace` seconds."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            if self._path.parent != self._home.absolute():
                with contextlib.suppress(OSError):
                    self._path.parent.rmdir()
            self._path = None

    async def _call(self, data: bytes, context: Any) -> Any:
        method = ""
        try:
            method, params = self._parse(data, self._handlers)
            handler = self._handlers[method]
            remaining = context.time_remaining()
            async with asyncio.timeout(remaining):
                if inspect.iscoroutinefunction(handler):
                    result = await handler(params)
                else:
                    answer = await asyncio.to_thread(handler, params)
                    result = await answer if inspect.isawaitable(answer) else answer
            return pb.LocalReply(result=_to_bytes(result))
        except Exception as error:
            return pb.LocalReply(error=error_to_wire(_coded(method, error)))

    async def _watch(self, data: bytes, context: Any) -> AsyncIterator[Any]:
        method = ""
        try:
            method, params = self._parse(data, self._watches)
            async with contextlib.aclosing(self._watches[method](params)) as items:  # type: ignore[type-var]
                async for item in items:
                    yield pb.LocalReply(result=_to_bytes(item))
        except Exception as error:
            yield pb.LocalReply(error=error_to_wire(_coded(method, error)))

    @staticmethod
    def _parse(data: bytes, known: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        try:
            request = pb.LocalRequest.FromString(data)
        except DecodeError:
            raise ChaotianError("MALFORMED", "expected a local request") from None
        if request.version != VERSION:
            raise ChaotianError("VERSION", f"the local API has version {VERSION}, the program {request.version}")
        if request.method not in known:
            raise ChaotianError(
                "NOT_FOUND", f"the local API has no method {request.method[:80]!r}", hint="Is it served by this role?"
            )
        return request.method, _from_bytes(request.params)


def _coded(method: str, error: Exception) -> ChaotianError:
    if isinstance(error, ChaotianError):
        return error
    if isinstance(error, TimeoutError):
        return ChaotianError("DEADLINE", f"{method} was not done in time")
    log.error("handler failed", extra={"kind": method}, exc_info=error)
    return ChaotianError("INTERNAL", f"{method or 'the call'} failed in a way nobody foresaw")


class LocalClient:
    """The program's side, synchronous.

    Args:
        home: the home of the node or platform.
    """

    def __init__(self, home: Path) -> None:
        self._home = Path(home)

    def call(self, method: str, params: dict[str, Any] | None = None, *, deadline: float = 30.0) -> dict[str, Any]:
        """Call a method and return its result.

        Args:
            method: its name.
            params: a JSON object.
            deadline: seconds.

        Raises:
            ChaotianError: what the handler raised; NODE_NOT_RUNNING, DEADLINE, OVERSIZED.
        """
        request = self._request(method, params)
        with self._channel() as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Call", request_serializer=None, response_deserializer=None)
            with self._errors(method, deadline):
                data = call(request, timeout=deadline, wait_for_ready=False)
        return self._result(data)

    def watch(
        self, method: str, params: dict[str, Any] | None = None, *, deadline: float = _LONGEST_WATCH
    ) -> Iterator[dict[str, Any]]:
        """Yield the documents of a watch until it ends; `deadline` bounds the whole, in seconds."""
        request = self._request(method, params)
        with self._channel() as channel:
            call: Any = channel.unary_stream(f"/{SERVICE}/Watch", request_serializer=None, response_deserializer=None)
            with self._errors(method, deadline):
                stream = call(request, timeout=deadline)
                try:
                    for data in stream:
                        yield self._result(data)
                finally:
                    stream.cancel()

    def _channel(self) -> grpc.Channel:
        path = socket_path(self._home)
        if not path.exists():
            raise self._not_running()
        return grpc.insecure_channel(
            f"unix:{path}",
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def _not_running(self) -> ChaotianError:
        return ChaotianError("NODE_NOT_RUNNING", f"nothing serves {self._home}")

    @staticmethod
    def _request(method: str, params: dict[str, Any] | None) -> bytes:
        request = pb.LocalRequest(version=VERSION, request_id=uuid.uuid4().hex, method=method)
        request.params = _to_bytes(params or {})
        data: bytes = request.SerializeToString()
        return data

    @staticmethod
    def _result(data: bytes) -> dict[str, Any]:
        try:
            reply = pb.LocalReply.FromString(data)
        except DecodeError:
            raise ChaotianError("MALFORMED", "the node answered with bytes that are no reply") from None
        if reply.HasField("error"):
            raise error_from_wire(reply.error)
        return _from_bytes(reply.result)

    @contextlib.contextmanager
    def _errors(self, method: str, deadline: float) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
            if code == grpc.StatusCode.UNAVAILABLE:
                raise self._not_running() from None
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ChaotianError("DEADLINE", f"{method} was not done within {deadline:g} s") from None
            if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise ChaotianError("OVERSIZED", f"{method} exchanged more than {MAX_MESSAGE} bytes") from None
            raise ChaotianError("INTERNAL", f"the local API failed: {code.name}") from None
