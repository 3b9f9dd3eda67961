"""Enrolment over the platform's enrolment port: one unary call, without a client certificate.

The node trusts the authority named in its invitation and nothing else, so it speaks to the platform of that space
or to nobody. What the messages mean is the identity layer's: here they are bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from federation.errors import ChaotianError
from gateway.identity.certificates import platform_host
from gateway.identity.enrolment import MAX_REQUEST, EnrolmentReply
from gateway.identity.home import Home
from gateway.identity.invitation import Invitation
from gateway.identity.node import NodeIdentity, NodeKeys
from gateway.transport.frames import error_from_wire, error_to_wire
from gateway.transport.tls import channel_options, check_negotiated, server_credentials, server_options
from protos.chaotian.v1 import link_pb2 as pb

log = logging.getLogger("chaotian.enrolment")
VERSION = 1
METHOD = "/chaotian.v1.Enrolment/Enrol"
_MAX_REPLY = 32 << 20


def enrol(home: Path, invitation: Invitation | str, *, deadline: float = 30.0) -> NodeIdentity:
    """Enrol the node of `home` with an invitation; returns who it now is.

    Repeating it with the same invitation after a lost reply, or after success, gives the same identity.

    Args:
        home: folder of the node.
        invitation: as parsed, or its text.
        deadline: seconds for the platform's answer.

    Raises:
        ChaotianError: INVITATION, EXISTS, PLATFORM_UNREACHABLE, DEADLINE, VERSION, and what checking the reply raises.
    """
    if isinstance(invitation, str):
        invitation = Invitation.parse(invitation)
    opened = Home.node(home)
    keys = NodeKeys(opened.database, opened.unlock())
    known = _already(keys, invitation)
    if known is not None:
        return known
    request = keys.enrolment_request(invitation)
    reply = EnrolmentReply.from_bytes(_ask(invitation, request.to_bytes(), deadline))
    return keys.enrolled(invitation, reply)


def _already(keys: NodeKeys, invitation: Invitation) -> NodeIdentity | None:
    """Return the identity that this very invitation has given before."""
    try:
        identity = keys.identity()
    except ChaotianError as error:
        if error.code == "CONFIG":
            return None
        raise
    same = (
        (identity.space, identity.role, identity.member) == (invitation.space, invitation.role, invitation.member)
        and identity.directory_key.public == invitation.directory_key.public
        and identity.authority_pem == invitation.authority_pem
    )
    return identity if same else None


def _ask(invitation: Invitation, document: bytes, deadline: float) -> bytes:
    credentials = grpc.ssl_channel_credentials(invitation.authority_pem.encode())
    options = [
        *(pair for pair in channel_options(platform_host(invitation.space)) if "message_length" not in pair[0]),
        ("grpc.max_receive_message_length", _MAX_REPLY),
        ("grpc.max_send_message_length", _MAX_REPLY),
    ]
    address = invitation.enrol_address
    with grpc.secure_channel(address, credentials, options=options) as channel:
        call: Any = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        try:
            data = call(pb.EnrolRequest(version=VERSION, document=document).SerializeToString(), timeout=deadline)
            reply = pb.EnrolReply.FromString(data)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ChaotianError("DEADLINE", f"{address} did not answer within {deadline:g} s") from None
            if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise ChaotianError("BACKPRESSURE", f"{address} is busy") from None
            raise ChaotianError(
                "PLATFORM_UNREACHABLE",
                f"{address} cannot be reached, or is not the platform of this invitation's space ({code.name})",
            ) from None
        except DecodeError:
            raise ChaotianError("MALFORMED", f"{address} answered with bytes that are no reply") from None
    if reply.HasField("error"):
        raise error_from_wire(reply.error)
    result: bytes = reply.document
    return result


class RateLimit:
    """Token buckets: one for each address, one for all.

    Args:
        each: calls a minute from one address, which is also how many may come at once.
        all_: calls a minute from all.
        clock: seconds, monotonic.
    """

    def __init__(self, each: float = 20, all_: float = 300, clock: Callable[[], float] = time.monotonic) -> None:
        self._each, self._all, self._clock = each, all_, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Count one call.

        Raises:
            ChaotianError: BACKPRESSURE where there were too many.
        """
        # Its own bucket first: what one address tries in vain must not use up what is there for all.
        if not (self._take(address or "?", self._each) and self._take("", self._all)):
            raise ChaotianError("BACKPRESSURE", "too many enrolments are tried", hint="Wait a minute and try again.")

    def _take(self, key: str, rate: float) -> bool:
        now = self._clock()
        tokens, last = self._buckets.pop(key, (rate, now))
        tokens = min(rate, tokens + (now - last) * rate / 60)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        while len(self._buckets) > 10_000:
            self._buckets.popitem(last=False)
        return tokens >= 1


class EnrolmentServer:
    """The enrolment port.

    Args:
        enrol: turns the bytes of a request into those of a reply; called in a thread.
        limit: how often may be tried.
    """

    def __init__(self, enrol: Callable[[bytes], bytes], *, limit: RateLimit | None = None) -> None:
        self._enrol = enrol
        self._limit = limit or RateLimit()
        self._server: grpc.aio.Server | None = None

    async def start(self, bind: str, *, tls: Callable[[], tuple[bytes, bytes]]) -> int:
        """Open the port and return its number; `tls` gives key and certificate (PEM) for each new connection.

        Raises:
            ChaotianError: CONFIG where it cannot be opened.
        """
        server = grpc.aio.server(options=list(server_options(MAX_REQUEST + 4096)), maximum_concurrent_rpcs=32)
        handler = grpc.unary_unary_rpc_method_handler(
            self._serve, request_deserializer=None, response_serializer=pb.EnrolReply.SerializeToString
        )
        service, method = METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            port = server.add_secure_port(bind, server_credentials(tls, None))
        except RuntimeError:
            port = 0
        if port == 0:
            raise ChaotianError("CONFIG", f"the port {bind} cannot be opened", hint="Choose a free port.")
        await server.start()
        self._server = server
        return port

    async def stop(self, grace: float = 2.0) -> None:
        """Close the port."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None

    async def _serve(self, data: bytes, context: Any) -> Any:
        try:
            check_negotiated(context.auth_context())
            self._limit.take(_address(context.peer()))
            if len(data) > MAX_REQUEST + 1024:
                raise ChaotianError("OVERSIZED", f"an enrolment request has {len(data)} bytes")
            try:
                request = pb.EnrolRequest.FromString(data)
            except DecodeError:
                raise ChaotianError("MALFORMED", "expected an enrolment request") from None
            if request.version != VERSION:
                raise ChaotianError("VERSION", f"the platform speaks version {VERSION}, the node {request.version}")
            return pb.EnrolReply(document=await asyncio.to_thread(self._enrol, request.document))
        except ChaotianError as error:
            log.warning("enrolment refused", extra={"code": error.code})
            return pb.EnrolReply(error=error_to_wire(error))
        except Exception as error:
            log.error("enrolment failed", exc_info=error)
            return pb.EnrolReply(
                error=error_to_wire(ChaotianError("INTERNAL", "enrolment failed in a way nobody foresaw"))
            )


def _address(peer: str) -> str:
    """Return the host of gRPC's `ipv4:HOST:PORT` or `ipv6:[HOST]:PORT`."""
    return peer.rpartition(":")[0]
