"""The signed papers of a job: proposal, acceptance, exposure consent, cancellation. The platform carries them.

Each is canonical JSON under the signer's identity key; peers verify them against their own directory, so that the
platform can withhold a paper but not make one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import ChaotianError
from federation.primitives.encoding import canonical_json, pack, parse_canonical_json, unpack
from federation.primitives.signing import Signer, Verifier
from gateway.jobs.document import LIMIT, JobDocument

PROPOSAL = "chaotian/job/proposal/v1"
ACCEPTANCE = "chaotian/job/acceptance/v1"
CONSENT = "chaotian/job/consent/v1"
CANCELLATION = "chaotian/job/cancellation/v1"
_HEX64 = re.compile(r"[0-9a-f]{64}")
_SMALL = 4096


def sign_paper(tag: str, body: bytes, signer: Signer) -> bytes:
    """Return a paper: `body` (canonical JSON) and the signature over it."""
    return pack(tag, [body, signer.sign(tag, body)])


def body_of(tag: str, paper: bytes) -> bytes:
    """Return the body of a paper without checking who signed it; only to learn whose key to ask for."""
    return unpack(tag, paper, 2)[0]


def open_paper(tag: str, paper: bytes, key: Verifier, member: str) -> bytes:
    """Return the body of a paper that `member` signed.

    Raises:
        ChaotianError: MALFORMED or SIGNATURE, naming the member.
    """
    body, signature = unpack(tag, paper, 2)
    return key.verify(tag, body, signature, member=member)


def propose(document: JobDocument, signer: Signer) -> bytes:
    """Return the signed proposal of a job."""
    return sign_paper(PROPOSAL, document.encode(), signer)


def proposed(paper: bytes) -> JobDocument:
    """Return the document of a proposal, before its signature is checked against the proposer it names."""
    if len(paper) > LIMIT + 1024:
        raise ChaotianError("OVERSIZED", "a proposal is larger than allowed")
    return JobDocument.decode(body_of(PROPOSAL, paper))


def verify_proposal(paper: bytes, key: Verifier) -> JobDocument:
    """Return the document of a proposal signed with `key`, the key of the proposer it names."""
    document = proposed(paper)
    open_paper(PROPOSAL, paper, key, document.proposer)
    return document


@dataclass(frozen=True)
class Binding:
    """The rows that a member brings, and what lets it.

    Args:
        dataset: id of the dataset at this member, as the release ledger knows it.
        snapshot: hash of the state of the dataset's rows, 64 hex digits.
        grant: id of the grant it computes under, 64 hex digits.
    """

    dataset: str
    snapshot: str
    grant: str


@dataclass(frozen=True)
class Acceptance:
    """A member takes part.

    Args:
        space, job, member: who accepts what.
        data: the rows it is bound to: one, or two where the job compares two dates, the first date first.
        exposure_consent: whether it agrees to be singled out by this job's results beside earlier ones.
        accepted: seconds since the epoch, UTC.
    """

    space: str
    job: str
    member: str
    data: tuple[Binding, ...]
    exposure_consent: bool
    accepted: int

    @property
    def grant(self) -> str:
        """The grant that terms and log name: that of the first binding."""
        return self.data[0].grant

    def encode(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return canonical_json({"v": 1, **self.__dict__, "data": [binding.__dict__ for binding in self.data]})

    @classmethod
    def decode(cls, body: bytes) -> Acceptance:
        """Return the acceptance of `encode`; anything else is BAD_DOCUMENT."""
        document = parse_canonical_json(body, limit=_SMALL)
        data = document.get("data") if isinstance(document, Mapping) else None
        if not isinstance(data, list) or not 1 <= len(data) <= 2:
            raise ChaotianError("BAD_DOCUMENT", "an acceptance names one or two datasets")
        rest = {name: value for name, value in document.items() if name != "data"}
        kinds = {"space": str, "job": str, "member": str, "exposure_consent": bool, "accepted": int}
        values = _exactly(rest, kinds, "an acceptance")
        names = {"dataset": str, "snapshot": str, "grant": str}
        bindings = tuple(Binding(**_exactly(entry, names, "an acceptance", version=False)) for entry in data)
        digests = [values["job"], *(digest for entry in bindings for digest in (entry.snapshot, entry.grant))]
        if not all(_HEX64.fullmatch(value) for value in digests):
            raise ChaotianError("BAD_DOCUMENT", "an acceptance names job, snapshot and grant by 64 hex digits")
        return cls(**values, data=bindings)

    def sign(self, signer: Signer) -> bytes:
        """Return the paper."""
        return sign_paper(ACCEPTANCE, self.encode(), signer)


@dataclass(frozen=True)
class Consent:
    """A member agrees to be exposed by a job's results together with earlier ones, whether it takes part or not."""

    space: str
    job: str
    member: str
    signed: int

    def encode(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return canonical_json({"v": 1, **self.__dict__})

    @classmethod
    def decode(cls, body: bytes) -> Consent:
        """Return the consent of `encode`; anything else is BAD_DOCUMENT."""
        return cls(**_exactly(parse_canonical_json(body, limit=_SMALL), _SIGNED, "an exposure consent"))

    def sign(self, signer: Signer) -> bytes:
        """Return the paper."""
        return sign_paper(CONSENT, self.encode(), signer)


@dataclass(frozen=True)
class Cancellation:
    """A member or the operator ends a job."""

    space: str
    job: str
    member: str
    signed: int

    def encode(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return canonical_json({"v": 1, **self.__dict__})

    @classmethod
    def decode(cls, body: bytes) -> Cancellation:
        """Return the cancellation of `encode`; anything else is BAD_DOCUMENT."""
        return cls(**_exactly(parse_canonical_json(body, limit=_SMALL), _SIGNED, "a cancellation"))

    def sign(self, signer: Signer) -> bytes:
        """Return the paper."""
        return sign_paper(CANCELLATION, self.encode(), signer)


_SIGNED = {"space": str, "job": str, "member": str, "signed": int}


def _exactly(document: Any, kinds: Mapping[str, type], what: str, *, version: bool = True) -> dict[str, Any]:
    """Return the fields of an object that has exactly those of `kinds`, and `v` = 1 with `version`."""
    known = {*kinds, "v"} if version else set(kinds)
    if not isinstance(document, Mapping) or set(document) != known or (version and document["v"] != 1):
        raise ChaotianError("BAD_DOCUMENT", f"{what} has an unknown, missing or wrong field")
    if any(type(document[name]) is not kind for name, kind in kinds.items()):
        raise ChaotianError("BAD_DOCUMENT", f"{what} has a field of the wrong type")
    return {name: document[name] for name in kinds}


@dataclass(frozen=True)
class Bundle:
    """Everything signed about one job, and what the platform says of its state; as the platform forwards it.

    Args:
        proposal: the proposal paper.
        acceptances: acceptance papers by member.
        consents: exposure consent papers by member.
        cancellation: the cancellation paper, or empty.
        state: the platform's word on the job: information, nothing is decided by it at a member.
        code: why it failed, or empty.
    """

    proposal: bytes
    acceptances: Mapping[str, bytes]
    consents: Mapping[str, bytes]
    cancellation: bytes
    state: str
    code: str

    def encode(self) -> bytes:
        """Return the wire form: canonical JSON with base64 papers."""

        def text(paper: bytes) -> str:
            return base64.b64encode(paper).decode()

        return canonical_json(
            {
                "v": 1,
                "proposal": text(self.proposal),
                "acceptances": {name: text(paper) for name, paper in self.acceptances.items()},
                "consents": {name: text(paper) for name, paper in self.consents.items()},
                "cancellation": text(self.cancellation),
                "state": self.state,
                "code": self.code,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Bundle:
        """Return the bundle of `encode`; anything else is MALFORMED."""
        document = parse_canonical_json(data, limit=1 << 20)
        try:
            bundle = cls(
                proposal=_paper(document["proposal"]),
                acceptances={str(name): _paper(paper) for name, paper in document["acceptances"].items()},
                consents={str(name): _paper(paper) for name, paper in document["consents"].items()},
                cancellation=_paper(document["cancellation"]),
                state=str(document["state"])[:32],
                code=str(document["code"])[:64],
            )
            if bundle.encode() != data:
                raise ValueError
        except (TypeError, KeyError, ValueError, AttributeError):
            raise ChaotianError("MALFORMED", "expected the papers of a job") from None
        return bundle


def _paper(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError):
        raise ValueError from None
