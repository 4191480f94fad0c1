"""The calls about accounts: the current account, tokens, and the administration of accounts.

Passwords occur in requests only, never in an answer or the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, current_app, request, url_for
from flask.typing import ResponseReturnValue

from pipelines.catalogue import passwords
from pipelines.catalogue.roles import ADMINISTRATOR, USER
from pipelines.errors import AccountRefused, BadAccount
from serving import catalogue
from serving.api.uploads import read_fields
from serving.auth.authentication import Accounts
from serving.auth.authorisation import account, administrators_only, open_to_all
from serving.refusals import Refusal

if TYPE_CHECKING:
    from pipelines.catalogue.users import User

account_routes = Blueprint("accounts", __name__)
_FIELDS = ("role", "password", "disabled", "current_password")


@account_routes.get("/user")
def who_am_i() -> ResponseReturnValue:
    """Return the account of this request."""
    return {"name": account().name, "role": account().role}


@account_routes.post("/login")
@open_to_all
def login() -> ResponseReturnValue:
    """Return a bearer token for a name and a password."""
    fields = read_fields(request, ("name", "password"))
    name, password = _text(fields, "name"), _text(fields, "password")
    user = _accounts().verify(name, password, request.remote_addr or "")
    token, expires_at = _accounts().tokens.issue(user.id, user.stamp)
    answer = {"token": token, "token_type": "Bearer", "expires_at": expires_at.isoformat()}
    return answer | {"name": user.name, "role": user.role}, 200, {"Cache-Control": "no-store"}


@account_routes.get("/users")
@administrators_only
def list_users() -> ResponseReturnValue:
    """List the accounts."""
    with catalogue.connect() as connection:
        return {"users": [_shown(user) for user in catalogue.users.every(connection)]}


@account_routes.post("/users")
@administrators_only
def add_user() -> ResponseReturnValue:
    """Create an account."""
    fields = read_fields(request, ("name", "password", "role"))
    name, password = _text(fields, "name"), _text(fields, "password")
    role = _text(fields, "role") if "role" in fields else USER
    try:
        passwords.check_name(name)
        hashed = _accounts().hash(password)
        with catalogue.transaction() as connection:
            user = catalogue.users.add(connection, name, hashed, role)
    except (BadAccount, AccountRefused) as error:
        raise _refused(error) from error
    return _shown(user), 201, {"Location": url_for("accounts.change_user", name=user.name)}


@account_routes.patch("/users/<name>")
def change_user(name: str) -> ResponseReturnValue:
    """Change an account's role or password, or disable it; one's own password with `current_password`."""
    fields = read_fields(request, _FIELDS)
    own = catalogue.users.name_key(name) == catalogue.users.name_key(account().name)
    if account().role != ADMINISTRATOR and (not own or not set(fields) <= {"password", "current_password"}):
        raise Refusal(403, "this is for administrators; others may change their own password")
    if not set(fields) - {"current_password"}:
        raise Refusal(400, "nothing is to be changed: give role, password or disabled")
    try:
        if own and "password" in fields:
            _check_current(fields)
        changed = _change(name, fields)
    except (BadAccount, AccountRefused) as error:
        raise _refused(error) from error
    return _shown(changed)


@account_routes.delete("/users/<name>")
@administrators_only
def remove_user(name: str) -> ResponseReturnValue:
    """Delete an account."""
    try:
        with catalogue.transaction() as connection:
            user = catalogue.users.remove(connection, name)
    except AccountRefused as error:
        raise _refused(error) from error
    if user is None:
        raise _missing(name)
    _accounts().forget(user.id)
    return _shown(user) | {"deleted": True}


def _check_current(fields: dict[str, Any]) -> None:
    if "current_password" not in fields:
        raise Refusal(400, "current_password is missing: one's own password is changed with the one that holds now")
    try:
        _accounts().verify(account().name, _text(fields, "current_password"), request.remote_addr or "")
    except Refusal as refusal:
        if refusal.status == 401:
            raise Refusal(403, "current_password is wrong") from None
        raise


def _change(name: str, fields: dict[str, Any]) -> User:
    role = _text(fields, "role") if "role" in fields else None
    disabled = fields.get("disabled")
    if "disabled" in fields and not isinstance(disabled, bool):
        raise Refusal(400, "disabled is neither true nor false")
    hashed = _accounts().hash(_text(fields, "password")) if "password" in fields else None
    with catalogue.transaction() as connection:
        changed = catalogue.users.change(connection, name, role=role, password_hash=hashed, disabled=disabled)
    if changed is None:
        raise _missing(name)
    _accounts().forget(changed.id)
    return changed


def _accounts() -> Accounts:
    held: Accounts = current_app.extensions["inspectline"].accounts
    return held


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refusal(400, f"{name} is missing, or no text: write it in quotes")
    return value


def _missing(name: str) -> Refusal:
    return Refusal(404, f"there is no account {name[: passwords.LONGEST_NAME]!r}: see GET /users")


def _refused(error: BadAccount | AccountRefused) -> Refusal:
    return Refusal(409 if isinstance(error, AccountRefused) else 400, str(error))


def _shown(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "disabled": user.disabled,
        "created_at": user.created_at.isoformat(timespec="seconds"),
        "password_changed_at": user.password_changed_at.isoformat(timespec="seconds"),
    }
