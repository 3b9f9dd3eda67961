"""TLS for the connection between node and platform: TLS 1.3, both sides certified by the space's own authority.

The library negotiates X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem) by itself and offers no switch for versions, so two
things keep older ones out: the only TLS 1.2 suite left in its list (set in the package's `__init__`) needs an RSA
certificate, which no member and no platform has, and the platform refuses every stream whose
negotiated version or group is another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from federation.errors import ChaotianError

TLS_VERSION = "TLSv1.3"
GROUP = "X25519MLKEM768"
_FRAME_LIMIT = 512 * 1024  # bytes of an encoded frame; its body has at most 256 KiB


@dataclass(frozen=True)
class ClientTls:
    """What a node needs to connect; PEM. It cannot be printed.

    Args:
        authority: certificate of the space's authority.
        key: private key.
        certificate: the member's certificate.
        host: name in the platform's certificate.
    """

    authority: bytes = field(repr=False)
    key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    host: str = ""


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Return the credentials of a node's channel."""
    return grpc.ssl_channel_credentials(tls.authority, tls.key or None, tls.certificate or None)


def server_credentials(tls: Callable[[], tuple[bytes, bytes]], authority: bytes | None) -> grpc.ServerCredentials:
    """Return the credentials of a port.

    Args:
        tls: returns key and certificate chain (PEM); asked at each handshake, so that a renewed certificate is taken up
            without a restart. It must not block.
        authority: where given, clients must have a certificate of this authority (PEM).
    """
    last: list[tuple[bytes, bytes]] = [tls()]

    def configuration(pair: tuple[bytes, bytes]) -> Any:
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def fetch() -> Any:
        pair = tls()
        if pair == last[0]:
            return None  # nothing new
        last[0] = pair
        return configuration(pair)

    return grpc.dynamic_ssl_server_credentials(configuration(last[0]), fetch, authority is not None)


def channel_options(host: str) -> Sequence[tuple[str, Any]]:
    """Return the options of a node's channel to the platform whose certificate names `host`."""
    options: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),  # a reconnect is a new connection
        ("grpc.max_receive_message_length", _FRAME_LIMIT),
        ("grpc.max_send_message_length", _FRAME_LIMIT),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]
    if host:
        options.append(("grpc.ssl_target_name_override", host))
    return options


def server_options(most: int = _FRAME_LIMIT) -> Sequence[tuple[str, Any]]:
    """Return the options of a port that takes messages of at most `most` bytes."""
    return [
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", max(most, _FRAME_LIMIT)),
        ("grpc.max_concurrent_streams", 16),
        ("grpc.max_metadata_size", 16 * 1024),
    ]


def check_negotiated(facts: Mapping[str, Sequence[bytes]]) -> None:
    """Refuse a call whose connection is not TLS 1.3 with the hybrid group; `facts` is its authentication context."""

    def one(name: str) -> str:
        values = list(facts.get(name) or ())
        return values[0].decode("ascii", "replace") if len(values) == 1 else ""

    if one("ssl_tls_version") != TLS_VERSION or one("ssl_negotiated_key_exchange_group") != GROUP:
        raise ChaotianError(
            "VERSION",
            f"expected {TLS_VERSION} with {GROUP}, the connection has "
            f"{one('ssl_tls_version') or 'no TLS'} with {one('ssl_negotiated_key_exchange_group') or 'no group'}",
        )


def peer_certificate(facts: Mapping[str, Sequence[bytes]]) -> bytes:
    """Return the client certificate of a call in PEM form."""
    values = list(facts.get("x509_pem_cert") or ())
    if len(values) != 1:
        raise ChaotianError("NOT_PERMITTED", "the connection has no client certificate")
    return values[0]
