"""A real S3 server, rclone's, started for tests on a free port and stopped after."""

import re
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

_START_S = 30.0
_STOP_S = 10.0
# rclone takes keys of AWS's length alone.
_ACCESS_KEY = "TIDEGATE".ljust(20, "0")
_SECRET_KEY = "tidegate".ljust(40, "0")
_ADDRESS = re.compile(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]")


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a server is, and how to get in.

    Attributes:
        directory: Each folder in it is a bucket, each file under that an object.
    """

    directory: Path
    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def environment(self) -> dict[str, str]:
        """What has AWS's SDKs, and all that is built on them, use this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self) -> Any:
        """A boto3 client of this server, whatever the environment says."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Serve a directory's folders as buckets and yield when requests are taken."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory.with_name(f"{directory.name}.log")
    command = [str(Path(sysconfig.get_path("scripts"), "rclone")), "serve", "s3", str(directory)]
    # A directory cached for its default five minutes would hide what a test writes beside the server; at 0 rclone spins.
    options = ["--config=", "--addr=127.0.0.1:0", f"--auth-key={_ACCESS_KEY},{_SECRET_KEY}", "--dir-cache-time=1ms"]
    with log.open("wb") as written:
        process = subprocess.Popen([*command, *options], stdout=written, stderr=subprocess.STDOUT)
    try:
        yield S3Server(directory, _wait_for_endpoint(process, log), _ACCESS_KEY, _SECRET_KEY)
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _wait_for_endpoint(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while not (started := _ADDRESS.search(log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"rclone did not start:\n{log.read_text()}")
        time.sleep(0.02)
    return started[1]
