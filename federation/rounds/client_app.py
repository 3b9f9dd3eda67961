"""The member's side of a job as a Flower `ClientApp`: installed at the member, never shipped to it.

One train action a stage (`train.advertise_keys`, …). Mods wrap every action: the first one listed is outermost, sees
the request first and touches the reply last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from federation.errors import ChaotianError
from federation.rounds.flower import (
    ClientApp,
    ConfigRecord,
    Context,
    Message,
    read_part,
    refusal_message,
    reply_message,
)
from federation.secure_sum.terms import STAGES

Handler = Callable[[str, str, bytes], bytes]
Call = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, Call], Message]

MAX_REQUEST = 96 << 20  # bytes: a transcript that is added up again, and its envelope
MAX_REPLY = 96 << 20


class StageTimes(Protocol):
    """Where the timing mod reports: job, stage, seconds, bytes in, bytes out, and a code where it was refused."""

    def __call__(self, job: str, stage: str, seconds: float, received: int, sent: int, code: str) -> None: ...


def guard_mod(max_request: int = MAX_REQUEST, max_reply: int = MAX_REPLY) -> Mod:
    """Return the mod that lets through nothing but one record of a name and bytes, of bounded size, and finite numbers.

    It is listed first, so that it is the last to touch what leaves: a mod or an action that put an array, a metric
    or text into a reply is refused here, whatever it meant.
    """

    def guard(message: Message, context: Context, call: Call) -> Message:
        part = read_part(message)
        if len(part.payload) > max_request:
            raise ChaotianError("OVERSIZED", f"a stage request has more than {max_request} bytes")
        reply = call(message, context)
        if reply.has_error():
            return reply
        for record in reply.content.values():
            for value in record.values() if isinstance(record, ConfigRecord) else ():
                numbers = value if isinstance(value, list) else [value]
                if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                    raise ChaotianError("NOT_FINITE", "a stage reply holds a number that is not finite")
        answer = read_part(reply)
        if answer.job != part.job or answer.stage != part.stage:
            raise ChaotianError("MALFORMED", "a stage reply is not for the job and stage that were asked")
        if len(answer.payload) > max_reply:
            raise ChaotianError("OVERSIZED", f"a stage reply has more than {max_reply} bytes")
        return reply

    return guard


def timing_mod(clock: Callable[[], float], report: StageTimes) -> Mod:
    """Return the mod that reports how long this member worked on a stage and how many bytes it moved.

    Args:
        clock: seconds, monotonic.
        report: where it goes; it stays at the member.
    """

    def timing(message: Message, context: Context, call: Call) -> Message:
        part, begin, sent, code = read_part(message), clock(), 0, ""
        try:
            reply = call(message, context)
            if reply.has_error():
                code = (reply.error.reason or "").partition("\n")[0]
            else:
                sent = len(read_part(reply).payload)
        except ChaotianError as error:
            code = error.code
            raise
        finally:
            report(part.job, part.stage, clock() - begin, len(part.payload), sent, code)
        return reply

    return timing


def make_client_app(handler: Handler, *, mods: list[Mod] | None = None) -> ClientApp:
    """Return the app of a member.

    Args:
        handler: (job, stage, request) → reply; raises ChaotianError. Only the code of its error travels, and whom it
            blames: an error's text may say more than the platform should know.
        mods: outermost first, around every action; `guard_mod()` alone where left out.
    """
    chain = [guard_mod()] if mods is None else list(mods)
    app = ClientApp()

    def register(stage: str) -> None:
        def action(message: Message, context: Context) -> Message:
            part = read_part(message)
            try:
                payload = handler(part.job, part.stage, part.payload)
            except ChaotianError as error:
                return refusal_message(message, error)
            return reply_message(message, part.job, payload)

        app.train(stage, mods=chain)(action)

    for stage in STAGES:
        register(stage)
    return app


def run_client_app(app: ClientApp, message: Message, context: Context) -> Message:
    """Run `app` on one message; whatever goes wrong comes back as a refusal with a code."""
    try:
        return app(message, context)
    except ChaotianError as error:
        return refusal_message(message, error)
    except Exception:
        return refusal_message(message, ChaotianError("INTERNAL"))
