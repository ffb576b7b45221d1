"""Lines of bounded length."""

import asyncio

from serving.lines import read_lines


async def lines(*chunks: bytes, limit: int = 8) -> list[str]:
    reader = asyncio.StreamReader()

    async def feed() -> None:
        for chunk in chunks:
            reader.feed_data(chunk)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    read = [line async for line in read_lines(reader, limit)]
    await feeding
    return read


async def test_lines_are_joined_over_chunks() -> None:
    assert await lines(b"a", b"b\nc\r\n\nd", b"e") == ["ab", "c", "", "de"]


async def test_a_long_line_is_cut_and_the_next_is_whole() -> None:
    assert await lines(b"12345", b"6789abc", b"def\nnext\n12345678\n") == ["12345678…", "next", "12345678"]


async def test_what_is_not_utf8_is_replaced() -> None:
    assert await lines(b"\xffa\n") == ["\ufffda"]
