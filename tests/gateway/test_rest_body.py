import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.errors import InvalidArgument, TooLarge, Unimplemented
from gateway.rest.body import LOST, Body, CallerGone


def _body(*messages: Message, max_bytes: int = 10, headers: dict[str, str] | None = None) -> Body:
    """A body that arrives as these messages; after the last, the caller waits."""
    pending = list(messages)

    async def receive() -> Message:
        if not pending:
            await asyncio.Event().wait()
        return pending.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "headers": raw, "extensions": {LOST: set()}}
    return Body(Request(scope, receive), max_bytes)


def _chunk(data: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


_GONE: Message = {"type": "http.disconnect"}


async def test_chunks_are_joined() -> None:
    assert await _body(_chunk(b"abc", more=True), _chunk(b"de")).read() == b"abcde"


async def test_a_body_over_the_limit_is_refused_while_it_arrives() -> None:
    body = _body(_chunk(b"123456", more=True), _chunk(b"78901", more=True), _chunk(b"", more=True))
    with pytest.raises(TooLarge, match="over 10 bytes"):
        await body.read()


@pytest.mark.parametrize(
    ("headers", "error"),
    [({"content-length": "11"}, TooLarge), ({"content-encoding": "br"}, Unimplemented)],
)
async def test_headers_alone_can_refuse(headers: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        await _body(headers=headers).read()


async def test_work_ends_with_its_result() -> None:
    body = _body(_chunk(b"abc"))
    assert await body.unless_gone(body.read()) == b"abc"


@pytest.mark.parametrize("arrives", [(_chunk(b"abc"),), (_chunk(b"abc", more=True), _GONE)])
async def test_a_caller_that_goes_cancels_the_work(arrives: tuple[Message, ...]) -> None:
    body = _body(*arrives)
    lost = body.request.scope["extensions"][LOST]
    outcome = []

    async def work() -> None:
        try:
            await body.read()
            for tell in tuple(lost):
                tell()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    with pytest.raises(CallerGone):
        await body.unless_gone(work())
    assert outcome == ["cancelled"]
    assert not lost


async def test_a_failure_of_the_work_is_passed_on() -> None:
    body = _body(_chunk(b""))

    async def work() -> None:
        raise InvalidArgument("no")

    with pytest.raises(InvalidArgument):
        await body.unless_gone(work())
