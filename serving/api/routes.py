"""The state, the health and the metrics of serving; and the project that a request names."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, current_app
from flask.typing import ResponseReturnValue

from pipelines.config.project import Project
from serving import catalogue
from serving.auth.authorisation import open_to_all
from serving.metrics_exposition import render_metrics
from serving.models.served_models import ProjectState
from serving.recording.journal import JournalError
from serving.refusals import Refusal, unavailable
from serving.service import Service

routes = Blueprint("serving", __name__)

_DATABASE_SECONDS = 5.0
_POLL_SECONDS = 15.0  # within which a poll returns, unless the registry hangs or a large package is being fetched
_asking = ThreadPoolExecutor(2, "dbconnex")  # in threads: nothing else bounds the wait for a silent database host
_log = logging.getLogger(__name__)


def service() -> Service:
    """Return the service of the current app."""
    held: Service = current_app.extensions["inspectline"]
    return held


@routes.get("/status")
@routes.get("/projects/<project>/status")
@open_to_all
def status(project: str | None = None) -> ResponseReturnValue:
    """Return the served version, since when, and refused versions; without a project, of all projects."""
    held = service()
    common: dict[str, Any] = {
        "started_at": held.started_at.isoformat(timespec="seconds"),
        "uptime_seconds": round(held.uptime_seconds, 3),
        "journal": _journal(held),
    }
    overdue = timedelta(seconds=held.config.poll_seconds + _POLL_SECONDS)
    if project is not None:
        return state_of(project).report(overdue, held.started_at) | common
    reports = {state.name: state.report(overdue, held.started_at) for state in held.predictor.states()}
    unknown = {"project": held.default_project, "status": "unknown project", "model": None, "version": None}
    return reports.get(held.default_project, unknown) | common | {"projects": reports}


@routes.get("/health/live")
@open_to_all
def live() -> ResponseReturnValue:
    """Answer that the process is alive."""
    return {"status": "alive"}


@routes.get("/health/ready")
@open_to_all
def ready() -> ResponseReturnValue:
    """Return whether predictions can be answered: at least one project has a model."""
    waiting = [state.name for state in service().predictor.states() if state.serving is None]
    if len(waiting) == len(service().predictor.states()):
        raise unavailable("no project has a model yet; it is loaded when the first training has been promoted")
    return {"status": "ready", "waiting": waiting}


@routes.get("/dbconnex")
@open_to_all
def dbconnex() -> ResponseReturnValue:
    """Return whether the catalogue answers, and in how many milliseconds."""
    began = time.monotonic()
    asked = _asking.submit(_ask_catalogue)
    try:
        asked.result(_DATABASE_SECONDS)
    except FutureTimeout:
        asked.cancel()
        raise unavailable(f"the catalogue does not answer within {_DATABASE_SECONDS:g} s") from None
    except Exception as error:  # details go to the log alone, as they name hosts and users
        _log.warning("the catalogue does not answer", extra={"why": str(error)})
        raise unavailable("the catalogue does not answer; the log tells more") from error
    return {"status": "connected", "ms": round((time.monotonic() - began) * 1000, 2)}


@routes.get("/metrics")
@open_to_all
def metrics() -> ResponseReturnValue:
    """Return the metrics that Prometheus scrapes."""
    body, kind = render_metrics(service().journal)
    return Response(body, content_type=kind)


def _ask_catalogue() -> None:
    with catalogue.connect() as connection:
        connection.execute(catalogue.text("SELECT 1"))


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
        names = ", ".join(state.name for state in held.predictor.states()) or "none"
        raise Refusal(404, f"there is no project {asked[:64]!r}; the project files declare {names}")
    return state


def rules_of(state: ProjectState) -> Project:
    """Return the content of the project file.

    Raises:
        Refusal: 503, the file has not been read yet or is invalid.
    """
    if state.project is None:
        raise unavailable(f"project {state.name}: {state.problem or 'its file is not read yet'}")
    return state.project
