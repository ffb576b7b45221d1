"""`python -m monitoring`: write the dashboards that Grafana reads."""

from monitoring.written import DASHBOARDS, FOLDER, as_json

for name, build in DASHBOARDS.items():
    (FOLDER / f"{name}.json").write_text(as_json(build()))
