"""Canaries watched and shadows asked, beside the calls and never in their way."""

import asyncio
from collections.abc import Coroutine

import structlog

from gateway import wire
from gateway.call import Arm, Tier, Watch
from gateway.errors import GatewayError, NotFound, Overloaded, Unavailable
from gateway.figures import FleetFigures
from gateway.ports import Concurrency, Route, Upstream
from gateway.routing.comparison import agree
from gateway.routing.policies import Policies
from gateway.routing.policy import Choice
from gateway.routing.sample import Fault, Sample
from gateway.routing.settings import TrafficSettings
from gateway.routing.traffic import TrafficRouter

_ACTOR = "gateway"
# Smaller ones are compared sooner than a thread is asked.
_INLINE_BYTES = 32 * 1024

_log = structlog.get_logger(__name__)


class Rollouts:
    """Counts what a canary and its stable version answer, compares copies, and sets a canary that fails to 0.

    The worker that sees it stops sending to the canary at once, and writes it down for the others as soon as the database
    takes it. Copies are as many at a time as the settings allow, of the lowest tier, and only while the model is not busy;
    the others are left out.
    """

    def __init__(
        self,
        settings: TrafficSettings,
        router: TrafficRouter,
        policies: Policies,
        upstream: Upstream,
        concurrency: Concurrency,
        figures: FleetFigures,
    ) -> None:
        self._settings = settings
        self._router = router
        self._policies = policies
        self._upstream = upstream
        self._concurrency = concurrency
        self._figures = figures
        self._samples: dict[str, tuple[Choice, Sample]] = {}
        self._copies: set[asyncio.Task[None]] = set()
        self._writing: set[asyncio.Task[None]] = set()

    def answered(self, route: Route, request: bytes, answer: bytes, seconds: float) -> None:
        """A version answered.

        Args:
            request: As the caller sent it.
        """
        watch = route.watch
        if watch is None:
            return
        self._count(watch, seconds, None)
        if watch.copy_to and len(self._copies) < self._settings.max_copies and self._concurrency.is_free(route.model):
            self._run(self._copy(watch, route.model, request, answer), self._copies)

    def failed(self, route: Route, error: GatewayError, seconds: float) -> None:
        """A version failed; an overload is not its fault."""
        if route.watch is not None and not isinstance(error, Overloaded):
            self._count(route.watch, seconds, error)

    def streamed(self, route: Route, error: GatewayError | None) -> None:
        """A version was done with a request of a stream. It is not copied."""
        if route.watch is not None and not isinstance(error, Overloaded):
            self._count(route.watch, None, error)

    async def close(self) -> None:
        """End what is under way."""
        tasks = (*self._copies, *self._writing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, work: Coroutine[None, None, None], running: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)

    def _count(self, watch: Watch, seconds: float | None, error: GatewayError | None) -> None:
        if watch.arm is Arm.OTHER:
            return
        sample = self._sample(watch)
        arm = sample.canary if watch.arm is Arm.CANARY else sample.stable
        arm.add(seconds, error is not None)
        if watch.arm is Arm.CANARY:
            self._judge(watch, sample)

    def _sample(self, watch: Watch) -> Sample:
        """What was seen since the policy that is followed was set: one that was removed and set again begins anew."""
        choice = self._router.choice(watch.policy)
        if choice is None or choice.revision != watch.revision:
            return Sample()  # A late answer under another policy is held against none.
        kept = self._samples.get(watch.policy)
        if kept is None or kept[0] is not choice:
            kept = self._samples[watch.policy] = (choice, Sample())
        return kept[1]

    def _judge(self, watch: Watch, sample: Sample) -> None:
        choice = self._router.choice(watch.policy)
        if choice is None or choice.revision != watch.revision or choice.canary is None:
            return
        if (verdict := sample.verdict(choice.policy.guard)) is not None:
            fault, reason = verdict
            _log.error("canary is rolled back", model=watch.policy, version=choice.canary, reason=reason)
            self._figures.rolled_back(watch.policy, fault.value)
            self._router.follow(watch.policy, Choice(choice.policy.without_canary(), choice.revision))
            self._run(self._write(watch, reason, fault), self._writing)

    async def _write(self, watch: Watch, reason: str, fault: Fault) -> None:
        """For the other workers and the audit log, until the database takes it."""
        while True:
            try:
                await self._policies.roll_back(_ACTOR, watch.policy, f"{fault}: {reason}", revision=watch.revision)
                await self._router.refresh()
                return
            except Unavailable as error:
                _log.warning("a rollback is not written yet", model=watch.policy, error=repr(error.__cause__))
                await asyncio.sleep(self._settings.poll_s)
            except NotFound:
                return  # The policy was removed meanwhile.

    async def _copy(self, watch: Watch, model: str, request: bytes, answer: bytes) -> None:
        """Ask another version the same, and compare."""
        deadline = asyncio.get_running_loop().time() + self._settings.copy_timeout_s
        try:
            async with self._concurrency.turn(model, Tier.LOW, deadline):
                other = await self._upstream.infer(
                    model, watch.copy_to, request, deadline, added=wire.version_field(watch.copy_to)
                )
        except GatewayError:
            if watch.arm is Arm.CANARY:
                return  # It is stable that failed.
            same = False
        else:
            small = len(other) <= _INLINE_BYTES
            same = agree(answer, other) if small else await asyncio.to_thread(agree, answer, other)
        if not same:
            self._figures.disagreed(model)
        if watch.arm is Arm.CANARY:
            sample = self._sample(watch)
            sample.compared += 1
            sample.disagreed += not same
            self._judge(watch, sample)
