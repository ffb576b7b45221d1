"""Header blocks of gRPC calls, as a server reads and writes them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

import grpc
from hpack import Decoder, HPACKError
from hpack.exceptions import OversizedHeaderListError

from gateway.http2 import frames
from gateway.http2.fields import pair

# Larger ones than this are refused and lost for the connection, because they are not decoded to their end.
_MOST_TIMES_OVER = 4
# RFC 9113: what each field counts beside its bytes.
_FIELD_BYTES = 32
_PSEUDO = (":method", ":scheme", ":authority", ":path", ":protocol")
_OF_CONNECTIONS = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))
_UNITS_S = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT_DIGITS = 8
_CONTENT_TYPE = "application/grpc"
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_FORBIDDEN = re.compile("[\0\r\n]")
# Percent-encoding leaves printable ASCII but the percent sign.
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
# Clients without tables of their own send equal blocks, in which little but a deadline or a trace ever differs.
_MAX_KNOWN = 1_024
_MAX_KNOWN_BYTES = 1_024

# Of a status's message: gRPC's clients take 8 KiB of trailers, in which a byte may become three.
_MAX_DETAILS_BYTES = 2_048

_STATUS_200 = b"\x88"
# Before trailers, where nothing was said before.
ONLY_TRAILERS = _STATUS_200 + pair("content-type", _CONTENT_TYPE)
HEAD = ONLY_TRAILERS + pair("grpc-accept-encoding", "identity, deflate, gzip")


@dataclass(frozen=True, slots=True)
class Head:
    """What a client said before the body.

    Attributes:
        fields: What stands under a name, several with commas between.
        timeout_s: None: no deadline.
        http_status: Other than 200 where it is no gRPC call.
        refusal: Why it cannot be served, in gRPC's terms.
    """

    path: str
    fields: Mapping[str, str]
    timeout_s: float | None = None
    http_status: int = 200
    refusal: tuple[grpc.StatusCode, str] | None = None


class Malformed(Exception):
    """A header block that HTTP/2 does not allow: its stream is reset."""


class HeadReader:
    """Reads the blocks of one connection, in order.

    Args:
        max_bytes: Of the fields of one call, as RFC 9113 counts them.
        known: Blocks that were read, of all connections with this bound.
    """

    def __init__(self, max_bytes: int, known: dict[bytes, Head]) -> None:
        self._max_bytes = max_bytes
        self._decoder = Decoder(max_header_list_size=_MOST_TIMES_OVER * max_bytes)
        self._known = known

    @property
    def stateless(self) -> bool:
        """A block that is not read harms none that follows: the client has said that it keeps no table.

        Some never say so, though they have agreed to it, or use theirs all the same.
        """
        return self._decoder.header_table_size == 0

    def read(self, block: bytes) -> Head:
        """Read a block.

        Raises:
            Malformed: It is none of a request.
            ProtocolBroken: It cannot be read, nor can what follows.
        """
        if self.stateless and (known := self._known.get(block)) is not None:
            return known
        head = _head(((_text(name), _text(value)) for name, value in self._fields(block)), self._max_bytes)
        if self.stateless and len(block) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[block] = head
        return head

    def skip(self, block: bytes) -> None:
        """A block that says nothing to us, but may change what the next ones mean.

        Raises:
            ProtocolBroken: It cannot be read, nor can what follows.
        """
        if not self.stateless:
            self._fields(block)

    def _fields(self, block: bytes) -> Iterable[tuple[bytes | str, bytes | str]]:
        try:
            return self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise frames.ProtocolBroken(f"metadata far over {self._max_bytes} bytes", frames.CALM) from error
        except HPACKError as error:
            raise frames.ProtocolBroken("a header block that cannot be read", frames.COMPRESSION_ERROR) from error


def too_large(size: int, max_bytes: int) -> tuple[grpc.StatusCode, str]:
    """The refusal of a call with too much metadata."""
    return grpc.StatusCode.RESOURCE_EXHAUSTED, f"metadata of {size} bytes, limit {max_bytes}"


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")


def _head(fields: Iterable[tuple[str, str]], max_bytes: int) -> Head:
    pseudo: dict[str, str] = {}
    plain: dict[str, str] = {}
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + _FIELD_BYTES
        if name.startswith(":"):
            if plain or name in pseudo or name not in _PSEUDO:
                raise Malformed(name)
            pseudo[name] = value
            continue
        if name in _OF_CONNECTIONS or (name == "te" and value != "trailers") or not _NAME.fullmatch(name):
            raise Malformed(name)
        if not value.isprintable() and _FORBIDDEN.search(value):
            raise Malformed(name)
        plain[name] = f"{plain[name]},{value}" if name in plain else value
    if not pseudo.keys() >= {":method", ":scheme", ":path"} or not pseudo[":path"]:
        raise Malformed("a request without method, scheme or path")
    path = pseudo[":path"]
    if pseudo[":method"] != "POST":
        return Head(path, plain, http_status=405)
    content_type = plain.get("content-type", "")
    if not content_type.startswith(_CONTENT_TYPE) or content_type[len(_CONTENT_TYPE) :][:1] not in ("", "+", ";"):
        return Head(path, plain, http_status=415)
    if size > max_bytes:
        return Head(path, plain, refusal=too_large(size, max_bytes))
    try:
        return Head(path, plain, timeout_s=_timeout_s(plain.get("grpc-timeout")))
    except ValueError:
        reason = f"grpc-timeout {plain['grpc-timeout']!r} is not one to eight digits and one of H, M, S, m, u, n"
        return Head(path, plain, refusal=(grpc.StatusCode.INVALID_ARGUMENT, reason))


def _timeout_s(said: str | None) -> float | None:
    if said is None:
        return None
    digits, unit = said[:-1], said[-1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _TIMEOUT_DIGITS and unit in _UNITS_S):
        raise ValueError(said)
    return int(digits) * _UNITS_S[unit]


def trailers(code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """The block that ends a call; of long details their beginning."""
    return _trailers(code, details and _cut(details), metadata)


@lru_cache
def _trailers(code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    block = pair("grpc-status", str(code.value[0]))
    if details:
        block += pair("grpc-message", quote(details, safe=_PRINTABLE))
    return block + b"".join(pair(name, value) for name, value in metadata)


def _cut(details: str) -> str:
    encoded = details.encode(errors="replace")
    if len(encoded) <= _MAX_DETAILS_BYTES:
        return encoded.decode()
    return encoded[:_MAX_DETAILS_BYTES].decode(errors="ignore") + "…"


def only_trailers(code: grpc.StatusCode, details: str) -> bytes:
    """The block that answers and ends a call to which nothing was said before."""
    return ONLY_TRAILERS + trailers(code, details, ())


def http_refusal(status: int) -> bytes:
    """The block that answers what is no gRPC call."""
    return pair(":status", str(status))
