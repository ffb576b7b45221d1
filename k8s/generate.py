"""Write components/monitoring/generated from monitoring/: the rules as a PrometheusRule, each dashboard as a ConfigMap.

`make k8s-monitoring` runs it; a test says when that was forgotten.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
GENERATED = Path("k8s/components/monitoring/generated")
_RULES = "monitoring/prometheus"
_DASHBOARDS = "monitoring/grafana/dashboards"
# Grafana's sidecar finds them by this label, the operator finds rules by none.
_DASHBOARD_LABELS = {"grafana_dashboard": "1"}
_HEADER = "# Written by k8s/generate.py from {source}: change it there, then `make k8s-monitoring`.\n"


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that a changed dashboard is a readable change."""


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _as_block)


def manifests(root: Path) -> dict[str, str]:
    """The files of `GENERATED`, by name.

    Args:
        root: The project's.
    """
    files = {"rules.yaml": _text(_RULES, _rule(root / _RULES))}
    for path in sorted((root / _DASHBOARDS).glob("*.json")):
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"dashboard-{path.stem.replace('_', '-')}", "labels": _DASHBOARD_LABELS},
            "data": {path.name: path.read_text()},
        }
        files[f"dashboard-{path.stem}.yaml"] = _text(f"{_DASHBOARDS}/{path.name}", config_map)
    resources = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(files),
    }
    return {**files, "kustomization.yaml": _text("monitoring", resources)}


def _rule(directory: Path) -> dict[str, Any]:
    # Cases for `promtool test rules` lie beside the rules, and have no groups.
    documents = (yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*.y*ml")))
    groups = [group for document in documents for group in document.get("groups", ())]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tidegate"},
        "spec": {"groups": groups},
    }


def _text(source: str, document: dict[str, Any]) -> str:
    return _HEADER.format(source=source) + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000)


if __name__ == "__main__":
    directory = ROOT / GENERATED
    directory.mkdir(parents=True, exist_ok=True)
    wanted = manifests(ROOT)
    for stale in {path.name for path in directory.iterdir()} - wanted.keys():
        (directory / stale).unlink()
    for name, content in wanted.items():
        (directory / name).write_text(content)
    sys.stdout.write(f"{len(wanted)} files in {GENERATED}\n")
