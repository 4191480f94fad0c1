"""`POST /predictions`: the most probable classes of an image, in percent."""

from __future__ import annotations

import uuid

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from serving.api.judging import Call, ready
from serving.api.routes import rules_of, service, state_of
from serving.api.uploads import URL_FIELD, Sent, read_body, read_number, read_query
from serving.logs import request_id
from serving.models.served_models import ProjectState, Serving
from serving.refusals import Refusal
from serving.tasks.classification import ServedClassifier

classifying = Blueprint("classifying", __name__)

NUMBER = "nb_preds"
USUAL = 3


@classifying.post("/predictions")
@classifying.post("/projects/<project>/predictions")
def classify(project: str | None = None) -> ResponseReturnValue:
    """Return the `Nb_preds` most probable classes; an image that was judged before is not run through the network."""
    state = state_of(project)
    rules = rules_of(state)
    if rules.task != "classification":
        raise _no_classifier(state, rules.task)
    _classifier(state, ready(state))
    asked = read_query(request, (NUMBER,))
    sent = read_body(request, numbers=(NUMBER,), addresses=(URL_FIELD, "file"))
    serving = ready(state)
    model = _classifier(state, serving)
    number = _number(asked, sent, len(model.classes))
    identity = request_id.get() or uuid.uuid4().hex
    judged = Call(service(), rules, serving, asks_catalogue=True).judge(sent.images[0], identity)
    answer = judged.judgement.answer
    ranked = model.ranked(judged.prediction.result)[:number]
    return {
        "predictions": [{"class": name, "percent": round(100 * probability, 2)} for name, probability in ranked],
        "unsure": answer["unsure"],
        "cached": judged.remembered,
        "model_version": serving.version,
        "request_id": identity,
    }


def _number(asked: dict[str, str], sent: Sent, classes: int) -> int:
    """Return how many classes are asked for, by the parameter or the field; by default `USUAL`, or all if fewer."""
    if NUMBER in asked and NUMBER in sent.numbers:
        raise Refusal(400, "Nb_preds is given in the address and in the body: give it once")
    number = read_number("Nb_preds", asked[NUMBER]) if NUMBER in asked else sent.numbers.get(NUMBER)
    if number is None:
        return min(USUAL, classes)
    if not 1 <= number <= classes:
        raise Refusal(400, f"Nb_preds is {number}: give a whole number from 1 to {classes}, the number of classes")
    return number


def _classifier(state: ProjectState, serving: Serving) -> ServedClassifier:
    if not isinstance(serving.model, ServedClassifier):
        raise _no_classifier(state, serving.model.task)
    return serving.model


def _no_classifier(state: ProjectState, task: str) -> Refusal:
    return Refusal(409, f"project {state.name} has the task {task}, which knows no classes: send the image to /predict")
