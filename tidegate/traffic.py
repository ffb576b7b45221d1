"""`tidegate traffic`: which version answers whom. A command imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Traffic: which version of a model answers whom.", no_args_is_help=True)

_Model = Annotated[str, typer.Argument(help="The model; what holds for NAME holds for NAME_encoded.")]
_Version = Annotated[int, typer.Argument(min=1, help="One of its versions.")]


@app.command("list")
def list_policies() -> None:
    """List the models that have a policy."""
    from tidegate.policies import show_all

    show_all()


@app.command("show")
def show_policy(model: _Model) -> None:
    """Print a model's policy as JSON."""
    from tidegate.policies import show

    show(model)


@app.command("set")
def set_policy(
    model: _Model, file: Annotated[Path, typer.Argument(help="A file with the policy as JSON; - reads standard input.")]
) -> None:
    """Put a policy in place of the one a model has."""
    from tidegate.policies import put

    put(model, file)


@app.command("alias")
def set_alias(
    model: _Model, alias: Annotated[str, typer.Argument(help="stable, canary or a name of yours.")], version: _Version
) -> None:
    """Give a version a name, which callers may ask for in place of its number."""
    from tidegate.policies import change

    change(model, lambda policy: {"aliases": {**policy.aliases, alias: version}})


@app.command("weights")
def set_weights(
    model: _Model,
    weights: Annotated[list[str], typer.Argument(help="Such as stable=95 canary=5, or 3=50 4=50.")],
    sticky: Annotated[str | None, typer.Option(help="What keeps a caller at one version: none, key or header.")] = None,
) -> None:
    """Share the calls that name no version among versions."""
    from tidegate.policies import change, shares

    given = {"weights": shares(weights), **({"sticky": sticky} if sticky else {})}
    change(model, lambda policy: given)


@app.command("shadow")
def set_shadow(
    model: _Model,
    version: Annotated[int, typer.Argument(min=0, help="The version that is asked too; 0: none.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the requests.")] = 1.0,
) -> None:
    """Ask a version too, compare its answers, and give them to no one."""
    from tidegate.policies import change

    change(model, lambda policy: {"shadow": {"version": version, "share": share} if version else None})


@app.command("pin")
def pin_key(
    model: _Model,
    key_id: Annotated[str, typer.Argument(help="The id of a key.")],
    version: Annotated[int, typer.Argument(min=0, help="Its version; 0: as everyone.")],
) -> None:
    """Keep a key at one version, whatever the weights."""
    from tidegate.policies import change

    def pins(pinned: dict[str, int]) -> dict[str, int]:
        return {**pinned, key_id: version} if version else {key: v for key, v in pinned.items() if key != key_id}

    change(model, lambda policy: {"pins": pins(policy.pins)})


@app.command("guard")
def set_guard(
    model: _Model,
    min_sample: Annotated[int, typer.Option(help="Answers before the canary is judged.")] = 100,
    max_error_rate: Annotated[float, typer.Option(help="It may fail this much more often than stable.")] = 0.05,
    max_slowdown: Annotated[float, typer.Option(help="Times stable's median; 0: it may be any.")] = 2.0,
    max_disagreement: Annotated[
        float | None, typer.Option(help="Share of answers that may differ.", show_default="not compared")
    ] = None,
) -> None:
    """Say when the canary is set to 0."""
    from tidegate.policies import change

    guard = {
        "min_sample": min_sample,
        "max_error_rate": max_error_rate,
        "max_slowdown": max_slowdown or None,
        "max_disagreement": max_disagreement,
    }
    change(model, lambda policy: {"guard": guard})


@app.command("promote")
def promote(model: _Model) -> None:
    """Make the canary stable, and give it everything."""
    from tidegate.policies import promote

    promote(model)


@app.command("rollback")
def roll_back(model: _Model) -> None:
    """Set the canary to 0; what it got goes to stable."""
    from tidegate.policies import roll_back

    roll_back(model)


@app.command("remove")
def remove(model: _Model) -> None:
    """Remove a model's policy: its newest version answers again."""
    from tidegate.policies import remove

    remove(model)
