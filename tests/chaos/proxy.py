"""A TCP proxy that makes a network as bad as it is told."""

import asyncio
import random
from contextlib import suppress
from typing import Self


class Proxy:
    """Between whoever connects to it and one address.

    Attributes:
        delay_s: Every piece is held up so long.
        loss: The share of pieces held up for `retransmit_s` more: what a lost packet does to a TCP connection.
        silent: Pieces go nowhere, in either direction, and no connection is closed: those that send any are half-open,
            and stay so.
        connections: Open now.
    """

    retransmit_s = 0.2

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.loss = 0.0
        self.silent = False
        self.connections = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return "127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            there = asyncio.create_task(self._pass(reader, far_writer))
            back = asyncio.create_task(self._pass(far_reader, writer))
            try:
                await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            dead = False
            while piece := await reader.read(65_536):
                dead = dead or self.silent
                if dead:
                    continue
                wait_s = self.delay_s + (self.retransmit_s if random.random() < self.loss else 0.0)
                if wait_s:
                    await asyncio.sleep(wait_s)
                writer.write(piece)
                await writer.drain()
