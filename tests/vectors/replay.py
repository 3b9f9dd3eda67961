"""Replay of the recorded round as operations: a fresh member is brought to a stage and given a request."""

from __future__ import annotations

from federation.errors import ChaotianError
from federation.secure_sum.member import MemberJob
from tests.vectors.generate import MEMBER, federation, patched


def member_before(stages: list[dict[str, str]], stage: str) -> tuple[MemberJob, list[bytes]]:
    """Return b as it stood before `stage`, and its replies so far."""
    job, replies = federation().members[MEMBER], []
    for entry in stages:
        if entry["stage"] == stage:
            break
        replies.append(handle(job, entry))
    return job, replies


def handle(job: MemberJob, entry: dict[str, str], change: tuple[int, int] | None = None) -> bytes:
    """Give one recorded request to b, changed in one byte where `change` (place, xor) says so."""
    request = bytearray(bytes.fromhex(entry["request"]))
    if change is not None:
        request[change[0]] ^= change[1]
    own = job._attempt.parcel if job._attempt is not None else b""
    return job.handle(entry["stage"], patched(bytes(request), entry["stage"], own))


def outcome_of(stages: list[dict[str, str]], case: dict[str, object]) -> tuple[str, str]:
    """Return with which code, and blaming whom, b refuses a bad case; ("", "") where it does not."""
    job, _ = member_before(stages, str(case["stage"]))
    entry = next(entry for entry in stages if entry["stage"] == case["stage"])
    try:
        handle(job, entry, (int(str(case["at"])), int(str(case["xor"]))))
    except ChaotianError as error:
        return error.code, error.member
    return "", ""
