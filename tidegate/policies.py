"""What `tidegate traffic` does: straight to the database that the gateway reads."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.table import Table

from gateway.auth.database import Database
from gateway.errors import NotFound
from gateway.routing.policies import Policies, StoredPolicy
from gateway.routing.policy import CANARY, STABLE, TrafficPolicy
from tidegate.errors import BadInput
from tidegate.identity import actor, show_table, with_database
from tidegate.settings import gateway_settings

# For the read of a policy itself, beside the time until a worker reads it.
_READ_S = 0.2
_FOLLOWED = "running gateways follow within 2 s"

Change = Callable[[TrafficPolicy], Mapping[str, Any]]


def show_all() -> None:
    """Print a table of the policies."""
    table = Table("model", "shares", "aliases", "shadow", "changed", "by", box=None, pad_edge=False)
    for model, stored in with_database(lambda database: Policies(database).all()).items():
        policy = stored.policy
        table.add_row(
            model,
            _in_words({str(version): f"{share:.3g}" for version, share in policy.shares.items()}),
            _in_words(policy.aliases),
            str(policy.shadow.version) if policy.shadow else "-",
            f"{stored.changed_at:%Y-%m-%d %H:%M}",
            stored.changed_by,
        )
    show_table(table)


def show(model: str) -> None:
    """Print one as JSON."""
    stored = with_database(lambda database: Policies(database).one(model))
    typer.echo(orjson.dumps(stored.policy.model_dump(), option=orjson.OPT_INDENT_2).decode())


def put(model: str, file: Path) -> None:
    """Set one from a file."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error

    async def work(database: Database) -> None:
        await Policies(database).put(actor(), model, TrafficPolicy.parse(text))

    with_database(work)
    typer.echo(f"{model}: the policy is set; {_FOLLOWED}.")


def change(model: str, change: Change) -> TrafficPolicy:
    """Set some of a policy's fields; the policy as it is then."""

    async def work(database: Database) -> TrafficPolicy:
        policies = Policies(database)
        stored = await _find(policies, model)
        policy = stored.policy if stored is not None else TrafficPolicy()
        fields = {**policy.model_dump(exclude_defaults=True), **change(policy)}
        changed = TrafficPolicy.parse(orjson.dumps(fields).decode())
        await policies.put(actor(), model, changed, revision=stored.revision if stored is not None else 0)
        return changed

    changed = with_database(work)
    shares = {str(version): f"{share:.3g}" for version, share in changed.shares.items()}
    typer.echo(f"{model}: shares {_in_words(shares)}, aliases {_in_words(changed.aliases)}; {_FOLLOWED}.")
    return changed


def shares(given: list[str]) -> dict[str, float]:
    """Weights from NAME=NUMBER."""
    weights = {}
    for each in given:
        name, _, number = each.partition("=")
        try:
            weights[name] = float(number)
        except ValueError as error:
            raise BadInput(f"WEIGHTS {each!r} is not NAME=NUMBER") from error
    return weights


def promote(model: str) -> None:
    """The canary becomes stable."""

    def promoted(policy: TrafficPolicy) -> dict[str, Any]:
        if CANARY not in policy.aliases:
            raise BadInput(f"MODEL {model!r} has no canary")
        aliases = {name: version for name, version in policy.aliases.items() if name != CANARY}
        return {"aliases": {**aliases, STABLE: policy.aliases[CANARY]}, "weights": {STABLE: 100}}

    change(model, promoted)


def roll_back(model: str) -> None:
    """The canary gets nothing."""
    with_database(lambda database: Policies(database).roll_back(actor(), model, "by hand"))
    typer.echo(f"{model}: the canary is set to 0; {_FOLLOWED}.")


def remove(model: str) -> None:
    """The newest version answers."""
    with_database(lambda database: Policies(database).remove(actor(), model))
    typer.echo(f"{model}: the policy is removed; its newest version answers.")


def hold(model: str, version: int) -> TrafficPolicy | None:
    """Have a version answer until `release`, and return when every worker does so; the policy before."""

    async def work(database: Database) -> TrafficPolicy | None:
        policies = Policies(database)
        stored = await _find(policies, model)
        before = stored.policy if stored is not None else None
        if before is None or STABLE not in before.aliases:
            held = before or TrafficPolicy()
            aliases = {**held.aliases, STABLE: version}
            await policies.put(actor(), model, held.model_copy(update={"aliases": aliases}))
            await _followed()
        return before

    return with_database(work)


def release(model: str, before: TrafficPolicy | None, version: int | None) -> None:
    """Have a version answer, or what did before `hold`, and return when every worker does so.

    Args:
        version: None: as before. It becomes `stable` where the model had that; else it is the newest, which needs no policy.
    """

    async def work(database: Database) -> None:
        policies = Policies(database)
        if before is None:
            await policies.remove(actor(), model)
        elif STABLE in before.aliases and version is not None:
            aliases = {**before.aliases, STABLE: version}
            await policies.put(actor(), model, before.model_copy(update={"aliases": aliases}))
        else:
            await policies.put(actor(), model, before)
        await _followed()

    with_database(work)


async def _followed() -> None:
    """Wait until every worker with settings as here follows."""
    await asyncio.sleep(gateway_settings().traffic.poll_s + _READ_S)


async def _find(policies: Policies, model: str) -> StoredPolicy | None:
    try:
        return await policies.one(model)
    except NotFound:
        return None


def _in_words(pairs: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs.items()) or "-"
