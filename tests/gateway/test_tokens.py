"""Tokens of an issuer, over a transport that stands for its web server."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.auth.issuer import IssuerKeys
from gateway.auth.tokens import TokenAuthenticator
from gateway.call import Scope
from gateway.errors import PermissionDenied, Unauthenticated, Unavailable
from gateway.settings import OidcSettings
from tests.gateway.fakes import Clock, FakeAuthenticator

_ISSUER = "https://login.example.org/realm"
_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
_OTHER_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
_EC = ec.generate_private_key(ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.generate()


def _jwk(algorithm: Any, key: Any, **fields: str) -> dict[str, Any]:
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **fields}


class Issuer:
    """The issuer's documents; `away` refuses connections."""

    def __init__(self) -> None:
        self.away = False
        self.requests = 0
        self.name = _ISSUER
        self.keys = [
            _jwk(RSAAlgorithm, _RSA, kid="rsa", alg="RS256"),
            _jwk(ECAlgorithm, _EC, kid="ec"),
            _jwk(OKPAlgorithm, _ED, kid="ed"),
            {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")},
            _jwk(RSAAlgorithm, _RSA, kid="enc", alg="RS256", use="enc"),
        ]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.away:
            raise httpx.ConnectError("refused")
        if str(request.url) == f"{_ISSUER}/.well-known/openid-configuration":
            return httpx.Response(200, json={"issuer": self.name, "jwks_uri": f"{_ISSUER}/keys"})
        assert str(request.url) == f"{_ISSUER}/keys"
        return httpx.Response(200, json={"keys": self.keys})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def others() -> FakeAuthenticator:
    return FakeAuthenticator()


@pytest.fixture
def authenticator(issuer: Issuer, others: FakeAuthenticator, clock: Clock) -> Iterator[TokenAuthenticator]:
    settings = OidcSettings(issuer=_ISSUER, leeway_s=0)
    client = httpx.AsyncClient(transport=httpx.MockTransport(issuer))
    yield TokenAuthenticator(_ISSUER, settings, IssuerKeys(_ISSUER, settings, client, clock), others)


def _token(key: Any = _RSA, algorithm: str = "RS256", kid: str | None = "rsa", **changed: Any) -> str:
    claims = {
        "iss": _ISSUER,
        "aud": "tidegate",
        "sub": "ann",
        "exp": time.time() + 60,
        "scope": "openid tidegate:infer",
        **changed,
    }
    headers = {"kid": kid} if kid is not None else {}
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(_RSA, "RS256", "rsa"), (_EC, "ES256", "ec"), (_ED, "EdDSA", "ed")]
)
async def test_a_good_token_has_the_scopes_of_its_claims(
    authenticator: TokenAuthenticator, key: Any, algorithm: str, kid: str
) -> None:
    identity = await authenticator.authenticate(_token(key, algorithm, kid), Scope.INFER)
    assert (identity.subject, identity.scopes) == ("token:ann", frozenset({Scope.INFER}))
    with pytest.raises(PermissionDenied, match="'admin'"):
        await authenticator.authenticate(_token(key, algorithm, kid), Scope.ADMIN)


@pytest.mark.parametrize(
    ("claims", "scopes", "model", "allowed"),
    [
        ({"scope": ["tidegate:read", "other", 7]}, {Scope.READ}, "digits", True),
        ({"scope": "tidegate:read", "tidegate_models": ["cats*"]}, {Scope.READ}, "digits", False),
        ({"scope": "tidegate:read", "tidegate_models": "cats* digits"}, {Scope.READ}, "digits", True),
        ({"scope": "tidegate:read", "tidegate_models": 7}, {Scope.READ}, "digits", False),
    ],
)
async def test_claims_say_what_a_token_may_do(
    authenticator: TokenAuthenticator, claims: dict[str, Any], scopes: set[Scope], model: str, allowed: bool
) -> None:
    identity = await authenticator.authenticate(_token(**claims), Scope.READ)
    assert identity.scopes == scopes
    assert identity.may_name(model) is allowed


@pytest.mark.parametrize(
    "token",
    [
        _token(exp=time.time() - 1),
        _token(exp=None),
        _token(nbf=time.time() + 60),
        _token(aud="other"),
        _token(aud=None),
        _token(iss="https://evil.example.org"),
        _token(iss=None),
        _token(sub=None),
        _token(_OTHER_RSA),
        _token(kid=None),
        _token(kid="absent"),
        _token(kid="enc"),
        _token(_EC, "ES256", "rsa"),
        _token(_RSA, "PS256"),
        _token(_RSA, "RS512"),
        _token(b"s" * 32, "HS256", "oct"),
        _token()[:-4] + "AAAA",
        "a.b.c",
        "..",
        _token(scope="x" * 9_000),
    ],
)
async def test_a_token_that_is_not_good_is_refused(authenticator: TokenAuthenticator, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(token, Scope.INFER)


async def test_a_public_key_is_not_taken_for_a_shared_secret(authenticator: TokenAuthenticator) -> None:
    """The confusion of algorithms: HS256 over the text of the RSA key that everybody has."""
    import hashlib
    import hmac

    secret = _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _, claims, _ = _token().split(".")
    for algorithm in ("HS256", "none", "None", "nOnE"):
        header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "rsa"}).encode()).decode().rstrip("=")
        signature = hmac.new(secret, f"{header}.{claims}".encode(), hashlib.sha256).digest()
        for signed in (base64.urlsafe_b64encode(signature).decode().rstrip("="), ""):
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(f"{header}.{claims}.{signed}", Scope.INFER)


def test_only_asymmetric_algorithms_can_be_set() -> None:
    for algorithm in ("HS256", "none"):
        with pytest.raises(ValueError, match="algorithms"):
            OidcSettings.model_validate({"algorithms": [algorithm]})
    with pytest.raises(ValueError, match="https"):
        OidcSettings(issuer="http://login.example.org")


async def test_what_is_no_token_is_checked_as_a_key(
    authenticator: TokenAuthenticator, others: FakeAuthenticator, issuer: Issuer
) -> None:
    for credential in (None, "tg_a_b", "Basic abc"):
        assert (await authenticator.authenticate(credential, Scope.READ)).subject == "tester"
    assert others.asked == [(None, Scope.READ), ("tg_a_b", Scope.READ), ("Basic abc", Scope.READ)]
    assert issuer.requests == 0


async def test_made_up_key_ids_are_no_load_on_the_issuer(
    authenticator: TokenAuthenticator, issuer: Issuer, clock: Clock
) -> None:
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(_token(kid=f"guess {number}"), Scope.INFER)
    assert issuer.requests == 2
    issuer.keys.append(_jwk(RSAAlgorithm, _OTHER_RSA, kid="new"))
    clock.now += 11
    await authenticator.authenticate(_token(_OTHER_RSA, kid="new"), Scope.INFER)
    assert issuer.requests == 4


async def test_keys_that_were_read_work_while_the_issuer_is_away(
    authenticator: TokenAuthenticator, issuer: Issuer, clock: Clock
) -> None:
    issuer.away = True
    with pytest.raises(Unavailable, match="issuer"):
        await authenticator.authenticate(_token(), Scope.INFER)
    issuer.away = False
    clock.now = 20
    await authenticator.authenticate(_token(), Scope.INFER)
    issuer.away = True
    clock.now = 3_000
    await authenticator.authenticate(_token(), Scope.INFER)
    clock.now = 4_000
    with pytest.raises(Unavailable, match="issuer"):
        await authenticator.authenticate(_token(), Scope.INFER)


async def test_an_issuer_of_another_name_is_not_believed(authenticator: TokenAuthenticator, issuer: Issuer) -> None:
    issuer.name = "https://evil.example.org"
    with pytest.raises(Unavailable, match="issuer"):
        await authenticator.authenticate(_token(), Scope.INFER)


@pytest.mark.parametrize(
    "keys", [[], [7], [{"kty": "RSA"}], "no", [{"kty": "EC", "crv": "P-256", "kid": "x" * 300_000}]]
)
async def test_a_key_set_that_is_none_is_not_taken(
    authenticator: TokenAuthenticator, issuer: Issuer, keys: Any
) -> None:
    issuer.keys = keys
    with pytest.raises(Unavailable, match="issuer"):
        await authenticator.authenticate(_token(), Scope.INFER)
