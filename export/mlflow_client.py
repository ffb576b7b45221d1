"""A client of an MLflow tracking server or store, quiet and failing in one line."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import mlflow
import requests
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SADeprecationWarning, SQLAlchemyError

from export.errors import ExportError, one_line

# MLflow lets through what its stores raise: SQLAlchemy's of a local database, boto3's of artifacts kept directly in S3.
FAILURES = (MlflowException, SQLAlchemyError, BotoCoreError, ClientError, Boto3Error, OSError)


@contextmanager
def connected(tracking_uri: str, failure: type[ExportError]) -> Iterator[MlflowClient]:
    """Yield a client.

    Args:
        tracking_uri: http(s)://…, or a database's URL such as sqlite:///mlflow.db.
        failure: What is raised where MLflow, or a store of its, fails while the context lasts.
    """
    with _quiet():
        try:
            yield MlflowClient(tracking_uri)
        except FAILURES as error:
            raise failure(f"MLflow at {_place(tracking_uri)}: {_reason(error)}") from error


def _place(tracking_uri: str) -> str:
    """The address, without the user and password it may hold."""
    address = urlsplit(tracking_uri)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _reason(error: Exception) -> str:
    # MLflow's message would repeat the whole request.
    cause = error.__context__
    if isinstance(error, MlflowException) and isinstance(cause, requests.ConnectionError | requests.Timeout):
        return f"the server does not answer ({type(cause).__name__})"
    return one_line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (mlflow.__name__, "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # MLflow maps its tables with a strategy that SQLAlchemy 2.1 has deprecated.
            warnings.filterwarnings("ignore", message="The ``noload`` loader", category=SADeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
