"""Authentication by HTTP Basic or a bearer token, against the accounts in the catalogue.

Verified credentials are cached for a minute under a keyed hash, which saves an argon2 run for each request; while the
database is unavailable the cache holds for longer, so that predictions go on. One argon2 run of 64 MiB at a time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pipelines.catalogue import passwords
from pipelines.errors import CatalogueError
from serving import catalogue
from serving.auth.authorisation import Account
from serving.auth.login_rate_limit import LoginLimits
from serving.auth.tokens import Claim, Tokens
from serving.refusals import Refusal, unavailable

if TYPE_CHECKING:
    from pipelines.catalogue.users import User

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")
FRESH_SECONDS = 60.0
STALE_SECONDS = 86_400.0  # while the database is unavailable
_KEPT = 1_000
_LONGEST_HEADER = 4_096
_DATABASE_SECONDS = 5.0
_AWAY_SECONDS = 2.0  # before an unavailable database is queried again
_TURN_SECONDS = 10.0
_WRONG = "name or password is wrong, or the account is disabled"
_AWAY = "accounts cannot be checked now: the catalogue's database does not answer; try again"
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="inspectline", charset="UTF-8", Bearer realm="inspectline"'}


@dataclass(frozen=True)
class _Remembered:
    user: User
    at: float
    claim: Claim | None = None


class Accounts:
    """Identifies the account of a request; the first request opens the database."""

    def __init__(self, tokens: Tokens, limits: LoginLimits | None = None):
        self.tokens = tokens
        self._limits = limits or LoginLimits()
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._readers = ThreadPoolExecutor(4, "accounts")
        self._away_until = 0.0

    def identify(self, header: str | None, remote: str) -> Account:
        """Return the account of an Authorization header.

        Raises:
            Refusal: 401 without valid credentials, 429 after too many wrong passwords.
            CatalogueError: the database is unavailable, and the credentials are not cached.
        """
        if not header or len(header) > _LONGEST_HEADER:
            raise denied("log in: send HTTP Basic, or a bearer token from POST /login")
        key = hmac.digest(self._key, header.encode("utf-8", "surrogateescape"), "sha256")
        if fresh := self._fresh(key):
            return Account(fresh.user.name, fresh.user.role)
        scheme, _, credentials = header.partition(" ")
        try:
            if scheme.lower() == "bearer":
                user = self._by_token(credentials.strip(), key)
            elif scheme.lower() == "basic":
                user = self.verify(*_decoded(credentials.strip()), remote, key)
            else:
                raise denied("the Authorization header is neither Basic nor Bearer")
        except CatalogueError:
            stale = self._recall(key)
            if stale is None:
                raise
            user = stale.user
        except Refusal as refusal:
            if refusal.status == 401:
                self._drop(key)
            raise
        return Account(user.name, user.role)

    def verify(self, name: str, password: str, remote: str, key: bytes | None = None) -> User:
        """Return the enabled account with this name and password, and cache it under `key` if one is given.

        Raises:
            Refusal: 401 for wrong credentials, 429 after too many, 503 when too many logins are in progress.
            CatalogueError: the database is unavailable.
        """
        compared = catalogue.users.name_key(name)
        wait = self._limits.wait_seconds(compared, remote)
        if wait > 0:
            raise Refusal(429, "too many wrong passwords: wait, and try again", max(1, math.ceil(wait)))
        user = self._read(lambda connection: catalogue.users.find(connection, name))
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise unavailable("too many log in at once; try again")
        try:
            if key and (verified := self._fresh(key)):  # verified while this request waited for its turn
                return verified.user
            right = passwords.verify(user.password_hash if user else None, password)
            if user is None or not right or user.disabled:
                self._limits.failed(compared, remote)
                _log.warning("login refused", extra={"account": ascii(name[:64]), "remote": remote})
                raise denied(_WRONG)
            if key:
                self._remember(key, _Remembered(user, time.monotonic()))
        finally:
            self._turn.release()
        self._limits.succeeded(compared, remote)
        if passwords.outdated(user.password_hash):
            self._rehash(user, password)
        return user

    def hash(self, password: str) -> str:
        """Return the hash of a new password. Raises BadAccount for an invalid password, Refusal (503) under load."""
        passwords.check_password(password)
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise unavailable("too many log in at once; try again")
        try:
            return passwords.hash_password(password)
        finally:
            self._turn.release()

    def forget(self, user_id: int) -> None:
        """Remove a changed account from the cache."""
        with self._lock:
            for key in [key for key, entry in self._remembered.items() if entry.user.id == user_id]:
                del self._remembered[key]

    def _by_token(self, token: str, key: bytes) -> User:
        claim = self.tokens.read(token)
        if claim is not None:
            user = self._read(lambda connection: catalogue.users.by_id(connection, claim.user_id))
            if user and not user.disabled and hmac.compare_digest(user.stamp, claim.stamp):
                self._remember(key, _Remembered(user, time.monotonic(), claim))
                return user
        raise denied("the token is not valid, or no longer: POST /login gives a new one")

    def _read(self, query: Callable[[catalogue.Connection], _Value]) -> _Value:
        """Query the database with a timeout of a few seconds; fails fast for a while after a timeout.

        Raises:
            CatalogueError: the database does not answer.
        """

        def ask() -> _Value:
            with catalogue.connect() as connection:
                return query(connection)

        if time.monotonic() < self._away_until:
            raise CatalogueError(_AWAY)
        asked = self._readers.submit(ask)
        try:
            return asked.result(_DATABASE_SECONDS)
        except (CatalogueError, catalogue.SQLAlchemyError, FutureTimeout) as error:
            asked.cancel()
            self._away_until = time.monotonic() + _AWAY_SECONDS
            _log.warning("accounts cannot be read", extra={"why": str(error) or type(error).__name__})
            raise CatalogueError(_AWAY) from error

    def _rehash(self, user: User, password: str) -> None:
        try:
            hashed = self.hash(password)
            with catalogue.transaction() as connection:
                catalogue.users.rehash(connection, user, hashed)
        except Exception as error:  # the old hash stays valid
            _log.warning("a password keeps its old hash", extra={"account": user.name, "why": str(error)})

    def _recall(self, key: bytes) -> _Remembered | None:
        with self._lock:
            cached = self._remembered.get(key)
            if cached is None:
                return None
            if time.monotonic() - cached.at > STALE_SECONDS or (cached.claim and cached.claim.expired):
                del self._remembered[key]
                return None
            self._remembered.move_to_end(key)
            return cached

    def _fresh(self, key: bytes) -> _Remembered | None:
        cached = self._recall(key)
        return cached if cached and time.monotonic() - cached.at < FRESH_SECONDS else None

    def _remember(self, key: bytes, entry: _Remembered) -> None:
        with self._lock:
            self._remembered[key] = entry
            self._remembered.move_to_end(key)
            while len(self._remembered) > _KEPT:
                self._remembered.popitem(last=False)

    def _drop(self, key: bytes) -> None:
        with self._lock:
            self._remembered.pop(key, None)


def denied(message: str) -> Refusal:
    """Return a 401 with the challenges of both authentication schemes."""
    return Refusal(401, message, headers=_CHALLENGE)


def _decoded(credentials: str) -> tuple[str, str]:
    """Return the name and password of HTTP Basic credentials (RFC 7617, UTF-8)."""
    try:
        name, colon, password = base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        raise denied("the Authorization header is no HTTP Basic in UTF-8") from None
    if not colon:
        raise denied("the Authorization header is no HTTP Basic in UTF-8")
    return name, password
