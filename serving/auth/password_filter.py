"""Tells most wrong passwords from a right one without argon2: ten bits of a keyed hash, kept with a login address.

The right password always passes, of others one in 1,024. So an account's owner does not queue behind the guesses of
somebody at the same address, and these guesses cost next to nothing. The key is the one that signs tokens, which the
database does not hold: without it the ten bits say nothing, and with it they save no more than a factor of 1,024 of a
search through argon2.
"""

import hashlib
import hmac
import unicodedata

_BITS = 10


class PasswordFilter:
    """Makes and reads filters; each holds for one key and one password hash."""

    def __init__(self, secret: str):
        self._key = hmac.digest(secret.encode(), b"inspectline.password-filter", hashlib.sha256)

    def of(self, password_hash: str, password: str) -> str:
        """Return the filter of an account's right password."""
        return f"{self._mark(password_hash)}.{self._bits(password_hash, password):03x}"

    def holds(self, kept: str, password_hash: str) -> bool:
        """Return whether a kept filter is of this key and this password hash; otherwise it says nothing."""
        return hmac.compare_digest(kept.partition(".")[0].encode(), self._mark(password_hash).encode())

    def passes(self, kept: str, password_hash: str, password: str) -> bool:
        """Return whether the password may be the right one, by a filter that holds."""
        return hmac.compare_digest(kept.encode(), self.of(password_hash, password).encode())

    def _mark(self, password_hash: str) -> str:
        return hmac.digest(self._key, b"mark\0" + password_hash.encode(), hashlib.sha256)[:8].hex()

    def _bits(self, password_hash: str, password: str) -> int:
        plain = unicodedata.normalize("NFC", password).encode("utf-8", "replace")
        digest = hmac.digest(self._key, b"bits\0" + password_hash.encode() + b"\0" + plain, hashlib.sha256)
        return int.from_bytes(digest[:4], "big") >> (32 - _BITS)
