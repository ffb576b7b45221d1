"""`tidegate traffic`, on a database of its own; what the gateway makes of a policy is in tests/gateway/test_traffic.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.running import tidegate


class Traffic:
    """`tidegate traffic` for the model `digits`."""

    def __init__(self, state_dir: Path) -> None:
        self.environment = {"TIDEGATE_STATE_DIR": str(state_dir)}

    def do(self, command: str, *arguments: str) -> str:
        """What it prints."""
        ended = tidegate("traffic", command, *arguments, environment=self.environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def policy(self) -> dict[str, Any]:
        """As `show` prints it."""
        shown: dict[str, Any] = json.loads(self.do("show", "digits"))
        return shown


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path / "state")


def test_a_canary_is_named_given_a_share_guarded_and_rolled_back(traffic: Traffic) -> None:
    traffic.do("alias", "digits", "stable", "1")
    traffic.do("alias", "digits", "canary", "2")
    told = traffic.do("weights", "digits", "stable=95", "canary=5", "--sticky", "key")
    assert "shares 1=0.95 2=0.05, aliases stable=1 canary=2" in told
    traffic.do("guard", "digits", "--min-sample", "200", "--max-disagreement", "0.01")
    policy = traffic.policy()
    assert policy["sticky"] == "key"
    assert (policy["guard"]["min_sample"], policy["guard"]["max_disagreement"]) == (200, 0.01)
    traffic.do("rollback", "digits")
    assert traffic.policy()["weights"] == {"stable": 100, "canary": 0}
    listed = traffic.do("list").splitlines()[1].split()
    assert listed[:5] == ["digits", "1=1", "2=0", "stable=1", "canary=2"]
    logged = tidegate("audit", environment=traffic.environment).stdout.splitlines()[1]
    assert "traffic.rollback" in logged and "digits 2: by hand" in logged


def test_a_canary_is_promoted_and_the_policy_removed(traffic: Traffic, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"aliases": {"stable": 1, "canary": 2}, "weights": {"stable": 9, "canary": 1}}')
    traffic.do("set", "digits", str(file))
    traffic.do("shadow", "digits", "3", "--share", "0.5")
    traffic.do("pin", "digits", "abc123", "2")
    traffic.do("promote", "digits")
    policy = traffic.policy()
    assert (policy["aliases"], policy["weights"]) == ({"stable": 2}, {"stable": 100})
    assert (policy["shadow"], policy["pins"]) == ({"version": 3, "share": 0.5}, {"abc123": 2})
    traffic.do("remove", "digits")
    assert len(traffic.do("list").splitlines()) == 1
