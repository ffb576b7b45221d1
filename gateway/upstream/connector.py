"""Keeps one HTTP/2 connection to a Triton: made when it is asked for, and made again, with a back-off, when it was lost."""

import asyncio

from gateway.settings import UpstreamSettings
from gateway.upstream.http2 import Http2Connection
from gateway.upstream.meaning import ReplicaLost

_PING_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 2.0
# A restarted Triton is found within a second, and one that is not there is not asked for by every call.
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 1.0
_AWAY = "the inference server cannot be reached; it is being restarted or is not ready"


def ping_timeout_s(settings: UpstreamSettings) -> float:
    """How long a peer that is asked whether it is there may take."""
    return min(settings.keepalive_s, _PING_TIMEOUT_S)


class Connector:
    """One place for a connection."""

    def __init__(self, address: str, settings: UpstreamSettings, max_message_bytes: int) -> None:
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._settings = settings
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        # The last is the current one; those before it were told to go away, and finish what they have.
        self._connections: list[Http2Connection] = []
        self._connecting: asyncio.Task[Http2Connection] | None = None
        self._backoff_s = _FIRST_BACKOFF_S
        self._again_at = float("-inf")

    @property
    def connection(self) -> Http2Connection | None:
        """The one that takes calls; None where there is none."""
        if self._connections and (last := self._connections[-1]).open:
            return last
        return None

    async def connect(self) -> Http2Connection:
        """The connection, made where there is none.

        Raises:
            ReplicaLost: Triton is not there, or was not a moment ago.
        """
        if self._connecting is None:
            if self._loop.time() < self._again_at:
                raise ReplicaLost(_AWAY)
            self._connecting = self._loop.create_task(self._connect(), name="connect to triton")
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def abandon(self) -> None:
        """Give up every call that is under way."""
        for connection in self._connections:
            connection.abandon()

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in tuple(self._connections):
            connection.close()
            await connection.closed

    async def _connect(self) -> Http2Connection:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, connection = await self._loop.create_connection(self._new, self._host, self._port)
        except (OSError, TimeoutError) as error:
            self._again_at = self._loop.time() + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)
            raise ReplicaLost(_AWAY) from error
        self._backoff_s = _FIRST_BACKOFF_S
        self._connections.append(connection)
        connection.closed.add_done_callback(lambda _: self._connections.remove(connection))
        return connection

    def _new(self) -> Http2Connection:
        return Http2Connection(self._max_message_bytes, self._settings.keepalive_s, ping_timeout_s(self._settings))

    def _connected(self, task: "asyncio.Task[Http2Connection]") -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # Those who wait for it were told; there may be none.
