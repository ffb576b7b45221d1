"""What a small request costs the gateway as callers, models and keys become many: `python -m loadtest.bench.growth`.

Processor time of the gateway for a request of workload S, many over few, in interleaved runs. Written to build/bench.json beside
the figures of `make bench`.
"""

import argparse
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from contract.model_config import from_pbtxt, to_pbtxt
from loadtest.bench import drivers
from loadtest.bench.drivers import Endpoint
from loadtest.bench.servers import running_gateway
from loadtest.bench.workloads import TINY, all_workloads

_ROOT = Path(__file__).parents[2]
_BUILD = Path("build")
_CONCURRENCIES = (1, 16, 64, 256)
_USUAL = 16
_MODELS = 50
_KEYS = 100_000
_WARM_UP_S = 3.0

# All that a key has but for its id, from the one that is there.
_MANY_KEYS = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
    INSERT INTO api_keys SELECT {columns} FROM api_keys, numbers WHERE name = ?
"""


def main() -> None:
    """Measure, and add the figures to build/bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="interleaved; the median counts")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = _repository(Path(folder, "few"), 1)
        many = _repository(Path(folder, "many"), _MODELS)
        with _gateway(few, Path(folder, "a")) as usual:
            by_concurrency = _measured(
                {str(each): _at(usual, each, arguments.seconds) for each in _CONCURRENCIES}, arguments.runs
            )
            with _gateway(few, Path(folder, "b"), keys=_KEYS) as with_keys:
                by_keys = _compared(usual, with_keys, arguments)
            with _gateway(many, Path(folder, "c")) as with_models:
                by_models = _compared(usual, with_models, arguments)
    figures = {
        "growth_concurrency": by_concurrency[str(max(_CONCURRENCIES))] / by_concurrency[str(min(_CONCURRENCIES))],
        "growth_models": by_models["many"] / by_models["few"],
        "growth_keys": by_keys["many"] / by_keys["few"],
    }
    path = _BUILD / "bench.json"
    _BUILD.mkdir(exist_ok=True)
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **figures}, indent=2) + "\n")
    print(json.dumps({**figures, "ms": {"callers": by_concurrency, "models": by_models, "keys": by_keys}}, indent=2))


def _repository(path: Path, models: int) -> Path:
    """The demo's model of tensors, and as many others like it as there are to be, each in one instance."""
    source = _ROOT / "model_repository" / TINY
    for number in range(models):
        name = f"{TINY}{number}" if number else TINY
        shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("manifest.json", "configs"))
        config = from_pbtxt((source / "config.pbtxt").read_text())
        config.name = name
        config.instance_group[0].count = 2 if name == TINY else 1
        (path / name / "config.pbtxt").write_text(to_pbtxt(config))
    return path


@contextmanager
def _gateway(repository: Path, state: Path, keys: int = 0) -> Iterator[Endpoint]:
    with running_gateway(repository, state, 1) as (gateway, _):
        if keys:
            _add_keys(state / "tidegate.db", keys)
        drivers.over_grpc(gateway, all_workloads()["S"], _USUAL, _WARM_UP_S)
        yield gateway


def _add_keys(database: Path, keys: int) -> None:
    with sqlite3.connect(database, timeout=60) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(api_keys)")]
        columns = ", ".join("printf('%012d', n)" if name == "key_id" else name for name in names)
        (first,) = connection.execute("SELECT name FROM api_keys LIMIT 1").fetchone()
        connection.execute(_MANY_KEYS.format(columns=columns), (keys, first))
    connection.close()


def _at(gateway: Endpoint, concurrency: int, seconds: float) -> Callable[[], float]:
    """Measures the gateway's milliseconds of processor time a request."""
    workload = all_workloads()["S"]
    return lambda: drivers.over_grpc(gateway, workload, concurrency, seconds).cpu_ms["gateway"]


def _compared(few: Endpoint, many: Endpoint, arguments: argparse.Namespace) -> dict[str, float]:
    measures = {name: _at(each, _USUAL, arguments.seconds) for name, each in (("few", few), ("many", many))}
    return _measured(measures, arguments.runs)


def _measured(measures: dict[str, Callable[[], float]], runs: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(runs):
        for name, measure in measures.items():
            samples[name].append(measure())
            drivers.settle()
    return {name: median(values) for name, values in samples.items()}


if __name__ == "__main__":
    main()
