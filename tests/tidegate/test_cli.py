import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import REPOSITORY, ROOT, Server, tidegate

_SEVEN = ROOT / "examples" / "seven.png"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"TIDEGATE_STATE_DIR": str(tmp_path / "state"), "TIDEGATE_MODEL_REPOSITORY": str(REPOSITORY)}


def test_help_names_every_command(environment: dict[str, str]) -> None:
    shown = tidegate("--help", environment=environment)
    assert shown.returncode == 0
    for command in (
        "up",
        "train",
        "export",
        "models",
        "keys",
        "tenants",
        "audit",
        "classify",
        "traffic",
        "doctor",
        "triton",
        "migrate",
    ):
        assert f" {command} " in shown.stdout


def test_version(environment: dict[str, str]) -> None:
    assert tidegate("--version", environment=environment).stdout.startswith("tidegate 0.")


def test_serving_does_not_import_torch() -> None:
    code = "import sys, tidegate.up, gateway.server; print([m for m in ('torch', 'lightning', 'mlflow') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "[]"


def test_keys_are_made_listed_and_revoked(environment: dict[str, str]) -> None:
    made = tidegate("keys", "create", "team a", environment=environment)
    assert made.returncode == 0
    _, key_id, secret = made.stdout.strip().split("_")
    listed = tidegate("keys", "list", environment=environment).stdout
    assert key_id in listed and "team a" in listed and "infer read" in listed and secret not in listed
    assert tidegate("keys", "revoke", key_id, environment=environment).returncode == 0
    assert "revoked" in tidegate("keys", "list", environment=environment).stdout
    again = tidegate("keys", "revoke", key_id, environment=environment)
    assert again.returncode == 2 and key_id in again.stderr


def test_a_key_has_a_tenant_models_limits_and_an_end(environment: dict[str, str]) -> None:
    assert tidegate("tenants", "create", "acme", "--images-per-day", "1000", environment=environment).returncode == 0
    wishes = ("--tenant", "acme", "--model", "digits", "--model", "cats-*", "--requests-per-s", "2.5", "--days", "30")
    made = tidegate("keys", "create", "team a", *wishes, environment=environment)
    assert made.returncode == 0, made.stderr
    key_id = made.stdout.split("_")[1]
    (row,) = [line for line in tidegate("keys", "list", environment=environment).stdout.splitlines() if key_id in line]
    for words in ("acme", "digits cats-*", "2.5 requests/s", "until 20"):
        assert words in row
    assert "in flight" in tidegate("keys", "limit", key_id, "--max-in-flight", "4", environment=environment).stdout
    tenants = tidegate("tenants", "list", environment=environment).stdout
    assert "acme" in tenants and "1000 images/day" in tenants


def test_a_rotated_key_keeps_its_id_and_acts_are_logged(environment: dict[str, str]) -> None:
    _, key_id, secret = tidegate("keys", "create", "[/a]", environment=environment).stdout.strip().split("_")
    rotated = tidegate("keys", "rotate", key_id, "--overlap-hours", "2", environment=environment)
    _, again, renewed = rotated.stdout.strip().split("_")
    assert again == key_id and renewed != secret
    assert "old secret is good until" in rotated.stderr
    assert "[/a]" in tidegate("keys", "list", environment=environment).stdout
    lines = tidegate("audit", environment=environment).stdout.splitlines()
    assert [line.split()[2:] for line in lines[1:]] == [
        [actor, action, key_id, "ok"]
        for actor, action in zip([lines[1].split()[2]] * 2, ["keys.rotate", "keys.create"], strict=True)
    ]
    assert lines[1].split()[2].startswith("cli:")
    assert secret not in "".join(lines) and renewed not in "".join(lines)


def test_models_are_listed_without_a_server(environment: dict[str, str]) -> None:
    lines = tidegate("models", "list", environment=environment).stdout.splitlines()
    digits = next(line.split() for line in lines if line.startswith("digits "))
    assert digits[1:3] == ["1", "openvino"] and float(digits[3].rstrip("%")) >= 98


def test_images_are_classified(server: Server, tmp_path: Path) -> None:
    shown = server.command("classify", _SEVEN, _SEVEN)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [["seven.png", "7"]] * 2
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    mixed = server.command("classify", _SEVEN, broken)
    assert mixed.returncode == 1
    assert "not a JPEG, PNG or WebP image" in " ".join(mixed.stdout.split())


def test_doctor_finds_nothing_wrong(environment: dict[str, str]) -> None:
    ports = {f"TIDEGATE_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    found = tidegate("doctor", environment={**environment, **ports})
    assert found.returncode == 0, found.stdout
    assert "✗" not in found.stdout


def test_doctor_names_a_configuration_that_does_not_parse(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "models" / "bad" / "1").mkdir(parents=True)
    (tmp_path / "models" / "bad" / "config.pbtxt").write_text("backend: 3")
    settings = {**environment, "TIDEGATE_MODEL_REPOSITORY": str(tmp_path / "models")}
    ports = {f"TIDEGATE_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    found = tidegate("doctor", environment={**settings, **ports})
    assert found.returncode == 1
    assert "config.pbtxt:1:10" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "status", "words"),
    [
        (["keys", "create", "x", "--scope", "root"], {}, 2, "'root' is not one of infer, read, admin"),
        (["keys", "create", "x", "--tenant", "absent"], {}, 2, "no tenant 'absent'"),
        (["keys", "create", "x", "--model", "a b"], {}, 2, "'a b'"),
        (["keys", "rotate", "absent"], {}, 2, "'absent'"),
        (["tenants", "create", "No!"], {}, 2, "a-z"),
        (["tenants", "disable", "absent"], {}, 2, "'absent'"),
        (["keys", "create", "x", "--tier", "best"], {}, 2, "'best' is not one of high, standard, low"),
        (["traffic", "weights", "digits", "canary=5"], {}, 2, "'canary' is neither an alias nor a version"),
        (["traffic", "weights", "digits", "1=much"], {}, 2, "'1=much' is not NAME=NUMBER"),
        (["traffic", "promote", "digits"], {}, 2, "'digits' has no canary"),
        (["traffic", "show", "digits"], {}, 2, "'digits' has no traffic policy"),
        (["classify", "absent.png"], {}, 2, "absent.png: no such file"),
        (["classify", str(_SEVEN)], {}, 1, "start one with `tidegate up`"),
        (["export", "absent.ckpt"], {}, 2, "absent.ckpt"),
        (["export", str(_SEVEN)], {}, 2, "seven.png"),
        (["up"], {"TIDEGATE_AUTH__MODE": "off", "TIDEGATE_HOST": "0.0.0.0"}, 2, "must be loopback"),
        (["up"], {"TIDEGATE_MODEL_REPOSITORY": "absent"}, 2, "TIDEGATE_MODEL_REPOSITORY"),
        (["up"], {"TIDEGATE_HTTP_PORT": "eight"}, 2, "TIDEGATE_HTTP_PORT"),
        (["up"], {"TIDEGATE_CACHE__TTL_S": "-1"}, 2, "TIDEGATE_CACHE__TTL_S"),
        (
            ["keys", "list"],
            {"TIDEGATE_DATABASE__URL": "sqlite+aiosqlite:////absent/dir/x.db"},
            1,
            "TIDEGATE_DATABASE__URL",
        ),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    environment: dict[str, str], arguments: list[str], settings: dict[str, str], status: int, words: str
) -> None:
    ended = tidegate(*arguments, environment={**environment, **settings})
    assert ended.returncode == status, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert words in ended.stderr


def test_endpoints_and_key_are_where_they_should_be(server: Server) -> None:
    endpoints = json.loads((server.state_dir / "endpoints.json").read_text())
    assert endpoints.keys() == {"http", "grpc", "metrics"}
    assert (server.state_dir / "dev-key").stat().st_mode & 0o777 == 0o600
    assert server.key.startswith("tg_")
