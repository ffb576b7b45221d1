"""The state directory of one `tidegate up`: its lock, its database, its development key, its endpoints."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gateway.auth import migrations
from gateway.auth.administration import Administration, KeySpec
from gateway.auth.database import Database
from gateway.auth.keys import ApiKey
from gateway.auth.store import KeyStore
from gateway.cache.loads import FILE as LOADS
from gateway.cache.loads import MachineLoads
from gateway.call import Scope
from gateway.errors import Unavailable
from tidegate.client import DEV_KEY, ENDPOINTS, TLS
from tidegate.errors import CommandError, bad_database
from tidegate.settings import UpSettings
from tidegate.tls import ServerTrust

_LOCK = "up.lock"
_DEV_KEY_NAME = "development"


@contextlib.contextmanager
def prepared(settings: UpSettings) -> Iterator[None]:
    """Lock the directory, bring the database up to date and write the development key; tidy up at the end.

    Raises:
        CommandError: Another server has the directory, or it or the database cannot be used.
    """
    directory = settings.state_dir
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CommandError(
                    f"another `tidegate up` runs with the state directory {directory}; stop it, or set TIDEGATE_STATE_DIR"
                ) from error
            shutil.rmtree(settings.metrics_dir, ignore_errors=True)
            _forget_answers(directory / LOADS)
            _prepare_keys(settings)
            try:
                yield
            finally:
                (directory / ENDPOINTS).unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}; check TIDEGATE_STATE_DIR") from error


def _forget_answers(loads: Path) -> None:
    """Tritons are about to load every model: no shared answer of an earlier time is good."""
    machine = MachineLoads(loads)
    machine.advance()
    machine.close()


def write_endpoints(settings: UpSettings, http: str, grpc: str, metrics: str) -> None:
    """Say where the server is, each host:port, and how it is trusted. A reader never sees half of it."""
    path = settings.state_dir / ENDPOINTS
    staging = path.with_suffix(".tmp")
    endpoints: dict[str, object] = {"http": http, "grpc": grpc, "metrics": metrics}
    trust = ServerTrust.of(settings.tls)
    if trust is not None:
        endpoints[TLS] = trust.to_json()
    staging.write_text(json.dumps(endpoints) + "\n")
    staging.replace(path)


def _prepare_keys(settings: UpSettings) -> None:
    url = settings.database_url
    try:
        migrations.upgrade(url)
        asyncio.run(_write_dev_key(url, settings.state_dir / DEV_KEY))
    except Unavailable as error:
        raise bad_database(error) from error


async def _write_dev_key(url: str, path: Path) -> None:
    """Keep the key that is there while it is good; else make one."""
    database = Database.at(url)
    try:
        if path.exists():
            kept = ApiKey.parse(path.read_text())
            stored = await KeyStore(database).find(kept.key_id) if kept is not None else None
            if kept is not None and stored is not None and stored.revoked_at is None and stored.opened_by(kept):
                return
            path.unlink()
        spec = KeySpec(_DEV_KEY_NAME, frozenset(Scope))
        key = await Administration(database).create_key("cli:tidegate up", spec)
    finally:
        await database.close()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key.text)
