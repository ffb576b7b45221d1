"""Checkpoints that are not on this machine."""

from pathlib import Path

from export.errors import SourceFailed
from export.settings import ExportSettings
from export.sources import registry, s3_object
from export.sources.source import SourceFile


def is_remote(source: str) -> bool:
    """Whether it is an address for `fetch`, and no path."""
    return source.startswith((s3_object.SCHEME, registry.SCHEME))


def fetch(source: str, directory: Path, settings: ExportSettings) -> SourceFile:
    """Download a checkpoint.

    Args:
        source: s3://BUCKET/KEY, mlflow:models:/NAME@ALIAS or mlflow:models:/NAME/VERSION.
        directory: Where the file goes; it is the caller's to remove.

    Raises:
        SourceFailed: See `fetch_object` and `fetch_registered`.
    """
    if source.startswith(s3_object.SCHEME):
        return s3_object.fetch_object(source, directory, max_bytes=settings.max_source_bytes)
    if source.startswith(registry.SCHEME):
        return registry.fetch_registered(
            source, directory, tracking_uri=settings.tracking_uri, max_bytes=settings.max_source_bytes
        )
    raise SourceFailed(f"{source}: not an s3:// or mlflow:models:/ address")
