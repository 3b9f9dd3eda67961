"""Secrets at rest: AES-256-GCM under a random key, which a passphrase (argon2id, RFC 9106) or a key file wraps.

Associated data names table, row and column, so that a sealed value cannot be moved to another place. Wrapping a
random key, and not using the passphrase's own, lets the passphrase change without sealing everything anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from argon2.exceptions import Argon2Error
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, pack
from federation.primitives.entropy import Entropy, SystemEntropy
from gateway.storage.base import Database
from gateway.storage.files import read_secret_file
from gateway.storage.tables.secrets import secret_box

KEY_BYTES = 32
MIN_PASSPHRASE_BYTES = 8
MAX_PASSPHRASE_BYTES = 1024
_FORMAT = b"\x01"
_NONCE_BYTES = 12
_TAG = "chaotian/v1/secret"


@dataclass(frozen=True)
class Argon2:
    """Costs of argon2id; the defaults are RFC 9106's second recommended option.

    Args:
        passes: iterations.
        memory_kib: memory in KiB.
        lanes: degree of parallelism.
    """

    passes: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4

    def check(self) -> Argon2:
        """Return itself if a damaged or hostile database does not ask for absurd costs."""
        if not (1 <= self.passes <= 64 and 8 * self.lanes <= self.memory_kib <= 1 << 21 and 1 <= self.lanes <= 64):
            raise ChaotianError("STORAGE", "the parameters of the passphrase are outside the sensible range")
        return self


@dataclass(frozen=True)
class KeySource:
    """Where the key that opens the secrets comes from: a file with a passphrase, or one with 32 random bytes.

    Args:
        kind: `passphrase` or `key-file`.
        path: the file, which only its owner may read.
    """

    kind: Literal["passphrase", "key-file"]
    path: Path

    def read(self) -> bytes:
        """Return the passphrase (without its final line break) or the key.

        Raises:
            ChaotianError: CONFIG where the file is missing or open to others, PASSPHRASE where its content cannot be.
        """
        if self.kind == "key-file":
            key = read_secret_file(self.path, KEY_BYTES)
            if len(key) != KEY_BYTES:
                raise ChaotianError("PASSPHRASE", f"{self.path} has {len(key)} bytes, a key file has {KEY_BYTES}")
            return key
        passphrase = read_secret_file(self.path, MAX_PASSPHRASE_BYTES).removesuffix(b"\n").removesuffix(b"\r")
        if len(passphrase) < MIN_PASSPHRASE_BYTES:
            raise ChaotianError("PASSPHRASE", f"a passphrase has at least {MIN_PASSPHRASE_BYTES} characters")
        return passphrase


class SecretBox:
    """Seals and opens secrets at rest; it cannot be printed.

    Make one with `create` (once per home) or `unlock`.
    """

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        self._aead = AESGCM(key)
        self._entropy = entropy

    @classmethod
    def create(
        cls, database: Database, source: KeySource, *, entropy: Entropy | None = None, argon2: Argon2 | None = None
    ) -> SecretBox:
        """Make the key of a new home, wrap it under `source` and store it wrapped.

        Raises:
            ChaotianError: EXISTS where the home has one; PASSPHRASE, CONFIG, STORAGE.
        """
        entropy = entropy or SystemEntropy()
        key = entropy.bytes(KEY_BYTES)
        row = _wrap(key, source, entropy, argon2 or Argon2())
        with database.begin() as connection:
            if connection.execute(select(secret_box.c.id)).first():
                raise ChaotianError("EXISTS", "this home has its keys already")
            connection.execute(insert(secret_box).values(id=1, **row))
        return cls(key, entropy)

    @classmethod
    def unlock(cls, database: Database, source: KeySource, *, entropy: Entropy | None = None) -> SecretBox:
        """Return the box of an existing home.

        Raises:
            ChaotianError: PASSPHRASE where the passphrase or key file is another; CONFIG, STORAGE.
        """
        entropy = entropy or SystemEntropy()
        with database.read() as connection:
            return cls(_unwrap(connection, source), entropy)

    @staticmethod
    def change(
        database: Database,
        old: KeySource,
        new: KeySource,
        *,
        entropy: Entropy | None = None,
        argon2: Argon2 | None = None,
    ) -> None:
        """Wrap the same key under another passphrase or key file."""
        entropy = entropy or SystemEntropy()
        with database.begin() as connection:
            key = _unwrap(connection, old)
            row = _wrap(key, new, entropy, argon2 or Argon2())
            connection.execute(update(secret_box).where(secret_box.c.id == 1).values(**row))

    def seal(self, plaintext: bytes, *, table: str, row: str, column: str) -> bytes:
        """Return `plaintext` sealed for one place: format byte, nonce (12 bytes), ciphertext and tag."""
        nonce = self._entropy.bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._aead.encrypt(nonce, plaintext, _place(table, row, column))

    def open(self, sealed: bytes, *, table: str, row: str, column: str) -> bytes:
        """Return the plaintext sealed for this place.

        Raises:
            ChaotianError: STORAGE where it was changed, or sealed for another place.
        """
        if sealed[:1] == _FORMAT and len(sealed) > _NONCE_BYTES + 16:
            try:
                nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
                return self._aead.decrypt(nonce, text, _place(table, row, column))
            except InvalidTag:
                pass
        raise ChaotianError("STORAGE", f"a sealed secret in {table}.{column} has been changed or moved")

    def __repr__(self) -> str:
        return "SecretBox(…)"


def _place(table: str, row: str, column: str) -> bytes:
    return pack(_TAG, [table.encode(), row.encode(), column.encode()])


def _wrapping_key(source: KeySource, salt: bytes, argon2: Argon2) -> bytes:
    secret = source.read()
    if source.kind == "key-file":
        return HKDF(SHA256(), KEY_BYTES, salt, b"chaotian/v1/key-file").derive(secret)
    try:
        return hash_secret_raw(
            secret, salt, argon2.passes, argon2.memory_kib, argon2.lanes, KEY_BYTES, Type.ID, version=19
        )
    except Argon2Error:
        raise ChaotianError("STORAGE", "the passphrase could not be stretched (too little memory?)") from None


def _wrap(key: bytes, source: KeySource, entropy: Entropy, argon2: Argon2) -> dict[str, object]:
    salt = entropy.bytes(16)
    costs = {"passes": argon2.passes, "memory_kib": argon2.memory_kib, "lanes": argon2.lanes}
    wrapper = SecretBox(_wrapping_key(source, salt, argon2.check()), entropy)
    wrapped = wrapper.seal(key, table="secret_box", row="1", column=f"wrapped:{source.kind}")
    return {"kind": source.kind, "salt": salt, "parameters": canonical_json(costs).decode(), "wrapped": wrapped}


def _unwrap(connection: Connection, source: KeySource) -> bytes:
    row = connection.execute(select(secret_box)).mappings().first()
    if row is None:
        raise ChaotianError("CONFIG", "this home has no keys yet", hint="Make them with `init`.")
    if row["kind"] != source.kind:
        raise ChaotianError("PASSPHRASE", f"this home was made with a {row['kind']}, a {source.kind} was given")
    try:
        costs = json.loads(row["parameters"])
        if set(costs) != {"passes", "memory_kib", "lanes"} or not all(type(cost) is int for cost in costs.values()):
            raise ValueError
        argon2 = Argon2(**costs).check()
    except (ValueError, TypeError, AttributeError):
        raise ChaotianError("STORAGE", "the parameters of the passphrase are damaged") from None
    wrapper = SecretBox(_wrapping_key(source, row["salt"], argon2), SystemEntropy())
    try:
        return wrapper.open(row["wrapped"], table="secret_box", row="1", column=f"wrapped:{source.kind}")
    except ChaotianError:
        raise ChaotianError("PASSPHRASE", f"the {source.kind} is not the one this home was made with") from None
