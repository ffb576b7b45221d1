"""Reading the header of this name, the same over both transports."""

from gateway.call import Caching


def read(header: str | None) -> Caching:
    """What a caller allows the cache; directives that are not known here mean nothing."""
    if header is None:
        return Caching.FREE
    directives = {directive.strip().lower() for directive in header.split(",")}
    if Caching.NO_STORE in directives:
        return Caching.NO_STORE
    return Caching.NO_CACHE if Caching.NO_CACHE in directives else Caching.FREE
