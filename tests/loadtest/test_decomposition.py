import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from loadtest.decomposition import decompose
from loadtest.measured import OK, Measured
from loadtest.server_side import ServerSide, Stage, read_metrics

_TRITON = """
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 100
nv_inference_request_success{model="m",version="2"} 100
nv_inference_request_success{model="other",version="1"} 7
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="m",version="1"} 400000
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="m",version="1"} 2000000
# TYPE nv_inference_compute_output_duration_us counter
nv_inference_compute_output_duration_us{model="m",version="1"} 200000
"""


def _exposition(calls: int) -> str:
    """Calls that each take 1 ms in `auth` and 15 ms in `upstream`, half of another model, and one that failed."""
    registry = CollectorRegistry()
    durations = Histogram(
        "tidegate_stage_duration_seconds", "", ("stage", "model", "version", "outcome"), registry=registry,
        buckets=(0.002, 0.01, 0.02, 0.05),
    )  # fmt: skip
    for _ in range(calls):
        for stage, seconds in (("auth", 0.001), ("upstream", 0.015), ("total", 0.0165)):
            durations.labels(stage, "m", "1", "ok").observe(seconds)
            durations.labels(stage, "other", "1", "ok").observe(9)
    durations.labels("total", "m", "1", "internal").observe(9)
    return generate_latest(registry).decode()


def _read(calls: int, triton: str = _TRITON) -> ServerSide:
    return read_metrics(_exposition(calls) + triton, frozenset({"m"}))


def _client(calls: int, latency_s: float = 0.018) -> Measured:
    run = Measured(10, calls / 10)
    for _ in range(calls):
        run.record("a", OK, 0, 0.0005, latency_s, 1)
    return run


def test_the_parts_of_a_median_are_those_of_the_stages() -> None:
    found = decompose(_client(200), _read(200), 0.5)
    assert found is not None
    assert found.client_s == pytest.approx(0.018, rel=0.01)
    # Triton's means: 2 ms in the queue and 11 ms of compute.
    assert found.parts["gateway"] == pytest.approx(0.0015, rel=0.01)
    assert found.parts["Triton compute"] == pytest.approx(0.011, rel=0.01)
    assert found.parts["to and from Triton"] == pytest.approx(0.002, rel=0.01)
    # Of `upstream` and `total` the bucket is known, 10 to 20 ms: both are taken to be 15.
    assert found.parts["Triton queue"] == pytest.approx(0.002, abs=0.0005)
    assert found.gap == pytest.approx(0, abs=0.10)
    assert found.sentence().startswith("p50: 17.9 ms = ")


def test_a_percentile_is_never_over_that_of_what_contains_it() -> None:
    found = decompose(_client(200, latency_s=0.0125), _read(200), 0.5)
    assert found is not None and found.parts["network"] == 0
    assert found.gap == pytest.approx(0, abs=0.15)


def test_what_was_there_before_a_run_is_not_of_it() -> None:
    during = _read(300).since(_read(100))
    assert during.calls == 200
    assert during.stages["upstream"].quantile(0.5, 200) == pytest.approx(0.015)
    assert during.triton["requests"] == 0


def test_without_tritons_figures_its_part_is_one() -> None:
    found = decompose(_client(200), _read(200, triton=""), 0.5)
    assert found is not None and set(found.parts) == {"client", "network", "gateway", "Triton"}


def test_a_run_that_the_server_did_not_count_has_no_parts() -> None:
    assert decompose(_client(200), ServerSide(), 0.5) is None
    assert decompose(Measured(1, 1), _read(200), 0.5) is None


def test_calls_that_skip_a_stage_take_no_time_in_it() -> None:
    stage = _read(50).stages["upstream"]
    assert stage.quantile(0.4, 100) == 0
    assert stage.quantile(0.9, 100) > 0.01
    assert Stage().quantile(0.5, 10) == 0
