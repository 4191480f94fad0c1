"""`POST /predict` judges one image, or up to 64; each prediction is written to the journal before it is answered."""

from __future__ import annotations

import base64
import logging
import uuid
from functools import partial
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from pipelines.errors import InspectlineError
from serving.api.judging import Call, Judged, ready
from serving.api.routes import rules_of, service, state_of
from serving.api.uploads import SentImage, read_body, read_query
from serving.logs import request_id
from serving.models.served_models import Serving
from serving.refusals import Refusal

predicting = Blueprint("predicting", __name__)

MOST_IMAGES = 64
_log = logging.getLogger(__name__)


@predicting.post("/predict")
@predicting.post("/projects/<project>/predict")
def predict(project: str | None = None) -> ResponseReturnValue:
    """Judge one image or up to 64, and answer once the predictions are in the journal."""
    state = state_of(project)
    wants_map = _wants_map()
    _check_map(ready(state), wants_map)
    sent = read_body(request, images=MOST_IMAGES)
    rules = rules_of(state)
    held = service()
    # Read once: a swap during the request changes nothing for its images.
    identity = request_id.get() or uuid.uuid4().hex
    serving = ready(state)
    _check_map(serving, wants_map)
    call = Call(held, rules, serving, wants_map)
    if sent.several:
        places = range(1, len(sent.images) + 1)
        return {"predictions": list(held.several.map(partial(_each, call, identity), sent.images, places))}
    judged = call.judge(sent.images[0], identity)
    if judged.drawn is None:
        return _answer(call, judged, identity)
    if request.accept_mimetypes.best_match(["application/json", "image/png"]) == "image/png":
        return Response(judged.drawn, mimetype="image/png")
    return _answer(call, judged, identity)


def _each(call: Call, request_identity: str, image: SentImage, place: int) -> dict[str, Any]:
    """Judge one of several images; an error becomes the answer for this image alone."""
    identity = f"{request_identity}-{place}"
    request_id.set(identity)
    try:
        return _answer(call, call.judge(image, identity), identity)
    except Refusal as refusal:
        return {"error": " ".join(str(refusal).split())[:1000], "status": refusal.status, "request_id": identity}
    except Exception as error:
        _log.exception("an image of several failed")
        message = str(error) if isinstance(error, InspectlineError) else f"internal error; the log has {identity}"
        return {"error": message, "status": 500, "request_id": identity}


def _answer(call: Call, judged: Judged, identity: str) -> dict[str, Any]:
    answer = judged.judgement.answer | {"model_version": call.serving.version, "request_id": identity}
    return answer | ({"heatmap": base64.b64encode(judged.drawn).decode("ascii")} if judged.drawn else {})


def _wants_map() -> bool:
    wanted = read_query(request, ("heatmap",)).get("heatmap")
    if wanted not in (None, "png"):
        raise Refusal(400, f"heatmap is {wanted[:64]!r}: png is what there is")
    return wanted is not None


def _check_map(serving: Serving, wants_map: bool) -> None:
    if wants_map and not serving.model.draws_maps:
        task = serving.model.task
        raise Refusal(400, f"heatmap: a model of the task {task} draws none; leave the parameter out")
