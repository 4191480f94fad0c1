"""The OpenAPI description of serving, `GET /openapi.json`.

`openapi.yaml` describes each call in its short form. What all calls share is derived here from the Flask routes, so
that it cannot differ from them: the form `/projects/{project}/…`, the role that a call needs, the answers of the guard.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Flask, current_app, request
from flask.typing import ResponseReturnValue

from pipelines.catalogue.roles import ADMINISTRATOR
from serving.api.routes import service
from serving.auth.authorisation import needed_role, open_to_all

describing = Blueprint("describing", __name__)

_SOURCE = Path(__file__).parents[1] / "openapi.yaml"
_PROJECT = "/projects/{project}"
_METHODS = ("get", "post", "put", "patch", "delete")
_SECURITY: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]


@describing.get("/openapi.json")
@open_to_all
def openapi() -> ResponseReturnValue:
    """Return the description, with the server address of this request and the projects that exist now."""
    description = complete_description(current_app)
    names = [state.name for state in service().predictor.states()]
    if names:
        project = copy.deepcopy(description["components"]["parameters"]["Project"])
        project["schema"] = {"type": "string", "enum": names}
        project["example"] = names[0]
        parameters = description["components"]["parameters"] | {"Project": project}
        description = description | {"components": description["components"] | {"parameters": parameters}}
    return description | {"servers": [{"url": request.url_root.rstrip("/")}]}, 200, {"Cache-Control": "no-cache"}


def complete_description(app: Flask) -> dict[str, Any]:
    """Return the description of `app`'s calls without the server's address; built once, as the routes do not change."""
    description: dict[str, Any] | None = app.extensions.get("inspectline_description")
    if description is None:
        with app.app_context():
            description = app.extensions["inspectline_description"] = _build(app)
    return description


def routes_of(app: Flask) -> dict[tuple[str, str], str]:
    """Return the endpoint of each method (in lower case) and path (as OpenAPI writes it)."""
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)): rule.endpoint
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method.lower() in _METHODS
    }


def _build(app: Flask) -> dict[str, Any]:
    text = _SOURCE.read_text(encoding="utf-8")
    # Through JSON, because YAML's aliases would share the objects that are changed below.
    description: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(text)))
    routes = routes_of(app)
    responses = description["components"]["responses"]
    description["components"]["responses"] = {name: _with_request_id(answer) for name, answer in responses.items()}
    paths: dict[str, Any] = {}
    for path, calls in description["paths"].items():
        for method in _METHODS:
            if method in calls:
                _add_common(calls[method], routes.get((method, path)), app.extensions["inspectline"].config.auth)
        paths[path] = calls
        if any((method, _PROJECT + path) in routes for method in calls):
            paths[_PROJECT + path] = _of_project(calls)
    return description | {"paths": paths}


def _add_common(call: dict[str, Any], endpoint: str | None, auth: str) -> None:
    """Add the security requirement of a call, the answers that follow from it, and the request id's header."""
    role = needed_role(endpoint)
    answers = call["responses"]
    if role is None or auth == "none":
        call["security"] = []
    else:
        call["security"] = _SECURITY
        common = {"401": "Unknown", "429": "TooManyLogins", "503": "Away"}
        if role == ADMINISTRATOR:
            common["403"] = "Forbidden"
            call["description"] = " ".join(filter(None, ("For administrators.", call.get("description"))))
        for status, name in common.items():
            answers.setdefault(status, {"$ref": f"#/components/responses/{name}"})
    call["responses"] = {status: _with_request_id(answers[status]) for status in sorted(answers)}


def _with_request_id(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with the request's id among its headers; a referenced answer has it already."""
    if "$ref" in answer:
        return answer
    return answer | {
        "headers": answer.get("headers", {}) | {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    }


def _of_project(calls: dict[str, Any]) -> dict[str, Any]:
    """Return the calls of a path in the form that names the project."""
    named = copy.deepcopy(calls)
    named["parameters"] = [{"$ref": "#/components/parameters/Project"}, *named.get("parameters", [])]
    for call in (named[method] for method in _METHODS if method in named):
        call["operationId"] = f"project_{call['operationId']}"
        call["summary"] += ", of a project"
        call["responses"].setdefault("404", {"$ref": "#/components/responses/Missing"})
        for answer in call["responses"].values():
            for link in answer.get("links", {}).values():
                link["operationId"] = f"project_{link['operationId']}"
                link["parameters"]["project"] = "$request.path.project"
    return named
