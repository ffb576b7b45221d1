"""`tidegate tenants`: who owns keys, and what they may use together."""

import typer
from rich.table import Table

from gateway.auth.administration import Administration
from gateway.call import Allowance
from tidegate.identity import actor, in_words, show_table, with_database


def create(name: str, limits: Allowance) -> None:
    """Make a tenant."""
    with_database(lambda database: Administration(database).create_tenant(actor(), name, limits))
    typer.echo(f"{name}: {in_words(limits)}")


def limit(name: str, limits: Allowance) -> None:
    """Replace a tenant's limits."""
    with_database(lambda database: Administration(database).limit_tenant(actor(), name, limits))
    typer.echo(f"{name}: {in_words(limits)}")


def disable(name: str, disabled: bool) -> None:
    """Refuse a tenant's keys, or take them again."""
    with_database(lambda database: Administration(database).disable_tenant(actor(), name, disabled))
    typer.echo(f"{name} is {'disabled' if disabled else 'enabled'}.")


def show_all() -> None:
    """Print a table of the tenants."""
    table = Table("tenant", "limits", "created", "state", box=None, pad_edge=False)
    for tenant in with_database(lambda database: Administration(database).tenants()):
        state = f"disabled {tenant.disabled_at:%Y-%m-%d %H:%M}" if tenant.disabled_at else "live"
        table.add_row(tenant.name, in_words(tenant.limits), f"{tenant.created_at:%Y-%m-%d %H:%M}", state)
    show_table(table)
