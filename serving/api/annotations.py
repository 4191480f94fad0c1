"""Annotations of judged images: `POST /annotations` says what one shows, `GET /annotations` lists proposals."""

from __future__ import annotations

import re
import time
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from pipelines.config.project import Project
from pipelines.errors import BadImage
from serving import catalogue
from serving.api.routes import rules_of, service, state_of
from serving.api.uploads import Sent, read_body, read_number, read_query
from serving.auth.authorisation import account
from serving.models.served_models import ProjectState
from serving.refusals import Refusal, unavailable

annotating = Blueprint("annotating", __name__)

LABELS = ("good", "anomaly")
USUAL, MOST = 50, 500
_SHOWN = 20  # classes in a message
_ARRIVES_SECONDS = 5.0  # a prediction reaches the database within one or two
_WORDS = ("request_id", "sha256", "label", "type", "group")


@annotating.post("/annotations")
@annotating.post("/projects/<project>/annotations")
def annotation(project: str | None = None) -> ResponseReturnValue:
    """Correct a past prediction: its image is good, or an anomaly of some type, or of a class."""
    state = state_of(project)
    rules = rules_of(state)
    sent = read_body(request, images=0, words=_WORDS, files=("mask",))
    label = _class(sent, state) if rules.task == "classification" else _label(sent)
    name, value = _named(sent)
    posted = catalogue.Posted(b"", label, sent.words.get("type"), group=sent.words.get("group"), author=account().name)
    with service().storing.place() as free:
        if not free:
            raise unavailable("many images are being stored at the moment; try again")
        try:
            annotated = _entered(rules, name, value, posted, sent.files.get("mask"))
        except catalogue.NoSuchPrediction as error:
            if service().journal.holds(rules.name, name, value):
                raise unavailable("the prediction is on its way to the database; try again") from error
            raise Refusal(404, str(error)) from error
        except catalogue.ImageGone as error:
            raise Refusal(410, str(error)) from error
        except BadImage as error:
            raise Refusal(422, str(error)) from error
        except catalogue.BadName as error:
            raise Refusal(400, str(error)) from error
    body = {
        "annotation": annotated["annotation"],
        "sha256": annotated["sha256"],
        "label": annotated["label"],
        "type": sent.words.get("type"),
        "mask": "mask" in sent.files,
        "author": account().name,
        "created_at": annotated["created_at"].isoformat(timespec="seconds"),
        "known": not annotated["added"],
        "subset": annotated["subset"],
        "sample": {key: annotated[key] for key in ("sha256", "subset", "label", "state", "notes")},
    }
    return body, 201 if annotated["added"] else 200


@annotating.get("/annotations")
@annotating.get("/projects/<project>/annotations")
def proposed(project: str | None = None) -> ResponseReturnValue:
    """List the proposed annotations that nobody has confirmed or corrected, newest first."""
    rules = rules_of(state_of(project))
    asked = read_query(request, ("proposed", "limit", "cursor"))
    if asked.get("proposed", "").lower() != "true":
        raise Refusal(400, "proposed is not true: this call lists proposed annotations alone, write ?proposed=true")
    limit = read_number("limit", asked["limit"]) if "limit" in asked else USUAL
    if not 1 <= limit <= MOST:
        raise Refusal(400, f"limit is {limit}: give a whole number from 1 to {MOST}")
    cursor = asked.get("cursor", "")
    if not re.fullmatch("[0-9]{0,18}", cursor):
        raise Refusal(400, f"cursor is {cursor[:32]!r}: give the `next` of the page before")
    rows = catalogue.proposals(rules.name, limit + 1, int(cursor) if cursor else None)
    shown = [
        {name: row[name] for name in ("sha256", "label", "author")}
        | {"annotation": row["id"], "created_at": row["created_at"].isoformat(timespec="seconds")}
        for row in rows[:limit]
    ]
    return {"annotations": shown, "next": str(shown[-1]["annotation"]) if len(rows) > limit else None}


def _class(sent: Sent, state: ProjectState) -> str:
    """Return the label as a class that the project has: of the model that serves, or of an earlier annotation."""
    label = sent.words.get("label", "")
    classes = state.serving.model.report().get("classes", []) if state.serving else []
    if not label or (label not in classes and not catalogue.has_label(state.name, label)):
        known = f"the classes are {', '.join(classes[:_SHOWN])}" if classes else "send images of it to the inbox first"
        raise Refusal(400, f"label is {label[:64]!r}, no class of {state.name}: {known}")
    if useless := "type" if "type" in sent.words else "mask" if "mask" in sent.files else "":
        raise Refusal(400, f"an image of a class has no {useless}: leave it out")
    return label


def _entered(rules: Project, name: str, value: str, posted: catalogue.Posted, mask: bytes | None) -> dict[str, Any]:
    """Store the annotation; waits for the prediction of an image judged just now to reach the database.

    Raises:
        NoSuchPrediction: there is none, or it did not arrive in time.
    """

    def enter() -> dict[str, Any]:
        return catalogue.annotate(
            rules, value if name == "sha256" else catalogue.sha256_of(rules.name, value), posted, mask
        )

    try:
        return enter()
    except catalogue.NoSuchPrediction:
        end = time.monotonic() + _ARRIVES_SECONDS
        service().recorder.nudge()
        while service().journal.holds(rules.name, name, value) and time.monotonic() < end:
            time.sleep(0.1)
        return enter()


def _label(sent: Sent) -> str:
    label = sent.words.get("label", "")
    if label not in LABELS:
        raise Refusal(400, f"label is {label[:64]!r}: write good or anomaly")
    if label == "good" and (useless := "type" if "type" in sent.words else "mask" if "mask" in sent.files else ""):
        raise Refusal(400, f"a good image has no {useless}: leave it out, or label the image anomaly")
    return label


def _named(sent: Sent) -> tuple[str, str]:
    """Return which of the two names identifies the image, and its value."""
    given = [name for name in ("request_id", "sha256") if name in sent.words]
    if len(given) != 1:
        raise Refusal(400, "name the image by request_id or by sha256, one of them: an answer of POST /predict has it")
    value = sent.words[given[0]]
    if given[0] == "sha256":
        value = value.lower()
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise Refusal(400, f"sha256 is {value[:80]!r}: give all 64 hexadecimal digits")
    return given[0], value
