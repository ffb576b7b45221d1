"""Shapes for `locust`: numbers of users, in place of `-u` and `-t`."""

from typing import ClassVar

from locust import LoadTestShape

from loadtest.levels import LEVELS
from loadtest.settings import LoadSettings, ShapeName


class UserShape(LoadTestShape):
    """Users in proportion to a level: as many as there are connections at the peak."""

    abstract = True
    name: ClassVar[ShapeName]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Locust's is untyped.
        self._settings = LoadSettings()

    def tick(self) -> tuple[int, float] | None:
        """Users now, all started at once; None when the run is over."""
        run_s: float = self.get_run_time()  # type: ignore[no-untyped-call]  # Locust's is untyped.
        progress = run_s / self._settings.duration_s
        if progress >= 1:
            return None
        peak = self._settings.connections
        return max(1, round(peak * LEVELS[self.name](progress))), peak


class Steps(UserShape):
    """Five steps of equal length and height."""

    name = ShapeName.STEPS


class Spike(UserShape):
    """Few users, but for a tenth of the time in the middle."""

    name = ShapeName.SPIKE


class Soak(UserShape):
    """All users, after a short ramp."""

    name = ShapeName.SOAK


class Sine(UserShape):
    """Up and down, twice."""

    name = ShapeName.SINE


SHAPES: dict[ShapeName, type[UserShape]] = {shape.name: shape for shape in (Steps, Spike, Soak, Sine)}
