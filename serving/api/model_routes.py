"""The calls about models: which versions there are, and which one serves until it is released."""

import re
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from pipelines.errors import BadPackage, CatalogueError, NoSuchVersion, RegistryAway, RegistryError
from pipelines.registry.client import RegisteredVersion, aliases, fetch, missing_files, versions
from pipelines.registry.pinning import CHOSEN_BY, Hold, held, hold, release, version_of
from serving import catalogue
from serving.api.routes import service, state_of
from serving.api.uploads import read_query
from serving.auth.authorisation import account, administrators_only
from serving.models.served_models import ProjectState, load
from serving.refusals import Refusal

model_routes = Blueprint("models", __name__)
_LIMIT, _MOST = 50, 200
_TURN_SECONDS = 10.0


@model_routes.get("/models")
@model_routes.get("/projects/<project>/models")
@administrators_only
def list_models(project: str | None = None) -> ResponseReturnValue:
    """List the registered versions, newest first, and say which one serves, is held, or was refused."""
    state = state_of(project)
    asked = read_query(request, ("limit", "cursor"))
    limit = asked.get("limit", str(_LIMIT))
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MOST:
        raise Refusal(400, f"limit is {limit[:32]!r}: give a number from 1 to {_MOST}")
    cursor = asked.get("cursor", "")
    if not re.fullmatch("[0-9]{0,9}", cursor):
        raise Refusal(400, f"cursor is {cursor[:32]!r}: give the `next` of the page before")
    more = versions(state.name, int(limit) + 1, cursor)
    page = more[: int(limit)]
    named, kept = aliases(state.name), held(state.name)
    figures = _figures(state.name, [version.version for version in page])
    serving = state.serving
    return {
        "project": state.name,
        "serving": serving.version if serving else None,
        "held": _hold(kept),
        "refused": [
            {"version": refusal.registered.version, "why": refusal.why, "at": refusal.at.isoformat(timespec="seconds")}
            for refusal in state.refusals
        ],
        "models": [
            _shown(version, state, kept)
            | {"aliases": named.get(version.version, []), "figures": (figures or {}).get(version.version)}
            for version in page
        ],
        "next": page[-1].version if len(more) > len(page) else None,
    }


@model_routes.post("/models/<version>/promote")
@model_routes.post("/projects/<project>/models/<version>/promote")
@administrators_only
def promote_version(version: str, project: str | None = None) -> ResponseReturnValue:
    """Let a version serve, and hold it until it is released; every server follows within its polling time."""
    state = state_of(project)
    try:
        chosen = version_of(state.name, version)
    except NoSuchVersion as error:
        raise Refusal(404, str(error)) from error
    try:
        load(chosen, fetch(chosen), service().config.onnx_threads)
        hold(state.name, chosen.version, account().name, _TURN_SECONDS)
    except NoSuchVersion as error:
        raise Refusal(404, str(error)) from error
    except BadPackage as error:
        raise Refusal(409, f"version {version} of {state.name} cannot serve: {error}") from error
    except RegistryAway:
        raise
    except RegistryError:
        if missing := missing_files(chosen):
            why = f"{', '.join(missing)} is not in the registry; register it again"
            raise Refusal(409, f"version {version} of {state.name} cannot serve: {why}") from None
        raise
    return {
        "project": state.name,
        "version": chosen.version,
        "held": _hold(held(state.name)),
        "follows_within_seconds": service().config.poll_seconds,
    }


@model_routes.post("/models/release")
@model_routes.post("/projects/<project>/models/release")
@administrators_only
def release_version(project: str | None = None) -> ResponseReturnValue:
    """Let runs replace the version that serves again; without a hold this changes nothing."""
    state = state_of(project)
    return {"project": state.name, "released": _hold(release(state.name, _TURN_SECONDS))}


def _shown(version: RegisteredVersion, state: ProjectState, kept: Hold | None) -> dict[str, Any]:
    tags = version.tags
    serving = state.serving if state.serving and state.serving.version == version.version else None
    task = tags.get("task") or (serving.model.task if serving else "anomaly")  # untagged versions have no other
    # Known of the version that serves; of the others once they do.
    classes = {"classes": serving.model.report()["classes"] if serving else None} if task == "classification" else {}
    return {
        "version": version.version,
        "serving": serving is not None,
        "held": bool(kept and kept.version == version.version),
        "created_at": version.created_at,
        "kind": tags.get("kind"),
        "task": task,
        "dataset_version": tags.get("version_id"),
        "training_id": tags.get("training_id"),
        "threshold": _number(tags.get("threshold")),
        "threshold_policy": tags.get("threshold_policy"),
        "chosen_by": tags.get(CHOSEN_BY),
        **classes,
    }


def _figures(project: str, numbers: list[str]) -> dict[str, dict[str, Any]] | None:
    """Return what the evaluation found of each version; None while the catalogue is away."""
    trainings = catalogue.trainings
    wanted = catalogue.select(trainings.c.model_version, trainings.c.result).where(
        trainings.c.project == project, trainings.c.state == "completed", trainings.c.model_version.in_(numbers)
    )
    try:
        with catalogue.connect() as connection:
            rows = connection.execute(wanted).all()
    except CatalogueError:
        return None
    return {
        row.model_version: {name: figure.get("value") for name, figure in (row.result or {}).get("metrics", {}).items()}
        for row in rows
    }


def _hold(kept: Hold | None) -> dict[str, Any] | None:
    return {"version": kept.version, "by": kept.by, "at": kept.at} if kept else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
