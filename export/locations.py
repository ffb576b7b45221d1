"""From where a repository is said to be to the store that reads and writes it."""

from pathlib import Path

from export.errors import RepositoryFailed
from export.local import LocalStore
from export.store import Store

_S3 = "s3://"


def open_store(location: str | Path) -> Store:
    """The repository at a directory, which may not exist yet, or at an s3:// address.

    Raises:
        RepositoryFailed: The address is none, or S3 support is not installed.
    """
    text = str(location)
    if text.startswith(_S3):
        try:
            from export.s3 import S3Store
        except ModuleNotFoundError as error:
            raise RepositoryFailed(f"{text}: {error.name} is missing; install the export dependencies") from error
        return S3Store.at(text)
    if "://" in text:
        raise RepositoryFailed(f"{text}: a repository is a directory or an s3:// address")
    return LocalStore(Path(text))
