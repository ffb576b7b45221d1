"""Compressed bodies are bounded by what they become."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from gateway import compression
from gateway.compression import Inflater
from gateway.errors import InvalidArgument, TooLarge, Unimplemented

_BODY = bytes(range(256)) * 100


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_body_comes_back_whatever_its_pieces(encoding: str, pack: Callable[[bytes], bytes], size: int) -> None:
    packed = pack(_BODY)
    inflater = Inflater(encoding, len(_BODY))
    made = b"".join(inflater.feed(packed[start : start + size]) for start in range(0, len(packed), size))
    inflater.end()
    assert made == _BODY


def test_what_is_over_the_limit_is_not_made() -> None:
    bomb = gzip.compress(bytes(200_000_000))
    inflater = Inflater("gzip", 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="over 1000000 bytes"):
            inflater.feed(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_itself_is_allowed() -> None:
    inflater = Inflater("gzip", len(_BODY))
    assert inflater.feed(gzip.compress(_BODY)) == _BODY
    with pytest.raises(TooLarge):
        Inflater("gzip", len(_BODY) - 1).feed(gzip.compress(_BODY))


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (b"not gzip", "is not gzip"),
        (gzip.compress(_BODY)[:-1], "ends within"),
        (b"", "ends within"),
        (gzip.compress(_BODY) + b"x", "goes on after"),
    ],
)
def test_what_is_not_gzip_is_refused(packed: bytes, words: str) -> None:
    inflater = Inflater("gzip", 1_000_000)
    with pytest.raises(InvalidArgument, match=words):
        inflater.feed(packed)
        inflater.end()


def test_another_encoding_is_not_offered() -> None:
    with pytest.raises(Unimplemented, match="'br'"):
        Inflater("br", 1)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.1, deflate;q=0.5", "deflate"),
        ("br, *", None),
        ("gzip;q=0", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("gzip;q=nonsense", None),
    ],
)
def test_the_answers_encoding_is_the_one_triton_takes(accept: str, chosen: str | None) -> None:
    assert compression.accepted(accept) == chosen


def test_what_is_compressed_can_be_read() -> None:
    assert gzip.decompress(compression.compress(_BODY, "gzip")) == _BODY
    assert zlib.decompress(compression.compress(_BODY, "deflate")) == _BODY
