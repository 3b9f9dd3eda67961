"""The life of a job as data: which event leads from which state to which."""

from __future__ import annotations

from federation.errors import ChaotianError

PROPOSED, ACCEPTED, RUNNING, INTERRUPTED = "proposed", "accepted", "running", "interrupted"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
OPEN = (PROPOSED, ACCEPTED, RUNNING, INTERRUPTED)
ENDED = (DONE, FAILED, CANCELLED)

# At the platform `accept` means that the last member's acceptance is there; at a node, that its own is.
TRANSITIONS: dict[tuple[str, str], str] = {
    (PROPOSED, "accept"): ACCEPTED,
    (ACCEPTED, "accept"): ACCEPTED,  # accepted anew, e.g. after the dataset changed
    (PROPOSED, "cancel"): CANCELLED,
    (ACCEPTED, "cancel"): CANCELLED,
    (RUNNING, "cancel"): CANCELLED,
    (INTERRUPTED, "cancel"): CANCELLED,
    (ACCEPTED, "start"): RUNNING,
    (INTERRUPTED, "start"): RUNNING,
    (RUNNING, "start"): RUNNING,
    (RUNNING, "interrupt"): INTERRUPTED,
    (RUNNING, "finish"): DONE,
    (RUNNING, "fail"): FAILED,
    (ACCEPTED, "fail"): FAILED,
    (INTERRUPTED, "fail"): FAILED,
}


def follow(state: str, event: str) -> str:
    """Return the state that `event` leads to.

    Raises:
        ChaotianError: CANCELLED for anything asked of a cancelled job, else NOT_ACCEPTED or JOB_STATE.
    """
    target = TRANSITIONS.get((state, event))
    if target is not None:
        return target
    if state == CANCELLED:
        raise ChaotianError("CANCELLED", "the job was cancelled")
    if state == PROPOSED and event == "start":
        raise ChaotianError("NOT_ACCEPTED", "the job cannot start before every member has accepted it")
    raise ChaotianError("JOB_STATE", f"a job that is {state} cannot {event}")
