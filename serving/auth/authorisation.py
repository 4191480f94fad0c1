"""Authorisation: every call requires an account, unless its view is decorated otherwise.

`@open_to_all` requires no account, `@administrators_only` the administrator's role; a view without a decorator is
closed to anonymous requests. `account()` is the account of the current request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from pipelines.catalogue.roles import ADMINISTRATOR, USER
from serving.refusals import Refusal

_View = TypeVar("_View", bound=Callable[..., Any])
_FOR = "inspectline_for"


@dataclass(frozen=True)
class Account:
    """The account of a request.

    Attributes:
        name: the account's name.
        role: `user` or `administrator`.
    """

    name: str
    role: str


ANYBODY = Account("anonymous", ADMINISTRATOR)  # with INSPECTLINE_AUTH=none


def open_to_all(view: _View) -> _View:
    """Decorate a view that requires no account."""
    setattr(view, _FOR, None)
    return view


def administrators_only(view: _View) -> _View:
    """Decorate a view that requires the administrator's role."""
    setattr(view, _FOR, ADMINISTRATOR)
    return view


def account() -> Account:
    """Return the account of the current request; only in a view that is not open to all."""
    current: Account = g.account
    return current


def needed_role(endpoint: str | None) -> str | None:
    """Return the role that the call of an endpoint requires; None if it requires no account."""
    if endpoint is None:
        return None  # no such call, which is answered with 404
    return getattr(current_app.view_functions[endpoint], _FOR, USER)


def guard(app: Flask, identify: Callable[[], Account]) -> None:
    """Identify the account before each call that is not open to all, and check its role."""

    def check() -> None:
        if request.method not in ("GET", "HEAD", "OPTIONS") and request.headers.get("Sec-Fetch-Site") == "cross-site":
            # Against CSRF: a browser sends the HTTP Basic credentials it remembers whichever page makes the request.
            raise Refusal(403, "another site's page asks for this: call serving from its own pages, or from a program")
        role = needed_role(request.endpoint)
        if role is None:
            return
        g.account = identify()
        if role == ADMINISTRATOR and g.account.role != ADMINISTRATOR:
            raise Refusal(403, "this call is for administrators: ask one, or log in as one")

    app.before_request(check)


def identify_anybody() -> Account:
    """Return the one account of all requests when INSPECTLINE_AUTH is `none`."""
    return ANYBODY
