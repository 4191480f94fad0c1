"""`GET /nb_new_img` counts what came in since a version serves; `POST /finetune` asks for a training from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from pipelines.registry.client import CHAMPION, RegisteredVersion, aliases, versions
from pipelines.registry.pinning import version_of
from serving import catalogue
from serving.api.jobs import address
from serving.api.routes import rules_of, state_of
from serving.api.uploads import read_fields, read_query, whole_number, word
from serving.auth.authorisation import account, administrators_only
from serving.models.served_models import ProjectState
from serving.refusals import Refusal

finetuning = Blueprint("finetuning", __name__)

CHALLENGER, ARCHIVED = "challenger", "archived"
# What MLflow called stages before it had aliases.
STAGES = {
    CHAMPION: CHAMPION,
    CHALLENGER: CHALLENGER,
    ARCHIVED: ARCHIVED,
    "production": CHAMPION,
    "staging": CHALLENGER,
}
MOST_VARIABLES, MOST_EPOCHS = 1000, 10_000
_SEARCHED = 200  # versions among which the newest archived one is looked for


@finetuning.get("/nb_new_img")
@finetuning.get("/projects/<project>/nb_new_img")
@administrators_only
def count_new_images(project: str | None = None) -> ResponseReturnValue:
    """Count the samples that came in since a version went into service."""
    asked = read_query(request, ("model_name", "stage"))
    state = _state(project, asked.get("model_name"))
    version = _version(state, asked.get("stage", CHAMPION))
    since = version.tags.get("decided_at") or version.created_at
    if since is None:
        raise Refusal(404, f"the registry does not say when version {version.version} of {state.name} was made")
    return {
        "model_name": state.name,
        "stage": _stage(asked.get("stage", CHAMPION)),
        "version": version.version,
        "since": since,
        "new_images": catalogue.count_since(state.name, datetime.fromisoformat(since)),
    }


@finetuning.post("/finetune")
@finetuning.post("/projects/<project>/finetune")
@administrators_only
def finetune(project: str | None = None) -> ResponseReturnValue:
    """Ask for a training that starts from the champion."""
    fields = read_fields(request, ("model_name", "stage", "variables", "epochs"))
    state = _state(project, word("Model_name", fields["model_name"]) if "model_name" in fields else None)
    stage = word("Stage", fields.get("stage", CHAMPION))
    payload: dict[str, Any] = {"start_from": "champion"}
    if "epochs" in fields:
        payload["epochs"] = _within("Epochs", fields["epochs"], MOST_EPOCHS)
    if "variables" in fields:
        payload["parameters"] = {"variables": _within("Variables", fields["variables"], MOST_VARIABLES)}
    rules_of(state)
    version = _version(state, stage)
    if _stage(stage) != CHAMPION:
        raise Refusal(
            409,
            f"version {version.version} of {state.name} is not the champion, from which alone a training starts: let "
            f"it serve with POST /models/{version.version}/promote first",
        )
    with catalogue.transaction() as connection:
        job = catalogue.ask(connection, state.name, "retrain", payload, account().name)
    body = {"job": job, "state": "pending", "project": state.name, "version": version.version}
    return body, 202, {"Location": address(job, project)}


def _state(project: str | None, named: str | None) -> ProjectState:
    """Return the project by its model's name, which is its own; by default that of the address.

    Raises:
        Refusal: 404, there is no such project, or the address names another.
    """
    if project is not None and named not in (None, project):
        raise Refusal(404, f"project {project} has no model {str(named)[:64]!r}: its model is named {project}")
    return state_of(project if named is None else named)


def _stage(text: str) -> str:
    stage = STAGES.get(text.strip().lower())
    if stage is None:
        known = "champion (or Production), challenger (or Staging) and archived"
        raise Refusal(404, f"there is no stage {text[:64]!r}: the stages are {known}")
    return stage


def _version(state: ProjectState, text: str) -> RegisteredVersion:
    """Return the version in a stage; in `archived`, the newest that is neither champion nor challenger.

    Raises:
        Refusal: 404, there is no such stage, or no version in it; names those that there are.
    """
    stage = _stage(text)
    by_version = aliases(state.name)
    named = {alias: number for number, names in by_version.items() for alias in names}
    if stage in named:
        return version_of(state.name, named[stage])
    others = [version for version in versions(state.name, _SEARCHED) if not by_version.get(version.version)]
    if stage == ARCHIVED and others:
        return others[0]
    there = [f"{alias} is version {named[alias]}" for alias in (CHAMPION, CHALLENGER) if alias in named]
    if others:
        there.append(f"archived is version {others[0].version}")
    raise Refusal(
        404, f"{state.name} has no version in the stage {stage}: {', '.join(there) or 'it has no versions yet'}"
    )


def _within(name: str, value: Any, most: int) -> int:
    number = whole_number(name, value)
    if not 1 <= number <= most:
        raise Refusal(400, f"{name} is {number}: give a whole number from 1 to {most}")
    return number
