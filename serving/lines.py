"""Lines of a process's output, of bounded length."""

import asyncio
from collections.abc import AsyncIterator

_CHUNK_BYTES = 65_536


async def read_lines(reader: asyncio.StreamReader, max_line_bytes: int) -> AsyncIterator[str]:
    """Yield each line without its end, until the last writer is gone.

    A longer line is cut and marked with "…": StreamReader.readline would raise and lose the stream.
    """
    line = bytearray()
    while chunk := await reader.read(_CHUNK_BYTES):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            line += part[: max_line_bytes + 1 - len(line)]
            yield _text(line, max_line_bytes)
            line.clear()
        line += rest[: max_line_bytes + 1 - len(line)]
    if line:
        yield _text(line, max_line_bytes)


def _text(line: bytearray, max_line_bytes: int) -> str:
    text = line[:max_line_bytes].decode(errors="replace").rstrip("\r")
    return text + "…" if len(line) > max_line_bytes else text
