"""How good a classifier is: `GET /accuracy` on its evaluation set, `GET /past_pred_acc` on what it was asked lately."""

from __future__ import annotations

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from serving import catalogue
from serving.api.jobs import address
from serving.api.judging import ready
from serving.api.routes import rules_of, state_of
from serving.api.uploads import read_number, read_query
from serving.auth.authorisation import account, administrators_only
from serving.models.served_models import ProjectState
from serving.refusals import Refusal

accuracy_routes = Blueprint("accuracy", __name__)

USUAL, MOST = 100, 100_000
_LAST = "nb_last_preds"
_TRUTHS = {"true": True, "false": False}


@accuracy_routes.get("/accuracy")
@accuracy_routes.get("/projects/<project>/accuracy")
@administrators_only
def accuracy(project: str | None = None) -> ResponseReturnValue:
    """Return the accuracy of the served version on its evaluation set; with `now=true`, ask for it to be measured."""
    state = state_of(project)
    _check_task(state)
    now = read_query(request, ("now",)).get("now", "false")
    if now.lower() not in _TRUTHS:
        raise Refusal(400, f"now is {now[:64]!r}: give true or false")
    if _TRUTHS[now.lower()]:
        with catalogue.transaction() as connection:
            job = catalogue.ask(connection, state.name, "evaluate", {}, account().name)
        body = {"job": job, "state": "pending", "project": state.name}
        return body, 202, {"Location": address(job, project)}
    serving = ready(state)
    tags = serving.registered.tags
    values = [_value(tags.get(name)) for name in ("accuracy", "accuracy_low", "accuracy_high")]
    if values[0] is None:
        raise Refusal(
            404, f"the accuracy of version {serving.version} of {state.name} was not kept: measure it with ?now=true"
        )
    return {
        "project": state.name,
        "model_version": serving.version,
        "accuracy": values[0],
        "low": values[1],
        "high": values[2],
        "evaluated_at": tags.get("evaluated_at"),
        "dataset_version": serving.package.card.version_id,
    }


@accuracy_routes.get("/past_pred_acc")
@accuracy_routes.get("/projects/<project>/past_pred_acc")
@administrators_only
def past_accuracy(project: str | None = None) -> ResponseReturnValue:
    """Return the mean certainty of the last predictions, and their accuracy by what people said of their images."""
    state = state_of(project)
    _check_task(state)
    asked = read_query(request, (_LAST,))
    last = read_number("Nb_last_preds", asked[_LAST]) if _LAST in asked else USUAL
    if not 1 <= last <= MOST:
        raise Refusal(400, f"Nb_last_preds is {last}: give a whole number from 1 to {MOST}")
    past = catalogue.past_accuracy(state.name, last)
    return {
        "project": state.name,
        "predictions": past.predictions,
        "mean_certainty": past.mean_certainty,
        "annotated": past.annotated,
        "correct": past.correct,
        "accuracy": past.correct / past.annotated if past.annotated else None,
        "since": past.since.isoformat() if past.since else None,
    }


def _check_task(state: ProjectState) -> None:
    task = rules_of(state).task
    if task != "classification":
        raise Refusal(409, f"project {state.name} has the task {task}, which has no accuracy: see GET /models")


def _value(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
