"""From where accounts have logged in: bounded, forgotten in time, removed with the account."""

from datetime import timedelta

from sqlalchemy import func, select, update

from pipelines.catalogue import connect, login_addresses, transaction, users
from pipelines.catalogue.login_addresses import KEPT, MOST
from pipelines.catalogue.schema import login_addresses as table
from pipelines.catalogue.schema import now


def count() -> int:
    with connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_addresses_when_noted_then_found_by_account_and_refreshed(each_database: str) -> None:
    with transaction() as connection:
        login_addresses.note(connection, 1, "10.0.0.1", "old")
        login_addresses.note(connection, 1, "10.0.0.1", "new")
        found = login_addresses.find(connection, 1, "10.0.0.1")
        assert found is not None
        assert (found.network, found.password_filter) == ("10.0.0.1", "new")
        assert now() - found.used_at < timedelta(minutes=1)
        assert login_addresses.find(connection, 2, "10.0.0.1") is None
        assert login_addresses.find(connection, 1, "10.0.0.2") is None
    assert count() == 1


def test_addresses_when_too_many_then_those_used_last_stay(each_database: str) -> None:
    with transaction() as connection:
        login_addresses.note(connection, 2, "10.0.0.1", "of another account")
        for number in range(MOST + 5):
            login_addresses.note(connection, 1, f"10.0.1.{number}", "x")
        assert login_addresses.find(connection, 1, "10.0.1.4") is None
        assert login_addresses.find(connection, 1, f"10.0.1.{MOST + 4}") is not None
    assert count() == MOST + 1


def test_addresses_when_not_used_for_long_then_forgotten(each_database: str) -> None:
    with transaction() as connection:
        login_addresses.note(connection, 1, "10.0.0.1", "x")
        connection.execute(update(table).values(used_at=now() - KEPT - timedelta(hours=1)))
        assert login_addresses.find(connection, 1, "10.0.0.1") is None
        login_addresses.note(connection, 2, "10.0.0.2", "x")
    assert count() == 1


def test_addresses_when_the_account_is_removed_then_gone(each_database: str) -> None:
    with transaction() as connection:
        users.add(connection, "root", "hash", "administrator")
        ann = users.add(connection, "ann", "hash")
        login_addresses.note(connection, ann.id, "10.0.0.1", "x")
        users.remove(connection, "ann")
    assert count() == 0
