"""Labelled images from users: `POST /retrain` takes good images, `POST /anomaly` takes anomalies.

The image becomes a sample, and a run is requested; the answer is its result, or the job's address if it takes longer.
"""

import unicodedata
from typing import Any
from urllib.parse import unquote, urlsplit

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from pipelines.errors import BadImage, CatalogueError
from serving import catalogue
from serving.api.jobs import address
from serving.api.routes import rules_of, service, state_of
from serving.api.uploads import LONGEST_WORD, SentImage, read_body
from serving.auth.authorisation import account
from serving.limits.job_wait import patience, wait_for
from serving.refusals import Refusal, unavailable

sent_back = Blueprint("sent_back", __name__)


@sent_back.post("/retrain")
@sent_back.post("/projects/<project>/retrain")
def retrain(project: str | None = None) -> ResponseReturnValue:
    """Store a good image, request a retraining, and return the new model's metrics."""
    return _take(project, "retrain", "good")


@sent_back.post("/anomaly")
@sent_back.post("/projects/<project>/anomaly")
def anomaly(project: str | None = None) -> ResponseReturnValue:
    """Store an anomaly, request an evaluation, and return the model's metrics with the new threshold."""
    return _take(project, "evaluate", "anomaly")


def _take(project: str | None, kind: str, label: str) -> ResponseReturnValue:
    held, state = service(), state_of(project)
    rules = rules_of(state)
    sent = read_body(request, words=("group",) if label == "good" else ("type", "group"))
    image = sent.images[0]
    data, _ = image.load(held.fetcher, rules)
    posted = catalogue.Posted(
        data,
        label,
        type=sent.words.get("type"),
        subset="training" if label == "good" else None,
        name=_name(image),
        group=sent.words.get("group"),
        author=account().name,
    )
    with held.storing.place() as free:
        if not free:
            raise unavailable("many images are being stored at the moment; try again")
        try:
            job, sample = catalogue.take_in(rules, posted, kind)
        except BadImage as error:
            raise Refusal(422, str(error)) from error
        except catalogue.BadName as error:
            raise Refusal(400, str(error)) from error
    seconds, kept_to = patience(request, held.config.wait_seconds)
    wait_for(rules.name, job, seconds, held.waiting, held.ending)
    headers = {"Preference-Applied": kept_to} if kept_to else {}
    job_row = _look_up(rules.name, job)
    answer = {"job": job, "state": job_row["state"], "subset": sample["subset"], "sample": sample}
    if job_row["state"] in ("pending", "running"):
        return answer | {"progress": job_row["progress"]}, 202, headers | {"Location": address(job, project)}
    return catalogue.answer({}) | (job_row["result"] or {}) | answer | {"error": job_row["error"]}, 200, headers


def _look_up(project: str, job: int) -> dict[str, Any]:
    """Return the job; as pending, if the catalogue has become unavailable since it was entered."""
    try:
        row = catalogue.find_job(project, job)
    except CatalogueError:
        row = None
    return row or {"state": "pending", "progress": None, "result": None, "error": None}


def _name(image: SentImage) -> str:
    """Return the sender's name of the image file, sanitised: a project may derive the sample's group from it."""
    name = unquote(urlsplit(image.url).path.rpartition("/")[2]) if image.url else image.name
    return "".join(letter for letter in name if unicodedata.category(letter) not in ("Cc", "Cs"))[:LONGEST_WORD]
