"""Traces by OpenTelemetry: a span a call, and one for each of its stages. Imported only where they are asked for."""

import asyncio
from importlib.metadata import version
from random import random
from types import TracebackType

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.call import Headers
from gateway.metrics.observation import OK, CallObservation, outcome_of
from gateway.metrics.settings import TracingSettings
from gateway.metrics.trace_context import outgoing
from gateway.metrics.watchers import Ended

_CALL = "infer"
_EXPORT_S = 5.0
_W3C = TraceContextTextMapPropagator()


class Traces:
    """Follows the caller's decision where it brings a W3C context, else keeps the share of the settings."""

    def __init__(self, settings: TracingSettings, worker: int) -> None:
        """Begin to export, from a thread of its own; this makes gRPC objects.

        Args:
            worker: This process's number.
        """
        assert settings.endpoint is not None
        self._sample = settings.sample
        resource = Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": version("tidegate"),
                "service.instance.id": str(worker),
            }
        )
        self._provider = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(settings.endpoint, timeout=_EXPORT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=settings.max_queue,
                schedule_delay_millis=settings.export_every_s * 1_000,
                max_export_batch_size=min(512, settings.max_queue),
            )
        )
        self._tracer = self._provider.get_tracer("tidegate.gateway")

    def observe(self, ended: Ended, headers: Headers) -> CallObservation | None:
        """The observation of a call whose trace is kept; None where it is not."""
        parent = _parent(headers)
        if parent is None and random() >= self._sample:
            return None  # Most calls: the library makes no span for them.
        span = self._tracer.start_span(_CALL, parent, SpanKind.SERVER)
        return _TracedObservation(ended, self._tracer, span) if span.is_recording() else None

    async def close(self) -> None:
        """Export what is left."""
        await asyncio.to_thread(self._provider.shutdown)


class _TracedObservation(CallObservation):
    """Spans beside the figures. What a stage is called is known when it ends; what ends unnamed was not finished."""

    __slots__ = ("_span", "_stage", "_tracer")

    def __init__(self, ended: Ended, tracer: Tracer, span: Span) -> None:
        super().__init__(ended)
        self._tracer = tracer
        self._span = span
        self.trace_id = f"{span.get_span_context().trace_id:032x}"
        self._begin_stage()

    def stage(self, name: str) -> None:
        super().stage(name)
        self._stage.update_name(name)
        self._stage.end()
        self._begin_stage()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome = outcome_of(error)
        if error is not None:
            self._stage.end()
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        self._span.set_attributes(
            {
                "tidegate.model": self.model,
                "tidegate.version": self.version,
                "tidegate.outcome": outcome,
                "tidegate.cache": self.cache.value,
                "tidegate.images": self.images,
                "tidegate.request_bytes": self.request_bytes,
            }
        )
        self._span.end()
        outgoing.set(None)
        super().__exit__(kind, error, traceback)

    def _begin_stage(self) -> None:
        """Triton is asked within the stage that is under way, and hangs its spans below it."""
        self._stage = self._tracer.start_span("unfinished", set_span_in_context(self._span))
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._stage))
        outgoing.set(tuple(carrier.items()))


def _parent(headers: Headers) -> Context | None:
    """The caller's W3C context; None where there is none, or it cannot be read."""
    traceparent = headers("traceparent")
    if traceparent is None:
        return None
    context = _W3C.extract({"traceparent": traceparent, "tracestate": headers("tracestate") or ""})
    return context if get_current_span(context).get_span_context().is_valid else None
