"""`GET /docs`: Swagger UI on `/openapi.json`, where people read about the calls, log in and try them.

The assets come from the package `flask-swagger-ui`. Its own page starts Swagger UI by an inline script, which our
Content-Security-Policy forbids; `serving/docs/` holds a page and a start script of a few lines in its place.
"""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, redirect, request, url_for
from flask.typing import ResponseReturnValue

from serving.auth.authorisation import open_to_all
from serving.refusals import Refusal

docs_page = Blueprint("docs_page", __name__)

_FOLDER = Path(__file__).parents[1] / "docs"
_STARTER = "start.js"
_JAVASCRIPT = "text/javascript; charset=utf-8"
_ASSETS = {  # of Swagger UI, with their content types
    "swagger-ui-bundle.js": _JAVASCRIPT,
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
# Nothing from other hosts, no inline script and no eval; images are icons of Swagger UI or the answer of a call.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@docs_page.get("/")
@open_to_all
def root() -> ResponseReturnValue:
    """Redirect from the server's bare address to the page."""
    return redirect(url_for("docs_page.page"))


@docs_page.get("/docs")
@open_to_all
def page() -> ResponseReturnValue:
    """Return the page."""
    return _answer((_FOLDER / "index.html").read_bytes(), "text/html; charset=utf-8")


@docs_page.get("/docs/<name>")
@open_to_all
def asset(name: str) -> ResponseReturnValue:
    """Return a file that the page loads.

    Raises:
        Refusal: 404, the page has no such file.
    """
    if name == _STARTER:
        return _answer((_FOLDER / name).read_bytes(), _JAVASCRIPT)
    if name not in _ASSETS:
        raise Refusal(404, f"there is no file {name[:64]!r}; see /docs")
    return _answer(files("flask_swagger_ui").joinpath("dist", name).read_bytes(), _ASSETS[name])


def _answer(content: bytes, content_type: str) -> Response:
    response = Response(content, content_type=content_type, headers=_HEADERS)
    response.add_etag()
    response.make_conditional(request)
    return response
