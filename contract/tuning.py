"""The numbers of a config.pbtxt that depend on the machine, and not on the model."""

from pydantic import BaseModel, ConfigDict, Field


class Tuning(BaseModel):
    """How a model is run.

    Attributes:
        queue_delay_us: A batch that is not full waits this long for more.
        instances: On a CPU each is a process that runs a batch at a time: an engine's stream.
        threads: Of each instance; None: as its backend chooses.
        batch_size: Images that requests are gathered up to; None: the most that the model takes. A request may bring more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_delay_us: int = Field(ge=0, le=1_000_000)
    instances: int = Field(ge=1, le=1_024)
    threads: int | None = Field(default=None, ge=1, le=1_024)
    batch_size: int | None = Field(default=None, ge=1, le=1_024)

    def __str__(self) -> str:
        """In words."""
        threads = "threads as chosen" if self.threads is None else f"threads {self.threads}"
        batch = "full" if self.batch_size is None else str(self.batch_size)
        return f"delay {self.queue_delay_us} µs, instances {self.instances}, {threads}, batch {batch}"
