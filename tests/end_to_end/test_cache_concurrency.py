"""Two hundred clients with equal and different requests, and loads in between: every answer is the live version's.

The model answers what it was asked and which load it is, and notes each execution.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from tests.gateway.redis_server import RedisServer
from tests.gateway.redis_server import running as running_redis
from tests.running import Server, running

_CLIENTS = 200
_CHANNELS = 16
_EQUAL = range(20)
_INFER = "/inference.GRPCInferenceService/ModelInfer"

_CONFIG = """
backend: "python"
max_batch_size: 8
dynamic_batching {}
input { name: "x" data_type: TYPE_INT64 dims: 1 }
output { name: "y" data_type: TYPE_INT64 dims: 2 }
response_cache { enable: true }
"""

_MODEL = """
import os
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self._log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def execute(self, requests):
        time.sleep(0.002)
        return [self._answer(pb.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def _answer(self, x):
        os.write(self._log, b"%d %d\\n" % ({load}, x[0, 0]))
        return pb.InferenceResponse([pb.Tensor("y", np.concatenate([x, np.full_like(x, {load})], axis=1))])
"""


@dataclass(frozen=True)
class Answer:
    """What a client saw."""

    asked: int
    load: int
    status: str
    started: float
    ended: float


@dataclass
class Model:
    """The one in the repository, whose files change under its version's number.

    Attributes:
        begun: When each load was asked for, by its number.
        live: When it was the one that answers.
    """

    directory: Path
    begun: list[float] = field(default_factory=list)
    live: list[float] = field(default_factory=list)

    def write(self) -> None:
        """The files of the next load."""
        version = self.directory / "models" / "teller" / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version.parent / "config.pbtxt").write_text(_CONFIG)
        self.begun.append(time.monotonic())
        code = _MODEL.format(log=str(self.directory / "executions"), load=len(self.begun) - 1)
        (version / "model.py").write_text(code)

    async def load(self, server: Server) -> None:
        """Through the gateway."""
        self.write()
        async with triton.InferenceServerClient(server.grpc) as client:
            await client.load_model("teller", headers=server.headers)
        self.live.append(time.monotonic())

    def executions(self) -> Counter[tuple[int, int]]:
        """How often each load was asked each request."""
        lines = (self.directory / "executions").read_text().splitlines()
        return Counter((int(load), int(asked)) for load, asked in map(str.split, lines))


@asynccontextmanager
async def _clients(server: Server) -> AsyncIterator[list["_Client"]]:
    channels = [
        grpc.aio.insecure_channel(server.grpc, options=(("grpc.use_local_subchannel_pool", 1),))
        for _ in range(_CHANNELS)
    ]
    try:
        yield [_Client(channels[number % _CHANNELS], number, server.key) for number in range(_CLIENTS)]
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


class _Client:
    """Asks one thing after the other: what others ask, and what nobody else does."""

    def __init__(self, channel: grpc.aio.Channel, number: int, key: str) -> None:
        self._call = channel.unary_unary(_INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._random = random.Random(number)
        self._own = itertools.count((number + 1) * 1_000_000)

    async def ask(self, times: int, equal_share: float) -> list[Answer]:
        equal = [self._random.random() < equal_share for _ in range(times)]
        return [await self.ask_for(self._random.choice(_EQUAL) if same else next(self._own)) for same in equal]

    async def ask_for(self, asked: int) -> Answer:
        request = ModelInferRequest(model_name="teller", id=str(self._random.random()))
        request.inputs.add(name="x", datatype="INT64", shape=[1, 1])
        request.raw_input_contents.append(np.int64(asked).tobytes())
        started = time.monotonic()
        call = self._call(request, metadata=self._metadata, timeout=60)
        reply = await call
        ended = time.monotonic()
        metadata = dict(await call.trailing_metadata())
        answered, load = np.frombuffer(reply.raw_output_contents[0], np.int64)
        assert (answered, reply.id) == (asked, request.id)
        return Answer(asked, int(load), str(metadata["x-tidegate-cache"]), started, ended)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    made = Model(tmp_path)
    made.write()
    made.live.append(time.monotonic())
    return made


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with running_redis(tmp_path) as server:
        yield server


def test_triton_is_asked_each_distinct_request_once_a_load(model: Model) -> None:
    async def rounds(server: Server) -> list[list[Answer]]:
        """All clients at once, a load, and so on."""
        seen = []
        async with _clients(server) as clients:
            for number in range(3):
                if number:
                    await model.load(server)
                answers = await asyncio.gather(*(client.ask(times=4, equal_share=0.6) for client in clients))
                seen.append(list(itertools.chain(*answers)))
        return seen

    with running(model.directory / "state", MODEL_REPOSITORY=str(model.directory / "models"), WORKERS="1") as server:
        seen = asyncio.run(rounds(server))
    distinct: set[tuple[int, int]] = set()
    for load, answers in enumerate(seen):
        assert {answer.load for answer in answers} == {load}
        statuses = Counter(answer.status for answer in answers)
        assert set(statuses) == {"miss", "hit", "coalesced"}
        assert statuses["miss"] == len({answer.asked for answer in answers})
        distinct |= {(load, answer.asked) for answer in answers}
    assert model.executions() == Counter(distinct)


def test_loads_under_way_and_a_shared_cache_never_give_an_answer_of_before(model: Model, redis: RedisServer) -> None:
    async def calls(server: Server) -> list[Answer]:
        """Clients without a pause, while the model is loaded twice."""
        stop = asyncio.Event()
        seen: list[Answer] = []

        async def ask(client: _Client) -> None:
            while not stop.is_set():
                seen.extend(await client.ask(times=1, equal_share=0.9))

        async with _clients(server) as clients:
            asking = [asyncio.create_task(ask(client)) for client in clients]
            for _ in range(2):
                await model.load(server)
            stop.set()
            await asyncio.gather(*asking)
            # Whatever worker is asked: the last load answers.
            seen += itertools.chain(*await asyncio.gather(*(client.ask(times=2, equal_share=1) for client in clients)))
        return seen

    with running(
        model.directory / "state",
        MODEL_REPOSITORY=str(model.directory / "models"),
        WORKERS="2",
        REDIS__URL=redis.url,
        CACHE__SHARED="true",
    ) as server:
        seen = asyncio.run(calls(server))
        hits = asyncio.run(_until_found_in_redis(server))
    assert [answer for answer in seen if not _was_live(model, answer)] == []
    assert {answer.load for answer in seen} == {0, 1, 2}
    assert hits["l1"] > hits["l2"]


def _was_live(model: Model, answer: Answer) -> bool:
    """Whether the load that answered was the live one at some time of the call."""
    following: Sequence[float] = model.live[answer.load + 1 : answer.load + 2]
    return model.begun[answer.load] <= answer.ended and all(answer.started <= ended for ended in following)


async def _until_found_in_redis(server: Server) -> Counter[str]:
    """The hits, when one worker found what the other asked. Under load both may have found Redis too slow."""
    deadline = time.monotonic() + 20
    async with _clients(server) as clients:
        asked = 0
        while not (hits := _hits(server))["l2"]:
            assert time.monotonic() < deadline, "no worker found an answer in Redis"
            asked -= 1
            for client in clients[:_CHANNELS]:  # One for each connection; either worker has some.
                await client.ask_for(asked)
    return hits


def _hits(server: Server) -> Counter[str]:
    hits: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"http://{server.metrics}/metrics").text):
        if family.name == "tidegate_cache_hits":
            for sample in family.samples:
                hits[sample.labels["tier"]] += int(sample.value)
    return hits
