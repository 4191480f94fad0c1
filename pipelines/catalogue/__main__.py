"""Manage the catalogue from the command line.

python -m pipelines.catalogue migrate                              bring the tables up to date
python -m pipelines.catalogue account NAME [--role administrator]  make an account, or give it a new password
python -m pipelines.catalogue accounts FILE                        make the accounts that a CSV file lists
"""

import argparse
import getpass
import os
import sys
from pathlib import Path

from pipelines.catalogue import account_lists, passwords, users
from pipelines.catalogue.database import migrate, transaction
from pipelines.errors import BadAccount, InspectlineError


def _migrate(options: argparse.Namespace) -> None:
    migrate()
    first = os.environ.get("INSPECTLINE_ADMIN_PASSWORD", "")
    if not first:
        return
    hashed = passwords.hash_password(first)
    with transaction() as connection:
        account = users.add_first(connection, hashed)
    if account:
        print(f"the account {account.name!r} is made, with the password in INSPECTLINE_ADMIN_PASSWORD")


def _account(options: argparse.Namespace) -> None:
    name = passwords.check_name(options.name)
    given = _ask(name)
    hashed = passwords.hash_password(given or (generated := passwords.make_password()))
    with transaction() as connection:
        changed = users.change(connection, name, role=options.role, password_hash=hashed, disabled=False)
        account = changed or users.add(connection, name, hashed, options.role or users.USER)
    print(f"the account {account.name!r} ({account.role}) {'has a new password' if changed else 'is made'}")
    if not given:
        print(f"its password, shown once: {generated}")


def _accounts(options: argparse.Namespace) -> None:
    made = account_lists.make_accounts(options.file)
    administrators = sum(user.role == users.ADMINISTRATOR for user in made)
    print(f"{len(made)} accounts are made, {administrators} of them administrators")


def _ask(name: str) -> str:
    """Read the password from the terminal or from standard input; an empty one requests a generated password."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    given = getpass.getpass(f"password for {name} (empty: one is generated): ")
    if given and getpass.getpass("once more: ") != given:
        raise BadAccount("the two are not the same: try again")
    return given


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status; errors are printed in one line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.catalogue")
    commands = parser.add_subparsers(required=True, metavar="command")
    migrated = commands.add_parser("migrate", help="bring the catalogue's tables up to date")
    migrated.set_defaults(act=_migrate)
    account = commands.add_parser("account", help="make an account for serving, or give it a new password")
    account.add_argument("name")
    account.add_argument("--role", choices=users.ROLES, help="user for a new account, else as it is")
    account.set_defaults(act=_account)
    accounts = commands.add_parser("accounts", help="make the accounts that a CSV file lists: all of them, or none")
    accounts.add_argument("file", type=Path, help="columns name, password and role")
    accounts.set_defaults(act=_accounts)
    options = parser.parse_args(arguments)
    try:
        options.act(options)
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
