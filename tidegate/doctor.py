"""`tidegate doctor`: can this machine serve, and if not, what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console

from contract import model_config
from contract.errors import ContractError
from contract.repository import ModelRepository
from gateway import tls
from gateway.auth.administration import Administration
from serving.distribution import find_distribution
from serving.errors import ServingError
from tidegate import ports, services
from tidegate.errors import CommandError, bad_certificate
from tidegate.identity import with_database
from tidegate.settings import UpSettings, up_settings

_SHM = Path("/dev/shm")
_MIN_SHM_BYTES = 256 * 1024 * 1024
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_NVIDIA_SMI_S = 20


@dataclass(frozen=True, slots=True)
class _Finding:
    """What was looked at; `remedy` is empty where all is well."""

    subject: str
    found: str
    remedy: str = ""


def examine() -> None:
    """Print a line a check; exit with 1 where one fails."""
    settings = up_settings()
    console = Console(highlight=False, soft_wrap=True)
    failed = False
    checks = (
        _python,
        _tritonserver,
        _gpu,
        _shared_memory,
        _ports,
        _certificate,
        _state_dir,
        _repository,
        _database,
        _redis,
    )
    for check in checks:
        for finding in check(settings):
            failed = failed or bool(finding.remedy)
            mark = "[red]✗[/red]" if finding.remedy else "[green]✓[/green]"
            console.print(
                f"{mark} {finding.subject}: {finding.found}" + (f"; {finding.remedy}" if finding.remedy else "")
            )
    if failed:
        raise typer.Exit(1)


def _python(_: UpSettings) -> Iterator[_Finding]:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield _Finding("Python", found, "" if good else "install 3.11 or 3.12")


def _tritonserver(_: UpSettings) -> Iterator[_Finding]:
    try:
        yield _Finding("tritonserver", str(find_distribution().binary))
    except ServingError as error:
        yield _Finding("tritonserver", str(error), "reinstall with `make install`")


def _gpu(_: UpSettings) -> Iterator[_Finding]:
    if shutil.which(_NVIDIA_SMI[0]) is None:
        yield _Finding("GPU", "none; models run on the CPU")
        return
    try:
        listed = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield _Finding("GPU", f"nvidia-smi: {error}", "restart the machine, or install the driver anew")
        return
    if listed.returncode != 0:
        words = (listed.stdout + listed.stderr).strip().splitlines() or [f"status {listed.returncode}"]
        yield _Finding("GPU", f"nvidia-smi: {words[-1]}", "load the driver, or install one that fits the kernel")
        return
    for gpu in listed.stdout.strip().splitlines():
        yield _Finding("GPU", f"{gpu}; the embedded Triton leaves it alone, the image `triton` uses it")


def _shared_memory(_: UpSettings) -> Iterator[_Finding]:
    if not _SHM.is_dir():
        yield _Finding("shared memory", f"no {_SHM}", "mount a tmpfs there: Triton's Python backends need it")
        return
    free = shutil.disk_usage(_SHM).free
    good = free >= _MIN_SHM_BYTES
    remedy = "" if good else "give it 256 MiB or more, in a container with --shm-size"
    yield _Finding("shared memory", f"{free // 1024**2} MiB free in {_SHM}", remedy)


def _ports(settings: UpSettings) -> Iterator[_Finding]:
    for name, port in (
        ("HTTP", settings.http_port),
        ("gRPC", settings.grpc_port),
        ("metrics", settings.metrics_port),
    ):
        setting = f"TIDEGATE_{name.upper()}_PORT"
        try:
            with ports.held(settings.host, port, setting):
                yield _Finding(f"{name} port", f"{port} is free" if port else "any free one")
        except CommandError as error:
            yield _Finding(f"{name} port", f"{port} is not free", str(error))


def _certificate(settings: UpSettings) -> Iterator[_Finding]:
    if settings.tls.certificate is None:
        return
    try:
        expires_at = datetime.fromtimestamp(tls.load(settings.tls).expires_at, UTC)
    except tls.BadCertificate as error:
        yield _Finding("certificate", "cannot be served", str(bad_certificate(error)))
        return
    expired = expires_at < datetime.now(UTC)
    yield _Finding("certificate", f"good until {expires_at:%Y-%m-%d %H:%M} UTC", "renew it" if expired else "")


def _state_dir(settings: UpSettings) -> Iterator[_Finding]:
    directory = settings.state_dir
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    good = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield _Finding(
        "state directory",
        f"{directory} {'can' if good else 'cannot'} be written",
        "" if good else f"set TIDEGATE_STATE_DIR, or give this user {existing}",
    )


def _repository(settings: UpSettings) -> Iterator[_Finding]:
    if "://" in settings.model_repository:
        try:
            yield _Finding("model repository", services.bucket_contents(settings.model_repository))
        except CommandError as error:
            remedy = "check TIDEGATE_MODEL_REPOSITORY, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            yield _Finding("model repository", str(error), remedy)
        return
    repository = ModelRepository(Path(settings.model_repository))
    names = repository.model_names()
    yield _Finding(
        "model repository",
        f"{len(names)} models in {repository.root}",
        "" if names else "put a model there, or set TIDEGATE_MODEL_REPOSITORY",
    )
    for name in names:
        config = repository.config(name)
        if not repository.versions(name):
            yield _Finding(
                f"model {name}", "no version", f"make a directory {repository.root / name / '1'} with the model"
            )
        elif config.exists():
            try:
                model_config.from_pbtxt(config.read_text(), path=str(config))
            except (ContractError, UnicodeDecodeError) as error:
                yield _Finding(f"model {name}", "its configuration is not readable", f"mend {error}")


def _database(settings: UpSettings) -> Iterator[_Finding]:
    try:
        count = len(with_database(lambda database: Administration(database).keys()))
        yield _Finding("database of keys", f"{count} keys")
    except CommandError as error:
        yield _Finding("database of keys", "not usable", str(error))


def _redis(settings: UpSettings) -> Iterator[_Finding]:
    if settings.redis.url is None:
        return
    try:
        yield _Finding("Redis", services.redis_version(settings.redis.url.get_secret_value()))
    except CommandError as error:
        yield _Finding("Redis", str(error), "start it, or check TIDEGATE_REDIS__URL")
