"""The dashboards as the files that Grafana reads."""

import json
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import batching, latency, limits, overview, rollouts

FOLDER = Path(__file__).parent / "grafana" / "dashboards"

DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview.build,
    "latency": latency.build,
    "batching": batching.build,
    "limits": limits.build,
    "rollouts": rollouts.build,
}


def as_json(dashboard: Dashboard) -> str:
    """Its panels are numbered, because Grafana would number them anew each time it reads them."""
    for number, panel in enumerate(dashboard.panels or [], start=1):
        panel.id_val = number
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(dashboard)), indent=1, sort_keys=True) + "\n"
