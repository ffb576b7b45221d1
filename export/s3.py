"""A model repository in a bucket of S3, or of a server that speaks its protocol."""

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contract.card import ENCODED_SUFFIX
from contract.manifest import Artifact
from contract.repository import MANIFEST
from export.errors import RepositoryFailed, one_line
from export.store import VersionFiles

_MAX_ATTEMPTS = 32
_MAX_WAIT_S = 1.0
_CLAIM = ".claim-"
_CHUNK_BYTES = 1 << 20
# Triton's own spelling: a port makes what comes before it a server, else the first part is the bucket.
_ADDRESS = re.compile(
    r"s3://(?:(?P<scheme>https?://)?(?P<host>[^/:]+:\d+)/)?(?P<bucket>[A-Za-z0-9.\-_]+)(?:/(?P<prefix>.*))?"
)
# Not every server knows the checksums that boto3 sends by default.
_CONFIG = Config(
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "max_attempts": 5},
)


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where a repository is.

    Attributes:
        endpoint: http://HOST:PORT of a server that is not AWS's; None: as the environment says.
        prefix: What the key of every object starts with, with a slash at its end; empty for the whole bucket.
    """

    endpoint: str | None
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, location: str) -> Self:
        """Read Triton's spelling: s3://BUCKET/PREFIX or s3://http://HOST:PORT/BUCKET/PREFIX.

        Raises:
            RepositoryFailed: It is neither.
        """
        match = _ADDRESS.fullmatch(location)
        if match is None:
            raise RepositoryFailed(f"{location}: not s3://BUCKET/PREFIX or s3://http://HOST:PORT/BUCKET/PREFIX")
        prefix = (match["prefix"] or "").strip("/")
        endpoint = f"{match['scheme'] or 'http://'}{match['host']}" if match["host"] else None
        return cls(endpoint, match["bucket"], f"{prefix}/" if prefix else "")


class S3Store:
    """Versions are uploaded under their own prefix, the manifest last; each object appears whole or not at all.

    Triton takes a prefix for a folder, and half a version for a version. It loads none that config.pbtxt does not name,
    which is written when the manifest is there.
    """

    def __init__(self, location: str, address: S3Address, client: Any) -> None:
        self._location = location
        self._address = address
        self._client = client

    @classmethod
    def at(cls, location: str) -> Self:
        """Connect with the credentials of the usual AWS environment.

        Raises:
            RepositoryFailed: `location` is no address, or nothing says which credentials to use.
        """
        address = S3Address.parse(location)
        with _failing(location):
            return cls(location, address, boto3.client("s3", endpoint_url=address.endpoint, config=_CONFIG))

    @property
    def location(self) -> str:
        """The address."""
        return self._location

    def directories(self, path: str = "") -> tuple[str, ...]:
        """The next parts of the keys under a prefix, sorted, less hidden ones."""
        prefix = self._key(f"{path}/" if path else "")
        with self._failing(path):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._address.bucket, Prefix=prefix, Delimiter="/"
            )
            found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        names = (key.removeprefix(prefix).rstrip("/") for key in found)
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def read(self, path: str) -> bytes | None:
        """An object's bytes."""
        body = self._body(path)
        if body is None:
            return None
        with self._failing(path):
            return bytes(body.read())

    def digest(self, path: str) -> Artifact | None:
        """An object's digest, computed from its bytes: a server's ETag promises nothing."""
        body = self._body(path)
        if body is None:
            return None
        sha256, size_bytes = hashlib.sha256(), 0
        with self._failing(path):
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                sha256.update(chunk)
                size_bytes += len(chunk)
        return Artifact(sha256=sha256.hexdigest(), size_bytes=size_bytes)

    def replace(self, path: str, data: bytes) -> None:
        """Upload an object, which replaces one of the same key in one step."""
        with self._failing(path):
            self._client.put_object(Bucket=self._address.bucket, Key=self._key(path), Body=data)

    def remove(self, path: str) -> None:
        """Remove an object."""
        with self._failing(path):
            self._client.delete_object(Bucket=self._address.bucket, Key=self._key(path))

    def add_version(self, files: VersionFiles, manifest: Callable[[int], bytes]) -> int:
        """Claim a number and upload; what a failure leaves behind is removed, what a crash leaves is passed over."""
        version, claim = self._claim(files)
        with ExitStack() as undo:
            undo.callback(self.remove_version, files.name, version)
            for name, sources in ((files.encoded_name, files.encoded), (files.name, files.tensors)):
                self._upload(f"{name}/{version}", sources)
            for name in (files.encoded_name, files.name):
                self.replace(f"{name}/{version}/{MANIFEST}", manifest(version))
            undo.pop_all()
        self.remove(claim)
        return version

    def remove_version(self, name: str, version: int) -> None:
        """Remove the manifest, then all else under the prefixes."""
        self.remove(f"{name}/{version}/{MANIFEST}")
        for model in (name, name + ENCODED_SUFFIX):
            for path in self._files(f"{model}/{version}"):
                self.remove(path)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """S3 has no locks: of two that write a config at the same time, the last one's stays."""
        yield

    def _claim(self, files: VersionFiles) -> tuple[int, str]:
        """Take the next number.

        Each export writes an object of its own under the number, lists it, and goes on if its object is alone there. Of
        two that take the same number, the one that lists last sees the other's: one at most goes on. This asks of the
        server only that a listing shows what was written before it, and not conditional writes, which some lack.

        Returns:
            The number, and the object to remove when the version is there.
        """
        for attempt in range(_MAX_ATTEMPTS):
            version = self._next_version(files)
            claim = f"{files.encoded_name}/{version}/{_CLAIM}{uuid4().hex}"
            self.replace(claim, b"")
            taken = (*self._files(f"{files.encoded_name}/{version}"), *self._files(f"{files.name}/{version}"))
            if taken == (claim,):
                return version, claim
            self.remove(claim)
            # Those that met would else meet again.
            time.sleep(random.uniform(0, min(_MAX_WAIT_S, 0.01 * 2**attempt)))
        raise RepositoryFailed(f"{self._location}: too many exports of {files.name} at once; try again")

    def _next_version(self, files: VersionFiles) -> int:
        taken = (*self.directories(files.name), *self.directories(files.encoded_name))
        return max((int(name) for name in taken if name.isascii() and name.isdigit()), default=0) + 1

    def _upload(self, directory: str, files: Mapping[str, Path]) -> None:
        for filename, path in files.items():
            with self._failing(f"{directory}/{filename}"):
                self._client.upload_file(str(path), self._address.bucket, self._key(f"{directory}/{filename}"))

    def _files(self, directory: str) -> tuple[str, ...]:
        """The paths of all objects in a folder."""
        with self._failing(directory):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._address.bucket, Prefix=self._key(f"{directory}/")
            )
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return tuple(key.removeprefix(self._address.prefix) for key in keys)

    def _body(self, path: str) -> Any:
        with self._failing(path):
            try:
                return self._client.get_object(Bucket=self._address.bucket, Key=self._key(path))["Body"]
            except self._client.exceptions.NoSuchKey:
                return None

    def _key(self, path: str) -> str:
        return self._address.prefix + path

    @contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        with _failing(f"{self._location.rstrip('/')}/{path}"):
            yield


@contextmanager
def _failing(location: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        raise RepositoryFailed(f"{location}: {one_line(error)}") from error
