"""Keys and tenants as the admin API shows them."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool

from gateway.auth.administration import GLOB, TENANT_NAME, KeySpec
from gateway.call import Allowance, Scope, Tier
from gateway.rest.json_text import WHOLE
from gateway.routing.policies import StoredPolicy
from gateway.routing.policy import TrafficPolicy

Rate = Annotated[float, Field(ge=0.001, le=1e9, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE]
TenantName = Annotated[str, Field(pattern=f"^{TENANT_NAME}$")]
Glob = Annotated[str, Field(pattern=f"^{GLOB}$", max_length=100)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Limits(_Body):
    """What a key, or all keys of a tenant together, may use; null is without a limit."""

    model_config = ConfigDict(from_attributes=True)

    requests_per_s: Rate | None = None
    images_per_s: Rate | None = None
    images_per_day: Count | None = None
    max_in_flight: Count | None = None

    def allowance(self) -> Allowance:
        """As the gateway has it."""
        return Allowance(self.requests_per_s, self.images_per_s, self.images_per_day, self.max_in_flight)


class NewKey(_Body):
    """A key to make."""

    name: str = Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$", description="Printable characters.")
    scopes: list[Scope] = Field(default=[Scope.INFER, Scope.READ], min_length=1)
    models: list[Glob] = Field(default=["*"], min_length=1, description="Names or globs of models.")
    tenant: TenantName | None = None
    expires_at: AwareDatetime | None = None
    limits: Limits = Limits()
    tier: Tier = Field(default=Tier.STANDARD, description="Whose calls go first where not all can.")

    def spec(self) -> KeySpec:
        """As the gateway has it."""
        scopes = frozenset(self.scopes)
        limits = self.limits.allowance()
        return KeySpec(self.name, scopes, tuple(self.models), self.tenant, self.expires_at, limits, self.tier)


class Rotation(_Body):
    """How long the secret that a key has stays good beside the new one."""

    overlap_s: float = Field(default=86_400, ge=0, le=31_536_000, strict=True)

    def overlap(self) -> timedelta:
        """As a span of time."""
        return timedelta(seconds=self.overlap_s)


class Secret(BaseModel):
    """A key in full: this answer is the only one that has it."""

    key_id: str
    key: str


class Key(BaseModel):
    """A key without its secret."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str
    name: str
    tenant: str | None
    scopes: list[Scope]
    models: list[str]
    tier: Tier
    limits: Limits
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    old_secret_until: AwareDatetime | None
    last_used_at: AwareDatetime | None


class NewTenant(_Body):
    """A tenant to make."""

    name: TenantName
    limits: Limits = Limits()


class TenantState(_Body):
    """Whether a tenant's keys are refused."""

    disabled: StrictBool


class Tenant(BaseModel):
    """Who owns keys."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    limits: Limits
    created_at: AwareDatetime
    disabled_at: AwareDatetime | None


class SetPolicy(BaseModel):
    """A model's traffic policy."""

    model: str
    policy: TrafficPolicy
    revision: int
    changed_at: AwareDatetime
    changed_by: str

    @classmethod
    def of(cls, model: str, stored: StoredPolicy) -> Self:
        """As it is stored."""
        return cls(model=model, **asdict(stored))


class Act(BaseModel):
    """One act of an administrator."""

    model_config = ConfigDict(from_attributes=True)

    at: AwareDatetime
    actor: str
    action: str
    target: str
    result: str
