"""JSON web tokens of an OpenID Connect issuer, as identities."""

import binascii
from collections.abc import Mapping
from typing import Any

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from gateway.auth.authenticator import check_scope
from gateway.auth.issuer import IssuerKeys
from gateway.call import Identity, Scope
from gateway.errors import Unauthenticated
from gateway.ports import Authenticator
from gateway.settings import OidcSettings

_MAX_TOKEN = 8_192
_REQUIRED = ["aud", "exp", "iss", "sub"]


class TokenAuthenticator:
    """Takes what looks like a token for one, and hands everything else on.

    Args:
        others: Checks the credentials that are no tokens.
    """

    def __init__(self, issuer: str, settings: OidcSettings, keys: IssuerKeys, others: Authenticator) -> None:
        self._issuer = issuer
        self._settings = settings
        self._keys = keys
        self._others = others
        self._algorithms = [algorithm.value for algorithm in settings.algorithms]

    async def authenticate(self, credential: str | None, scope: Scope) -> Identity:
        """Check a token and its scope."""
        if credential is None or credential.count(".") != 2:
            return await self._others.authenticate(credential, scope)
        if len(credential) > _MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {_MAX_TOKEN} characters")
        identity = self._identity(await self._claims(credential))
        check_scope(identity, scope)
        return identity

    async def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, binascii.Error) as error:
            raise Unauthenticated("the token is malformed") from error
        if header.get("alg") not in self._algorithms:
            raise Unauthenticated(f"the token must be signed with one of {', '.join(self._algorithms)}")
        key_id = header.get("kid")
        key = await self._keys.find(key_id) if isinstance(key_id, str) else None
        # The key's own algorithm must be the token's: no key is used for another kind of signature than its own.
        if key is None or key.algorithm_name != header["alg"]:
            raise Unauthenticated("the token is signed with a key that its issuer does not have")
        try:
            return jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._settings.audience,
                issuer=self._issuer,
                leeway=self._settings.leeway_s,
                options={"require": _REQUIRED},
            )
        except ExpiredSignatureError as error:
            raise Unauthenticated("the token expired") from error
        except (PyJWTError, ValueError) as error:
            raise Unauthenticated(f"the token is not good: {error}") from error

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        words = _words(claims.get(self._settings.scope_claim))
        scopes = frozenset(Scope(self._settings.scopes[word]) for word in words if word in self._settings.scopes)
        models = claims.get(self._settings.models_claim)
        globs = ("*",) if models is None else tuple(_words(models))
        return Identity(f"token:{claims['sub']}", scopes, globs)


def _words(claim: Any) -> list[str]:
    if isinstance(claim, str):
        return claim.split()
    return [word for word in claim if isinstance(word, str)] if isinstance(claim, list) else []
