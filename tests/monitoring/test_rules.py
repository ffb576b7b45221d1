"""The rules, by Prometheus's own tool: they are well formed, and fire where they must and nowhere else."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import ROOT

RULES = sorted((ROOT / "monitoring" / "prometheus").glob("*.rules.yml"))
_CASES = Path(__file__).parent / "alerts.test.yml"


def alerts() -> list[dict[str, Any]]:
    """Every alert."""
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    rules = [rule for document in documents for group in document["groups"] for rule in group["rules"]]
    return [rule for rule in rules if "alert" in rule]


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    _promtool("check", "rules", "--lint-fatal", *RULES)


def test_alerts_fire_where_they_must_and_nowhere_else() -> None:
    _promtool("test", "rules", _CASES)


def test_every_alert_has_a_case() -> None:
    cases = yaml.safe_load(_CASES.read_text())["tests"]
    expected: dict[str, list[bool]] = {case["alertname"]: [] for test in cases for case in test["alert_rule_test"]}
    for case in (case for test in cases for case in test["alert_rule_test"]):
        expected[case["alertname"]].append(bool(case["exp_alerts"]))
    assert {alert["alert"] for alert in alerts()} == {name for name, fires in expected.items() if any(fires)}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_has_its_page(alert: dict[str, Any]) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\S+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings
    assert alert["labels"]["severity"] in {"page", "ticket"}
