"""The settings of how many calls of a model are worked on at once."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ConcurrencySettings(BaseModel):
    """How many calls of a model one worker works on at once: learned, and the rest wait a little or are refused.

    Attributes:
        floor: Never fewer. Calls that begin while so many are under way are taken for calls that are alone.
        ceiling: Never more.
        initial: Before anything is learned.
        tolerance: Calls may take this many times as long as they do alone before fewer are worked on. Batches make calls
            slower and a server faster: what batches well wants more.
        max_queued: Calls that wait for a model; past it those of a lower tier, then new ones, are refused.
        max_wait_s: No call waits longer; and only those of the tier `high` so long while more comes than is answered.
        probe_s: Where for so long no call was alone and the model never idle, the limit is the floor until some were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: int = Field(default=8, ge=1, le=10_000)
    ceiling: int = Field(default=1_024, ge=1, le=100_000)
    initial: int = Field(default=64, ge=1, le=100_000)
    tolerance: float = Field(default=5.0, ge=1.1, le=100)
    max_queued: int = Field(default=512, ge=1, le=100_000)
    max_wait_s: float = Field(default=2.0, gt=0, le=60)
    probe_s: float = Field(default=60.0, ge=1, le=3_600)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.floor <= self.initial <= self.ceiling:
            raise ValueError(f"initial {self.initial} is not between floor {self.floor} and ceiling {self.ceiling}")
        return self
