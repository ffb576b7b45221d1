"""Policies in a real database, followed by routers, and canaries that are set to 0."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway.auth.audit import AuditLog
from gateway.auth.database import Database
from gateway.call import Arm, Identity, no_headers
from gateway.errors import Conflict, GatewayError, Internal, InvalidArgument, NotFound, Overloaded, Unavailable
from gateway.ports import Route
from gateway.routing.catalog import ModelCatalog
from gateway.routing.policies import Policies
from gateway.routing.policy import TrafficPolicy
from gateway.routing.rollouts import Rollouts
from gateway.routing.settings import TrafficSettings
from gateway.routing.traffic import TrafficRouter
from tests.gateway.fakes import FakeUpstream, NoLimit
from tests.gateway.tritons import Figures

_CALLER = Identity("key:a", frozenset())
_REQUEST = bytes(ModelInferRequest(model_name="digits").SerializeToString())


class FakeCatalog(ModelCatalog):
    """Knows versions 1 and 2 of digits and of digits_encoded."""

    def __init__(self) -> None:
        self.ready_versions = {"1", "2"}

    def route(self, model: str, version: str) -> Route:
        chosen = version or max(self.ready_versions)
        known = chosen in self.ready_versions and model in ("digits", "digits_encoded")
        return Route(model, chosen if known else "", cacheable=False, takes_timeout=False, batches=True)


def _answer(best: int) -> bytes:
    scores = np.zeros((1, 10), np.float32)
    scores[0, best] = 1
    response = ModelInferResponse(model_name="digits", raw_output_contents=[scores.tobytes()])
    response.outputs.add(name="scores", datatype="FP32", shape=[1, 10])
    return bytes(response.SerializeToString())


class Stage:
    """A worker: its router and what it watches."""

    def __init__(self, database: Database, other: Callable[[bytes], Awaitable[bytes]] | None = None) -> None:
        self.figures = Figures()
        self.catalog = FakeCatalog()
        self.policies = Policies(database)
        self.upstream = FakeUpstream(ModelInfer=other or _seven)
        self.router = TrafficRouter(self.catalog, self.policies, 0.01, self.figures)
        self.rollouts = Rollouts(
            TrafficSettings(poll_s=0.01), self.router, self.policies, self.upstream, NoLimit(), self.figures
        )

    async def follow(self, policy: str, model: str = "digits") -> None:
        await self.policies.put("cli:ann", model, TrafficPolicy.parse(policy))
        await self.router.refresh()

    def route(self, version: str = "", model: str = "digits", sequence: str | None = None) -> Route:
        return self.router.route(model, version, _CALLER, no_headers, sequence)

    def arm(self, wanted: Arm) -> Route:
        """A route of a call that comes to this side."""
        while True:
            route = self.route()
            if route.watch is not None and route.watch.arm is wanted:
                return route

    def answered(self, arm: Arm, times: int, seconds: float = 0.01, error: GatewayError | None = None) -> None:
        for _ in range(times):
            route = self.arm(arm)
            if error is None:
                self.rollouts.answered(route, _REQUEST, _answer(7), seconds)
            else:
                self.rollouts.failed(route, error, seconds)

    async def settled(self) -> None:
        """When what the calls caused is done."""
        async with asyncio.timeout(5):
            while self.rollouts._copies or self.rollouts._writing:
                await asyncio.sleep(0.005)


async def _seven(request: bytes) -> bytes:
    return _answer(7)


_ROLLOUT = """{"aliases": {"stable": 1, "canary": 2}, "weights": {"stable": 80, "canary": 20},
    "guard": {"min_sample": 20%s}}"""


async def test_without_a_policy_the_newest_answers(database: Database) -> None:
    stage = Stage(database)
    await stage.router.refresh()
    assert stage.route() == stage.catalog.route("digits", "")


async def test_a_policy_names_versions_and_holds_for_the_encoded_twin(database: Database) -> None:
    stage = Stage(database)
    await stage.follow('{"aliases": {"stable": 1, "tried": 2}}')
    assert stage.route().version == "1"
    assert stage.route(model="digits_encoded").version == "1"
    assert stage.route("tried").version == "2"
    assert stage.route("2").version == "2"
    assert stage.route("nobody").version == ""
    await stage.follow('{"aliases": {"stable": 2}}', "digits_encoded")
    assert stage.route(model="digits_encoded").version == "2"
    await stage.policies.remove("cli:ann", "digits")
    await stage.router.refresh()
    assert stage.route().version == "2"
    assert stage.figures.weights == {}


async def test_a_version_that_is_not_ready_is_never_chosen(database: Database) -> None:
    stage = Stage(database)
    await stage.follow('{"aliases": {"stable": 1}, "weights": {"2": 1}}')
    assert stage.route().version == "2"
    stage.catalog.ready_versions = {"1", "3"}
    assert stage.route().version == "1"
    stage.catalog.ready_versions = {"3"}
    assert stage.route().version == "3"


async def test_every_change_is_audited_and_one_made_over_anothers_is_refused(database: Database) -> None:
    policies = Policies(database)
    first = await policies.put("cli:ann", "digits", TrafficPolicy.parse('{"aliases": {"stable": 1}}'), revision=0)
    with pytest.raises(Conflict, match="changed by another"):
        await policies.put("cli:bob", "digits", TrafficPolicy(), revision=first - 1)
    await policies.put("cli:bob", "digits", TrafficPolicy.parse(_ROLLOUT % ""), revision=first)
    assert await policies.roll_back("cli:bob", "digits", "by hand")
    await policies.remove("cli:ann", "digits")
    for act in (policies.one("digits"), policies.remove("cli:ann", "digits"), policies.roll_back("a", "digits", "")):
        with pytest.raises(NotFound):
            await act
    entries = [(entry.actor, entry.action, entry.target) for entry in reversed(await AuditLog(database).latest(10))]
    assert [entry[:2] for entry in entries] == [
        ("cli:ann", "traffic.set"),
        ("cli:bob", "traffic.set"),
        ("cli:bob", "traffic.rollback"),
        ("cli:ann", "traffic.remove"),
    ]
    assert entries[2][2] == "digits 2: by hand"


async def test_a_canary_that_fails_is_set_to_0_and_every_worker_follows(database: Database) -> None:
    stage, other = Stage(database), Stage(database)
    await stage.follow(_ROLLOUT % "")
    await other.router.refresh()
    stage.answered(Arm.STABLE, 30)
    stage.answered(Arm.CANARY, 17)
    stage.answered(Arm.CANARY, 2, error=Internal("boom"))
    assert {stage.route().version for _ in range(100)} == {"1", "2"}
    stage.answered(Arm.CANARY, 1)
    assert {stage.route().version for _ in range(100)} == {"1"}, "it goes on until the database knows"
    await stage.settled()
    await other.router.refresh()
    assert {other.route().version for _ in range(100)} == {"1"}
    assert stage.figures.rollbacks == [("digits", "errors")]
    entry = (await AuditLog(database).latest(1))[0]
    assert (entry.actor, entry.action) == ("gateway", "traffic.rollback")
    assert entry.target.startswith("digits 2: errors: 2 of 20 answers are errors, 0 of 30 of stable")


async def test_a_canary_that_is_slow_is_set_to_0(database: Database) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % "")
    stage.answered(Arm.STABLE, 20, seconds=0.01)
    stage.answered(Arm.CANARY, 20, seconds=0.03)
    await stage.settled()
    assert stage.figures.rollbacks == [("digits", "latency")]


async def test_of_the_requests_of_streams_the_errors_count_and_the_times_do_not(database: Database) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % "")
    stage.answered(Arm.STABLE, 30)
    for error in (*[None] * 18, Overloaded("busy"), Internal("boom")):
        stage.rollouts.streamed(stage.arm(Arm.CANARY), error)
    stage.answered(Arm.CANARY, 1, seconds=9)
    assert stage.figures.rollbacks == [], "of 20 answers one is an error, and one took long"
    stage.rollouts.streamed(stage.arm(Arm.CANARY), Internal("boom"))
    await stage.settled()
    assert stage.figures.rollbacks == [("digits", "errors")]


async def test_what_troubles_both_sides_or_is_an_overload_is_not_the_canarys_fault(database: Database) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % "")
    for arm in (Arm.STABLE, Arm.CANARY):
        stage.answered(arm, 20, seconds=0.5)
        stage.answered(arm, 20, error=Unavailable("away"))
    for _ in range(50):
        stage.rollouts.failed(stage.arm(Arm.CANARY), Overloaded("busy"), 0.1)
    assert stage.figures.rollbacks == []


async def test_a_canary_that_answers_otherwise_is_set_to_0(database: Database) -> None:
    async def three(request: bytes) -> bytes:
        return _answer(3)

    stage = Stage(database, three)
    await stage.follow(_ROLLOUT % ', "max_disagreement": 0.1')
    while not stage.figures.rollbacks:
        stage.answered(Arm.CANARY, 1)
        await stage.settled()
    await stage.settled()
    assert stage.figures.rollbacks == [("digits", "disagreement")]
    assert len(stage.figures.disagreements) == 20
    assert {ModelInferRequest.FromString(request).model_version for _, request in stage.upstream.asked} == {"1"}


async def test_a_canary_that_agrees_stays(database: Database) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % ', "max_disagreement": 0.1')
    for _ in range(40):
        stage.answered(Arm.CANARY, 1)
        await stage.settled()
    assert len(stage.upstream.asked) == 40
    assert (stage.figures.rollbacks, stage.figures.disagreements) == ([], [])


async def test_a_shadow_is_asked_too_within_its_bound_and_holds_up_no_one(database: Database) -> None:
    release = asyncio.Event()

    async def slow(request: bytes) -> bytes:
        await release.wait()
        return _answer(3)

    stage = Stage(database, slow)
    await stage.follow('{"aliases": {"stable": 1}, "shadow": {"version": 2}}')
    route = stage.route()
    assert route.version == "1" and route.watch is not None and route.watch.copy_to == "2"
    for _ in range(10):
        stage.rollouts.answered(route, _REQUEST, _answer(7), 0.01)
    await asyncio.sleep(0)
    assert len(stage.upstream.asked) == TrafficSettings().max_copies
    release.set()
    await stage.settled()
    assert len(stage.figures.disagreements) == TrafficSettings().max_copies
    assert stage.route("1").watch is None, "who names a version is not copied"


async def test_a_rollback_waits_for_a_database_that_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % "")
    tries = 0
    write = stage.policies.roll_back

    async def away(*arguments: str, revision: int | None = None) -> bool:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("away")
        return await write(*arguments, revision=revision)

    monkeypatch.setattr(stage.policies, "roll_back", away)
    stage.answered(Arm.CANARY, 20, error=Internal("boom"))
    assert {stage.route().version for _ in range(50)} == {"1"}
    await stage.settled()
    assert (await stage.policies.one("digits")).policy.weights == {"stable": 100, "canary": 0}


async def test_a_sample_begins_anew_with_each_change_of_the_policy(database: Database) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % "")
    stage.answered(Arm.CANARY, 19, error=Internal("boom"))
    late = stage.arm(Arm.CANARY)
    await stage.follow(_ROLLOUT % ', "max_error_rate": 0.04')
    stage.rollouts.failed(late, Internal("boom"), 0.1)
    stage.answered(Arm.CANARY, 19, error=Internal("boom"))
    assert stage.figures.rollbacks == []
    assert late.watch is not None and replace(late.watch, revision=0) != late.watch


async def test_a_sample_begins_anew_where_a_policy_is_removed_and_set_again(database: Database) -> None:
    stage = Stage(database)
    await stage.follow(_ROLLOUT % "")
    stage.answered(Arm.CANARY, 19, error=Internal("boom"))
    before = stage.arm(Arm.CANARY)
    await stage.policies.remove("cli:ann", "digits")
    await stage.router.refresh()
    stage.rollouts.failed(before, Internal("late"), 0.1)
    await stage.follow(_ROLLOUT % "")
    stage.answered(Arm.CANARY, 1, error=Internal("boom"))
    assert stage.figures.rollbacks == []


async def test_while_the_database_is_away_policies_are_followed_as_they_were(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(database)
    await stage.follow('{"aliases": {"stable": 1}}')

    async def away() -> None:
        raise Unavailable("away")

    monkeypatch.setattr(stage.policies, "all", away)
    keeping = asyncio.create_task(stage.router.keep_fresh())
    await asyncio.sleep(0.05)
    assert not keeping.done() and stage.route().version == "1"
    keeping.cancel()
