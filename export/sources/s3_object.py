"""A checkpoint that is an object in S3, or in a server that speaks its protocol."""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from export.errors import SourceFailed, one_line
from export.sources.source import SourceFile

SCHEME = "s3://"
_CHUNK_BYTES = 1 << 20
_CONFIG = Config(
    connect_timeout=10,
    read_timeout=30,
    retries={"mode": "standard", "max_attempts": 3},
    # Not every server knows the checksums that boto3 asks for by default.
    response_checksum_validation="when_required",
)


def fetch_object(uri: str, directory: Path, *, max_bytes: int) -> SourceFile:
    """Download s3://BUCKET/KEY with the credentials, and from the endpoint, of the usual AWS environment.

    Args:
        directory: Where the file goes.
        max_bytes: A larger object is refused.

    Raises:
        SourceFailed: There is no such object, it is too large, or the server does not give it.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not bucket or not key or key.endswith("/"):
        raise SourceFailed(f"{uri}: not s3://BUCKET/KEY")
    path = directory / PurePosixPath(key).name
    try:
        found = boto3.Session().client("s3", config=_CONFIG).get_object(Bucket=bucket, Key=key)
        if found["ContentLength"] > max_bytes:
            raise SourceFailed(
                f"{uri}: {found['ContentLength']} bytes, more than the {max_bytes} a checkpoint may have"
            )
        sha256 = _save(found["Body"].iter_chunks(_CHUNK_BYTES), path)
    except (BotoCoreError, ClientError, OSError) as error:
        raise SourceFailed(f"{uri}: {one_line(error)}") from error
    return SourceFile(path, uri, sha256)


def _save(chunks: Iterable[bytes], path: Path) -> str:
    """The SHA-256 of what was written."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
