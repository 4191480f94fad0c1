"""Store accounts for serving. Names are unique regardless of case; the last enabled administrator cannot be removed.

Callers hash passwords before a transaction begins, since hashing takes time and memory.
"""

import secrets
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from pipelines.catalogue import login_addresses
from pipelines.catalogue.database import lock_project
from pipelines.catalogue.passwords import check_name
from pipelines.catalogue.roles import ADMINISTRATOR, ROLES, USER
from pipelines.catalogue.schema import now, users
from pipelines.errors import AccountRefused, BadAccount

FIRST = "admin"
_LOCK = "users/"  # not a valid project name, so that it collides with no project's lock


@dataclass(frozen=True)
class User:
    """One account as it is stored.

    Attributes:
        id: row id.
        name: the name as entered, in normalisation form C.
        password_hash: Argon2 hash with salt and parameters.
        role: user or administrator.
        disabled: whether logins are refused.
        stamp: random value embedded in tokens, replaced when the password changes or the account is disabled.
        created_at: time of creation.
        password_changed_at: time of the last change of the password.
    """

    id: int
    name: str
    password_hash: str
    role: str
    disabled: bool
    stamp: str
    created_at: datetime
    password_changed_at: datetime


_COLUMNS = tuple(users.c[name] for name in User.__dataclass_fields__)


def name_key(name: str) -> str:
    """Return the key by which names are compared: case-folded and in normalisation form KC."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())[:256]


def find(connection: Connection, name: str) -> User | None:
    """Return the account with that name regardless of case, or None, also for an invalid name."""
    try:
        check_name(name)
    except BadAccount:
        return None
    row = connection.execute(select(*_COLUMNS).where(users.c.name_key == name_key(name))).first()
    return User(*row) if row else None


def by_id(connection: Connection, identity: int) -> User | None:
    """Return the account with that id, or None."""
    row = connection.execute(select(*_COLUMNS).where(users.c.id == identity)).first()
    return User(*row) if row else None


def every(connection: Connection) -> list[User]:
    """Return all accounts ordered by name."""
    return [User(*row) for row in connection.execute(select(*_COLUMNS).order_by(users.c.name_key))]


def add(connection: Connection, name: str, password_hash: str, role: str = USER) -> User:
    """Insert an account and return it.

    Raises:
        BadAccount: the name or role is invalid.
        AccountRefused: the name is taken.
    """
    values = {"name": check_name(name), "name_key": name_key(name), "password_hash": password_hash}
    try:
        with connection.begin_nested():
            connection.execute(users.insert().values(**values, role=_role(role), stamp=_stamp()))
    except IntegrityError:
        raise AccountRefused(f"there is an account {name!r} already: choose another name, or change that one") from None
    user = find(connection, name)
    assert user is not None
    return user


def add_first(connection: Connection, password_hash: str) -> User | None:
    """Insert the administrator `admin` if there are no accounts, else return None; safe to call concurrently."""
    lock_project(connection, _LOCK)
    if connection.execute(select(func.count()).select_from(users)).scalar_one():
        return None
    return add(connection, FIRST, password_hash, ADMINISTRATOR)


def change(
    connection: Connection,
    name: str,
    *,
    role: str | None = None,
    password_hash: str | None = None,
    disabled: bool | None = None,
) -> User | None:
    """Change the given fields and return the updated account, or None if there is none.

    Raises:
        BadAccount: the role is invalid.
        AccountRefused: no enabled administrator would be left.
    """
    lock_project(connection, _LOCK)
    user = find(connection, name)
    if user is None:
        return None
    values: dict[str, object] = {}
    if role is not None:
        values["role"] = _role(role)
    if disabled is not None:
        values["disabled"] = disabled
    if password_hash is not None:
        values |= {"password_hash": password_hash, "password_changed_at": now()}
    if password_hash is not None or disabled:
        values["stamp"] = _stamp()
    if role == USER or disabled:
        _keep_one(connection, user)
    if values:
        connection.execute(users.update().where(users.c.id == user.id).values(**values))
    return by_id(connection, user.id)


def remove(connection: Connection, name: str) -> User | None:
    """Delete an account and return it, or None if there was none.

    Raises:
        AccountRefused: no enabled administrator would be left.
    """
    lock_project(connection, _LOCK)
    user = find(connection, name)
    if user is not None:
        _keep_one(connection, user)
        login_addresses.forget(connection, user.id)
        connection.execute(users.delete().where(users.c.id == user.id))
    return user


def rehash(connection: Connection, user: User, password_hash: str) -> None:
    """Store a hash of the same password with newer parameters, unless the password has been changed meanwhile."""
    unchanged = (users.c.id == user.id, users.c.password_hash == user.password_hash)
    connection.execute(users.update().where(*unchanged).values(password_hash=password_hash))


def _keep_one(connection: Connection, leaving: User) -> None:
    administrators = (users.c.role == ADMINISTRATOR, users.c.disabled.is_(False), users.c.id != leaving.id)
    if leaving.role != ADMINISTRATOR or leaving.disabled:
        return
    if not connection.execute(select(users.c.id).where(*administrators).limit(1)).first():
        raise AccountRefused(f"{leaving.name!r} is the last administrator: make another one first")


def _role(role: str) -> str:
    if role not in ROLES:
        raise BadAccount(f"the role is {role!r}: give {' or '.join(ROLES)}")
    return role


def _stamp() -> str:
    return secrets.token_hex(16)
