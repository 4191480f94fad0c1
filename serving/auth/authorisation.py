"""Who may make which call: every call is for users, unless its view says otherwise.

A view is for everybody with `@open_to_all`, for administrators alone with `@administrators_only`; whoever forgets to
say so has closed it. `account()` is the account of the request in hand.
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
    """Somebody who may make calls; `role` is `user` or `administrator`."""

    name: str
    role: str


ANYBODY = Account("anonymous", ADMINISTRATOR)  # with INSPECTLINE_AUTH=none


def open_to_all(view: _View) -> _View:
    """Let everybody make this call, without an account."""
    setattr(view, _FOR, None)
    return view


def administrators_only(view: _View) -> _View:
    """Let only administrators make this call."""
    setattr(view, _FOR, ADMINISTRATOR)
    return view


def account() -> Account:
    """Return the account of the request in hand, in a view that is not open to all."""
    held: Account = g.account
    return held


def needed_role(endpoint: str | None) -> str | None:
    """Return the role that a call needs, by its endpoint; None for one that everybody may make."""
    if endpoint is None:
        return None  # there is no such call, and everybody may be told so
    return getattr(current_app.view_functions[endpoint], _FOR, USER)


def guard(app: Flask, identify: Callable[[], Account]) -> None:
    """Have `identify` tell, before each call that is not open to all, whose it is; the role decides then."""

    def check() -> None:
        if request.method not in ("GET", "HEAD", "OPTIONS") and request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A browser sends along the password that it remembers, or needs none, whichever page has it ask.
            raise Refusal(403, "another site's page asks for this: call serving from its own pages, or from a program")
        role = needed_role(request.endpoint)
        if role is None:
            return
        g.account = identify()
        if role == ADMINISTRATOR and g.account.role != ADMINISTRATOR:
            raise Refusal(403, "this call is for administrators: ask one, or log in as one")

    app.before_request(check)


def identify_anybody() -> Account:
    """Return one account for everybody: what INSPECTLINE_AUTH=none means."""
    return ANYBODY
