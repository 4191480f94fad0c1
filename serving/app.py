"""The Flask app: routes, errors as JSON, and one log line for each request.

python -m serving        # listens on $HOST:$PORT
"""

import logging
import time
import uuid
from functools import partial
from typing import Any

from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from pipelines.errors import InspectlineError
from serving.api.account_routes import account_routes
from serving.api.accuracy import accuracy_routes
from serving.api.annotations import annotating
from serving.api.classify import classifying
from serving.api.description import describing
from serving.api.docs_page import docs_page
from serving.api.finetune import finetuning
from serving.api.jobs import jobs
from serving.api.model_routes import model_routes
from serving.api.predict import MOST_IMAGES, predicting
from serving.api.predictions import predictions
from serving.api.routes import routes
from serving.api.sent_back import sent_back
from serving.auth.authorisation import guard, identify_anybody
from serving.limits.body_limits import refuse_encoded, refuse_when_told
from serving.limits.form_parser import FormRequest
from serving.logs import request_id
from serving.metrics import request_answered
from serving.proxy_prefix import with_safe_prefix
from serving.refusals import DELAY, RETRY_SECONDS, Refusal
from serving.service import Service
from serving.settings import ServingSettings, serving_settings

_log = logging.getLogger("serving.requests")
_FORM_OVERHEAD = 256 << 10  # bytes of a multipart body besides the files; more than Werkzeug reads at a time


class _Json(DefaultJSONProvider):
    """Keeps the order of keys, and writes UTF-8."""

    sort_keys = False
    ensure_ascii = False


def create_app(config: ServingSettings | None = None) -> Flask:
    """Return the app with its `Service` in `extensions["inspectline"]`.

    The service's threads start with the first request, unless the server starts them before (`serving.server.asgi`).
    """
    app = Flask(__name__, static_folder=None)
    service = Service(config or serving_settings())
    app.extensions["inspectline"] = service
    app.config["MAX_CONTENT_LENGTH"] = service.config.max_request_bytes + _FORM_OVERHEAD
    app.config["MAX_FORM_PARTS"] = MOST_IMAGES + 16
    app.request_class = FormRequest
    app.json = _Json(app)
    if service.config.proxies:
        trusted = service.config.proxies
        fixed = ProxyFix(app.wsgi_app, x_for=trusted, x_proto=trusted, x_host=0, x_prefix=1)
        app.wsgi_app = with_safe_prefix(fixed)  # type: ignore[method-assign, assignment]
    for part in (
        routes, predicting, classifying, sent_back, jobs, annotating, predictions,
        accuracy_routes, finetuning, account_routes, model_routes, describing, docs_page,
    ):  # fmt: skip
        app.register_blueprint(part)
    app.before_request(_begin)
    app.before_request(service.start)
    if service.config.auth == "none":
        guard(app, identify_anybody)
        _log.warning("INSPECTLINE_AUTH is none: whoever reaches this port may make every call, administration included")
    else:
        guard(app, lambda: service.accounts.identify(request.headers.get("Authorization"), request.remote_addr or ""))
    refuse_encoded(app)
    refuse_when_told(app)
    app.after_request(_end)
    app.register_error_handler(InspectlineError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _begin() -> None:
    g.began = time.monotonic()
    g.request_id = uuid.uuid4().hex
    request_id.set(g.request_id)


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    # The same label for every project, and one for all unknown paths, which bounds the number of series.
    call = request.url_rule.rule.removeprefix("/projects/<project>") if request.url_rule else "none"
    # Logged after the answer has been sent, so that it does not wait for the log.
    response.call_on_close(
        partial(
            _tell,
            g.began,
            request.method,
            call,
            request.path,
            request.remote_addr,
            response.status_code,
            g.get("log_details"),
        )
    )
    return response


def _tell(
    began: float, method: str, call: str, path: str, remote: str | None, status: int, details: dict[str, Any] | None
) -> None:
    seconds = time.monotonic() - began
    request_answered(method, call, status, seconds)
    line = {"method": method, "path": path, "status": status, "ms": round(seconds * 1000, 2), "remote": remote}
    quiet = path.startswith("/health/") and status == 200
    _log.log(logging.DEBUG if quiet else logging.INFO, "request", extra=line | (details or {}))


def _answer(status: int, message: str, headers: dict[str, str] | None = None) -> ResponseReturnValue:
    message = " ".join(message.split())[:1000]
    g.log_details = {"error": message}
    return {"error": message, "request_id": g.get("request_id")}, status, headers or {}


def _refused(error: InspectlineError) -> ResponseReturnValue:
    if isinstance(error, Refusal):
        request.environ[DELAY] = error.delay
        return _answer(error.status, str(error), error.headers)
    if error.passing:  # S3, the catalogue or the registry is away
        _log.warning("request failed", extra={"why": str(error)})
        return _answer(503, str(error), {"Retry-After": str(RETRY_SECONDS)})
    _log.error("request failed", exc_info=error)
    return _answer(500, str(error))


def _http_error(error: HTTPException) -> ResponseReturnValue:
    if isinstance(error, RequestEntityTooLarge):
        return _answer(
            413, "the request is larger than allowed (INSPECTLINE_MAX_REQUEST_MB): send smaller images, or fewer"
        )
    if error.code == 404:
        return _answer(404, f"there is no call {request.path[:200]}; see /docs")
    allowed = getattr(error, "valid_methods", None) if error.code == 405 else None
    details = f"{request.method} {request.path[:200]}: {error.name}. {error.description or ''}"
    return _answer(error.code or 500, details, {"Allow": ", ".join(sorted(allowed))} if allowed else {})


def _unexpected(error: Exception) -> ResponseReturnValue:
    _log.error("request failed", exc_info=error)
    return _answer(500, f"internal error; the log tells more under request {g.get('request_id')}")
