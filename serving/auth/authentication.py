"""Authentication by HTTP Basic or a bearer token, against the accounts in the catalogue.

Verified credentials are cached under a keyed hash, which saves an argon2 run for each request: for a minute without
asking the database, and for as long as the account's password hash stays the same. While the database is unavailable
the cache holds as it is, so that predictions go on. One argon2 run of 64 MiB at a time.

Wrong passwords are limited (`serving.auth.login_rate_limit`). Beyond a limit, an address that the account has not used
is refused unheard, so that a right password cannot be told from a wrong one. At an address that it has used, the right
password still enters: a filter tells nearly all wrong ones without argon2, and their answers are held back.
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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from pipelines.catalogue import passwords
from pipelines.errors import CatalogueError
from serving import catalogue
from serving.auth.authorisation import Account
from serving.auth.hashing_turn import HashingTurn
from serving.auth.login_rate_limit import LoginLimits, network_of
from serving.auth.password_filter import PasswordFilter
from serving.auth.tokens import Claim, Tokens
from serving.refusals import Refusal

if TYPE_CHECKING:
    from pipelines.catalogue.login_addresses import LoginAddress
    from pipelines.catalogue.users import User

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")
FRESH_SECONDS = 60.0
STALE_SECONDS = 86_400.0  # while the database is unavailable
_KEPT = 1_000
_LONGEST_HEADER = 4_096
_DATABASE_SECONDS = 5.0
_AWAY_SECONDS = 2.0  # before an unavailable database is queried again
_NOTE_SECONDS = 2.0  # for the catalogue to note an address; the login does not depend on it
SLOWED_SECONDS = 2.0  # before a guess at a used address is answered
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

    def __init__(self, tokens: Tokens, secret: str, waiting: int, limits: LoginLimits | None = None):
        self.tokens = tokens
        self._limits = limits or LoginLimits()
        self._filter = PasswordFilter(secret)
        self._turn = HashingTurn(waiting)
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._readers = ThreadPoolExecutor(4, "accounts")
        self._writer = ThreadPoolExecutor(1, "addresses")
        self._away_until = 0.0

    def identify(self, header: str | None, remote: str) -> Account:
        """Return the account of an Authorization header.

        Raises:
            Refusal: 401 without valid credentials, 429 after too many wrong passwords.
            CatalogueError: the database is unavailable, and the credentials are not cached.
        """
        if not header or len(header) > _LONGEST_HEADER:
            raise denied("log in: send HTTP Basic, or a bearer token from POST /login")
        scheme, _, credentials = header.partition(" ")
        # A password counts where it was verified: elsewhere, the limits hold for it too.
        place = "" if scheme.lower() == "bearer" else network_of(remote)
        key = hmac.digest(self._key, f"{place} {header}".encode("utf-8", "surrogateescape"), "sha256")
        if fresh := self._fresh(key):
            return Account(fresh.user.name, fresh.user.role)
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
        compared, network = catalogue.users.name_key(name), network_of(remote)
        user, address = self._read(lambda connection: _account(connection, name, network))
        if user and key and self._verified_before(key, user):
            self._remember(key, _Remembered(user, time.monotonic()))
            return user
        known = address is not None
        limited = self._limits.wait_seconds(compared, network, known)
        likely = None  # whether the password passes the filter, if there is one
        if user and address and self._filter.holds(address.password_filter, user.password_hash):
            likely = self._filter.passes(address.password_filter, user.password_hash, password)
        if limited > 0 and not known:
            raise _too_many(limited)
        if limited > 0 and likely is False:
            raise self._slowed(compared, network)
        with self._turn.take(preferred=bool(likely)):
            if key and (verified := self._fresh(key)):  # verified while this request waited for its turn
                return verified.user
            if not known and (limited := self._limits.wait_seconds(compared, network)) > 0:
                raise _too_many(limited)
            right = passwords.verify(user.password_hash if user else None, password)
        if user is None or not right or user.disabled:
            _log.warning("login refused", extra={"account": ascii(name[:64]), "remote": remote})
            if limited > 0:
                raise self._slowed(compared, network)
            self._limits.failed(compared, network, known)
            raise denied(_WRONG)
        if key:
            self._remember(key, _Remembered(user, time.monotonic()))
        if passwords.outdated(user.password_hash):
            user = self._rehash(user, password)
        self._note(user, password, network, address)
        return user

    def hash(self, password: str) -> str:
        """Return the hash of a new password. Raises BadAccount for an invalid password, Refusal (503) under load."""
        passwords.check_password(password)
        with self._turn.take(preferred=True):
            return passwords.hash_password(password)

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

    def _slowed(self, compared: str, network: str) -> Refusal:
        """Return the refusal of a guess beyond the limit at an address that the account has used."""
        self._limits.failed(compared, network, True)
        wait = self._limits.wait_seconds(compared, network, True)
        return _too_many(wait, delay=SLOWED_SECONDS)

    def _verified_before(self, key: bytes, user: User) -> bool:
        """Return whether these credentials were verified, and the account's password is still the same."""
        cached = self._recall(key)
        if cached is None or cached.claim is not None or user.disabled:
            return False
        return cached.user.id == user.id and hmac.compare_digest(cached.user.password_hash, user.password_hash)

    def _rehash(self, user: User, password: str) -> User:
        try:
            hashed = self.hash(password)
            with catalogue.transaction() as connection:
                catalogue.users.rehash(connection, user, hashed)
        except Exception as error:  # the old hash stays valid
            _log.warning("a password keeps its old hash", extra={"account": user.name, "why": str(error)})
            return user
        return replace(user, password_hash=hashed)

    def _note(self, user: User, password: str, network: str, address: LoginAddress | None) -> None:
        """Have the catalogue note that the account is used from this network, if that is news."""
        if (
            address is not None
            and self._filter.holds(address.password_filter, user.password_hash)
            and datetime.now(UTC) - address.used_at < catalogue.login_addresses.REFRESHED
        ):
            return
        password_filter = self._filter.of(user.password_hash, password)

        def write() -> None:
            with catalogue.transaction() as connection:
                catalogue.login_addresses.note(connection, user.id, network, password_filter)

        try:
            self._writer.submit(write).result(_NOTE_SECONDS)
        except Exception as error:  # another login notes it
            why = str(error) or type(error).__name__
            _log.warning("a login's address is not noted yet", extra={"account": user.name, "why": why})

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


def _too_many(wait: float, delay: float = 0.0) -> Refusal:
    return Refusal(429, "too many wrong passwords: wait, and try again", max(1, math.ceil(wait)), delay=delay)


def _account(connection: catalogue.Connection, name: str, network: str) -> tuple[User | None, LoginAddress | None]:
    """Return the account of that name, and the network if the account has been used from there."""
    user = catalogue.users.find(connection, name)
    return user, catalogue.login_addresses.find(connection, user.id, network) if user else None


def _decoded(credentials: str) -> tuple[str, str]:
    """Return the name and password of HTTP Basic credentials.

    They are UTF-8, as the challenge asks for (RFC 7617), or what is no UTF-8 in the Western code page of clients that
    do not: `requests` sends ISO 8859-1, of which Windows-1252 is a superset but for control characters.
    """
    try:
        sent = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        raise denied("the Authorization header is no HTTP Basic") from None
    try:
        text = sent.decode("utf-8")
    except UnicodeDecodeError:
        text = sent.decode("cp1252", "replace")
    name, colon, password = text.partition(":")
    if not colon:
        raise denied("the Authorization header is no HTTP Basic")
    return name, password
