"""Triton's own statistics of batches, which its metrics leave out.

Triton says how many batches of each size it executed, and not why each was closed. The configuration tells: a batch of the
largest or of a preferred size was closed because it was full; a smaller one where the queue waits for more, because the wait
was over; a smaller one where it does not wait, because nothing more was in the queue when an instance was free. What was
closed early because the next request would not have fitted counts as one of the last two: Triton does not tell it apart.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from tritonclient.grpc.service_pb2 import ModelStatisticsRequest, ModelStatisticsResponse

from gateway.errors import GatewayError
from gateway.ports import Triton
from gateway.routing.catalog import Batching, ModelCatalog

BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1_024, 2_048, 4_096)

_CALL_S = 2.0
_LABELS = ("model", "version", "replica")
_EVERY_MODEL: bytes = ModelStatisticsRequest().SerializeToString()


class Closed(StrEnum):
    """Why a batch was as small as it was."""

    FULL = "full"
    DELAY_OVER = "delay-over"
    QUEUE_EMPTY = "queue-empty"
    NOT_BATCHED = "not-batched"


class NumberedTriton(Triton, Protocol):
    """One of several."""

    @property
    def index(self) -> int:
        """Its number among them."""


class TritonStatistics:
    """Reads them when it is asked, once for all workers.

    Args:
        tritons: Gives those that answer now.
    """

    def __init__(self, tritons: Callable[[], Sequence[NumberedTriton]], catalog: ModelCatalog) -> None:
        self._tritons = tritons
        self._catalog = catalog

    async def read(self) -> Collector:
        """What each Triton says now; nothing of one that does not answer within 2 s."""
        deadline = asyncio.get_running_loop().time() + _CALL_S
        tritons = self._tritons()
        answers = await asyncio.gather(*(_statistics(triton, deadline) for triton in tritons))
        batching = {name: model.batching for name, model in self._catalog.models.items()}
        numbered = {triton.index: answer for triton, answer in zip(tritons, answers, strict=True) if answer is not None}
        return BatchFigures(numbered, batching)


async def _statistics(triton: Triton, deadline: float) -> ModelStatisticsResponse | None:
    try:
        answer = await triton.call("ModelStatistics", _EVERY_MODEL, deadline)
    except GatewayError:
        return None
    return ModelStatisticsResponse.FromString(answer)


class BatchFigures(Collector):
    """The answers of Tritons by their numbers, in metrics."""

    def __init__(self, statistics: Mapping[int, ModelStatisticsResponse], batching: Mapping[str, Batching]) -> None:
        self._statistics = statistics
        self._batching = batching

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        sizes = HistogramMetricFamily("tidegate_batch_size", "Images in a batch that Triton executed.", labels=_LABELS)
        closed = CounterMetricFamily(
            "tidegate_batches", "Batches that Triton executed, and why each was no larger.", labels=(*_LABELS, "reason")
        )
        largest = GaugeMetricFamily("tidegate_max_batch_size", "Images that fit in a batch.", labels=_LABELS)
        delay = GaugeMetricFamily(
            "tidegate_max_queue_delay_seconds", "How long a batch waits for more requests.", labels=_LABELS
        )
        every = ((number, model) for number, answer in self._statistics.items() for model in answer.model_stats)
        for number, model in every:
            labels = [model.name, model.version, str(number)]
            executed = {batch.batch_size: batch.compute_infer.count for batch in model.batch_stats}
            if executed:
                total = sum(size * count for size, count in executed.items())
                sizes.add_metric(labels, _cumulative(executed), float(total))
            batching = self._batching.get(model.name)
            if batching is None:
                continue
            reasons: Counter[Closed] = Counter(dict.fromkeys(Closed, 0))
            for size, count in executed.items():
                reasons[why(size, batching)] += count
            for reason, count in reasons.items():
                closed.add_metric([*labels, reason.value], count)
            largest.add_metric(labels, max(1, batching.max_batch))
            delay.add_metric(labels, batching.max_delay_s)
        yield from (sizes, closed, largest, delay)


def why(size: int, batching: Batching) -> Closed:
    """Why a batch was no larger."""
    if not batching.gathers:
        return Closed.NOT_BATCHED
    if size >= batching.max_batch or size in batching.preferred:
        return Closed.FULL
    return Closed.DELAY_OVER if batching.max_delay_s > 0 else Closed.QUEUE_EMPTY


def _cumulative(executed: dict[int, int]) -> list[tuple[str, float]]:
    buckets = [
        (str(float(bound)), float(sum(count for size, count in executed.items() if size <= bound)))
        for bound in BATCH_BUCKETS
    ]
    return [*buckets, ("+Inf", float(sum(executed.values())))]
