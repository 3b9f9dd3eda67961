"""The grid of a `fedavg` job: a stock strategy sends arrays and gets one message back, with the members' mean.

Before a round the arrays are offered by their hash; only members that cannot derive them get bytes, on the bulk stream
(in frames of 256 KiB, as everything large).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from federation.errors import ChaotianError
from federation.learning.fedavg_arrays import Arrays, arrays_digest, check_arrays, encode_arrays, mean_of
from federation.learning.fedavg_spec import FedAvgSpec
from federation.primitives.fixed_point import decode_arrays
from federation.primitives.masks import raw
from federation.rounds.flower import TRAIN, Message, mean_message, read_arrays, to_arrays
from federation.secure_sum.coordinator import FATAL
from gateway.jobs import arrays as wire
from gateway.jobs.stage import seal_stage
from gateway.transport.grid import BULK_BYTES, SLACK, NodeStreamGrid, Rounds

# Refusals that are about the job and not about the member: the others would refuse as well.
ENDS = FATAL | {"WRONG_ARRAYS"}


class MeanRounds(Rounds, Protocol):
    """Where the rounds of a `fedavg` job come from and go to."""

    @property
    def resuming(self) -> bool:
        """Whether the next round is one that was in unmask when the platform went down: its arrays are out."""
        ...

    def placed(self, answers: Mapping[str, bytes | ChaotianError]) -> None:
        """Take where each member stands once it has the arrays of the round, or why it does not answer.

        Raises:
            ChaotianError: where too few stand at the same place.
        """
        ...


class MeanGrid(NodeStreamGrid):
    """The grid of one `fedavg` job; further arguments as those of `NodeStreamGrid`.

    Args:
        spec: the job's parameters.
        members: largest roster.
        rounds: see `MeanRounds`.
        total: of the round before the first one, after a restart of the platform: its ring elements as bytes.
    """

    def __init__(
        self, *, spec: FedAvgSpec, members: int, rounds: MeanRounds, total: bytes = b"", **settings: Any
    ) -> None:
        super().__init__(rounds=rounds, **settings)
        self._spec, self._units, self._layout = spec, spec.units(members), spec.layout(members)
        self._mean_rounds = rounds
        self.total: bytes = total  # of the last round released

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run one round with all its stages and attempts; blocks the calling thread, never the loop.

        Args:
            messages: of the type `train`, one a member, all with the same arrays; none: nothing is done.
            timeout: seconds for the whole round.

        Returns:
            One message from the federation's id: the decoded mean, and `num-examples` = the summed weight.

        Raises:
            ChaotianError: USAGE for messages that are no round; what the round ended with.
        """
        asked = list(messages)
        if not asked:
            return []
        round_, arrays = self._round_of(asked)
        deadline = time.monotonic() + (3600.0 if timeout is None else timeout)
        if not self._mean_rounds.resuming:
            self._mean_rounds.placed(self.place(round_, arrays, deadline))
        outcome = self._drive(round_, deadline)
        self._rounds.closed(round_, outcome)
        if outcome.error:
            raise ChaotianError(outcome.error)
        assert outcome.total is not None
        mean, weight = mean_of(self._spec, self._units, arrays, decode_arrays(self._layout, outcome.total))
        self.total = bytes(raw(outcome.total))
        target = asked[0].metadata.src_node_id
        return [mean_message(self._job, self._federation, target, round_, mean, weight, self._now())]

    def _round_of(self, asked: list[Message]) -> tuple[int, Arrays]:
        """Return number and arrays of a round.

        Raises:
            ChaotianError: USAGE; MALFORMED or NOT_FINITE for arrays that are not of the job.
        """
        if any(message.metadata.message_type != TRAIN for message in asked):
            raise ChaotianError("USAGE", "members are asked to train; what single members measure stays with them")
        targets = sorted(message.metadata.dst_node_id for message in asked)
        if targets != sorted(self.get_node_ids()):
            raise ChaotianError("USAGE", "a round is asked for by one message for each of its members")
        arrays = check_arrays(to_arrays(read_arrays(asked[0])), self._spec)
        if any(message.content is not asked[0].content for message in asked):
            hashed = arrays_digest(arrays)
            for message in asked[1:]:
                if arrays_digest(check_arrays(to_arrays(read_arrays(message)), self._spec)) != hashed:
                    raise ChaotianError("USAGE", "all members train on the same arrays")
        number = asked[0].content["config"].get("server-round") if "config" in asked[0].content else None
        if type(number) is not int or number < 1:
            raise ChaotianError("USAGE", "a round's messages hold its number as server-round in the record config")
        return number, arrays

    # --- arrays before a round -------------------------------------------------------------------------------

    def place(
        self, round_: int, arrays: Mapping[str, NDArray[Any]], deadline: float
    ) -> dict[str, bytes | ChaotianError]:
        """Make every member of the round stand on `arrays`; return where each stands, or why it does not.

        Raises:
            ChaotianError: one that any member refuses with for the job's sake, e.g. WRONG_ARRAYS; DEADLINE.
        """
        ordered = {layer.name: arrays[layer.name] for layer in self._spec.layers}
        work = asyncio.run_coroutine_threadsafe(self._place(round_, ordered), self._loop)
        try:
            answers = work.result(timeout=max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            work.cancel()
            raise ChaotianError("DEADLINE", "the arrays of a round did not reach the members in time") from None
        for name, answer in answers.items():
            if isinstance(answer, ChaotianError) and answer.code in ENDS:
                raise ChaotianError(answer.code, answer.detail, hint=answer.hint, member=name)
        return answers

    async def _place(self, round_: int, arrays: Arrays) -> dict[str, bytes | ChaotianError]:
        bodies = {"": wire.encode(round_, wire.OFFER, arrays_digest(arrays))}

        def body(form: str) -> bytes:
            if form not in bodies:
                data = encode_arrays(arrays) if form == "arrays" else self.total
                bodies[form] = wire.encode(round_, form, data)
            return bodies[form]

        async def each(member: str) -> bytes | ChaotianError:
            try:
                needs, position = wire.read_answer(await self._ask_arrays(member, body("")), member)
                if needs:
                    again, position = wire.read_answer(await self._ask_arrays(member, body(needs)), member)
                    if again:
                        raise ChaotianError("MALFORMED", "a member asks again for what it got", member=member)
                return position
            except ChaotianError as error:
                return error

        names = self._rounds.members()
        return dict(zip(names, await asyncio.gather(*(each(name) for name in names)), strict=True))

    async def _ask_arrays(self, member: str, body: bytes) -> bytes:
        sealed = seal_stage(wire.TAG, self._space, self._job, self._platform, member, body, self._signer)
        stream = "bulk" if len(sealed) > BULK_BYTES else "control"
        try:
            async with asyncio.timeout(self._stage_seconds + SLACK):
                return await self._hub.request(member, wire.KIND, sealed, stream=stream, deadline=self._stage_seconds)
        except TimeoutError:
            raise ChaotianError("DEADLINE", member=member) from None
