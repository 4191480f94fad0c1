"""`POST /predict` judges one image, or up to 64; each prediction is written to the journal before it is answered."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.project import Project
from pipelines.errors import BadImage, InspectlineError
from pipelines.images.decode import CONTENT_TYPES, decode, identify
from pipelines.images.descriptors import describe
from pipelines.storage import keys
from pipelines.tasks.anomaly.predict import prepare_image
from serving.api import heatmap
from serving.api.routes import rules_of, service, state_of
from serving.api.uploads import SentImage, read_body, read_query
from serving.limits.prediction_cache import CachedPrediction
from serving.logs import request_id
from serving.metrics import PREDICTIONS, REMEMBERED
from serving.models.batching import Full
from serving.models.served_models import Judgement, ProjectState, Serving
from serving.recording.journal import Entry, JournalError
from serving.refusals import Refusal, unavailable
from serving.service import Service

predicting = Blueprint("predicting", __name__)

MOST_IMAGES = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Scored:
    """The result for one image.

    Attributes:
        prediction: the model's answer.
        picture: the image as the heat map's background; None unless a heat map is requested.
        error_map: float32 [h, w], the input of the heat map; None unless a heat map is requested.
    """

    prediction: CachedPrediction
    picture: Image.Image | None = None
    error_map: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Call:
    """The context shared by all images of one request: one version judges them all.

    Attributes:
        held: the serving process's parts.
        rules: the project.
        serving: the version that answers.
        identity: the request's id.
        wants_map: whether a heat map is requested.
    """

    held: Service
    rules: Project
    serving: Serving
    identity: str
    wants_map: bool

    def each(self, image: SentImage, place: int) -> dict[str, Any]:
        """Judge one of several images; an error becomes the answer for this image alone."""
        identity = f"{self.identity}-{place}"
        request_id.set(identity)
        try:
            answer, drawn = self.judge(image, identity)
            return answer | ({"heatmap": _base64(drawn)} if drawn else {})
        except Refusal as refusal:
            return {"error": " ".join(str(refusal).split())[:1000], "status": refusal.status, "request_id": identity}
        except Exception as error:
            _log.exception("an image of several failed")
            message = str(error) if isinstance(error, InspectlineError) else f"internal error; the log has {identity}"
            return {"error": message, "status": 500, "request_id": identity}

    def judge(self, image: SentImage, identity: str) -> tuple[dict[str, Any], bytes | None]:
        """Judge one image, and return the answer and, if requested, the heat map as PNG.

        Raises:
            Refusal: the image cannot be used; 503 if it cannot be judged or journalled now.
        """
        began = time.monotonic()
        data, source = image.load(self.held.fetcher, self.rules)
        sha256 = hashlib.sha256(data).hexdigest()
        serving = self.serving
        cached = None if self.wants_map else serving.cache.get(sha256)
        if cached is None:
            scored = self._score(data)
            serving.cache.put(sha256, scored.prediction)
        else:
            scored = _Scored(cached)
            REMEMBERED.labels(self.rules.name).inc()
        judged = serving.judge(scored.prediction.score)
        entry = self._entry(scored.prediction, judged, identity, sha256, data, source, began)
        try:
            self.held.journal.append(entry)
        except JournalError as error:
            raise unavailable(str(error)) from error
        self.held.recorder.nudge()
        PREDICTIONS.labels(self.rules.name, serving.version, judged.verdict).inc()
        answer = {
            "task": serving.package.card.task,
            "is_anomaly": judged.is_anomaly,
            "anomaly_score": scored.prediction.score,
            "reconstruction_error": scored.prediction.score,
            "threshold": serving.threshold,
            "p_value": judged.p_value,
            "verdict": judged.verdict,
            "review_threshold": serving.review_threshold,
            "model_version": serving.version,
            "request_id": identity,
        }
        if scored.picture is None or scored.error_map is None:
            return answer, None
        resize = serving.package.card.resize
        return answer, heatmap.draw(scored.picture, scored.error_map, resize, serving.map_limit)

    def _score(self, data: bytes) -> _Scored:
        """Decode and score an image; its pixels are freed before it queues for the model."""
        picture = None
        try:
            header = identify(data, max_pixels=self.rules.image.max_pixels, min_side=self.rules.image.min_side)
            with self.held.decoding.take(header.width * header.height):
                image = decode(header, bits=self.serving.package.card.bits)
                prepared = prepare_image(self.serving.package, image.pixels)
                descriptors = describe(image.pixels)
                if self.wants_map:
                    picture = heatmap.backdrop(image.pixels)
                width, height, kind, extension = image.width, image.height, image.format, image.extension
                del image
        except BadImage as error:
            raise Refusal(422, str(error)) from error
        try:
            output = self.serving.score(prepared)
        except Full:
            raise unavailable(f"project {self.rules.name}: too many images wait to be judged; try again") from None
        embedding = output.embedding.astype("<f4").tobytes()
        prediction = CachedPrediction(output.score, embedding, width, height, kind, extension, descriptors)
        return _Scored(prediction, picture, output.error_map if self.wants_map else None)

    def _entry(
        self,
        scored: CachedPrediction,
        judged: Judgement,
        identity: str,
        sha256: str,
        data: bytes,
        source: str,
        began: float,
    ) -> Entry:
        """Return the journal's entry: the prediction as a row of the catalogue, and the image."""
        created_at = datetime.now(UTC)
        prediction = {
            "request_id": identity,
            "sha256": sha256,
            "created_at": created_at.isoformat(),
            "model_version": self.serving.version,
            "task": self.serving.package.card.task,
            "score": scored.score,
            "threshold": self.serving.threshold,
            "is_anomaly": judged.is_anomaly,
            "verdict": judged.verdict,
            "width": scored.width,
            "height": scored.height,
            "descriptors": dict(scored.descriptors),
            "image_key": keys.served_image(self.rules.name, sha256, scored.extension, created_at),
            "expires_at": (created_at + timedelta(days=self.rules.keep_served_days)).isoformat(),
            "source": source,
            "latency_ms": round((time.monotonic() - began) * 1000, 3),
        }
        kind = CONTENT_TYPES[scored.format]
        return Entry(self.rules.name, prediction, scored.embedding, self.rules.bucket, kind, data)


@predicting.post("/predict")
@predicting.post("/projects/<project>/predict")
def predict(project: str | None = None) -> ResponseReturnValue:
    """Judge one image or up to 64, and answer once the predictions are in the journal."""
    state = state_of(project)
    wants_map = _wants_map()
    _ready(state)
    sent = read_body(request, images=MOST_IMAGES)
    rules = rules_of(state)
    held = service()
    # Read once: a swap during the request changes nothing for its images.
    identity = request_id.get() or uuid.uuid4().hex
    call = _Call(held, rules, _ready(state), identity, wants_map)
    if sent.several:
        places = range(1, len(sent.images) + 1)
        return {"predictions": list(held.several.map(call.each, sent.images, places))}
    answer, drawn = call.judge(sent.images[0], identity)
    if drawn is None:
        return answer
    if request.accept_mimetypes.best_match(["application/json", "image/png"]) == "image/png":
        return Response(drawn, mimetype="image/png")
    return answer | {"heatmap": _base64(drawn)}


def _wants_map() -> bool:
    wanted = read_query(request, ("heatmap",)).get("heatmap")
    if wanted not in (None, "png"):
        raise Refusal(400, f"heatmap is {wanted[:64]!r}: png is what there is")
    return wanted is not None


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")


def _ready(state: ProjectState) -> Serving:
    serving = state.serving
    if serving is not None:
        return serving
    if (refused := state.refused) is not None:
        why = f"version {refused.registered.version} was refused, {refused.why}"
    else:
        why = state.problem or "serving has just started; try again"
    raise unavailable(f"project {state.name} has no model to answer with: {why}")
