"""Signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint) with Ed25519.

The signature covers the text of the note itself, without a domain tag: that is the public format. It cannot be
taken for one of our tagged signatures, nor one of those for a note: tagged input begins with eight bytes of
length, of which the first is zero, and a note holds no control character but the newline.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from federation.errors import ChaotianError
from federation.primitives.signing import ED25519, Signer, Verifier
from gateway.audit.merkle import HASH_BYTES, MAX_SIZE

MAX_NOTE = 64 * 1024
MAX_SIGNATURES = 64
_NAME = re.compile(r"[^\s+]{1,256}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_DASH = "— "


def key_id(name: str, public: bytes) -> bytes:
    """Return the 4 bytes that say which key signed: SHA-256(name ‖ newline ‖ 0x01 ‖ raw key), cut."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]


def _b64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 with stray bits")
    return data


@dataclass(frozen=True)
class NoteKey:
    """A named public key that may sign notes.

    Args:
        name: the key's name; for a log its origin.
        verifier: the identity key.
    """

    name: str
    verifier: Verifier

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or any(ord(char) < 32 for char in self.name):
            raise ChaotianError("MALFORMED", "a note key's name has 1 to 256 characters, no spaces and no plus")

    @property
    def id(self) -> bytes:
        """The 4-byte key id."""
        return key_id(self.name, self.verifier.public[1:])

    def encode(self) -> str:
        """Return the one-line text form: name+hex(id)+base64(0x01 ‖ key)."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.verifier.public).decode()}"

    @classmethod
    def decode(cls, text: str) -> NoteKey:
        """Return the key of `encode`; anything else is LOG_INVALID."""
        try:
            name, ident, public = text.strip().split("+", 2)
            key = cls(name, Verifier(_b64(public)))
        except (ValueError, binascii.Error, ChaotianError):
            raise ChaotianError("LOG_INVALID", "expected a key of the form name+id+base64") from None
        if key.id.hex() != ident:
            raise ChaotianError("LOG_INVALID", "the id of a log key does not fit the key")
        return key


def sign_note(text: str, name: str, signer: Signer) -> bytes:
    """Return `text` (lines, the last one ended) with one signature line."""
    _check_text(text)
    key = NoteKey(name, signer.verifier)
    signature = Ed25519PrivateKey.from_private_bytes(signer.secret_bytes()).sign(text.encode())
    return f"{text}\n{_DASH}{name} {base64.b64encode(key.id + signature).decode()}\n".encode()


def open_note(note: bytes, key: NoteKey) -> str:
    """Return the text of `note` if `key` signed it; signatures of other keys are ignored.

    Raises:
        ChaotianError: SIGNATURE where the key did not sign, LOG_INVALID where it is not a note.
    """
    bad = ChaotianError("LOG_INVALID", "expected a signed note (c2sp.org/signed-note)")
    if len(note) > MAX_NOTE:
        raise ChaotianError("OVERSIZED", f"a signed note has {len(note)} bytes, at most {MAX_NOTE} are allowed")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise bad from None
    at = whole.rfind("\n\n")
    text, lines = whole[: at + 1], whole[at + 2 :]
    if at < 0 or not lines.endswith("\n"):
        raise bad
    _check_text(whole)
    signatures = lines[:-1].split("\n")
    if len(signatures) > MAX_SIGNATURES:
        raise bad
    found = False
    for line in signatures:
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        try:
            data = _b64(encoded)
        except (ValueError, binascii.Error):
            raise bad from None
        if not line.startswith(_DASH) or not space or not _NAME.fullmatch(name) or len(data) < 5:
            raise bad
        if (name, data[:4]) != (key.name, key.id):
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.verifier.public[1:]).verify(data[4:], text.encode())
        except InvalidSignature:
            raise ChaotianError("SIGNATURE", f"the signature of {key.name} on a note does not verify") from None
        found = True
    if not found:
        raise ChaotianError("SIGNATURE", f"the note is not signed by the expected key of {key.name}")
    return text


def _check_text(text: str) -> None:
    if not text.endswith("\n") or any(ord(char) < 32 and char != "\n" for char in text):
        raise ChaotianError("LOG_INVALID", "a note is lines of text without control characters")


@dataclass(frozen=True)
class Checkpoint:
    """What a log says of itself at one moment.

    Args:
        origin: the log's name, for a member `chaotian/SPACE/MEMBER`.
        size: number of leaves.
        root: Merkle tree hash, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the three lines of the note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def sign(self, signer: Signer) -> bytes:
        """Return the signed note; key name and origin are the same."""
        return sign_note(self.text(), self.origin, signer)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint of a note's text; extension lines are LOG_INVALID, as nobody could audit them."""
        lines = text.split("\n")
        bad = ChaotianError("LOG_INVALID", "expected a checkpoint: origin, size, root")
        if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise bad
        try:
            root = _b64(lines[2])
        except (ValueError, binascii.Error):
            raise bad from None
        if len(root) != HASH_BYTES or int(lines[1]) > MAX_SIZE:
            raise bad
        return cls(lines[0], int(lines[1]), root)

    @classmethod
    def open(cls, note: bytes, key: NoteKey) -> Checkpoint:
        """Return the checkpoint of a note that `key` signed and whose origin is the key's name."""
        checkpoint = cls.parse(open_note(note, key))
        if checkpoint.origin != key.name:
            raise ChaotianError("LOG_INVALID", f"the checkpoint is of the log {checkpoint.origin}, not {key.name}")
        return checkpoint


def peek_origin(note: bytes) -> str:
    """Return the first line of a note, unverified: only good for choosing which key to ask for."""
    try:
        origin = note[:MAX_NOTE].decode().split("\n", 1)[0]
    except UnicodeDecodeError:
        origin = ""
    if not _NAME.fullmatch(origin):
        raise ChaotianError("LOG_INVALID", "expected a checkpoint: its first line names the log")
    return origin


assert ED25519 == 1, "the type byte of identity keys and of note signatures is the same"
