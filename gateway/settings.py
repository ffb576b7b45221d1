"""The gateway's settings: read once, from the environment, as `TIDEGATE_…`."""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.admission.settings import ConcurrencySettings
from gateway.metrics.settings import CallLogSettings, MetricsSettings, TracingSettings
from gateway.routing.settings import TrafficSettings

MEBIBYTE = 1024 * 1024

Port = Annotated[int, Field(ge=0, le=65_535)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuthMode(StrEnum):
    """Whether callers must show an API key."""

    KEYS = "keys"
    OFF = "off"


class AuthSettings(_Section):
    """Identity.

    Attributes:
        mode: `off` lets every caller in with every scope, and is refused unless the host is loopback.
        recheck_s: A key seen in the database is trusted this long, so that a revocation takes this long to be seen.
        grace_s: A key seen in the database goes on working this long while the database is away.
        lookup_s: The database is away when it does not answer for this long.
        max_lookups: Keys looked up at once that were not seen before, so that guesses do not hold up known ones.
        max_remembered: Keys, known and unknown, whose state is held in memory.
    """

    mode: AuthMode = AuthMode.KEYS
    recheck_s: float = Field(default=2.0, gt=0, le=5)
    grace_s: float = Field(default=300.0, ge=0, le=86_400)
    lookup_s: float = Field(default=0.8, gt=0, le=10)
    max_lookups: int = Field(default=4, ge=1, le=100)
    max_remembered: int = Field(default=10_000, ge=1, le=1_000_000)


class SigningAlgorithm(StrEnum):
    """Asymmetric ones alone: with a shared secret whoever checks a token could make one."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"


class OidcSettings(_Section):
    """Tokens of an OpenID Connect issuer, taken beside API keys.

    Attributes:
        issuer: What a token's `iss` must be; None: no tokens are taken. Its keys are found by
            `<issuer>/.well-known/openid-configuration`.
        audience: What a token's `aud` must hold.
        algorithms: Those a token may be signed with, whatever it says itself.
        scope_claim: The claim that holds the scopes: a list, or words with spaces between.
        scopes: What a word of that claim allows: `infer`, `read` or `admin`. Other words allow nothing.
        models_claim: The claim that holds globs of the models it may name; without the claim it may name every model.
        leeway_s: Clocks may differ this much.
        keys_s: The issuer's keys are read again when they are this old.
        grace_s: While the issuer is away its keys are used until they are this old.
        retry_s: For a key that is not known they are read again this often at most.
        timeout_s: The issuer must answer within this time.
    """

    issuer: str | None = None
    audience: str = "tidegate"
    algorithms: tuple[SigningAlgorithm, ...] = Field(
        default=(SigningAlgorithm.RS256, SigningAlgorithm.ES256, SigningAlgorithm.EDDSA), min_length=1
    )
    scope_claim: str = "scope"
    scopes: dict[str, Literal["infer", "read", "admin"]] = {
        "tidegate:infer": "infer",
        "tidegate:read": "read",
        "tidegate:admin": "admin",
    }
    models_claim: str = "tidegate_models"
    leeway_s: float = Field(default=10.0, ge=0, le=300)
    keys_s: float = Field(default=300.0, gt=0, le=86_400)
    grace_s: float = Field(default=3_600.0, gt=0, le=86_400)
    retry_s: float = Field(default=10.0, gt=0, le=300)
    timeout_s: float = Field(default=3.0, gt=0, le=30)

    @model_validator(mode="after")
    def _issuer_is_trustworthy(self) -> Self:
        if self.issuer is not None:
            url = urlsplit(self.issuer)
            if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
                raise ValueError(f"oidc.issuer {self.issuer!r} must be https://…, or http:// on loopback")
        return self


class TlsVersion(StrEnum):
    """The oldest that is spoken."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class TlsSettings(_Section):
    """TLS on the REST and the gRPC port. Files are PEM, keys without a passphrase.

    Attributes:
        certificate: The chain that is shown, the server's own first; None: no TLS.
        key: Its private key.
        client_ca: Who must have signed a caller's certificate; None: callers need none. Their API keys are asked for
            all the same.
        min_version: 1.2 or 1.3.
        reload_s: How often the files are looked at; new connections are shown what they hold then.
        client_certificate: What the commands of this machine show to the server, where it has a `client_ca`.
        client_key: Its private key.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    min_version: TlsVersion = TlsVersion.TLS_1_2
    reload_s: float = Field(default=10.0, gt=0, le=3_600)
    client_certificate: Path | None = None
    client_key: Path | None = None

    @model_validator(mode="after")
    def _files_belong_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls.certificate and tls.key go together")
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("tls.client_certificate and tls.client_key go together")
        if self.certificate is None and self.client_ca is not None:
            raise ValueError("tls.client_ca needs tls.certificate and tls.key")
        return self


class CacheSettings(_Section):
    """The response cache of each worker, and the one that workers and machines share.

    Attributes:
        max_bytes: Bytes of requests' keys and answers held in each worker; 0 turns this cache off.
        max_entry_bytes: A larger answer is not kept there.
        ttl_s: An answer is used this long.
        models: Globs of models whose answers are kept although their configs do not say so.
        shared: Answers are kept in the Redis of `redis.url` too. Its `maxmemory` bounds them together.
        max_shared_entry_bytes: A larger answer is not kept there.
        secret: What places and marks of shared answers are computed with, the same on all machines; None: one that is made
            in the state directory, for the workers of this machine alone.
    """

    max_bytes: int = Field(default=64 * MEBIBYTE, ge=0)
    max_entry_bytes: int = Field(default=4 * MEBIBYTE, ge=1)
    ttl_s: float = Field(default=300.0, gt=0, le=86_400)
    models: tuple[str, ...] = ()
    shared: bool = False
    max_shared_entry_bytes: int = Field(default=MEBIBYTE // 4, ge=1, le=16 * MEBIBYTE)
    secret: Annotated[SecretStr, Field(min_length=32)] | None = None

    @property
    def on(self) -> bool:
        """Whether any answer is kept."""
        return self.shared or self.max_bytes > 0


class LimitSettings(_Section):
    """What one worker takes on.

    Attributes:
        max_body_bytes: Size of a request, and of an answer from Triton.
        max_in_flight: Inference calls worked on at once; more are refused.
        max_bytes_in_flight: Bytes of the requests worked on at once; more are refused. One request always fits.
        max_batch: Images in one request.
        default_deadline_s: For a caller that names none.
        max_deadline_s: A caller cannot ask for more.
        max_streams: Streams open at once; more are refused.
        max_stream_in_flight: Requests of one stream that are not fully answered; the next is not read before one is.
        max_stream_s: A stream is ended after this.
        max_images: Photographs in one REST `classify` call.
        max_head_bytes: Size of the line and headers of an HTTP request, of what frames its body, and of the metadata of a
            gRPC call; about.
        stall_s: A connection is closed whose caller takes longer than this to open it, to send the head of an HTTP
            request, or to read any more of an HTTP answer.
        lame_duck_s: On SIGTERM, time in which calls are still taken while readiness says no, so that balancers hear of it.
        drain_s: After that, time for the calls in flight.
    """

    max_body_bytes: int = Field(default=64 * MEBIBYTE, ge=1, le=1024 * MEBIBYTE)
    max_in_flight: int = Field(default=1_024, ge=1, le=100_000)
    max_bytes_in_flight: int = Field(default=512 * MEBIBYTE, ge=1)
    max_batch: int = Field(default=4_096, ge=1)
    default_deadline_s: float = Field(default=30.0, gt=0, le=3_600)
    max_deadline_s: float = Field(default=300.0, gt=0, le=3_600)
    max_streams: int = Field(default=256, ge=1, le=100_000)
    max_stream_in_flight: int = Field(default=64, ge=1, le=10_000)
    max_stream_s: float = Field(default=3_600.0, gt=0, le=86_400)
    max_images: int = Field(default=256, ge=1, le=4_096)
    max_head_bytes: int = Field(default=32 * 1024, ge=4 * 1024, le=MEBIBYTE)
    stall_s: float = Field(default=20.0, gt=0, le=600)
    lame_duck_s: float = Field(default=0.0, ge=0, le=600)
    drain_s: float = Field(default=10.0, ge=0, le=600)


class LimiterSettings(_Section):
    """How the limits of keys and tenants are counted.

    Attributes:
        burst_s: Seconds' worth of a rate that may come at once.
        max_tracked: Accounts whose use a process remembers; past it the longest unused are forgotten.
    """

    burst_s: float = Field(default=1.0, gt=0, le=3_600)
    max_tracked: int = Field(default=100_000, ge=1)


class WithoutRedis(StrEnum):
    """What becomes of limits while Redis does not answer."""

    LOCAL = "local"
    ALLOW = "allow"
    REFUSE = "refuse"


class RedisSettings(_Section):
    """Where workers and machines count limits together, and share answers where `cache.shared` says so.

    Attributes:
        url: redis://… or rediss://…; None: each worker counts for itself.
        timeout_s: Redis is away when it does not answer for this long.
        retry_s: While it is away it is tried this often, by one call.
        max_connections: Of each worker, for limits and for answers each.
        when_away: `local`: each worker counts for itself; `allow`: no limits; `refuse`: callers with limits are refused.
    """

    url: SecretStr | None = None
    timeout_s: float = Field(default=0.03, gt=0, le=0.05)
    retry_s: float = Field(default=1.0, gt=0, le=60)
    max_connections: int = Field(default=32, ge=1, le=1_000)
    when_away: WithoutRedis = WithoutRedis.LOCAL


class UpstreamSettings(_Section):
    """The Tritons behind the gateway; `tidegate up` fills in those that it starts.

    Attributes:
        address: host:port of the gRPC endpoint, several with commas between. dns:///host:port stands for every address
            that the name has.
        metrics_url: The Prometheus endpoint, several with commas between in the order of the addresses; None where there
            is none.
        channels: HTTP/2 connections of each worker to each replica. Each is a thread's work in Triton, which is more than a worker
            has to send; with fewer, both sides find more to do each time that they look.
        refresh_s: How often each replica is asked which models and versions are ready.
        check_timeout_s: A replica that leaves this question unanswered twice takes no calls.
        resolve_s: How often names are resolved.
        max_replicas: Of the addresses that a name has no more are used.
        keepalive_s: How often a connection with calls under way is pinged when nothing comes. A Triton closes it when that
            is more often than its `--grpc-http2-min-recv-ping-interval-without-data`, which is 300 s unless it is set.
        slow_start_s: In this time a replica that comes back rises to its full share.
        failures_to_eject: After so many failures without a success between, a replica gets no calls for that model.
        eject_s: For so long the first time, and that much longer each time again.
        max_eject_s: Never for longer.
        max_ejected: At most this share of the replicas, for failures and unanswered questions together. Those whose
            port is closed do not count.
        max_attempts: For one request, the first one too.
        retry_share: Retries and hedges together are at most this share of the requests of the last 10 s.
        retry_min: So many in 10 s are always allowed.
        hedge: A request that is unanswered after the time in which 95 % of its model's were is sent to a second replica
            too, and the first answer counts.
        max_moved_sequences: Sequences remembered that began while their own replica was away.
        shared_memory_bytes: Of /dev/shm, through which each worker hands requests with 256 KiB and more of tensors to
            Tritons that have the same /dev/shm, under the same user. 0: all go through gRPC. None: 128 MiB for the Tritons
            of `tidegate up`, 0 for others. No worker takes what would leave less than half of /dev/shm free.
    """

    address: str = Field(default="127.0.0.1:8101", min_length=1, max_length=10_000)
    metrics_url: str | None = None
    channels: int = Field(default=1, ge=1, le=64)
    refresh_s: float = Field(default=1.0, gt=0, le=60)
    check_timeout_s: float = Field(default=0.8, gt=0, le=60)
    resolve_s: float = Field(default=5.0, gt=0, le=3_600)
    max_replicas: int = Field(default=64, ge=1, le=1_024)
    keepalive_s: float = Field(default=300.0, ge=1, le=86_400)
    slow_start_s: float = Field(default=10.0, ge=0, le=600)
    failures_to_eject: int = Field(default=5, ge=1, le=1_000)
    eject_s: float = Field(default=5.0, gt=0, le=600)
    max_eject_s: float = Field(default=60.0, gt=0, le=3_600)
    max_ejected: float = Field(default=0.5, ge=0, le=1)
    max_attempts: int = Field(default=3, ge=1, le=10)
    retry_share: float = Field(default=0.2, ge=0, le=1)
    retry_min: int = Field(default=3, ge=0, le=1_000)
    hedge: bool = False
    max_moved_sequences: int = Field(default=10_000, ge=1, le=1_000_000)
    shared_memory_bytes: int | None = Field(default=None, ge=0)

    @property
    def addresses(self) -> tuple[str, ...]:
        """One by one."""
        return tuple(part.strip() for part in self.address.split(",") if part.strip())


class DatabaseSettings(_Section):
    """Where keys are kept.

    Attributes:
        url: postgresql+asyncpg://user:password@host/database or sqlite+aiosqlite:///path; None: SQLite in the state
            directory.
    """

    url: SecretStr | None = None


class GatewaySettings(BaseSettings):
    """All of it.

    Attributes:
        worker: This process's number among the workers, from 0; it names the worker's file of metrics.
    """

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", env_nested_delimiter="__", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_port: Port = 8001
    metrics_port: Port = 8002
    state_dir: Path = Path(".tidegate")
    worker: int = Field(default=0, ge=0, le=1_023)
    auth: AuthSettings = AuthSettings()
    oidc: OidcSettings = OidcSettings()
    tls: TlsSettings = TlsSettings()
    cache: CacheSettings = CacheSettings()
    limits: LimitSettings = LimitSettings()
    limiter: LimiterSettings = LimiterSettings()
    redis: RedisSettings = RedisSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    concurrency: ConcurrencySettings = ConcurrencySettings()
    traffic: TrafficSettings = TrafficSettings()
    database: DatabaseSettings = DatabaseSettings()
    metrics: MetricsSettings = MetricsSettings()
    call_log: CallLogSettings = CallLogSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _open_only_on_loopback(self) -> Self:
        if self.auth.mode is AuthMode.OFF and not is_loopback(self.host):
            raise ValueError(f"auth.mode=off is refused on host {self.host!r}: it must be loopback, such as 127.0.0.1")
        return self

    @model_validator(mode="after")
    def _shared_cache_has_a_redis(self) -> Self:
        if self.cache.shared and self.redis.url is None:
            raise ValueError("cache.shared needs redis.url")
        return self

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL, with its password."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.state_dir / 'tidegate.db'}"

    @property
    def metrics_dir(self) -> Path:
        """Where the workers keep the files of their metrics."""
        return self.state_dir / "metrics"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
