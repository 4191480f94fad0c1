"""Accounts from a CSV file: all of them or none, and each mistake in a line of its own."""

from pathlib import Path

import pytest

from pipelines.catalogue import connect, passwords, transaction, users
from pipelines.catalogue.__main__ import main
from pipelines.catalogue.account_lists import make_accounts, read_accounts
from pipelines.errors import BadAccount

GOOD = "a password of some length"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.csv"


def names() -> list[tuple[str, str]]:
    with connect() as connection:
        return [(user.name, user.role) for user in users.every(connection)]


def test_accounts_when_listed_then_made_with_hashed_passwords(file: Path, each_database: str, capsys):
    file.write_text(f'name,password,role\nann,{GOOD},\n\nZoë,"with, comma and length",Administrator\n', "utf-8")
    assert main(["accounts", str(file)]) == 0
    assert names() == [("ann", "user"), ("Zoë", "administrator")]
    with connect() as connection:
        account = users.find(connection, "ZOË")
    assert account is not None
    assert passwords.verify(account.password_hash, "with, comma and length")
    assert GOOD not in account.password_hash
    assert GOOD not in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        f"ann,{GOOD}\nbob,{GOOD},user\n",
        f"\ufeffRole;Password;Name\r\nuser;{GOOD};ann\r\n;{GOOD};bob\r\n",
        f"name\tpassword\nann\t{GOOD}\nbob\t{GOOD}",
        f"ann,{GOOD};with;more\nbob,{GOOD}\n",
    ],
)
def test_list_when_written_in_another_form_then_read_the_same(file: Path, text: str):
    file.write_text(text, "utf-8", newline="")
    assert [(account.name, account.role) for account in read_accounts(file)] == [("ann", "user"), ("bob", "user")]


def test_accounts_when_some_lines_are_wrong_then_each_is_named_and_none_is_made(file: Path, database: str, capsys):
    with transaction() as connection:
        users.add(connection, "kept", passwords.hash_password(GOOD))
    lines = [f"ann,{GOOD}", "bob,short", f"a b,{GOOD}", f"eve,{GOOD},root", f"ANN,{GOOD}", f"dan,{GOOD},user,more"]
    file.write_text("\n".join(lines), "utf-8")
    assert main(["accounts", str(file)]) == 1
    said = capsys.readouterr().err
    for number in (2, 3, 4, 5, 6):
        assert said.count(f"line {number}: ") == 1
    assert "short" not in said.replace("password", "")
    assert names() == [("kept", "user")]
    file.write_text(f"ann,{GOOD}\nKEPT,{GOOD}\n", "utf-8")
    with pytest.raises(BadAccount, match="line 2: there is an account 'KEPT' already"):
        make_accounts(file)
    assert names() == [("kept", "user")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"name,password,role\n",
        b"\xff\xfe\x00a",
        b'ann,"open',
        f"name,password,mail\nann,{GOOD},x".encode(),
    ],
)
def test_list_when_it_is_none_then_one_sentence(file: Path, data: bytes, database: str):
    file.write_bytes(data)
    with pytest.raises(BadAccount, match=str(file)):
        make_accounts(file)
    with pytest.raises(BadAccount):
        make_accounts(file.with_name("missing.csv"))
    with pytest.raises(BadAccount):
        make_accounts(file.parent)
