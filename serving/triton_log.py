"""Triton's log, relayed line by line, and what is remembered of it."""

import logging
import re
from collections import deque

import structlog

_LINE = re.compile(r'(?P<level>[IWEF])\d{4} [\d:.]+ \d+ (?P<source>\S+:\d+)\] "?(?P<message>.*?)"?$')
_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
_WITHOUT_GPU = re.compile(r"NVML|DCGM|pinned (system )?memory|CUDA memory pool|CudaDriverHelper")
_POLL_FAILED = re.compile(r"Poll failed for model directory '(?P<model>.+?)': (?P<reason>.*)")
_PARSE_FAILED = re.compile(r"\[libprotobuf ERROR .*?\] Error parsing text-format inference.ModelConfig: (?P<reason>.*)")
_REMEMBERED_ERRORS = 8
_REMEMBERED_MODELS = 1_024

_log = structlog.stdlib.get_logger(__name__)


class TritonLog:
    """Hands Triton's lines to our log and keeps what explains a failure."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=_REMEMBERED_ERRORS)
        self._parse_error: str | None = None
        self._unreadable: dict[str, str] = {}

    @property
    def last_errors(self) -> tuple[str, ...]:
        """The last errors and fatal lines, oldest first; without those that only say that there is no GPU."""
        return tuple(self._errors)

    @property
    def unreadable_models(self) -> dict[str, str]:
        """Why a model's directory could not be read, by model: Triton's index does not say."""
        return dict(self._unreadable)

    def relay(self, line: str) -> str:
        """Log one line; returns its message, without Triton's time, process and place."""
        match = _LINE.match(line)
        if match is None:
            return self._relay_bare(line)
        message, level = match["message"], _LEVELS[match["level"]]
        if _WITHOUT_GPU.search(message):
            level = logging.DEBUG
        if level >= logging.ERROR:
            self._errors.append(message)
        if failed := _POLL_FAILED.match(message):
            self._remember_unreadable(failed["model"], failed["reason"])
        _log.log(level, "triton.log", message=message, source=match["source"])
        return message

    def _relay_bare(self, line: str) -> str:
        """A table of Triton's, the rest of an error of several lines, or what a model printed."""
        if failed := _PARSE_FAILED.match(line):
            self._parse_error = failed["reason"]
        if line.strip():
            _log.debug("triton.output", message=line)
        return line

    def _remember_unreadable(self, model: str, reason: str) -> None:
        # What libprotobuf said just before names the line and the field.
        detail, self._parse_error = self._parse_error, None
        if model in self._unreadable or len(self._unreadable) < _REMEMBERED_MODELS:
            self._unreadable[model] = f"{reason}: {detail}" if detail else reason
