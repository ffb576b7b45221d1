"""`tidegate keys` and `tidegate tenants`: who may call, and how much."""

from typing import Annotated

import typer

keys = typer.Typer(help="API keys: make, rotate, limit, list, revoke.", no_args_is_help=True)
tenants = typer.Typer(help="Tenants: who owns keys, and what they may use together.", no_args_is_help=True)

_KeyId = Annotated[str, typer.Argument(help="The id: the part of the key between its underscores.")]
_TenantName = Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9 and -.")]
_Requests = Annotated[float | None, typer.Option(min=0.001, help="A second; no limit where it is not given.")]
_Images = Annotated[float | None, typer.Option(min=0.001, help="A second; no limit where it is not given.")]
_ImagesPerDay = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="A day of UTC; else no limit.")]
_InFlight = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="At once; else no limit.")]


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="infer, read or admin; may be repeated.", show_default="infer, read")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may name, or a glob; may be repeated.", show_default="all")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Who owns it.")] = None,
    days: Annotated[float | None, typer.Option(min=0, max=36_500, help="It expires after them; else never.")] = None,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
    tier: Annotated[
        str, typer.Option(help="high, standard or low: whose calls go first where not all can.")
    ] = "standard",
) -> None:
    """Make an API key and show it, once."""
    from gateway.call import Allowance
    from tidegate.keys import create

    limits = Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight)
    create(name, scope or ["infer", "read"], model or ["*"], tenant, days, limits, tier)


@keys.command("rotate")
def rotate_key(
    key_id: _KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, max=8_760, help="The old secret is good this long.")] = 24,
) -> None:
    """Give a key a new secret and show it, once; the old one is good for a while more."""
    from tidegate.keys import rotate

    rotate(key_id, overlap_hours)


@keys.command("limit")
def limit_key(
    key_id: _KeyId,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Put these limits in place of those a key has."""
    from gateway.call import Allowance
    from tidegate.keys import limit

    limit(key_id, Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight))


@keys.command("list")
def list_keys() -> None:
    """List the keys, revoked ones too; secrets are not kept."""
    from tidegate.keys import show_all

    show_all()


@keys.command("revoke")
def revoke_key(key_id: _KeyId) -> None:
    """End a key; running gateways refuse it within seconds."""
    from tidegate.keys import revoke

    revoke(key_id)


@tenants.command("create")
def create_tenant(
    name: _TenantName,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Make a tenant; its limits are what all its keys may use together."""
    from gateway.call import Allowance
    from tidegate.tenants import create

    create(name, Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight))


@tenants.command("limit")
def limit_tenant(
    name: _TenantName,
    requests_per_s: _Requests = None,
    images_per_s: _Images = None,
    images_per_day: _ImagesPerDay = None,
    max_in_flight: _InFlight = None,
) -> None:
    """Put these limits in place of those a tenant has."""
    from gateway.call import Allowance
    from tidegate.tenants import limit

    limit(name, Allowance(requests_per_s, images_per_s, images_per_day, max_in_flight))


@tenants.command("list")
def list_tenants() -> None:
    """List the tenants with their limits."""
    from tidegate.tenants import show_all

    show_all()


@tenants.command("disable")
def disable_tenant(name: _TenantName) -> None:
    """Refuse every key of a tenant, until it is enabled again."""
    from tidegate.tenants import disable

    disable(name, True)


@tenants.command("enable")
def enable_tenant(name: _TenantName) -> None:
    """Take a tenant's keys again."""
    from tidegate.tenants import disable

    disable(name, False)
