"""What a load test asks for, from the environment."""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loadtest.errors import BadLoad


class Kind(StrEnum):
    """What one request is: tensors or files over gRPC, tensors over REST, or photographs to `classify`."""

    TENSORS = "tensors"
    ENCODED = "encoded"
    REST = "rest"
    CLASSIFY = "classify"


class Pattern(StrEnum):
    """How arrivals follow each other."""

    POISSON = "poisson"
    CONSTANT = "constant"


class ShapeName(StrEnum):
    """How the load changes while it runs."""

    STEPS = "steps"
    SPIKE = "spike"
    SOAK = "soak"
    SINE = "sine"


class Tenant(BaseModel):
    """One of several callers that share the load.

    Attributes:
        share: Of the requests, in proportion to the shares of the others.
        kind: None: the load's own, as is `batch_size`.
        priority: The parameter `priority` of its requests, over gRPC and with tensors; 0: the model's default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    key: SecretStr
    share: float = Field(default=1.0, gt=0)
    kind: Kind | None = None
    batch_size: int | None = Field(default=None, ge=1, le=1_024)
    priority: int = Field(default=0, ge=0, le=2**31 - 1)


class LoadSettings(BaseSettings):
    """`TIDEGATE_LOAD_MODEL` and so on.

    Attributes:
        grpc: host:port of the server's gRPC endpoint, as are `http` and `metrics` of the others.
        tls: Speak TLS to `grpc` and `http`.
        tls_ca: A PEM file with certificates to trust; None: the system's.
        tls_name: The name that the server's certificate is for, where that is not the host's. Over REST no name is
            checked then.
        tls_certificate: Shown to a server that asks for one, with `tls_key`.
        key: An API key with the scope `infer`; with `read`, the report shows the batches too.
        tenants: A JSON file with a list of tenants, who then share the load in place of the one key.
        model: A model that takes image tensors; its twin `_encoded` takes files.
        batch_size: Images in one request.
        images: A file, or a directory of JPEG, PNG or WebP files; None: two photographs that come with scikit-learn.
        distinct: Different images in the requests.
        cached: Equal requests may be answered from the server's cache; else each has a mark of its own.
        deadline_s: Of each request, from when it is sent.
        connections: To the server, of all processes together.
        max_outstanding: Requests without an answer, of all processes together; one more is not sent, and counts as an
            error.
        user_rate: Requests a second that each user begins under `locust`, whatever becomes of them; None: one after the
            other.
        rate: Requests a second in all; where `find_max` is set, the first that is tried.
        arrivals: How they follow each other.
        shape: How the rate changes in the course of a run; `rate` is its peak.
        duration_s: Of a run.
        warmup_s: Of the load before it, which is not counted.
        slo: What must hold, such as `p99=50ms,errors=0.1%`.
        find_max: Search the highest rate that holds the SLO.
        max_rate: None higher is tried.
        precision: The search ends when a rate that holds and one that does not are this close.
        workers: Processes that make the load.
        out: Where the results are written.
    """

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_LOAD_", frozen=True)

    grpc: str = "127.0.0.1:8001"
    http: str = "127.0.0.1:8000"
    metrics: str = "127.0.0.1:8002"
    tls: bool = False
    tls_ca: Path | None = None
    tls_name: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    key: SecretStr
    tenants: Path | None = None
    model: str = "digits"
    kind: Kind = Kind.TENSORS
    batch_size: int = Field(default=1, ge=1, le=1_024)
    images: Path | None = None
    distinct: int = Field(default=256, ge=1, le=100_000)
    cached: bool = False
    deadline_s: float = Field(default=10.0, gt=0, le=600)
    connections: int = Field(default=8, ge=1, le=10_000)
    max_outstanding: int = Field(default=1_000, ge=1, le=100_000)
    user_rate: float | None = Field(default=None, gt=0, le=100_000)
    rate: float = Field(default=50.0, gt=0, le=1_000_000)
    arrivals: Pattern = Pattern.POISSON
    shape: ShapeName | None = None
    duration_s: float = Field(default=10.0, gt=0, le=86_400)
    warmup_s: float = Field(default=2.0, ge=0, le=600)
    slo: str | None = None
    find_max: bool = False
    max_rate: float = Field(default=10_000.0, gt=0, le=1_000_000)
    precision: float = Field(default=0.05, gt=0, le=1)
    workers: int = Field(default=1, ge=1, le=64)
    out: Path = Path(".tidegate/load")

    @model_validator(mode="after")
    def _each_worker_has_a_connection(self) -> Self:
        if self.connections < self.workers:
            raise ValueError(f"{self.workers} workers need as many connections, and there are {self.connections}")
        return self

    def sharing(self) -> tuple[Tenant, ...]:
        """Who makes the load: the tenants of the file, or the one key.

        Raises:
            BadLoad: The file cannot be read, or is not a list of tenants.
        """
        if self.tenants is None:
            return (Tenant(name=self.kind, key=self.key),)
        try:
            tenants = TypeAdapter(tuple[Tenant, ...]).validate_json(self.tenants.read_bytes())
        except OSError as error:
            raise BadLoad(f"{self.tenants}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise BadLoad(f"{self.tenants}: {place}: {first['msg']}") from error
        if len({tenant.name for tenant in tenants}) != len(tenants) or not tenants:
            raise BadLoad(f"{self.tenants}: there must be tenants, each with a name of its own")
        return tenants
