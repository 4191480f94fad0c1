"""The calls that serving answers. Each exists for every project, and in short for the default one."""

import hashlib
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from pipelines.descriptors import describe
from pipelines.errors import BadImage
from pipelines.images import CONTENT_TYPES, OpenedImage, open_image
from pipelines.project import Project
from pipelines.served import image_key
from serving.access import open_to_all
from serving.journal import Entry, JournalError
from serving.logs import request_id
from serving.predictor import ProjectState, Scored, Serving
from serving.refusals import Refusal, unavailable
from serving.service import Service
from serving.uploads import read_body

routes = Blueprint("serving", __name__)


def service() -> Service:
    """Return the service that the app in charge holds."""
    held: Service = current_app.extensions["inspectline"]
    return held


@routes.post("/predict")
@routes.post("/projects/<project>/predict")
def predict(project: str | None = None) -> ResponseReturnValue:
    """Judge one image, and answer once the prediction is safe in the journal."""
    began = time.monotonic()
    state = state_of(project)
    _ready(state)
    rules = rules_of(state)
    data, source = read_body(request).images[0].load(service().fetcher, rules.bucket)
    try:
        image = open_image(data, max_pixels=rules.image.max_pixels, min_side=rules.image.min_side)
    except BadImage as error:
        raise Refusal(422, f"the image {error}") from error
    # Taken once, and as late as can be: from here on one version answers, whatever is swapped meanwhile.
    serving = _ready(state)
    scored, is_anomaly = serving.judge(image.pixels)
    entry = _entry(rules, serving, scored, is_anomaly, image, data, source, began)
    try:
        service().journal.append(entry)
    except JournalError as error:
        raise unavailable(str(error)) from error
    service().recorder.nudge()
    return {
        "is_anomaly": is_anomaly,
        "reconstruction_error": scored.score,
        "threshold": serving.threshold,
        "model_version": serving.version,
        "request_id": entry.prediction["request_id"],
    }


@routes.get("/status")
@routes.get("/projects/<project>/status")
@open_to_all
def status(project: str | None = None) -> ResponseReturnValue:
    """Tell what serves, since when, and what was refused; without a project, of all projects."""
    held = service()
    common: dict[str, Any] = {
        "started_at": held.started_at.isoformat(timespec="seconds"),
        "uptime_seconds": round(held.uptime_seconds, 3),
        "journal": _journal(held),
    }
    if project is not None:
        return state_of(project).report() | common
    reports = {state.name: state.report() for state in held.predictor.states()}
    unknown = {"project": held.default_project, "status": "unknown project", "model": None, "version": None}
    return reports.get(held.default_project, unknown) | common | {"projects": reports}


@routes.get("/health/live")
@open_to_all
def live() -> ResponseReturnValue:
    """Tell that the process answers."""
    return {"status": "alive"}


@routes.get("/health/ready")
@open_to_all
def ready() -> ResponseReturnValue:
    """Tell whether a prediction can be answered: at least one project has a model."""
    waiting = [state.name for state in service().predictor.states() if state.serving is None]
    if len(waiting) == len(service().predictor.states()):
        raise unavailable("no project has a model yet; it is loaded when the first training has been promoted")
    return {"status": "ready", "waiting": waiting}


def _journal(held: Service) -> dict[str, Any]:
    try:
        return held.journal.counts() | {"problem": held.recorder.problem}
    except JournalError as error:
        return {"waiting": None, "set_aside": None, "problem": str(error)}


def state_of(name: str | None) -> ProjectState:
    """Return the state of a project, of the default one for None.

    Raises:
        Refusal: 404, there is no such project.
    """
    held = service()
    asked = held.default_project if name is None else name
    state = held.predictor.state(asked)
    if state is None:
        known = ", ".join(state.name for state in held.predictor.states()) or "none"
        raise Refusal(404, f"there is no project {asked[:64]!r}; the project files declare {known}")
    return state


def rules_of(state: ProjectState) -> Project:
    """Return what the project's file says.

    Raises:
        Refusal: 503, the file is not read yet or is wrong.
    """
    if state.project is None:
        raise unavailable(f"project {state.name}: {state.problem or 'its file is not read yet'}")
    return state.project


def _ready(state: ProjectState) -> Serving:
    serving = state.serving
    if serving is not None:
        return serving
    if (refused := state.refused) is not None:
        why = f"version {refused.registered.version} was refused, {refused.why}"
    else:
        why = state.problem or "serving has just started; try again"
    raise unavailable(f"project {state.name} has no model to answer with: {why}")


def _entry(
    rules: Project,
    serving: Serving,
    scored: Scored,
    is_anomaly: bool,
    image: OpenedImage,
    data: bytes,
    source: str,
    began: float,
) -> Entry:
    """Return the prediction as the journal keeps it: the catalogue's row, and the image."""
    created_at = datetime.now(UTC)
    sha256 = hashlib.sha256(data).hexdigest()
    prediction = {
        "request_id": request_id.get() or uuid.uuid4().hex,
        "sha256": sha256,
        "created_at": created_at.isoformat(),
        "model_version": serving.version,
        "score": scored.score,
        "threshold": serving.threshold,
        "is_anomaly": is_anomaly,
        "width": image.width,
        "height": image.height,
        "descriptors": describe(image.pixels),
        "image_key": image_key(rules.name, sha256, image.extension, created_at),
        "expires_at": (created_at + timedelta(days=rules.keep_served_days)).isoformat(),
        "source": source,
        "latency_ms": round((time.monotonic() - began) * 1000, 3),
    }
    embedding = scored.embedding.astype("<f4").tobytes()
    return Entry(rules.name, prediction, embedding, rules.bucket, CONTENT_TYPES[image.format], data)
