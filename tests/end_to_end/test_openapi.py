"""The OpenAPI document is true: schemathesis sends what it allows and what it does not, and checks every answer."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.auth.administration import Administration, KeySpec
from gateway.auth.database import Database
from gateway.call import Scope
from tests.running import Server
from tests.worker import Worker, worker

# Every check is made of every operation, but where a reason is given; the calls of a run stay away from its own key.
_CONFIG = """
[parameters]
"path.version" = 1

[[operations]]
include-path-regex = "^/admin/v1/keys/"
parameters = {{ "path.key_id" = "{key_id}" }}

[[operations]]  # A name may have every printable character, which no pattern of JSON Schema says.
include-path = "/admin/v1/keys"
generation.codec = "ascii"

[[operations]]  # Of a model that is not there, so that the shared server keeps its models.
include-path-regex = "/(load|unload)$"
parameters = {{ "path.model" = "absent" }}

[[operations]]  # Which tensors and photographs a model takes is the model's own: no schema says it.
include-path-regex = "/(infer|generate|generate_stream|classify)$"
parameters = {{ "path.model" = "digits" }}
checks.positive_data_acceptance.enabled = false

[[operations]]  # The names of weights are aliases of the same policy: no schema says it.
include-path = "/admin/v1/traffic/{{model}}"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "^/v2/models/"
parameters = {{ "path.model" = "digits" }}
"""
_SCHEMATHESIS = "import schemathesis.cli as cli; cli.schemathesis()"


@pytest.fixture(scope="module")
def own(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with keys of its own before the shared server's Triton."""
    settings = {"AUTH__MODE": "keys", "UPSTREAM__ADDRESS": server.triton_address(), "LIMITS__DEFAULT_DEADLINE_S": "10"}
    with worker(tmp_path_factory.mktemp("own"), **settings) as started:
        yield started


def _new_key(state_dir: Path, *scopes: Scope) -> str:
    async def make() -> str:
        database = Database.at(f"sqlite+aiosqlite:///{state_dir / 'tidegate.db'}")
        try:
            return (await Administration(database).create_key("test", KeySpec("test", frozenset(scopes)))).text
        finally:
            await database.close()

    return asyncio.run(make())


def test_every_answer_is_as_documented(own: Worker, tmp_path: Path) -> None:
    key, victim = (_new_key(own.state_dir, *Scope) for _ in range(2))
    (tmp_path / "schemathesis.toml").write_text(_CONFIG.format(key_id=victim.split("_")[1]))
    command = [sys.executable, "-c", _SCHEMATHESIS, "--config-file", "schemathesis.toml", "run"]
    options = {"--header": f"Authorization: Bearer {key}", "--max-examples": "8", "--seed": "1"}
    ended = subprocess.run(
        [*command, *(part for option in options.items() for part in option), f"http://{own.http}/openapi.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert "✅ Coverage" in ended.stdout and "✅ Fuzzing" in ended.stdout and "✅ Stateful" in ended.stdout


def test_an_error_that_names_what_no_text_holds_is_written(own: Worker) -> None:
    headers = {"authorization": f"Bearer {_new_key(own.state_dir, *Scope)}", "content-type": "application/json"}
    reply = httpx.post(f"http://{own.http}/admin/v1/keys", content=b'{"name": "a", "\\ud800": 1}', headers=headers)
    assert reply.status_code == 400 and reply.json()["error"]
