"""The description and the routes say the same, and the page that shows it works."""

from pathlib import Path

import pytest
import requests
from openapi_spec_validator import validate

from serving.api.description import complete_description, routes_of
from serving.app import create_app
from serving.auth.authorisation import needed_role
from tests.conftest import Projects
from tests.serving.conftest import Registry, Server

PAGE = {"/", "/docs", "/docs/{name}"}  # for people: it shows the description


@pytest.fixture
def app(projects: Projects, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The app with accounts, nothing of it started."""
    monkeypatch.setenv("INSPECTLINE_AUTH", "accounts")
    return create_app()


def calls(description: dict) -> dict:
    return {
        (method, path): call
        for path, item in description["paths"].items()
        for method, call in item.items()
        if method != "parameters"
    }


def test_description_when_compared_with_the_routes_then_every_call_and_nothing_else(app):
    routes = {route for route in routes_of(app) if route[1] not in PAGE}
    assert set(calls(complete_description(app))) == routes
    assert len(routes) > 30


def test_description_when_made_then_valid_openapi(app):
    validate(complete_description(app))
    names = [call["operationId"] for call in calls(complete_description(app)).values()]
    assert len(names) == len(set(names))


def test_description_when_a_call_needs_an_account_then_said_with_the_answers_that_follow(app):
    with app.app_context():
        for route, call in calls(complete_description(app)).items():
            role = needed_role(routes_of(app)[route])
            assert bool(call["security"]) == (role is not None), route
            assert {"401", "429", "503"} <= set(call["responses"]) or role is None, route
            assert "403" in call["responses"] or role != "administrator", route


def test_description_when_everybody_may_call_then_no_login_asked_for(app, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INSPECTLINE_AUTH", "none")
    assert not any(call["security"] for call in calls(complete_description(create_app())).values())


def test_page_when_served_then_nothing_from_elsewhere(server: Server, registry: Registry):
    server.start()
    for path, kind in (
        ("", "text/html; charset=utf-8"),
        ("/start.js", "text/javascript; charset=utf-8"),
        ("/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/swagger-ui.css", "text/css; charset=utf-8"),
        ("/favicon-32x32.png", "image/png"),
    ):
        answer = requests.get(f"{server.address}/docs{path}", timeout=10)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "http" not in policy
        etag = answer.headers["ETag"]
        again = requests.get(f"{server.address}/docs{path}", headers={"If-None-Match": etag}, timeout=10)
        assert (again.status_code, again.content) == (304, b"")
    for path in ("", "/start.js"):
        assert "http" not in requests.get(f"{server.address}/docs{path}", timeout=10).text
    root = requests.get(f"{server.address}/", timeout=10)
    assert (root.status_code, root.url) == (200, f"{server.address}/docs")
    for path in ("../app.py", "%2e%2e%2fapp.py", "index.html", "oauth2-redirect.html"):
        assert requests.get(f"{server.address}/docs/{path}", timeout=10).status_code == 404
    headers = {"Host": "line-3.example:8443"}
    description = requests.get(f"{server.address}/openapi.json", headers=headers, timeout=10).json()
    assert description["servers"] == [{"url": "http://line-3.example:8443"}]
    assert description["components"]["parameters"]["Project"]["schema"]["enum"] == [registry.project]
