"""Validate and hash passwords by Argon2 with the low-memory parameters of RFC 9106, section 4 (64 MiB).

Names and passwords are compared in Unicode normalisation form C (RFC 8265), so that they do not depend on the keyboard
used to type them.
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
    """Generate a random password of 144 bits."""
    return secrets.token_urlsafe(18)


def check_password(password: str) -> str:
    """Return the normalised password.

    Raises:
        BadAccount: it is too short, too long, too repetitive or holds control characters.
    """
    plain = unicodedata.normalize("NFC", password)
    if not SHORTEST <= len(plain) <= LONGEST:
        raise BadAccount(f"the password has {len(plain)} characters: choose one of {SHORTEST} to {LONGEST}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in plain):
        raise BadAccount("the password holds control characters or broken Unicode: leave them out")
    if len(set(plain)) < 4:
        raise BadAccount("the password repeats fewer than four characters: choose another")
    return plain


def check_name(name: str) -> str:
    """Return the normalised name.

    Raises:
        BadAccount: it is unsafe in an HTTP header, a URL or a log line.
    """
    plain = unicodedata.normalize("NFC", name)
    if not 1 <= len(plain) <= LONGEST_NAME:
        raise BadAccount(f"the name has {len(plain)} characters: choose one of 1 to {LONGEST_NAME}")
    # Allows letters, marks, digits, punctuation and symbols; refuses separators, control, format and unassigned ones.
    if any(unicodedata.category(letter)[0] not in "LMNPS" or letter in ":/\\?#%" for letter in plain):
        raise BadAccount("the name holds a blank, a control character or one of : / \\ ? # % : leave it out")
    if plain in (".", ".."):
        raise BadAccount(f"the name {plain!r} cannot stand in an address: choose another")
    return plain


def hash_password(password: str) -> str:
    """Check a password as `check_password` does and return its hash, which includes salt and parameters."""
    return _hasher.hash(check_password(password))


def verify(password_hash: str | None, password: str) -> bool:
    """Return whether `password` matches `password_hash`; without a hash, return False after the same time."""
    plain = unicodedata.normalize("NFC", password[: 2 * LONGEST])
    try:
        return (
            _hasher.verify(password_hash or _nobody(), plain.encode("utf-8", "replace")) and password_hash is not None
        )
    except (Argon2Error, InvalidHashError):
        return False


def outdated(password_hash: str) -> bool:
    """Return whether the hash was created with parameters other than the current ones."""
    return _hasher.check_needs_rehash(password_hash)


@functools.cache
def _nobody() -> str:
    """Return the hash of a random password, which makes a missing account as slow to verify as an existing one."""
    return _hasher.hash(secrets.token_bytes(32))
