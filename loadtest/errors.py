"""Why a load test cannot be made."""


class LoadError(Exception):
    """What went wrong, in one line."""


class BadLoad(LoadError):
    """What was asked for cannot be done as it was asked."""
