"""Silence for what Lightning and MLflow say of themselves; their errors still come through."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from sqlalchemy.exc import SADeprecationWarning

# MLflow sets its own level when it is first imported, which Lightning leaves until a run starts.
_LOGGERS = (mlflow.__name__, "alembic", "lightning.pytorch", "lightning.fabric")


@contextmanager
def quiet() -> Iterator[None]:
    """Raise the libraries' log levels to ERROR for as long as the context lasts."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The images are in memory: worker processes would cost more than they save.
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            # MLflow maps its tables with a strategy that SQLAlchemy 2.1 has deprecated.
            warnings.filterwarnings("ignore", message="The ``noload`` loader", category=SADeprecationWarning)
            # Lightning 2.6 asks torch's pytrees in a way torch 2.14 has deprecated.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
