"""Open-loop load: calls begin when they are due, whatever became of those before."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import numpy as np
from grpc import aio
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

_INFER = "/inference.GRPCInferenceService/ModelInfer"
OK = "OK"
# More than the model has instances, and fewer than are refused.
_CALLERS = 12


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        due: When it was to begin, by `time.monotonic()`.
        outcome: `OK`, or the name of the gRPC status; `CANCELLED` too where it was not begun.
        version: Who answered; 0 where no one did.
        right: The answer was the one that a good version gives.
    """

    due: float
    tier: str = ""
    ended: float = 0.0
    outcome: str = "CANCELLED"
    version: int = 0
    right: bool = True

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.ended - self.due


@dataclass(slots=True)
class Load:
    """Callers of one server, each with a connection of its own.

    Attributes:
        keys: Key by tier; a call takes the next in turn.
        calibration_s: For so long callers ask as fast as they are answered, before anything else.
        capacity: Answers a second that they got then.
        calls: All that were made since, in the order in which they were due.
    """

    address: str
    keys: dict[str, str]
    model: str = "work"
    deadline_s: float = 3.0
    connections: int = 8
    calibration_s: float = 1.5
    capacity: float = 0.0
    calls: list[Call] = field(default_factory=list)
    _channels: list[aio.Channel] = field(default_factory=list)
    _stubs: list[Any] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        for number in range(self.connections):
            # The distinct argument keeps gRPC from sharing a connection.
            options = [("grpc.use_local_subchannel_pool", 1), ("tidegate.connection", number)]
            channel = aio.insecure_channel(self.address, options=options)
            self._channels.append(channel)
            self._stubs.append(channel.unary_unary(_INFER))
        if self.calibration_s:
            await self._calibrate()
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def run(self, rate: float, seconds: float, tiers: Sequence[str] = ()) -> list[Call]:
        """Make `rate` calls a second; returns them when the last is answered.

        Args:
            tiers: In turn; empty: all keys in turn.
        """
        order = tiers or tuple(self.keys)
        started, before = time.monotonic(), len(self.calls)
        for number in range(int(rate * seconds)):
            due = started + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self.begin(Call(due, order[number % len(order)]))
        await self.answered()
        return self.calls[before:]

    def begin(self, call: Call) -> None:
        """Make a call beside what is going on."""
        self.calls.append(call)
        task = asyncio.create_task(self._make(call, len(self.calls)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answered(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def call(self, call: Call, number: int) -> None:
        """Make one call and note what became of it."""
        await self._make(call, number)

    async def _calibrate(self) -> None:
        started = time.monotonic()
        made: list[Call] = []

        async def caller(tier: str) -> None:
            while (now := time.monotonic()) < started + self.calibration_s:
                made.append(call := Call(now, tier))
                await self._make(call, len(made))

        await asyncio.gather(*(caller(next(iter(self.keys))) for _ in range(_CALLERS)))
        self.capacity = round((len(made) - failed(made)) / (time.monotonic() - started), 1)
        assert self.capacity, outcomes(made)

    async def _make(self, call: Call, number: int) -> None:
        metadata = (("authorization", f"Bearer {self.keys[call.tier]}"),)
        left_s = max(0.001, call.due + self.deadline_s - time.monotonic())
        try:
            answer = await self._stubs[number % len(self._stubs)](
                _request(self.model, number), timeout=left_s, metadata=metadata
            )
        except aio.AioRpcError as error:
            call.outcome = error.code().name
        except asyncio.CancelledError:
            call.outcome = "CANCELLED"
            raise
        else:
            response = ModelInferResponse.FromString(answer)
            call.outcome, call.version = OK, int(response.model_version)
            scores = np.frombuffer(response.raw_output_contents[0], np.float32)
            call.right = len(scores) != 4 or int(scores.argmax()) == number % 4
        finally:
            call.ended = time.monotonic()


def _request(model: str, number: int) -> bytes:
    request = ModelInferRequest(model_name=model, raw_input_contents=[np.int32(number).tobytes()])
    request.inputs.add(name="x", datatype="INT32", shape=[1, 1] if model == "work" else [1])
    return bytes(request.SerializeToString())


def outcomes(calls: Sequence[Call]) -> dict[str, int]:
    """How many ended how."""
    return dict(Counter(call.outcome for call in calls))


def failed(calls: Sequence[Call]) -> int:
    """How many were not answered."""
    return sum(call.outcome != OK for call in calls)


def p99_ms(calls: Sequence[Call]) -> float:
    """Of those that were answered."""
    return quantile_ms(calls, 0.99)


def quantile_ms(calls: Sequence[Call], quantile: float) -> float:
    """Of those that were answered; 0 where none was."""
    took = sorted(call.seconds for call in calls if call.outcome == OK)
    return round(took[min(len(took) - 1, int(len(took) * quantile))] * 1_000, 1) if took else 0.0


def normal_after_s(calls: Sequence[Call], since: float, allowed_ms: float, window_s: float = 2.0) -> float | None:
    """When every window from then on has all its calls answered and their p99 within bounds; None: never.

    Args:
        since: When the fault began.
    """
    last = max((call.due for call in calls), default=since)
    normal_from: float | None = None
    start = since
    while start + window_s <= last:
        window = [call for call in calls if start <= call.due < start + window_s]
        if failed(window) or p99_ms(window) > allowed_ms:
            normal_from = None
        elif normal_from is None:
            normal_from = start
        start += window_s / 4
    return None if normal_from is None else round(normal_from - since, 2)
