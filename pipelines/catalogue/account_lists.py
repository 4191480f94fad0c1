"""Make the accounts that a CSV file lists, all of them or none.

Columns: name, password, and role, which is `user` where it is empty or left out. A first line with these words names
the columns in any order; without it, they come in this one. Lines end in any way, commas, semicolons or tabs separate,
and a text in quotes may hold them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.catalogue import passwords, users
from pipelines.catalogue.database import connect, transaction
from pipelines.catalogue.roles import ROLES, USER
from pipelines.errors import AccountRefused, BadAccount

COLUMNS = ("name", "password", "role")
_SEPARATORS = ",;\t"
_LARGEST = 1 << 20  # bytes
_SHOWN = 20  # mistakes in a message


@dataclass(frozen=True)
class ListedAccount:
    """One line of the file.

    Attributes:
        line: its number, from 1.
        name: the account's name.
        password: its password as written.
        role: user or administrator.
    """

    line: int
    name: str
    password: str = field(repr=False)
    role: str


def make_accounts(path: Path) -> list[users.User]:
    """Make the accounts that the file at `path` lists, and return them.

    Raises:
        BadAccount: the file cannot be read, or a line cannot be used; no account was made. The message has one line for
            each mistake, without the passwords.
        CatalogueError: the database cannot be used; no account was made.
    """
    listed = read_accounts(path)
    with connect() as connection:
        taken = [account for account in listed if users.find(connection, account.name)]
    if taken:
        raise _mistakes(path, [(account.line, _taken(account.name)) for account in taken])
    hashed = [passwords.hash_password(account.password) for account in listed]  # before the transaction: it takes time
    with transaction() as connection:
        made = []
        for account, password_hash in zip(listed, hashed, strict=True):
            try:
                made.append(users.add(connection, account.name, password_hash, account.role))
            except AccountRefused:  # made by somebody else in the meantime; rolls everything back
                raise _mistakes(path, [(account.line, _taken(account.name))]) from None
    return made


def read_accounts(path: Path) -> list[ListedAccount]:
    """Read and check the file at `path`; see `make_accounts`."""
    rows = list(_rows(path))
    columns = list(COLUMNS)
    if rows and {"name", "password"} <= (named := {text.strip().lower() for text in rows[0][1]}):
        columns = [text.strip().lower() for text in rows.pop(0)[1]]
        if strange := sorted(named - {*COLUMNS, ""}):
            raise _mistakes(path, [(1, f"there is no column {strange[0][:32]!r}: write {', '.join(COLUMNS)}")])
        if len(named) < len(columns):
            raise _mistakes(path, [(1, "a column is named twice: name each once")])
    listed: list[ListedAccount] = []
    mistakes: list[tuple[int, str]] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        try:
            account = _account(line, row, columns)
        except BadAccount as error:
            mistakes.append((line, str(error)))
            continue
        first = lines.setdefault(users.name_key(account.name), line)
        if first != line:
            mistakes.append((line, f"{account.name!r} is in line {first} already: give each account one line"))
        listed.append(account)
    if mistakes:
        raise _mistakes(path, mistakes)
    if not listed:
        raise BadAccount(f"{path}: lists no account: write one a line, as {','.join(COLUMNS)}")
    return listed


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not empty, each with its number."""
    try:
        if path.stat().st_size > _LARGEST:
            raise BadAccount(f"{path}: has more than {_LARGEST >> 20} MB, which no list of accounts has")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadAccount(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise BadAccount(f"{path}: is not UTF-8: store it as CSV in UTF-8") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = next((each for each in _SEPARATORS if 2 <= len(first.split(each)) <= len(COLUMNS)), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        line = 1
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise _mistakes(
            path, [(reader.line_num, f"is no CSV ({error}): look for a quote that is not closed")]
        ) from None


def _account(line: int, row: list[str], columns: list[str]) -> ListedAccount:
    if len(row) > len(columns):
        raise BadAccount(f"has {len(row)} columns instead of {len(columns)}: put a text with commas in quotes")
    cells = dict(zip(columns, row, strict=False))
    name = passwords.check_name(cells.get("name", "").strip())
    password = passwords.check_password(cells.get("password", ""))
    role = cells.get("role", "").strip().lower() or USER
    if role not in ROLES:
        raise BadAccount(f"the role is {role[:32]!r}: write {' or '.join(ROLES)}")
    return ListedAccount(line, name, password, role)


def _taken(name: str) -> str:
    return f"there is an account {name!r} already: take the line out"


def _mistakes(path: Path, mistakes: list[tuple[int, str]]) -> BadAccount:
    lines = [f"{path}, line {line}: {problem}" for line, problem in mistakes[:_SHOWN]]
    if len(mistakes) > _SHOWN:
        lines.append(f"{path}: and {len(mistakes) - _SHOWN} mistakes more")
    return BadAccount("\n".join([*lines, "no account was made"]))
