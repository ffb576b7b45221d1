"""Exemplars: for a bucket of the histogram of whole calls, the trace of one call that fell into it.

prometheus_client keeps none where there are several processes, so that they lie in a file of our own: a ring of records of
one size, each a line of JSON.
"""

import json
import mmap
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from gateway.metrics.instruments import BUCKETS_S, DURATION, TOTAL
from gateway.metrics.observation import CallObservation

_RECORD_BYTES = 512
_RECORDS = 256
# As prometheus_client writes them.
_LE = (*map(repr, BUCKETS_S), "+Inf")

_Labels = frozenset[tuple[str, str]]


class ExemplarFile:
    """Written by one worker, for calls whose trace is kept."""

    def __init__(self, metrics_dir: Path, worker: int) -> None:
        with (metrics_dir / f"exemplars_{worker}").open("w+b") as file:
            file.truncate(_RECORDS * _RECORD_BYTES)
            self._ring = mmap.mmap(file.fileno(), 0)
        self._next = 0

    def ended(self, observation: CallObservation, outcome: str, ended: float) -> None:
        """Keep a call's, where it has a trace."""
        if not observation.trace_id:
            return
        seconds = ended - observation.started
        labels = {
            "stage": TOTAL,
            "model": observation.model,
            "version": observation.version,
            "outcome": outcome,
            "le": _LE[bisect_left(BUCKETS_S, seconds)],
        }
        record = json.dumps([labels, observation.trace_id, seconds, time()]).encode() + b"\n"
        if len(record) <= _RECORD_BYTES:
            at = self._next * _RECORD_BYTES
            self._ring[at : at + len(record)] = record
            self._next = (self._next + 1) % _RECORDS


class WithExemplars(Collector):
    """What another collector gives, and the newest exemplar of each bucket beside it."""

    def __init__(self, collector: Collector, metrics_dir: Path) -> None:
        self._collector = collector
        self._metrics_dir = metrics_dir

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        exemplars = _newest(self._metrics_dir.glob("exemplars_*"))
        for metric in self._collector.collect():
            if metric.name == DURATION and exemplars:
                metric.samples = [_with(exemplars, sample) for sample in metric.samples]
            yield metric


def _with(exemplars: Mapping[_Labels, Exemplar], sample: Sample) -> Sample:
    if not sample.name.endswith("_bucket"):
        return sample
    return sample._replace(exemplar=exemplars.get(frozenset(sample.labels.items())))


def _newest(paths: Iterable[Path]) -> dict[_Labels, Exemplar]:
    newest: dict[_Labels, Exemplar] = {}
    for labels, trace_id, seconds, at in (record for path in paths for record in _records(path)):
        key = frozenset(labels.items())
        if key not in newest or (newest[key].timestamp or 0) < at:
            newest[key] = Exemplar({"trace_id": trace_id}, seconds, at)
    return newest


def _records(path: Path) -> Iterator[Any]:
    ring = path.read_bytes()
    for at in range(0, len(ring), _RECORD_BYTES):
        line, end, _ = ring[at : at + _RECORD_BYTES].partition(b"\n")
        try:
            if end:
                yield json.loads(line)
        except ValueError:
            continue  # It is being written.
