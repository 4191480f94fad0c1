"""Passwords: what one may be, and argon2 as RFC 9106 recommends it where memory is short (64 MiB, section 4).

Names and passwords are compared in Unicode's normal form C (RFC 8265), so that it does not matter which keyboard they
were typed on.
"""

import functools
import secrets
import unicodedata

from argon2 import PasswordHasher, profiles
from argon2.exceptions import Argon2Error, InvalidHashError

from pipelines.errors import BadAccount

SHORTEST, LONGEST = 12, 256  # characters
LONGEST_NAME = 64
_hasher = PasswordHasher.from_parameters(profiles.RFC_9106_LOW_MEMORY)


def make_password() -> str:
    """Return a new random password of 144 bits."""
    return secrets.token_urlsafe(18)


def check_password(password: str) -> str:
    """Return the password as it is hashed. Raises BadAccount for one that is too short, too long or cannot be typed."""
    plain = unicodedata.normalize("NFC", password)
    if not SHORTEST <= len(plain) <= LONGEST:
        raise BadAccount(f"the password has {len(plain)} characters: choose one of {SHORTEST} to {LONGEST}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in plain):
        raise BadAccount("the password holds control characters or broken Unicode: leave them out")
    if len(set(plain)) < 4:
        raise BadAccount("the password repeats fewer than four characters: choose another")
    return plain


def check_name(name: str) -> str:
    """Return the name as it is kept. Raises BadAccount for one that cannot stand in a header, an address or a log."""
    plain = unicodedata.normalize("NFC", name)
    if not 1 <= len(plain) <= LONGEST_NAME:
        raise BadAccount(f"the name has {len(plain)} characters: choose one of 1 to {LONGEST_NAME}")
    # Letters, marks, digits, punctuation and symbols; no blanks, controls, format signs nor unassigned ones.
    if any(unicodedata.category(letter)[0] not in "LMNPS" or letter in ":/\\?#%" for letter in plain):
        raise BadAccount("the name holds a blank, a control character or one of : / \\ ? # % : leave it out")
    if plain in (".", ".."):
        raise BadAccount(f"the name {plain!r} cannot stand in an address: choose another")
    return plain


def hash_password(password: str) -> str:
    """Return the hash of a password that `check_password` takes, with its salt and parameters."""
    return _hasher.hash(check_password(password))


def verify(password_hash: str | None, password: str) -> bool:
    """Tell whether `password` is that of `password_hash`; without a hash it takes as long, and says no."""
    plain = unicodedata.normalize("NFC", password[: 2 * LONGEST])
    try:
        return (
            _hasher.verify(password_hash or _nobody(), plain.encode("utf-8", "replace")) and password_hash is not None
        )
    except (Argon2Error, InvalidHashError):
        return False


def outdated(password_hash: str) -> bool:
    """Tell whether the hash was made with other parameters than those of today."""
    return _hasher.check_needs_rehash(password_hash)


@functools.cache
def _nobody() -> str:
    """Return a hash of a password that nobody knows."""
    return _hasher.hash(secrets.token_bytes(32))
