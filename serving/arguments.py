"""tritonserver's command line and environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from serving.distribution import TritonDistribution
from serving.settings import TritonSettings

LOOPBACK = "127.0.0.1"
# How often the gRPC service may be pinged.
PINGS_MS = 1_000


def triton_arguments(
    distribution: TritonDistribution,
    settings: TritonSettings,
    *,
    repository: str,
    backend_directory: Path,
    grpc_port: int,
    metrics_port: int,
    shm_prefix: str,
    host: str = LOOPBACK,
) -> tuple[str, ...]:
    """The command line: gRPC and metrics only, on loopback where nothing else is asked, and a bad model does not stop the others.

    Args:
        repository: A path, or an s3:// address.
    """
    options = {
        "model-repository": repository,
        "backend-directory": str(backend_directory),
        "allow-http": "false",
        "grpc-address": host,
        "grpc-port": str(grpc_port),
        # The gateway pings a quiet connection; by default Triton would close it for that.
        "grpc-http2-min-recv-ping-interval-without-data": str(PINGS_MS),
        "metrics-address": host,
        "metrics-port": str(metrics_port),
        "model-control-mode": "explicit",
        "load-model": "*",
        "model-load-thread-count": str(settings.model_load_threads),
        "exit-on-error": "false",
        "strict-readiness": "false",
        "exit-timeout-secs": str(settings.exit_timeout_s),
        "log-verbose": str(settings.log_verbose),
    }
    if settings.model_config_name is not None:
        options["model-config-name"] = settings.model_config_name
    python_backend = {
        "shm-region-prefix-name": shm_prefix,
        "shm-default-byte-size": str(settings.shm_default_byte_size),
        "shm-growth-byte-size": str(settings.shm_growth_byte_size),
        "stub-timeout-seconds": str(settings.stub_timeout_s),
    }
    return (
        str(distribution.binary),
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in python_backend.items()),
        *(f"--trace-config={value}" for value in _tracing(settings)),
    )


def _tracing(settings: TritonSettings) -> tuple[str, ...]:
    """Traces of those requests alone that bring a context: a rate of 0 adds none to them."""
    if settings.trace_url is None:
        return ()
    exporter = (f"opentelemetry,url={settings.trace_url}", "opentelemetry,bsp_schedule_delay=1000")
    return ("mode=opentelemetry", "rate=0", "level=TIMESTAMPS", *exporter)


def triton_environment(distribution: TritonDistribution, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Triton and its python stubs find this interpreter's packages.

    Args:
        inherited: What else they get, such as the credentials of an object store.
    """
    # Every entry, because a stub does not read the .pth file of an editable install.
    packages = [entry for entry in sys.path if entry]
    return {
        **inherited,
        "PATH": _joined([str(Path(sys.executable).parent)], inherited.get("PATH")),
        "PYTHONPATH": os.pathsep.join(packages),
        "LD_LIBRARY_PATH": _joined([str(d) for d in distribution.library_dirs], inherited.get("LD_LIBRARY_PATH")),
    }


def _joined(first: list[str], rest: str | None) -> str:
    return os.pathsep.join([*first, rest] if rest else first)
