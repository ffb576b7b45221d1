"""Which version of a model answers whom: what an operator sets, and the choice it makes."""

from bisect import bisect_right
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from itertools import accumulate
from random import random
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from gateway.errors import InvalidArgument

STABLE, CANARY = "stable", "canary"
STICKY_HEADER = "x-tidegate-sticky"

# Not a number: those are versions.
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
KeyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,12}$")]
_MAX_STICKY = 256


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sticky(StrEnum):
    """What keeps a caller at one version: nothing, its key, or the header `x-tidegate-sticky`."""

    NONE = "none"
    KEY = "key"
    HEADER = "header"


class Shadow(_Part):
    """A version that is asked too, and whose answers no one is given.

    Attributes:
        share: Of the requests.
    """

    version: Version
    share: float = Field(default=1.0, gt=0, le=1)


class Guard(_Part):
    """When the canary is set to 0. Each worker judges what it saw itself.

    Attributes:
        min_sample: Answers of the canary, and comparisons, before they are judged.
        max_error_rate: It may fail by this much more often than `stable`; 0.05 are 5 of 100.
        max_slowdown: Its median time may be this many times that of `stable`; null: it may be any.
        max_disagreement: The share of its answers that may differ from those of `stable` to the same requests, which is
            asked for a copy of them; null: they are not compared.
    """

    min_sample: int = Field(default=100, ge=10, le=100_000)
    max_error_rate: float = Field(default=0.05, ge=0, le=1)
    max_slowdown: float | None = Field(default=2.0, gt=1, le=1_000)
    max_disagreement: float | None = Field(default=None, ge=0, le=1)


class TrafficPolicy(_Part):
    """How the calls of a model that name no version number are given to its versions.

    Attributes:
        aliases: Names for versions, which a caller may give in place of a number. `stable` answers who names nothing
            where there are no weights; `canary` is watched.
        weights: Shares of the calls that name nothing, by alias or number.
        sticky: What keeps a caller at one version.
        pins: Versions by key id: for such a caller they go before the weights.
        shadow: A version that is tried beside them.
        guard: When the canary is set to 0.
    """

    aliases: dict[Alias, Version] = Field(default={}, max_length=16)
    weights: dict[str, Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]] = Field(default={}, max_length=16)
    sticky: Sticky = Sticky.NONE
    pins: dict[KeyId, Version] = Field(default={}, max_length=1_000)
    shadow: Shadow | None = None
    guard: Guard = Guard()

    @model_validator(mode="after")
    def _weights_are_of_versions(self) -> Self:
        for name in self.weights:
            if name not in self.aliases and not (name.isascii() and name.isdecimal() and 0 < int(name) < 2**31):
                raise ValueError(f"weights: {name!r} is neither an alias nor a version")
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights: one must be above 0")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """From JSON.

        Raises:
            InvalidArgument: The message names the field.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "policy"
            raise InvalidArgument(f"{field}: {first['msg'].removeprefix('Value error, ')}") from error

    @property
    def shares(self) -> dict[int, float]:
        """The share of each version that has a weight, 0 to 1."""
        total = sum(self.weights.values())
        shares: dict[int, float] = {}
        for name, weight in self.weights.items():
            version = self.aliases.get(name) or int(name)
            shares[version] = shares.get(version, 0.0) + weight / total
        return shares

    def without_canary(self) -> Self:
        """All that the canary got goes to `stable`."""
        canary = self.aliases[CANARY]
        kept = {
            name: weight for name, weight in self.weights.items() if (self.aliases.get(name) or int(name)) != canary
        }
        zeros = {name: 0.0 for name in self.weights if name not in kept}
        moved = sum(weight for name, weight in self.weights.items() if name in zeros)
        kept[STABLE] = kept.get(STABLE, 0.0) + moved
        return self.model_copy(update={"weights": {**kept, **zeros}})


class Choice:
    """A policy made ready to be asked for each call.

    Attributes:
        canary: The version that is watched; None where there is none, or it gets nothing.
        stable: What it is held against.
    """

    __slots__ = ("_bounds", "_pins", "_versions", "aliases", "canary", "policy", "revision", "stable")

    def __init__(self, policy: TrafficPolicy, revision: int) -> None:
        shares = {version: share for version, share in policy.shares.items() if share}
        self.policy = policy
        self.revision = revision
        self.aliases: Mapping[str, int] = policy.aliases
        self.stable = policy.aliases.get(STABLE)
        canary = policy.aliases.get(CANARY)
        watched = canary is not None and self.stable not in (None, canary) and shares.get(canary)
        self.canary = canary if watched else None
        self._versions = list(shares)
        self._bounds = list(accumulate(shares.values()))
        self._pins = {f"key:{key_id}": version for key_id, version in policy.pins.items()}

    def version(self, subject: str, sticky: str | None, sequence: str | None) -> int | None:
        """The version for a caller that names none; None where the policy leaves it open.

        Args:
            subject: The caller.
            sticky: What the header `x-tidegate-sticky` says.
            sequence: What the call belongs to, all of which stays at one version.
        """
        if (pinned := self._pins.get(subject)) is not None:
            return pinned
        if not self._versions:
            return self.stable
        mark = sequence or {Sticky.KEY: subject, Sticky.HEADER: sticky}.get(self.policy.sticky)
        place = bisect_right(self._bounds, random() if mark is None else _point(mark))
        return self._versions[min(place, len(self._versions) - 1)]


def _point(mark: str) -> float:
    """A number from 0 to 1, always the same for the same text."""
    return int.from_bytes(blake2b(mark[:_MAX_STICKY].encode(), digest_size=7).digest(), "big") / 2**56
