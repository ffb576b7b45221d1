"""Every query of every panel, rule and alert, asked of a real Prometheus that scrapes the real server under Locust's load."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from monitoring.written import DASHBOARDS, FOLDER, as_json
from tests.monitoring import prometheus_server
from tests.monitoring.prometheus_server import Prometheus
from tests.monitoring.test_rules import RULES
from tests.running import ROOT, Server

# What the server here does not say, and why; recorded.prom says it in its place.
RECORDED = {
    **dict.fromkeys(("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"), "there is no GPU"),
    **dict.fromkeys(("nv_gpu_power_usage", "nv_gpu_power_limit"), "there is no GPU"),
    **dict.fromkeys(("tidegate_retries_total", "tidegate_hedges_total"), "no replica fails or is slow"),
    "tidegate_replica_ejections_total": "there is one replica",
    "tidegate_concurrency_limit_moves_total": "the load is too short to move the limit",
    **dict.fromkeys(
        ("tidegate_traffic_weight", "tidegate_shadow_disagreements_total", "tidegate_canary_rollbacks_total"),
        "the model has one version",
    ),
    "tidegate_cache_rejected_total": "there is no Redis",
    "tidegate_certificate_expiry_timestamp_seconds": "the server has no certificate",
}
_LOAD_S = 8
_LAST_RECORDED = ("tidegate:compute_seconds:mean_5m", 'tidegate:slo_errors:ratio_rate3d{slo="latency"}')
_METRIC = re.compile(r"(?<![\w\"$~=.:])((?:tidegate|nv)_\w+|tidegate:[\w:]+|up)(?=[{\[\s)]|$)")


def _panels() -> list[Any]:
    """(dashboard, panel, expression) of every query."""
    return [
        pytest.param(target["expr"], id=f"{path.stem}: {panel['title']}: {target['refId']}")
        for path in sorted(FOLDER.glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def _rules(kind: str) -> list[Any]:
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    rules = [rule for document in documents for group in document["groups"] for rule in group["rules"] if kind in rule]
    return [
        pytest.param(rule, id=f"{rule[kind]} {rule['labels'].get('slo', '')}" if "labels" in rule else rule[kind])
        for rule in rules
    ]


def _with_values(expr: str) -> str:
    """With what Grafana puts in place of its variables."""
    return expr.replace("$__rate_interval", "1m").replace("$model", ".*")


@pytest.fixture(scope="module")
def prometheus(
    server: Server, tmp_path_factory: pytest.TempPathFactory, test_files: list[bytes]
) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    with _recorded() as recorded:
        targets = {"tidegate": server.metrics, "recorded": recorded}
        with prometheus_server.running(directory, targets, RULES) as started:
            _load(server, directory, test_files[0])
            for series in _LAST_RECORDED:
                started.when(partial(started.query, series), f"{series} is not recorded")
            yield started


@contextmanager
def _recorded() -> Iterator[str]:
    """Where recorded.prom is served as if it were a server's metrics."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (Path(__file__).parent / "recorded.prom").read_bytes()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler)) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def _load(server: Server, directory: Path, image: bytes) -> None:
    """Tensors and photographs, hits and misses, of a key without limits and of a tenant that has used up its own."""
    with httpx.Client(base_url=f"http://{server.http}/admin/v1", headers=server.headers) as admin:
        admin.post("/tenants", json={"name": "observed", "limits": {"images_per_day": 1}}).raise_for_status()
        limited = admin.post("/keys", json={"name": "observed", "tenant": "observed"}).raise_for_status().json()
        tenants = [
            {"name": "tensors", "key": server.key, "share": 8},
            {"name": "photographs", "key": server.key, "kind": "classify", "share": 2},
            {"name": "limited", "key": limited["key"]},
        ]
        (directory / "tenants.json").write_text(json.dumps(tenants))
        environment = {
            "TIDEGATE_LOAD_GRPC": server.grpc,
            "TIDEGATE_LOAD_HTTP": server.http,
            "TIDEGATE_LOAD_METRICS": server.metrics,
            "TIDEGATE_LOAD_KEY": server.key,
            "TIDEGATE_LOAD_TENANTS": str(directory / "tenants.json"),
            "TIDEGATE_LOAD_DISTINCT": "16",
        }
        command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
        with (directory / "locust").open("w") as log:
            locust = subprocess.Popen(
                [*command, "-u", "4", "-r", "4", "-t", f"{_LOAD_S}s"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
            # Every request of Locust's is another one: the hits are of these.
            while locust.poll() is None:
                again = httpx.post(
                    f"http://{server.http}/v1/models/digits/classify", content=image, headers=server.headers
                )
                again.raise_for_status()
                time.sleep(0.1)
        assert "limited" in (directory / "locust").read_text()
        admin.delete(f"/keys/{limited['key_id']}").raise_for_status()


@pytest.mark.parametrize("expr", _panels())
def test_a_panel_has_data(prometheus: Prometheus, expr: str) -> None:
    assert prometheus.query(_with_values(expr)) != []


@pytest.mark.parametrize("rule", _rules("record"))
def test_a_recording_rule_records(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    assert prometheus.query(rule["expr"]) != []
    labels = ",".join(f'{name}="{value}"' for name, value in rule.get("labels", {}).items())
    assert prometheus.query(f"{rule['record']}{{{labels}}}") != []


@pytest.mark.parametrize("rule", _rules("alert"))
def test_an_alert_reads_series_that_are_there(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    """That it fires where it must is promtool's to show: here nothing is wrong."""
    prometheus.query(rule["expr"])
    read = set(_METRIC.findall(rule["expr"]))
    assert read
    assert [metric for metric in read if not prometheus.query(metric)] == []


def test_calls_are_in_a_native_histogram_too(prometheus: Prometheus) -> None:
    of = 'model="digits", outcome="ok"'
    both = f"""
        sum(histogram_count(tidegate_call_duration_seconds{{{of}}}))
        == sum(tidegate_stage_duration_seconds_count{{stage="total", {of}}})
    """
    prometheus.when(partial(prometheus.query, both), "the two counts are never the same")
    (native,) = prometheus.query(f"histogram_quantile(0.5, sum(tidegate_call_duration_seconds{{{of}}}))")
    classic = f'sum by (le) (tidegate_stage_duration_seconds_bucket{{stage="total", {of}}})'
    (estimated,) = prometheus.query(f"histogram_quantile(0.5, {classic})")
    # Each is in a bucket that holds the median: the classic ones reach up to twice as far as they begin, the native 1.19 times.
    assert 0.4 < float(native["value"][1]) / float(estimated["value"][1]) < 2.5


def test_what_was_recorded_is_what_is_listed() -> None:
    recorded = re.findall(r"^(\w+)[{ ]", (Path(__file__).parent / "recorded.prom").read_text(), re.MULTILINE)
    assert set(recorded) == set(RECORDED)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_as_it_is_built(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == as_json(DASHBOARDS[name]()), "run `python -m monitoring`"


def test_every_panel_says_what_it_shows() -> None:
    panels = [
        panel
        for path in sorted(FOLDER.glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        if panel["type"] != "row"
    ]
    assert len(panels) > 40
    assert [panel["title"] for panel in panels if len(panel.get("description", "")) < 40] == []
