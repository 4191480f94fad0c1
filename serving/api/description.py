"""What serving can be asked: `GET /openapi.json` for programs, `GET /docs` for people, who can try the calls there.

`openapi.yaml` holds the calls; what all have in common is added here from the routes themselves, so that it cannot
differ from them: the form `/projects/{project}/…`, who may make a call, and the answers that follow from that.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Flask, Response, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue

from pipelines.catalogue.roles import ADMINISTRATOR
from serving.api.routes import service
from serving.auth.authorisation import needed_role, open_to_all
from serving.refusals import Refusal

describing = Blueprint("describing", __name__)

_FOLDER = Path(__file__).parents[1]
_PAGE = _FOLDER / "docs"
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}
_PROJECT = "/projects/{project}"
_METHODS = ("get", "post", "put", "patch", "delete")
_SECURITY: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]
# Nothing from elsewhere, nothing inline; pictures are those that a call answered.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@describing.get("/openapi.json")
@open_to_all
def openapi() -> ResponseReturnValue:
    """Give this description, with the address at which it was asked for, and the projects that there are now."""
    told = whole(current_app)
    names = [state.name for state in service().predictor.states()]
    if names:
        project = copy.deepcopy(told["components"]["parameters"]["Project"])
        project["schema"] = {"type": "string", "enum": names}
        project["example"] = names[0]
        parameters = told["components"]["parameters"] | {"Project": project}
        told = told | {"components": told["components"] | {"parameters": parameters}}
    return told | {"servers": [{"url": request.url_root.rstrip("/")}]}, 200, {"Cache-Control": "no-cache"}


@describing.get("/")
@open_to_all
def door() -> ResponseReturnValue:
    """Lead people who open the server's bare address to the page."""
    return redirect(url_for("describing.page"))


@describing.get("/docs")
@open_to_all
def page() -> ResponseReturnValue:
    """Show the calls, and let people try them."""
    return _file("page.html", "text/html")


@describing.get("/docs/<name>")
@open_to_all
def page_file(name: str) -> ResponseReturnValue:
    """Give what the page is made of."""
    if name not in _FILES:
        raise Refusal(404, f"there is no file {name[:64]!r}; see /docs")
    return _file(name, _FILES[name])


def whole(app: Flask) -> dict[str, Any]:
    """Return the description of `app`'s calls without the server's address; made once, as the routes do not change."""
    made: dict[str, Any] | None = app.extensions.get("inspectline_description")
    if made is None:
        with app.app_context():
            made = app.extensions["inspectline_description"] = _complete(app)
    return made


def routes_of(app: Flask) -> dict[tuple[str, str], str]:
    """Return the endpoint of each method (in lower case) and path, written as OpenAPI writes it."""
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)): rule.endpoint
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method.lower() in _METHODS
    }


def _complete(app: Flask) -> dict[str, Any]:
    text = (_FOLDER / "openapi.yaml").read_text(encoding="utf-8")
    told: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(text)))  # YAML's aliases would share what is changed
    routes = routes_of(app)
    told["components"]["responses"] = {name: _named(one) for name, one in told["components"]["responses"].items()}
    paths: dict[str, Any] = {}
    for path, calls in told["paths"].items():
        for method in _METHODS:
            if method in calls:
                _add_common(calls[method], routes.get((method, path)), app.extensions["inspectline"].config.auth)
        paths[path] = calls
        if any((method, _PROJECT + path) in routes for method in calls):
            paths[_PROJECT + path] = _of_project(calls)
    return told | {"paths": paths}


def _add_common(call: dict[str, Any], endpoint: str | None, auth: str) -> None:
    """Add what follows from who may make the call, and the request id of every answer."""
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
    call["responses"] = {status: _named(answers[status]) for status in sorted(answers)}


def _named(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with the request's id among its headers; one that is referred to has it already."""
    if "$ref" in answer:
        return answer
    return answer | {
        "headers": answer.get("headers", {}) | {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    }


def _of_project(calls: dict[str, Any]) -> dict[str, Any]:
    """Return the calls of a path in the form that names the project."""
    made = copy.deepcopy(calls)
    made["parameters"] = [{"$ref": "#/components/parameters/Project"}, *made.get("parameters", [])]
    for call in (made[method] for method in _METHODS if method in made):
        call["operationId"] = f"project_{call['operationId']}"
        call["summary"] += ", of a project"
        call["responses"].setdefault("404", {"$ref": "#/components/responses/Missing"})
        for answer in call["responses"].values():
            for link in answer.get("links", {}).values():
                link["operationId"] = f"project_{link['operationId']}"
                link["parameters"]["project"] = "$request.path.project"
    return made


def _file(name: str, kind: str) -> Response:
    content = (_PAGE / name).read_text(encoding="utf-8")
    return Response(content, content_type=f"{kind}; charset=utf-8", headers=_PAGE_HEADERS)
