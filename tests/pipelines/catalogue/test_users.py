"""Accounts: unique regardless of case, and never without an enabled administrator."""

import threading

import pytest

from pipelines.catalogue import connect, passwords, transaction, users
from pipelines.catalogue.__main__ import main
from pipelines.errors import AccountRefused, BadAccount

HASH = passwords.hash_password("correct horse battery")


def add(name: str, role: str = "user") -> users.User:
    with transaction() as connection:
        return users.add(connection, name, HASH, role)


def change(name: str, **values) -> users.User | None:
    with transaction() as connection:
        return users.change(connection, name, **values)


def test_add_when_the_name_differs_only_in_case_or_form_then_taken(each_database: str):
    account = add("Zoë")
    for same in ("zoë", "ZOË", "Zoe\u0308"):
        with pytest.raises(AccountRefused, match="already"):
            add(same)
        with connect() as connection:
            assert users.find(connection, same) == account


@pytest.mark.parametrize("name", ["", "a" * 65, "two words", "a:b", "a/b", "line\nbreak", "\u202eevil", ".."])
def test_add_when_the_name_cannot_be_used_then_refused(database: str, name: str):
    with pytest.raises(BadAccount):
        add(name)


@pytest.mark.parametrize("password", ["", "short", "eleven char", "a" * 257, "control\x00chars", "aaaaaaaaaaaaaaaa"])
def test_password_when_it_is_none_then_refused(password: str):
    with pytest.raises(BadAccount):
        passwords.hash_password(password)


def test_password_when_typed_in_another_form_of_unicode_then_the_same():
    password_hash = passwords.hash_password("naïve café 12")
    assert passwords.verify(password_hash, "nai\u0308ve cafe\u0301 12")
    assert not passwords.verify(password_hash, "naive cafe 12")
    assert not passwords.verify(None, "naïve café 12")
    assert "$argon2id$v=19$m=65536,t=3,p=4$" in password_hash
    assert not passwords.outdated(password_hash)


@pytest.mark.parametrize("values", [{"role": "user"}, {"disabled": True}, None])
def test_last_administrator_when_removed_demoted_or_disabled_then_refused(each_database: str, values: dict | None):
    add("root", "administrator")
    add("ann")

    def act():
        if values is not None:
            return change("root", **values)
        with transaction() as connection:
            return users.remove(connection, "root")

    with pytest.raises(AccountRefused, match="last administrator"):
        act()
    add("second", "administrator")
    assert act() is not None


def test_administrators_when_two_are_demoted_at_once_then_one_stays(each_database: str):
    for name in ("one", "two"):
        add(name, "administrator")
    refused: list[str] = []

    def demote(name: str) -> None:
        try:
            change(name, role="user")
        except AccountRefused:
            refused.append(name)

    threads = [threading.Thread(target=demote, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    with connect() as connection:
        assert [user.name for user in users.every(connection) if user.role == "administrator"] == refused


def test_stamp_when_password_changes_or_account_is_disabled_then_new_and_else_the_same(database: str):
    add("root", "administrator")
    first = add("ann").stamp
    promoted = change("ann", role="administrator")
    assert promoted is not None
    assert promoted.stamp == first
    disabled = change("ann", disabled=True)
    assert disabled is not None
    assert disabled.stamp != first
    enabled = change("ann", disabled=False)
    assert enabled is not None
    assert enabled.stamp == disabled.stamp
    changed = change("ann", password_hash=HASH)
    assert changed is not None
    assert changed.stamp != disabled.stamp
    assert changed.password_changed_at > enabled.password_changed_at


def test_first_account_when_several_make_it_at_once_then_one(each_database: str):
    accounts: list[users.User | None] = []

    def make() -> None:
        with transaction() as connection:
            accounts.append(users.add_first(connection, HASH))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [user.name for user in accounts if user] == ["admin"]
    assert len(accounts) == 6


def test_migrate_when_a_password_is_given_then_admin_is_made_once_and_not_changed_later(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for password in ("first password", "another password"):
        monkeypatch.setenv("INSPECTLINE_ADMIN_PASSWORD", password)
        assert main(["migrate"]) == 0
        assert password not in capsys.readouterr().out
    with connect() as connection:
        (admin,) = users.every(connection)
    assert (admin.name, admin.role) == ("admin", "administrator")
    assert passwords.verify(admin.password_hash, "first password")


def test_account_command_when_nothing_is_typed_then_made_with_a_generated_password_and_reset_later(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Typed:
        def __init__(self, line: str):
            self.line = line

        def isatty(self) -> bool:
            return False

        def readline(self) -> str:
            return self.line

    monkeypatch.setattr("sys.stdin", Typed(""))
    assert main(["account", "ann", "--role", "administrator"]) == 0
    shown = capsys.readouterr().out.rsplit(maxsplit=1)[-1]
    monkeypatch.setattr("sys.stdin", Typed("a typed password\n"))
    with connect() as connection:
        account = users.find(connection, "ann")
    assert account is not None
    assert account.role == "administrator"
    assert passwords.verify(account.password_hash, shown)
    assert main(["account", "ANN"]) == 0
    assert "a typed password" not in capsys.readouterr().out
    with connect() as connection:
        again = users.find(connection, "ann")
    assert again is not None
    assert again.role == "administrator"
    assert passwords.verify(again.password_hash, "a typed password")
    monkeypatch.setattr("sys.stdin", Typed("short\n"))
    assert main(["account", "ann"]) == 1
    assert "12 to 256" in capsys.readouterr().err
