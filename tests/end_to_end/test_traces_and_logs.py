"""A call with a trace, seen by a collector, in the log, and as an exemplar."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from tests.collector import Collector, collector
from tests.running import Server, running

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_PARENT = "00f067aa0ba902b7"
_SAMPLED, _UNSAMPLED = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4737"
_OVER_REST = "6bf92f3577b34da6a3ce929d0e0e4738"
_REFUSED = "7bf92f3577b34da6a3ce929d0e0e4739"
_SEVERAL = "8bf92f3577b34da6a3ce929d0e0e4740"
_STAGES = ["auth", "read", "limit", "cache", "upstream"]


@dataclass(frozen=True)
class Traced:
    """A server that sends its traces, after its calls."""

    server: Server
    collector: Collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, test_files: list[bytes]) -> Iterator[Traced]:
    with collector() as started:
        settings = {
            "TRACING__ENDPOINT": started.grpc,
            "TRACING__SAMPLE": "0",
            "TRACING__EXPORT_EVERY_S": "0.2",
            "TRITON__TRACE_URL": f"{started.http}/v1/traces",
            "CALL_LOG__CALLS": "all",
        }
        with running(tmp_path_factory.mktemp("traced"), WORKERS="1", **settings) as server:
            _infer(server, 1, _SAMPLED, "01")
            _infer(server, 2, _UNSAMPLED, "00")
            _infer(server, 3, None, "")
            with pytest.raises(grpc.RpcError):
                _infer(server, 4, _REFUSED, "01", model="nothing")
            _infer(server, 5, "not a trace", "01")
            answer = httpx.post(
                f"http://{server.http}/v1/models/digits/classify",
                content=test_files[0],
                headers={**server.headers, "traceparent": f"00-{_OVER_REST}-{_PARENT}-01"},
            )
            answer.raise_for_status()
            yield Traced(server, started)


def _infer(server: Server, seed: int, trace: str | None, flags: str, model: str = "digits") -> None:
    request = ModelInferRequest(model_name=model, id=f"call {seed}")
    request.inputs.add(name="images", datatype="UINT8", shape=[1, 32, 32, 3])
    request.raw_input_contents.append(np.full((1, 32, 32, 3), seed, np.uint8).tobytes())
    metadata: list[tuple[str, str | bytes]] = [("authorization", f"Bearer {server.key}")]
    if trace is not None:
        metadata += [("traceparent", f"00-{trace}-{_PARENT}-{flags}"), ("tracestate", "vendor=1")]
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(_INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString)
        call(request, metadata=tuple(metadata), timeout=30)


def _children(spans: list[Span], parent: Span) -> list[Span]:
    return sorted(
        (span for span in spans if span.parent_span_id == parent.span_id), key=lambda s: s.start_time_unix_nano
    )


def _root(spans: list[Span]) -> Span:
    (root,) = [span for span in spans if span.name == "infer"]
    return root


def test_a_call_has_a_span_and_each_of_its_stages_one_below_it(traced: Traced) -> None:
    spans = traced.collector.of(_SAMPLED, lambda spans: any(span.name == "infer" for span in spans))
    root = _root(spans)
    assert (root.parent_span_id.hex(), root.trace_state) == (_PARENT, "vendor=1")
    stages = _children(spans, root)
    assert [stage.name for stage in stages] == _STAGES
    for before, after in zip(stages, stages[1:], strict=False):
        assert before.end_time_unix_nano <= after.start_time_unix_nano
    attributes = {each.key: each.value for each in root.attributes}
    assert attributes["tidegate.model"].string_value == "digits"
    assert attributes["tidegate.outcome"].string_value == "ok"
    assert traced.server.key not in str(spans)


def test_over_rest_the_answer_is_a_stage_too(traced: Traced) -> None:
    spans = traced.collector.of(_OVER_REST, lambda spans: any(span.name == "infer" for span in spans))
    root = _root(spans)
    assert root.parent_span_id.hex() == _PARENT
    assert [stage.name for stage in _children(spans, root)] == [*_STAGES, "serialise"]


def test_a_call_that_fails_says_so(traced: Traced) -> None:
    spans = traced.collector.of(_REFUSED, lambda spans: any(span.name == "infer" for span in spans))
    root = _root(spans)
    assert root.status.message == "not_found"
    assert [stage.name for stage in _children(spans, root)][-1] == "unfinished"


def test_a_call_whose_caller_keeps_no_trace_has_none(traced: Traced) -> None:
    traced.collector.of(_OVER_REST, lambda spans: any(span.name == "infer" for span in spans))
    kept = {span.trace_id.hex() for span in traced.collector.spans}
    assert kept == {_SAMPLED, _OVER_REST, _REFUSED}


def test_a_call_has_one_line_in_the_log_without_key_or_payload(traced: Traced) -> None:
    lines = _calls(traced.server, 6)
    assert [line["request_id"] for line in lines] == ["call 1", "call 2", "call 3", "call 4", "call 5", ""]
    first, _, _, refused, unreadable, photograph = lines
    assert (first["model"], first["version"], first["outcome"], first["cache"]) == ("digits", "1", "ok", "miss")
    assert (first["tenant"], first["images"], first["trace_id"]) == (None, 1, _SAMPLED)
    assert list(first["stages_ms"]) == _STAGES
    assert 0 < sum(first["stages_ms"].values()) <= first["total_ms"] + 0.01
    assert first["request_bytes"] > 32 * 32 * 3 and first["response_bytes"] > 0
    assert (refused["outcome"], refused["model"]) == ("not_found", "unknown")
    assert "trace_id" not in lines[1] and "trace_id" not in lines[2] and "trace_id" not in unreadable
    assert list(photograph["stages_ms"]) == [*_STAGES, "serialise"]
    assert traced.server.key not in traced.server.log


def test_a_bucket_has_the_trace_of_a_call(traced: Traced) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx.get(f"http://{traced.server.metrics}/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = list(text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]  # Untyped library.
    (durations,) = [family for family in families if family.name == "tidegate_stage_duration_seconds"]
    exemplars = [(sample, sample.exemplar) for sample in durations.samples if sample.exemplar is not None]
    assert {exemplar.labels["trace_id"] for _, exemplar in exemplars} <= {_SAMPLED, _OVER_REST, _REFUSED}
    assert _REFUSED in {exemplar.labels["trace_id"] for _, exemplar in exemplars}
    for sample, exemplar in exemplars:
        assert sample.labels["stage"] == "total"
        assert exemplar.value <= float(sample.labels["le"])
    assert "nv_inference_request_success" in {family.name for family in families}


def test_tritons_spans_hang_below_the_stage_that_asked_it(traced: Traced) -> None:
    # Last, because of more calls. Of several: once the first one's spans were never sent by Triton, and later ones' were.
    for seed in range(10, 13):
        _infer(traced.server, seed, _SEVERAL, "01")

    def complete(spans: list[Span]) -> bool:
        upstream = {span.span_id for span in spans if span.name == "upstream"}
        below = {span.name for span in spans if span.parent_span_id in upstream}
        return "InferRequest" in below and {"digits", "compute"} <= {span.name for span in spans}

    traced.collector.of(_SEVERAL, complete)


def _calls(server: Server, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    while True:
        lines = [json.loads(line) for line in server.log.splitlines() if '"event": "call"' in line]
        if len(lines) >= count:
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)
