"""How a command ends when it cannot do what was asked: one line, and a status."""

from enum import IntEnum

from pydantic import ValidationError

from gateway.errors import Unavailable


class ExitStatus(IntEnum):
    """Of the process."""

    FAILURE = 1
    BAD_INPUT = 2


class CommandError(Exception):
    """What went wrong and what to do about it, in one line."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.FAILURE) -> None:
        super().__init__(message)
        self.status = status


class BadInput(CommandError):
    """What was asked cannot be done as it was asked."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitStatus.BAD_INPUT)


def bad_settings(error: ValidationError) -> BadInput:
    """Name the environment variable that is wrong, and why."""
    first = error.errors()[0]
    field = "__".join(str(part) for part in first["loc"]).upper()
    name = f"TIDEGATE_{field.removeprefix('TIDEGATE_')}" if field else "settings"
    return BadInput(f"{name}: {first['msg'].removeprefix('Value error, ')}")


def bad_certificate(error: ValueError) -> BadInput:
    """Say which file cannot be served."""
    return BadInput(f"{error}; check TIDEGATE_TLS__CERTIFICATE, TIDEGATE_TLS__KEY, TIDEGATE_TLS__CLIENT_CA")


def bad_database(error: Unavailable) -> CommandError:
    """Say what the database of keys answered, in one line."""
    reason = str(error.__cause__ or error).strip().splitlines() or [repr(error.__cause__)]
    return CommandError(f"the database of keys cannot be used: {reason[0]}; check TIDEGATE_DATABASE__URL")
