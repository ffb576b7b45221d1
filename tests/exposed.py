"""What a server's metrics say, and the wait for them to say it."""

import time
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]

_WAIT_S = 30.0


def scraped(address: str) -> Samples:
    """Every sample by name and labels."""
    samples: Samples = {}
    for family in text_string_to_metric_families(httpx.get(f"http://{address}/metrics").text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over what its labels leave open."""
    wanted = set(labels.items())
    return sum(value for found, value in samples.get(name, {}).items() if wanted <= set(found))


def by(samples: Samples, name: str, label: str, **labels: str) -> dict[str, float]:
    """Likewise, by one label; what is nought is left out."""
    wanted, sums = set(labels.items()), dict[str, float]()
    for found, value in samples.get(name, {}).items():
        if wanted <= set(found) and value:
            sums[dict(found)[label]] = sums.get(dict(found)[label], 0) + value
    return sums


def scraped_when(address: str, true: Callable[[Samples], bool]) -> Samples:
    """The samples, when they are as they should be."""
    deadline = time.monotonic() + _WAIT_S
    while not true(samples := scraped(address)):
        assert time.monotonic() < deadline, f"the metrics of {address} are not as they should be"
        time.sleep(0.05)
    return samples
