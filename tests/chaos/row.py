"""What a fault showed."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Row:
    """One fault: whether what must hold did, and the figures.

    Attributes:
        fault: What was done.
        must: What must hold, in words.
        broken: What did not hold, each in words.
        figures: What was measured, by name with its unit.
    """

    fault: str
    must: str
    broken: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Everything did."""
        return not self.broken

    def need(self, holds: bool, what: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.broken.append(what)
