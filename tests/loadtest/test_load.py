"""`tidegate load` against real servers."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loadtest.conftest import STALL_S
from tests.running import ROOT, Server, tidegate

# Each rate of a sweep once, in one process that knows nothing of the search.
_SWEEP = """
import json, sys
from loadtest.driver import driver
from loadtest.settings import LoadSettings
from loadtest.slo import Slo

settings = LoadSettings()
slo = Slo.parse(settings.slo)
rates = [float(sys.argv[1]) * (0.82 + 0.09 * step) for step in range(5)]
with driver(settings) as made:
    made.run(50, 0.5)
    print(json.dumps([rate for rate in rates if not slo.broken(made.run(rate, settings.duration_s))]))
"""


def _load(server: Server, out: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {f"TIDEGATE_LOAD_{name}": value for name, value in settings.items()}
    return tidegate(
        "load", "--out", out, "--warmup", "0.2", *options, environment={**server.environment, **environment}
    )


def _run(out: Path) -> dict[str, Any]:
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert isinstance(run, dict)
    return run


def test_the_servers_parts_sum_to_the_clients_median(server: Server, tmp_path: Path) -> None:
    done = _load(server, tmp_path, "--rate", "100", "--duration", "2", "--slo", "p99=5s")
    assert done.returncode == 0, done.stderr
    run = _run(tmp_path)
    assert run["outcomes"] == {"ok": run["intended"]}
    median, _ = run["parts"]
    assert median["percentile"] == 50 and median["client_ms"] == run["p50_ms"]
    assert set(median["parts_ms"]) == {
        "client", "network", "gateway", "Triton queue", "Triton compute", "to and from Triton",
    }  # fmt: skip
    assert sum(median["parts_ms"].values()) == pytest.approx(run["p50_ms"], rel=0.10)
    # One image a request, and every image in one batch.
    assert sum(int(size) * count for size, count in run["batches"].items()) == run["intended"]
    report = (tmp_path / "report.html").read_text()
    assert all(
        f'<figure id="{name}"><svg' in report for name in ("latency", "requests", "throughput", "parts", "batches")
    )
    assert " src=" not in report and "<link" not in report
    with (tmp_path / "seconds.csv").open() as file:
        assert sum(int(row["answered"]) for row in csv.DictReader(file)) == run["intended"]


def test_a_key_that_is_refused_ends_a_load_before_it_begins(server: Server, tmp_path: Path) -> None:
    tenants = [{"name": "shop", "key": server.key}, {"name": "stranger", "key": "tg_none_none", "kind": "encoded"}]
    (tmp_path / "tenants.json").write_text(json.dumps(tenants))
    done = _load(server, tmp_path, "--tenants", str(tmp_path / "tenants.json"))
    assert done.returncode == 1 and "does not say what digits_encoded takes: UNAUTHENTICATED" in done.stderr
    assert "tg_none" not in done.stderr and not (tmp_path / "results.json").exists()


def test_a_server_that_stalls_cannot_hide(paced: Server, tmp_path: Path) -> None:
    options = (
        "--model",
        "stalling",
        "--arrivals",
        "constant",
        "--rate",
        "100",
        "--duration",
        "1.5",
        "--connections",
        "4",
    )
    done = _load(paced, tmp_path, *options, "--slo", "p99=250ms,errors=1%", MAX_OUTSTANDING="32")
    assert done.returncode == 1 and "have no good answer" in done.stdout
    run = _run(tmp_path)
    # While one request took STALL_S, as many were due as at any other time; those over the bound were never sent.
    during = round(STALL_S * 100)
    assert run["intended"] == 150
    assert 0 < run["outcomes"]["not sent"] < during
    assert run["outcomes"]["ok"] + run["outcomes"]["not sent"] == 150
    # One request of 150 stalls, and those due in the time after it wait: a client that waits with it would see one.
    assert run["p99_ms"] > 0.8 * STALL_S * 1_000 and run["p90_ms"] > 0.4 * STALL_S * 1_000


def test_find_max_finds_the_capacity_that_a_sweep_finds(paced: Server, tmp_path: Path) -> None:
    settings = {"MODEL": "paced", "ARRIVALS": "constant", "SLO": "p80=120ms", "DURATION_S": "0.8", "PRECISION": "0.08"}
    assert _found(paced, tmp_path, settings) == pytest.approx(_swept(paced, tmp_path, settings), rel=0.10)


def _found(server: Server, out: Path, settings: dict[str, str]) -> float:
    done = _load(server, out, "--find-max", "--rate", "40", **settings)
    assert done.returncode == 0, done.stderr
    rate = json.loads((out / "results.json").read_text())["max_rate"]
    assert isinstance(rate, float)
    return rate


def _swept(server: Server, out: Path, settings: dict[str, str]) -> float:
    """The highest rate that held, of a sweep around the one that was found."""
    found = json.loads((out / "results.json").read_text())["max_rate"]
    names = {"GRPC": server.grpc, "KEY": server.key, **settings}
    environment = {f"TIDEGATE_LOAD_{name}": value for name, value in names.items()} | {"GEVENT_BACKEND": "select"}
    command = [sys.executable, "-c", _SWEEP, str(found)]
    output = subprocess.check_output(command, text=True, cwd=ROOT, env={**os.environ, **environment})
    return max(float(rate) for rate in json.loads(output))
