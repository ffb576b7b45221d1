"""The settings of traffic policies."""

from pydantic import BaseModel, ConfigDict, Field


class TrafficSettings(BaseModel):
    """Traffic policies: aliases, weights, shadows, canaries.

    Attributes:
        poll_s: How often a worker reads them.
        max_copies: Requests that one worker copies to another version at a time; others are not copied.
        copy_timeout_s: No copy is waited for longer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(default=1.0, gt=0, le=2)
    max_copies: int = Field(default=4, ge=0, le=1_000)
    copy_timeout_s: float = Field(default=10.0, gt=0, le=300)
