"""Loads whose callers do not wait for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tritonclient.grpc.service_pb2 import RepositoryModelLoadRequest

from gateway.errors import DeadlineExceeded, GatewayError, InvalidArgument
from gateway.operations import Operations, Readiness
from gateway.routing.catalog import ModelCatalog
from gateway.routing.counters import InferenceCounters
from gateway.settings import CacheSettings
from tests.gateway.fakes import FakeAuthenticator, FakeLoads, FakeUpstream, soon


class Audit:
    @asynccontextmanager
    async def act(self, actor: str, action: str, target: str) -> AsyncIterator[None]:
        yield


class Stage:
    """Operations before a Triton whose loads end when told to."""

    def __init__(self, failure: GatewayError | None = None) -> None:
        self.begun, self.end = asyncio.Event(), asyncio.Event()
        self.failure = failure
        self.loads = FakeLoads()
        upstream = FakeUpstream(RepositoryModelLoad=self._load, RepositoryIndex=_nothing, ModelStatistics=_nothing)
        counters = InferenceCounters(lambda: (upstream,))
        catalog = ModelCatalog(upstream, counters, self.loads, CacheSettings(), refresh_s=1)
        self.operations = Operations(FakeAuthenticator(), catalog, upstream, Readiness(catalog), Audit())

    async def load(self, deadline_s: float = 10.0) -> bytes:
        async def read_body() -> bytes:
            return bytes(RepositoryModelLoadRequest(model_name="digits").SerializeToString())

        return await self.operations.call("RepositoryModelLoad", "key", read_body, soon(deadline_s))

    async def until_seen(self) -> None:
        async with asyncio.timeout(5):
            while self.loads.number == 0:
                await asyncio.sleep(0)

    async def _load(self, request: bytes) -> bytes:
        self.begun.set()
        await self.end.wait()
        if self.failure is not None:
            raise self.failure
        return b""


async def _nothing(request: bytes) -> bytes:
    return b""  # Any message, with nothing in it.


async def test_a_load_is_seen_when_it_is_done() -> None:
    stage = Stage()
    loading = asyncio.create_task(stage.load())
    await stage.begun.wait()
    assert stage.loads.number == 0
    stage.end.set()
    await loading
    assert stage.loads.number == 1


async def test_a_load_that_failed_may_have_changed_something() -> None:
    stage = Stage(InvalidArgument("no such model"))
    stage.end.set()
    with pytest.raises(InvalidArgument):
        await stage.load()
    assert stage.loads.number == 1


async def test_a_load_that_outlasts_its_caller_is_seen_when_it_is_done() -> None:
    stage = Stage()
    with pytest.raises(DeadlineExceeded, match="goes on"):
        await stage.load(deadline_s=0.01)
    assert stage.loads.number == 0
    stage.end.set()
    await stage.until_seen()


async def test_a_load_whose_caller_went_away_is_seen_when_it_is_done() -> None:
    stage = Stage()
    loading = asyncio.create_task(stage.load())
    await stage.begun.wait()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    stage.end.set()
    await stage.until_seen()
