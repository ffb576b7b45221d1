"""The settings of what is said of calls: figures, lines in the log, traces."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricsSettings(_Section):
    """The gateway's own figures.

    Attributes:
        max_tenants: Tenants that have labels of their own in a worker's figures; the others are counted together.
        max_keys: Keys likewise.
    """

    max_tenants: int = Field(default=100, ge=0, le=10_000)
    max_keys: int = Field(default=100, ge=0, le=10_000)


class LoggedCalls(StrEnum):
    """Which calls have a line in the log."""

    OFF = "off"
    ERRORS = "errors"
    ALL = "all"


class CallLogSettings(_Section):
    """A line in the log for a call.

    Attributes:
        calls: `errors`: those that were not answered; `all`: the others too.
        sample: The share of the answered calls that `all` writes.
        max_per_s: Lines that a worker writes in a second.
    """

    calls: LoggedCalls = LoggedCalls.ERRORS
    sample: float = Field(default=1.0, ge=0, le=1)
    max_per_s: int = Field(default=100, ge=1, le=100_000)


class TracingSettings(_Section):
    """OpenTelemetry.

    Attributes:
        endpoint: http://host:port or https://host:port of a collector that takes OTLP over gRPC; None: no traces.
        sample: The share of the calls whose trace is kept; a caller that brings a W3C context decides itself.
        service_name: What the gateway is called in the traces.
        max_queue: Spans that wait to be exported; more are dropped.
        export_every_s: They are exported this often, and when there are many.
    """

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/\s]+$")
    sample: float = Field(default=0.01, ge=0, le=1)
    service_name: str = Field(default="tidegate", min_length=1, max_length=128)
    max_queue: int = Field(default=2_048, ge=1, le=100_000)
    export_every_s: float = Field(default=5.0, gt=0, le=60)
