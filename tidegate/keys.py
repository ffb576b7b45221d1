"""`tidegate keys`: straight to the database that the gateway reads."""

from datetime import UTC, datetime, timedelta

import typer
from rich.table import Column, Table

from gateway.auth.administration import Administration, KeySpec, KeySummary
from gateway.auth.keys import ApiKey
from gateway.call import Allowance, Scope, Tier
from tidegate.errors import BadInput
from tidegate.identity import actor, in_words, show_table, with_database


def create(
    name: str,
    scopes: list[str],
    models: list[str],
    tenant: str | None,
    days: float | None,
    limits: Allowance,
    tier: str,
) -> None:
    """Make a key and print it."""
    known = [scope.value for scope in Scope]
    for scope in scopes:
        if scope not in known:
            raise BadInput(f"--scope {scope!r} is not one of {', '.join(known)}")
    tiers = [each.value for each in Tier]
    if tier not in tiers:
        raise BadInput(f"--tier {tier!r} is not one of {', '.join(tiers)}")
    spec = KeySpec(
        name=name,
        scopes=frozenset(Scope(scope) for scope in scopes),
        models=tuple(models),
        tenant=tenant,
        expires_at=datetime.now(UTC) + timedelta(days=days) if days is not None else None,
        limits=limits,
        tier=Tier(tier),
    )
    _show(with_database(lambda database: Administration(database).create_key(actor(), spec)))


def rotate(key_id: str, overlap_hours: float) -> None:
    """Print a key's new secret."""
    overlap = timedelta(hours=overlap_hours)
    _show(with_database(lambda database: Administration(database).rotate_key(actor(), key_id, overlap)))
    typer.echo(f"The old secret is good until {datetime.now(UTC) + overlap:%Y-%m-%d %H:%M} UTC.", err=True)


def limit(key_id: str, limits: Allowance) -> None:
    """Replace a key's limits."""
    with_database(lambda database: Administration(database).limit_key(actor(), key_id, limits))
    typer.echo(f"{key_id}: {in_words(limits)}")


def revoke(key_id: str) -> None:
    """End a key."""
    with_database(lambda database: Administration(database).revoke_key(actor(), key_id))
    typer.echo(f"{key_id} is revoked.")


def show_all() -> None:
    """Print a table of the keys."""
    columns = ("name", "tenant", "tier", "scopes", "models", "limits", "created", "used", "state")
    table = Table(Column("id", no_wrap=True), *columns, box=None, pad_edge=False)
    for key in with_database(lambda database: Administration(database).keys()):
        table.add_row(
            key.key_id,
            key.name,
            key.tenant or "-",
            key.tier,
            " ".join(key.scopes),
            " ".join(key.models),
            in_words(key.limits),
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "-",
            _state(key),
        )
    show_table(table)


def _state(key: KeySummary) -> str:
    now = datetime.now(UTC)
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is not None:
        return f"{'expired' if key.expires_at <= now else 'until'} {key.expires_at:%Y-%m-%d %H:%M}"
    return "live"


def _show(key: ApiKey) -> None:
    typer.echo(key.text)
    typer.echo("It is shown this once: keep it now.", err=True)
