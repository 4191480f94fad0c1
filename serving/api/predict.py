"""The call that judges images: `POST /predict`, one image or up to 64, each answered once it is safe in the journal."""

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
from pipelines.storage.s3 import image_key
from pipelines.tasks.anomaly.predict import prepare_image
from serving.api import heatmap
from serving.api.routes import rules_of, service, state_of
from serving.api.uploads import SentImage, read_body, read_query
from serving.limits.prediction_cache import Known
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
class _Seen:
    """What was found of one image; `picture` and `error_map` only where a heat map is asked for."""

    known: Known
    picture: Image.Image | None = None
    error_map: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Call:
    """What the images of one request have in common: one version judges them all."""

    held: Service
    rules: Project
    serving: Serving
    identity: str
    wants_map: bool

    def each(self, image: SentImage, place: int) -> dict[str, Any]:
        """Judge one of several images; what is wrong with it is its own answer, and the others go on."""
        identity = f"{self.identity}-{place}"
        request_id.set(identity)
        try:
            answer, drawn = self.judge(image, identity)
            return answer | ({"heatmap": _base64(drawn)} if drawn else {})
        except Refusal as refusal:
            return {"error": " ".join(str(refusal).split())[:1000], "status": refusal.status, "request_id": identity}
        except Exception as error:
            _log.exception("an image of several failed")
            told = str(error) if isinstance(error, InspectlineError) else f"internal error; the log has {identity}"
            return {"error": told, "status": 500, "request_id": identity}

    def judge(self, image: SentImage, identity: str) -> tuple[dict[str, Any], bytes | None]:
        """Judge one image, and return the answer and, if asked for, the heat map as PNG.

        Raises:
            Refusal: whatever is wrong with the image, or 503 if it cannot be judged or kept now.
        """
        began = time.monotonic()
        data, source = image.load(self.held.fetcher, self.rules.bucket)
        sha256 = hashlib.sha256(data).hexdigest()
        serving = self.serving
        known = None if self.wants_map else serving.recent.get(sha256)
        if known is None:
            seen = self._look(data)
            serving.recent.put(sha256, seen.known)
        else:
            seen = _Seen(known)
            REMEMBERED.labels(self.rules.name).inc()
        judged = serving.judge(seen.known.score)
        entry = self._entry(seen.known, judged, identity, sha256, data, source, began)
        try:
            self.held.journal.append(entry)
        except JournalError as error:
            raise unavailable(str(error)) from error
        self.held.recorder.nudge()
        PREDICTIONS.labels(self.rules.name, serving.version, judged.verdict).inc()
        answer = {
            "is_anomaly": judged.is_anomaly,
            "reconstruction_error": seen.known.score,
            "threshold": serving.threshold,
            "p_value": judged.p_value,
            "verdict": judged.verdict,
            "review_threshold": serving.review_threshold,
            "model_version": serving.version,
            "request_id": identity,
        }
        if seen.picture is None or seen.error_map is None:
            return answer, None
        resize = serving.package.card.resize
        return answer, heatmap.draw(seen.picture, seen.error_map, resize, serving.map_limit)

    def _look(self, data: bytes) -> _Seen:
        """Decode and score an image; its pixels are gone before it waits for its run."""
        picture = None
        try:
            header = identify(data, max_pixels=self.rules.image.max_pixels, min_side=self.rules.image.min_side)
            with self.held.decoding.take(header.width * header.height):
                image = decode(header)
                prepared = prepare_image(self.serving.package, image.pixels)
                descriptors = describe(image.pixels)
                if self.wants_map:
                    picture = heatmap.backdrop(image.pixels)
                width, height, kind, extension = image.width, image.height, image.format, image.extension
                del image
        except BadImage as error:
            raise Refusal(422, str(error)) from error
        try:
            scored = self.serving.score(prepared)
        except Full:
            raise unavailable(f"project {self.rules.name}: too many images wait to be judged; try again") from None
        embedding = scored.embedding.astype("<f4").tobytes()
        known = Known(scored.score, embedding, width, height, kind, extension, descriptors)
        return _Seen(known, picture, scored.error_map if self.wants_map else None)

    def _entry(
        self, known: Known, judged: Judgement, identity: str, sha256: str, data: bytes, source: str, began: float
    ) -> Entry:
        """Return the prediction as the journal keeps it: the catalogue's row, and the image."""
        created_at = datetime.now(UTC)
        prediction = {
            "request_id": identity,
            "sha256": sha256,
            "created_at": created_at.isoformat(),
            "model_version": self.serving.version,
            "score": known.score,
            "threshold": self.serving.threshold,
            "is_anomaly": judged.is_anomaly,
            "verdict": judged.verdict,
            "width": known.width,
            "height": known.height,
            "descriptors": dict(known.descriptors),
            "image_key": image_key(self.rules.name, sha256, known.extension, created_at),
            "expires_at": (created_at + timedelta(days=self.rules.keep_served_days)).isoformat(),
            "source": source,
            "latency_ms": round((time.monotonic() - began) * 1000, 3),
        }
        kind = CONTENT_TYPES[known.format]
        return Entry(self.rules.name, prediction, known.embedding, self.rules.bucket, kind, data)


@predicting.post("/predict")
@predicting.post("/projects/<project>/predict")
def predict(project: str | None = None) -> ResponseReturnValue:
    """Judge one image or up to 64, and answer once the predictions are safe in the journal."""
    state = state_of(project)
    wants_map = _wants_map()
    _ready(state)
    sent = read_body(request, images=MOST_IMAGES)
    rules = rules_of(state)
    held = service()
    # Taken once: from here on one version answers, whatever is swapped meanwhile.
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
