"""From where an account has logged in: there, its right password is never refused because of others' guesses.

Each account keeps the addresses that it used last, and each address is forgotten when it has not been used for a while.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from pipelines.catalogue.schema import login_addresses, now

MOST = 32  # addresses of one account
KEPT = timedelta(days=90)
REFRESHED = timedelta(days=1)  # how exactly the last use is known


@dataclass(frozen=True)
class LoginAddress:
    """An address from which an account has logged in.

    Attributes:
        network: an IPv4 address, or the /64 network of an IPv6 address.
        password_filter: what serving noted of the password; see `serving.auth.password_filter`.
        used_at: when it was last used, to the day.
    """

    network: str
    password_filter: str
    used_at: datetime


_COLUMNS = tuple(login_addresses.c[name] for name in LoginAddress.__dataclass_fields__)


def find(connection: Connection, user_id: int, network: str) -> LoginAddress | None:
    """Return the address if the account has logged in from there lately, else None."""
    rows = login_addresses.c
    of_pair = (rows.user_id == user_id, rows.network == network, rows.used_at > now() - KEPT)
    row = connection.execute(select(*_COLUMNS).where(*of_pair)).first()
    return LoginAddress(*row) if row else None


def note(connection: Connection, user_id: int, network: str, password_filter: str) -> None:
    """Enter or refresh an address, and remove those that are old or one account's too many."""
    rows, at = login_addresses.c, now()
    connection.execute(
        delete(login_addresses).where(
            ((rows.user_id == user_id) & (rows.network == network)) | (rows.used_at <= at - KEPT)
        )
    )
    values = {"user_id": user_id, "network": network, "password_filter": password_filter, "used_at": at}
    connection.execute(login_addresses.insert().values(**values))
    newest = select(rows.network).where(rows.user_id == user_id).order_by(rows.used_at.desc()).limit(MOST)
    kept = connection.execute(newest).scalars().all()
    connection.execute(delete(login_addresses).where(rows.user_id == user_id, rows.network.not_in(kept)))


def forget(connection: Connection, user_id: int) -> None:
    """Remove all addresses of an account."""
    connection.execute(delete(login_addresses).where(login_addresses.c.user_id == user_id))
