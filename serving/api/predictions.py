"""`GET /predictions`: past predictions, the newest first, in pages."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from serving import catalogue
from serving.api.routes import rules_of, state_of
from serving.api.uploads import read_query
from serving.refusals import Refusal

predictions = Blueprint("predictions", __name__)

MOST = 500
USUAL = 50
PARAMETERS = ("since", "until", "verdict", "is_anomaly", "version", "limit", "cursor")
_TRUTHS = {"true": True, "false": False}


@predictions.get("/predictions")
@predictions.get("/projects/<project>/predictions")
def past(project: str | None = None) -> ResponseReturnValue:
    """List past predictions by time, verdict and version, each with its annotation if there is one."""
    rules = rules_of(state_of(project))
    asked = read_query(request, PARAMETERS)
    truth = asked.get("is_anomaly")
    wanted = catalogue.Wanted(
        since=_moment("since", asked, rules.timezone),
        until=_moment("until", asked, rules.timezone),
        verdict=_one_of("verdict", asked.get("verdict"), catalogue.VERDICTS),
        is_anomaly=_TRUTHS[_one_of("is_anomaly", truth, tuple(_TRUTHS)) or ""] if truth else None,
        version=asked.get("version"),
    )
    after = _place(asked["cursor"]) if "cursor" in asked else None
    rows, place = catalogue.read_page(rules.name, wanted, _limit(asked.get("limit")), after)
    return {"predictions": rows, "next": _cursor(place) if place else None}


def _moment(name: str, asked: dict[str, str], timezone: str) -> datetime | None:
    if name not in asked:
        return None
    try:
        # A plus sign that was not percent-encoded arrives as a blank.
        return catalogue.read_time(asked[name].replace(" ", "+") if "T" in asked[name] else asked[name], timezone)
    except ValueError:
        example = "2026-05-01T13:30:00+02:00 (its + written as %2B)"
        raise Refusal(400, f"{name} is {asked[name][:64]!r}: give an ISO 8601 time, such as {example}") from None


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise Refusal(400, f"{name} is {value[:64]!r}: give {', '.join(allowed[:-1])} or {allowed[-1]}")
    return value


def _limit(text: str | None) -> int:
    if text is None:
        return USUAL
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= MOST:
        raise Refusal(400, f"limit is {text[:64]!r}: give a number from 1 to {MOST}")
    return number


def _cursor(place: catalogue.Place) -> str:
    moment, number = place
    return base64.urlsafe_b64encode(json.dumps([moment.isoformat(), number]).encode()).decode().rstrip("=")


def _place(cursor: str) -> catalogue.Place:
    """Return the place that a cursor stands for; only what `_cursor` writes is one."""
    try:
        moment, number = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = (datetime.fromisoformat(moment).astimezone(UTC), int(number))
        if _cursor(place) != cursor or not 0 < place[1] < 2**63:
            raise ValueError(cursor)
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):
        raise Refusal(400, "cursor is none that this call gave: take it from the answer before, as `next`") from None
    return place
