"""The settings of the embedded Triton and of what is supervised beside it."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

ConfigName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=128)]


class SupervisionSettings(BaseModel):
    """How a process is stopped, and how soon it is started again after it died.

    Attributes:
        exit_timeout_s: From SIGTERM to SIGKILL.
        restart_min_s: The first wait; each further death doubles it.
        restart_max_s: No wait is longer.
        healthy_after_s: A process that lived this long starts the waits anew.
        max_line_bytes: Lines of its output are cut after this many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exit_timeout_s: float = Field(default=30.0, ge=0, le=3_600)
    restart_min_s: float = Field(default=0.1, gt=0, le=60)
    restart_max_s: float = Field(default=30.0, gt=0, le=3_600)
    healthy_after_s: float = Field(default=60.0, gt=0, le=86_400)
    max_line_bytes: int = Field(default=16_384, ge=256, le=1_048_576)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.restart_max_s < self.restart_min_s:
            raise ValueError(f"restart_max_s {self.restart_max_s} is less than restart_min_s {self.restart_min_s}")
        return self


class TritonSettings(BaseModel):
    """How the embedded Triton is run.

    Attributes:
        replicas: So many are run; each loads every model.
        startup_timeout_s: Until it answers that it is ready, all models loaded.
        exit_timeout_s: Given to requests in flight when it is told to stop. Its processes are killed when
            `supervision.exit_timeout_s` is over, so that this is the lesser of the two.
        model_config_name: Which of a model's `configs/NAME.pbtxt` is read in place of `config.pbtxt`.
        log_verbose: Triton's verbosity; 0 is none.
        model_load_threads: Models that are loaded at the same time.
        shm_default_byte_size: Shared memory that an instance of a python-based model starts with, in /dev/shm.
        shm_growth_byte_size: What is added when that is not enough.
        stub_timeout_s: What an instance may take to load its model.
        trace_url: Where Triton sends its spans of requests that bring a trace, as OTLP over HTTP; None: nowhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1, le=64)
    startup_timeout_s: float = Field(default=300.0, gt=0, le=3_600)
    exit_timeout_s: int = Field(default=20, ge=0, le=3_600)
    model_config_name: ConfigName | None = None
    log_verbose: int = Field(default=0, ge=0, le=10)
    model_load_threads: int = Field(default=4, ge=1, le=64)
    shm_default_byte_size: int = Field(default=1_048_576, ge=1_048_576, le=17_179_869_184)
    shm_growth_byte_size: int = Field(default=1_048_576, ge=1_048_576, le=17_179_869_184)
    stub_timeout_s: int = Field(default=120, ge=1, le=3_600)
    trace_url: str | None = Field(default=None, pattern=r"^https?://[^\s,]+$", max_length=2_048)
    supervision: SupervisionSettings = SupervisionSettings()

    @model_validator(mode="after")
    def _exits_before_it_is_killed(self) -> Self:
        if self.exit_timeout_s > self.supervision.exit_timeout_s:
            raise ValueError(
                f"exit_timeout_s {self.exit_timeout_s} is more than supervision.exit_timeout_s "
                f"{self.supervision.exit_timeout_s}"
            )
        return self
