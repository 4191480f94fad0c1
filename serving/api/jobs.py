"""`GET /jobs/<job>`: the state of a requested retraining or evaluation."""

from typing import Any

from flask import Blueprint, url_for
from flask.typing import ResponseReturnValue

from serving import catalogue
from serving.api.routes import state_of
from serving.refusals import Refusal

jobs = Blueprint("jobs", __name__)


@jobs.get("/jobs/<job>")
@jobs.get("/projects/<project>/jobs/<job>")
def show(job: str, project: str | None = None) -> ResponseReturnValue:
    """Return the state, the progress and the result of a retraining or an evaluation."""
    name = state_of(project).name
    number = int(job) if job.isascii() and job.isdigit() and len(job) < 20 else 0
    row = catalogue.find_job(name, number)
    if row is None:
        raise Refusal(404, f"project {name} has no job {job[:64]!r}; POST /retrain and POST /anomaly answer with one")
    return row


def address(job: int, project: str | None) -> str:
    """Return the path of a job, in the form (short or with the project) of the current request."""
    named: dict[str, Any] = {"project": project} if project is not None else {}
    return url_for("jobs.show", job=job, **named)
