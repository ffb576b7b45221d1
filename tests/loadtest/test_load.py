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
rates = [float(sys.argv[1]) * (0.8 + 0.05 * step) for step in range(9)]
with driver(settings) as made:
    made.run(50, 0.5)
    print(json.dumps([rate for rate in rates if not slo.broken(made.run(rate, settings.duration_s))]))
"""


def _load(server: Server, out: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {f"TIDEGATE_LOAD_{name}": value for name, value in settings.items()}
    return tidegate(
        "load", "--out", out, "--warmup", "0.5", *options, environment={**server.environment, **environment}
    )


def _run(out: Path) -> dict[str, Any]:
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert isinstance(run, dict)
    return run


def test_the_servers_parts_sum_to_the_clients_median(server: Server, tmp_path: Path) -> None:
    done = _load(server, tmp_path, "--rate", "100", "--duration", "3", "--slo", "p99=5s")
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


def test_tenants_share_a_load_of_two_processes_and_every_answer_is_counted_once(server: Server, tmp_path: Path) -> None:
    tenants = [
        {"name": "shop", "key": server.key, "share": 3, "kind": "encoded", "batch_size": 2},
        {"name": "archive", "key": server.key, "share": 1, "kind": "classify"},
        {"name": "stranger", "key": "tg_none_none", "share": 1, "kind": "rest"},
    ]
    (tmp_path / "tenants.json").write_text(json.dumps(tenants))
    options = ("--rate", "100", "--duration", "2", "--workers", "2", "--tenants", str(tmp_path / "tenants.json"))
    done = _load(server, tmp_path, *options, "--slo", "p50=5s,errors=1%")
    assert done.returncode == 1 and "digits takes: UNAUTHENTICATED" in done.stderr
    tenants[2]["key"] = server.key
    (tmp_path / "tenants.json").write_text(json.dumps(tenants))
    assert _load(server, tmp_path, *options).returncode == 0
    run = _run(tmp_path)
    assert len(run["client_cpu_s"]) == 2
    counts = {name: tenant["outcomes"]["ok"] for name, tenant in run["tenants"].items()}
    assert sum(counts.values()) == run["intended"] and min(counts.values()) > 0
    assert counts["shop"] > counts["archive"] + counts["stranger"] / 2
    assert not any("others used it too" in note for note in run["notes"])


def test_a_server_that_stalls_cannot_hide(paced: Server, tmp_path: Path) -> None:
    options = ("--model", "stalling", "--arrivals", "constant", "--rate", "50", "--duration", "3", "--connections", "4")
    done = _load(paced, tmp_path, *options, "--slo", "p99=500ms,errors=1%", MAX_OUTSTANDING="32")
    assert done.returncode == 1
    run = _run(tmp_path)
    # While one request took STALL_S, as many arrived as at any other time; those over the bound were never sent.
    assert run["intended"] == 150
    assert 0 < run["outcomes"]["not sent"] <= 50 - 32 + 4
    assert run["outcomes"]["ok"] + run["outcomes"]["not sent"] == 150
    # One request in 150 stalls; one that begins half a second later waits for the other half.
    assert run["p99_ms"] > 0.8 * STALL_S * 1_000 and run["p90_ms"] > 0.4 * STALL_S * 1_000
    assert "without a good answer" not in done.stderr and "have no good answer" in done.stdout


def test_find_max_finds_the_capacity_that_a_sweep_finds(paced: Server, tmp_path: Path) -> None:
    slo, settings = "p80=60ms", {"MODEL": "paced", "ARRIVALS": "constant", "DURATION_S": "0.8", "PRECISION": "0.08"}
    done = _load(paced, tmp_path, "--find-max", "--slo", slo, "--rate", "60", **settings)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["max_rate"]
    names = {"GRPC": paced.grpc, "KEY": paced.key, "SLO": slo, **settings}
    environment = {
        **os.environ,
        "GEVENT_BACKEND": "select",
        **{f"TIDEGATE_LOAD_{name}": value for name, value in names.items()},
    }
    command = [sys.executable, "-c", _SWEEP, str(found)]
    swept = json.loads(subprocess.check_output(command, text=True, cwd=ROOT, env=environment))
    assert max(swept) == pytest.approx(found, rel=0.10)
