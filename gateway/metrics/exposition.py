"""The inner port: every worker's figures in one answer, with Triton's beside them, and this worker's health."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.metrics import protobuf, tritons
from gateway.metrics.exemplars import WithExemplars
from gateway.metrics.native import WithoutNative
from gateway.metrics.triton_statistics import TritonStatistics
from gateway.operations import Readiness

_TRITON_S = 2.0
_MAX_TRITON_BYTES = 16 * 1024 * 1024
_EOF = b"# EOF\n"
# OpenMetrics and prometheus_client have `_total` at the end of a counter's name, and Triton has not: its names stay as they are.
_COUNTER = re.compile(rb"^(# TYPE \S+) counter$", re.MULTILINE)


class Exposition:
    """Reads the files of all workers, so that any one of them answers for all.

    Health is told here too, because whoever watches over a process has no certificate to show to the public ports.
    """

    def __init__(
        self, metrics_dir: Path, triton_url: str | None, statistics: TritonStatistics, readiness: Readiness
    ) -> None:
        self._metrics_dir = metrics_dir
        self._triton_urls = triton_url.split(",") if triton_url else []
        self._statistics = statistics
        self._readiness = readiness
        self._client = httpx.AsyncClient(timeout=_TRITON_S)

    def app(self) -> Starlette:
        """The application of the metrics port."""
        return Starlette(
            routes=[
                Route("/metrics", self._scrape),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
            ]
        )

    async def close(self) -> None:
        """Give back the connections."""
        await self._client.aclose()

    async def _live(self, request: Request) -> Response:
        return Response()

    async def _ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._readiness.ready else 503)

    async def _scrape(self, request: Request) -> Response:
        triton, batches = await asyncio.gather(self._triton(), self._statistics.read())
        registry = CollectorRegistry()
        ours = MultiProcessCollector(None, str(self._metrics_dir))  # type: ignore[no-untyped-call]  # Untyped library.
        as_protobuf = protobuf.wanted(request.headers.get("accept", ""))
        registry.register(WithExemplars(ours if as_protobuf else WithoutNative(ours), self._metrics_dir))
        registry.register(batches)
        if self._triton_urls:
            registry.register(_UpstreamUp(triton is not None))
        if as_protobuf:
            return Response(
                await asyncio.to_thread(_as_protobuf, registry, triton or b""), media_type=protobuf.CONTENT_TYPE
            )
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await asyncio.to_thread(encode, registry)
        if text.endswith(_EOF):
            text = text.removesuffix(_EOF) + _COUNTER.sub(rb"\1 unknown", triton or b"") + _EOF
        else:
            text += triton or b""
        return Response(text, headers={"content-type": content_type})

    async def _triton(self) -> bytes | None:
        """Triton's own metrics, those of several as one; None where none answers."""
        texts = await asyncio.gather(*map(self._read, self._triton_urls))
        if len(texts) == 1:
            return texts[0]
        return tritons.merged(texts) if any(text is not None for text in texts) else None

    async def _read(self, url: str) -> bytes | None:
        try:
            async with self._client.stream("GET", url) as response:
                response.raise_for_status()
                text = bytearray()
                async for chunk in response.aiter_bytes():
                    text += chunk
                    if len(text) > _MAX_TRITON_BYTES:
                        return None
                return bytes(text)
        except httpx.HTTPError:
            return None


def _as_protobuf(registry: CollectorRegistry, triton: bytes) -> bytes:
    theirs = text_string_to_metric_families(_COUNTER.sub(rb"\1 untyped", triton).decode())
    return protobuf.encode([*registry.collect(), *theirs])


class _UpstreamUp(Collector):
    """A figure of the scrape itself, which no worker's file should keep."""

    def __init__(self, up: bool) -> None:
        self._up = up

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("tidegate_upstream_up", "Triton's own metrics could be read.", float(self._up))
