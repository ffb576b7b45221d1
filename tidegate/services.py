"""Whether what a deployment leans on answers: Redis, and a repository in a bucket."""

import asyncio
import re
from importlib.util import find_spec

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from contract.errors import ContractError
from export.errors import ExportError
from export.locations import open_store
from tidegate.errors import CommandError

_ANSWER_S = 5.0
# A port makes what comes before it a server, as Triton reads it; else the first part is a bucket of AWS's.
_BUCKET = re.compile(r"s3://(?:(?P<scheme>https?://)?(?P<host>[^/:]+:\d+)/)?(?P<bucket>[^/]+)")


def redis_version(url: str) -> str:
    """Of the Redis that answers.

    Raises:
        CommandError: It does not; the message names host and port, and not the password.
    """

    async def ask() -> str:
        async with asyncio.timeout(_ANSWER_S), Redis.from_url(url) as client:
            return str((await client.info("server"))["redis_version"])

    where = url.partition("://")[2].rpartition("@")[2]
    try:
        return f"{where} is version {asyncio.run(ask())}"
    except (OSError, RedisError, ValueError) as error:
        raise CommandError(f"{where}: {error or type(error).__name__}") from error


def bucket_contents(location: str) -> str:
    """What is in a repository in a bucket; in an install that only serves, whether its server answers.

    Raises:
        CommandError: It does not, or the keys do not open it.
    """
    try:
        if find_spec("boto3") is not None:
            return f"{len(open_store(location).directories())} models in {location}"
    except (ContractError, ExportError) as error:
        raise CommandError(str(error)) from error
    match = _BUCKET.match(location)
    if match is None:
        raise CommandError(f"{location}: not s3://BUCKET/PREFIX or s3://http://HOST:PORT/BUCKET/PREFIX")
    aws = f"https://{match['bucket']}.s3.amazonaws.com"
    url = f"{match['scheme'] or 'http://'}{match['host']}/{match['bucket']}" if match["host"] else aws
    try:
        status = httpx.head(url, timeout=_ANSWER_S).status_code
    except httpx.HTTPError as error:
        raise CommandError(f"{url}: {error or type(error).__name__}") from error
    if status == httpx.codes.NOT_FOUND:
        raise CommandError(f"{url}: no such bucket")
    return f"{url} answers; its models are not looked into without boto3"
