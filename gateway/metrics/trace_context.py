"""The W3C context that goes to Triton with a call that is traced, so that Triton's spans hang below ours."""

from contextvars import ContextVar

Metadata = tuple[tuple[str, str], ...]

outgoing: ContextVar[Metadata | None] = ContextVar("outgoing trace context", default=None)
