"""tritonserver's command line and environment."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.arguments import triton_arguments, triton_environment
from serving.distribution import TritonDistribution
from serving.settings import SupervisionSettings, TritonSettings

DISTRIBUTION = TritonDistribution(Path("/t/bin"), Path("/t/python"), Path("/t/stub"), (Path("/t/lib"), Path("/p/lib")))


def arguments(settings: TritonSettings) -> tuple[str, ...]:
    return triton_arguments(
        DISTRIBUTION,
        settings,
        repository="s3://bucket/models",
        backend_directory=Path("/b"),
        grpc_port=1,
        metrics_port=2,
        shm_prefix="tidegate_1_",
    )


def test_nothing_but_loopback_grpc_and_metrics_is_opened() -> None:
    argv = arguments(TritonSettings())
    assert argv[0] == "/t/bin"
    assert {"--allow-http=false", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(argv)
    assert "--model-repository=s3://bucket/models" in argv
    assert "--backend-config=python,shm-region-prefix-name=tidegate_1_" in argv
    assert not any(argument.startswith("--model-config-name") for argument in argv)


def test_a_config_name_is_passed_on() -> None:
    assert "--model-config-name=cpu" in arguments(TritonSettings(model_config_name="cpu"))


def test_the_environment_leads_to_this_interpreters_packages() -> None:
    environment = triton_environment(DISTRIBUTION, {"PATH": "/bin", "AWS_REGION": "eu-1"})
    assert environment["LD_LIBRARY_PATH"] == "/t/lib:/p/lib"
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert environment["AWS_REGION"] == "eu-1"
    assert environment["PYTHONPATH"].split(":") == [entry for entry in sys.path if entry]


@pytest.mark.parametrize("settings", [{"exit_timeout_s": 31}, {"model_config_name": "a b"}, {"log_verbose": -1}])
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TritonSettings.model_validate(settings)


def test_the_longest_wait_is_no_less_than_the_first() -> None:
    with pytest.raises(ValidationError, match="is less than restart_min_s"):
        SupervisionSettings(restart_min_s=2, restart_max_s=1)


def test_only_requests_that_bring_a_trace_are_traced() -> None:
    assert not any("trace" in argument for argument in arguments(TritonSettings()))
    argv = arguments(TritonSettings(trace_url="http://collector:4318/v1/traces"))
    assert {"--trace-config=mode=opentelemetry", "--trace-config=rate=0"} <= set(argv)
    assert "--trace-config=opentelemetry,url=http://collector:4318/v1/traces" in argv


@pytest.mark.parametrize("url", ["collector:4318", "http://collector/a b", "http://collector,rate=1"])
def test_a_trace_url_that_would_say_more_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        TritonSettings(trace_url=url)
