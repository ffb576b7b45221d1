"""What Triton counts of each version that it serves: from nothing, whenever it loads one."""

import asyncio
from collections.abc import Callable, Sequence

from tritonclient.grpc.service_pb2 import ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse

from gateway.errors import GatewayError
from gateway.ports import Triton

_CALL_S = 5.0
# Replicas come and go, and what one counted is of use when it comes back.
_MOST_SEEN = 2_048
_EVERY_MODEL: bytes = ModelStatisticsRequest().SerializeToString()

_Counts = dict[tuple[str, str], tuple[int, ...]]


class InferenceCounters:
    """Shows loads that nobody told of: a count that is less than it was.

    One is not seen where the new load counted as much since as the one before had when it was last looked at.

    Args:
        tritons: Gives those that answer now, each by itself, as each counts for itself.
    """

    def __init__(self, tritons: Callable[[], Sequence[Triton]]) -> None:
        self._tritons = tritons
        self._seen: dict[Triton, _Counts] = {}

    async def fell(self) -> bool:
        """Whether a Triton counts less of a version than when it was last asked; one that does not answer says nothing."""
        deadline = asyncio.get_running_loop().time() + _CALL_S
        fell = False
        for triton in self._tritons():
            try:
                answer = await triton.call("ModelStatistics", _EVERY_MODEL, deadline)
            except GatewayError:
                continue
            counts = {
                (version.name, version.version): _counts(version)
                for version in ModelStatisticsResponse.FromString(answer).model_stats
            }
            seen = self._seen.get(triton, {})
            for name, count in counts.items():
                fell = fell or any(now < before for now, before in zip(count, seen.get(name, count), strict=True))
            self._seen[triton] = counts
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return fell


def _counts(version: ModelStatistics) -> tuple[int, ...]:
    """All of them rise only; the times fill gaps, where a few calls were counted before and as many since."""
    statistics = version.inference_stats
    durations = (statistics.success, statistics.fail, statistics.queue, statistics.compute_infer)
    return (version.inference_count, version.execution_count, *(part for d in durations for part in (d.count, d.ns)))
