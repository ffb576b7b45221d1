"""Where a caller's key stands in its headers."""


def bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer …` header; None where there is no such header.

    Another scheme gives its text whole, which no key matches.
    """
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else authorization
