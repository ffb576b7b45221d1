"""API keys: `tg_<id>_<secret>`. The id finds the row; the secret is known by its hash alone."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Self

_ALPHABET = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 44  # 260 bits
_PATTERN = re.compile(rf"tg_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in full. It exists when it is made and when a caller shows it, and is never stored."""

    key_id: str
    secret: str

    @classmethod
    def generate(cls) -> Self:
        """A new key from the system's randomness."""
        return cls(_random(_ID_LENGTH), _random(_SECRET_LENGTH))

    @classmethod
    def renewed(cls, key_id: str) -> Self:
        """A new secret for a key."""
        return cls(key_id, _random(_SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a key; None where the text is not one."""
        match = _PATTERN.fullmatch(text)
        return cls(match[1], match[2]) if match else None

    @property
    def text(self) -> str:
        """As the caller keeps it."""
        return f"tg_{self.key_id}_{self.secret}"

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 of the secret: 260 random bits need no slow hash."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, secret_hash: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.secret_hash, secret_hash)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
