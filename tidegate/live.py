"""`tidegate models load`, `check`, `promote`, `rollback` and `gc`: which version answers, and whether it answers right."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpx
import structlog
import tritonclient.grpc as triton
import typer
from tritonclient.utils import InferenceServerException

from contract.card import ENCODED_SUFFIX
from contract.errors import ContractError
from export.errors import ExportError, LiveCheckFailed
from export.locations import open_store
from export.parity import check_live
from export.versions import Reload, Versions, not_running
from gateway.rest.door import TIMEOUT_HEADER
from tidegate.client import find_server, post, running_server
from tidegate.errors import BadInput, CommandError
from tidegate.models import repository
from tidegate.policies import hold, release
from tidegate.settings import up_settings

_SHOWN_FAILURES = 5
# From a bucket Triton fetches all versions of a model to load one.
_LOAD_S = 300

_log = structlog.get_logger(__name__)


class CheckFailed(CommandError):
    """The running server does not answer the golden images as the eager model did."""


def load(name: str, *, check: bool) -> None:
    """Load a model and its twin, then check the live version; one that fails makes way for a lower one."""
    with running_server() as client:
        known = {entry["name"] for entry in post(client, "/v2/repository/index").json()}
        if name not in known:
            location = up_settings().model_repository
            raise BadInput(f"NAME {name!r} is not in {location}; there are {', '.join(sorted(known)) or 'no models'}")
        with repository() as store, _traffic_held(client, name, Versions(store, name).live):
            for model in (name, name + ENCODED_SUFFIX):
                if model in known:
                    _reload(client, model)
                    typer.echo(f"{model} is loaded.")
            if not check:
                return
            versions = Versions(store, name)
            live = versions.live
            if live is None or live not in versions.published:
                return
            try:
                _check(versions, live)
            except CheckFailed as failure:
                lower = versions.withdraw(live, lambda model: _reload(client, model))
                if lower is not None:
                    raise CommandError(f"{failure}; {name} {lower} is live in its place") from failure
                _unload(client, name)
                raise CommandError(f"{failure}; {name} is unloaded, as there is no lower version") from failure


def check(name: str, version: int | None) -> None:
    """Compare a version that is served with the eager model.

    Args:
        version: None: the live one.
    """
    with repository() as store:
        versions = Versions(store, name)
        _check(versions, version or versions.live or 1)


def promote(name: str, version: int) -> None:
    """Make a version live and check it; one that fails makes way for what was served before."""
    with repository() as store, _running() as client:
        reload = not_running if client is None else lambda model: _reload(client, model)
        versions = Versions(store, name)
        before = [each for each in versions.loadable if each != version]
        with _traffic_held(client, name, version):
            try:
                versions.promote(version, reload)
                if client is not None:
                    _check(versions, version)
            except CommandError as failure:
                if not before:
                    raise
                versions.serve(before, reload)
                raise CommandError(f"{failure}; {name} {before[-1]} is live again") from failure
        typer.echo(f"{name} {version} is live{_where(reload)}.")


def roll_back(name: str) -> None:
    """Make the version before the live one live."""
    with repository() as store, reloading() as reload:
        versions = Versions(store, name)
        live = versions.live
        lower = None if live is None else versions.withdraw(live, reload)
        if lower is None:
            raise CommandError(f"{name} has no good version below {live or 'any'}")
        typer.echo(f"{name} {lower} is live{_where(reload)}.")


def collect(name: str, keep: int) -> None:
    """Remove versions, and name them."""
    with repository() as store:
        versions = Versions(store, name)
        if not versions.published:
            raise BadInput(f"NAME {name!r} has no version with a manifest in {store.location}")
        removed = versions.collect(keep)
        typer.echo(f"{name}: removed {_listed(removed)}; {_listed(versions.published)} stay, {versions.live} is live.")


def withdraw_refused(location: str, unavailable: Iterable[str], triton_addresses: Sequence[str]) -> dict[str, str]:
    """Take versions whose bytes are wrong out of the configs: Triton starts no version of a model that has one.

    Args:
        location: The repository.
        unavailable: Models that Triton does not serve, as `name/version` or `name`.
        triton_addresses: host:port of the gRPC service of each Triton.

    Returns:
        What is wrong, by `name/version`.
    """
    refused: dict[str, str] = {}
    names = {each.partition("/")[0].removesuffix(ENCODED_SUFFIX) for each in unavailable}
    try:
        store = open_store(location)
        with ExitStack() as stack:
            clients = [stack.enter_context(triton.InferenceServerClient(address)) for address in triton_addresses]

            def reload(model: str) -> None:
                for client in clients:
                    client.load_model(model)

            for name in sorted(names):
                versions = Versions(store, name)
                found = {
                    version: versions.faults(version) for version in versions.served if version in versions.published
                }
                refused |= {f"{name}/{version}": faults[0] for version, faults in found.items() if faults}
                good = [version for version, faults in found.items() if not faults]
                if good and len(good) < len(found):
                    versions.serve(good, reload)
    except (ContractError, ExportError, InferenceServerException) as error:
        _log.error("models.not_withdrawn", reason=str(error))
    return refused


def _check(versions: Versions, version: int) -> None:
    manifest, golden = versions.manifest(version), versions.golden(version)
    if golden is None:
        typer.echo(f"{versions.name} {version} has no golden images: its answers are not checked.")
        return
    server = find_server()
    try:
        connection = None if server.tls is None else server.tls.triton_arguments()
        parity = check_live(server.grpc, server.key, manifest, golden, connection)
    except LiveCheckFailed as error:
        raise CheckFailed(f"{versions.name} {version} could not be checked: {error}") from error
    for answer in parity.failures[:_SHOWN_FAILURES]:
        height, width = answer.size[:2]
        typer.echo(
            f"image {answer.image} ({height}×{width}) through {answer.model}: a score is off by {answer.difference:.3g}",
            err=True,
        )
    if parity.failures:
        raise CheckFailed(
            f"{versions.name} {version} fails {len(parity.failures)} of {len(parity.answers)} checks against the eager "
            f"model, at a tolerance of {parity.tolerance:.3g}"
        )
    typer.echo(
        f"{versions.name} {version} answers as the eager model: {len(parity.answers)} checks, largest difference "
        f"{parity.largest:.2g}, tolerance {parity.tolerance:.2g}."
    )


@contextmanager
def _running() -> Iterator[httpx.Client | None]:
    """A client of the running server; None where none runs."""
    try:
        client = running_server()
    except CommandError:
        yield None
        return
    with client:
        yield client


@contextmanager
def reloading() -> Iterator[Reload]:
    """What has the running server take a model anew; where none runs, nothing."""
    with _running() as client:
        yield not_running if client is None else lambda model: _reload(client, model)


@contextmanager
def _traffic_held(client: httpx.Client | None, name: str, coming: int | None) -> Iterator[None]:
    """Leave the calls with the version that has them until the block is done; then give them to `coming`.

    Where the block fails they stay where they are, if that is still served.
    """
    ready = [] if client is None else post(client, "/v2/repository/index", json={"ready": True}).json()
    versions = [int(entry["version"]) for entry in ready if entry["name"] == name and entry.get("version")]
    if not versions or coming is None or coming in versions:
        yield
        return
    before = hold(name, max(versions))
    try:
        yield
    except BaseException:
        release(name, before, None)
        raise
    release(name, before, coming)


def _reload(client: httpx.Client, model: str) -> None:
    headers = {TIMEOUT_HEADER: str(_LOAD_S * 1_000)}
    post(client, f"/v2/repository/models/{model}/load", headers=headers, timeout=_LOAD_S)


def _unload(client: httpx.Client, name: str) -> None:
    for model in (name + ENCODED_SUFFIX, name):
        post(client, f"/v2/repository/models/{model}/unload")


def _where(reload: Reload) -> str:
    return " in the repository; no server runs" if reload is not_running else ""


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
