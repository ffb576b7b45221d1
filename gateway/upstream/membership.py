"""The addresses of the replicas: as they are written, or as a name resolves."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import structlog

_DNS = "dns:///"

_log = structlog.get_logger(__name__)

Resolve = Callable[[str, str], Awaitable[Sequence[str]]]


async def resolve(host: str, port: str) -> list[str]:
    """Every host:port of a name, by the resolver of this machine.

    Raises:
        OSError: It has none, or cannot be asked.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted(
        {f"[{address[0]}]:{port}" if ":" in str(address[0]) else f"{address[0]}:{port}" for *_, address in found}
    )


class Membership:
    """Turns the addresses of the settings into those of single replicas.

    gRPC would resolve the name itself, and then choose among what it found: its choice knows neither the calls under way
    nor the models, so that each replica has channels of its own here.
    """

    def __init__(self, addresses: Sequence[str], most: int, resolve: Resolve = resolve) -> None:
        self._addresses = addresses
        self._most = most
        self._resolve = resolve
        self._found: dict[str, Sequence[str]] = {}

    @property
    def resolves(self) -> bool:
        """There is a name among them."""
        return any(address.startswith(_DNS) for address in self._addresses)

    async def current(self) -> list[str]:
        """The addresses now; a name that does not resolve keeps those it had."""
        addresses: dict[str, None] = {}
        for address in self._addresses:
            if address.startswith(_DNS):
                addresses |= dict.fromkeys(await self._of_name(address.removeprefix(_DNS)))
            else:
                addresses[address] = None
        if len(addresses) > self._most:
            _log.warning("there are more replicas than may be used", found=len(addresses), used=self._most)
        return list(addresses)[: self._most]

    async def _of_name(self, name: str) -> Sequence[str]:
        host, _, port = name.rpartition(":")
        try:
            self._found[name] = await self._resolve(host.strip("[]"), port)
        except OSError as error:
            _log.warning("a name does not resolve", name=name, error=str(error))
        return self._found.get(name, ())
