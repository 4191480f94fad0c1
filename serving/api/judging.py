"""Judges one image for a request: fetch, decode, predict, and write the prediction to the journal before the answer."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image, ImageFile

from pipelines.config.project import Project
from pipelines.errors import BadImage
from pipelines.images.decode import CONTENT_TYPES, EXTENSIONS, decode, identify
from pipelines.images.descriptors import describe
from pipelines.storage import keys
from serving.api import heatmap
from serving.api.uploads import SentImage
from serving.limits.prediction_cache import CachedPrediction
from serving.metrics import PREDICTIONS, REMEMBERED
from serving.models.batching import Full
from serving.models.served_models import ProjectState, Serving
from serving.recording.journal import Entry, JournalError
from serving.refusals import Refusal, unavailable
from serving.service import Service
from serving.tasks import Judgement
from serving.tasks.classification import ServedClassifier


@dataclass(frozen=True)
class Judged:
    """One image, judged and recorded.

    Attributes:
        judgement: what the version answers.
        prediction: what the cache keeps of it.
        remembered: whether the network did not run, because the version had judged the same image before.
        drawn: the heat map as PNG; None unless it is requested.
    """

    judgement: Judgement
    prediction: CachedPrediction
    remembered: bool
    drawn: bytes | None = None


@dataclass(frozen=True)
class Call:
    """The context shared by all images of one request: one version judges them all.

    Attributes:
        held: the serving process's parts.
        rules: the project.
        serving: the version that answers.
        wants_map: whether a heat map is requested.
        asks_catalogue: whether an image that the cache does not know is looked up in the catalogue.
    """

    held: Service
    rules: Project
    serving: Serving
    wants_map: bool = False
    asks_catalogue: bool = False

    def judge(self, image: SentImage, identity: str) -> Judged:
        """Judge one image, and record the prediction as `identity`.

        Raises:
            Refusal: the image cannot be used; 503 if it cannot be judged or journalled now.
        """
        began = time.monotonic()
        data, source = image.load(self.held.fetcher, self.rules)
        sha256 = hashlib.sha256(data).hexdigest()
        serving = self.serving
        known = None if self.wants_map else serving.cache.get(sha256)
        if known is None and self.asks_catalogue:
            known = self._recall(data, sha256)
            if known is not None:
                serving.cache.put(sha256, known)
        prediction, output, picture = (known, None, None) if known else self._predict(data)
        if known is None:
            serving.cache.put(sha256, prediction)
        else:
            REMEMBERED.labels(self.rules.name).inc()
        judgement = serving.model.judge(prediction.result)
        entry = self._entry(prediction, judgement, identity, sha256, data, source, began)
        try:
            self.held.journal.append(entry)
        except JournalError as error:
            raise unavailable(str(error)) from error
        self.held.recorder.nudge()
        PREDICTIONS.labels(self.rules.name, serving.version, judgement.verdict).inc()
        drawn = serving.model.draw(picture, output) if picture is not None else None
        return Judged(judgement, prediction, known is not None, drawn)

    def _header(self, data: bytes) -> ImageFile.ImageFile:
        return identify(data, max_pixels=self.rules.image.max_pixels, min_side=self.rules.image.min_side)

    def _predict(self, data: bytes) -> tuple[CachedPrediction, Any, Image.Image | None]:
        """Decode an image and run the network; its pixels are freed before it queues for the model.

        Returns the prediction, the network's output, and the background of the heat map, if one is requested.
        """
        picture, model = None, self.serving.model
        try:
            header = self._header(data)
            with self.held.decoding.take(header.width * header.height):
                image = decode(header, bits=model.bits)
                prepared = model.prepare(image.pixels)
                descriptors = describe(image.pixels)
                if self.wants_map:
                    picture = heatmap.backdrop(image.pixels)
                width, height, kind, extension = image.width, image.height, image.format, image.extension
                del image
        except BadImage as error:
            raise Refusal(422, str(error)) from error
        try:
            output = self.serving.predict(prepared)
        except Full:
            raise unavailable(f"project {self.rules.name}: too many images wait to be judged; try again") from None
        embedding = output.embedding.astype("<f4").tobytes()
        result = model.result(output)
        return CachedPrediction(result, embedding, width, height, kind, extension, descriptors), output, picture

    def _recall(self, data: bytes, sha256: str) -> CachedPrediction | None:
        """Return what this version said of the image before, as the catalogue holds it; None if it does not."""
        serving = self.serving
        if not isinstance(serving.model, ServedClassifier):
            return None
        row = self.held.past.find(self.rules.name, sha256, serving.registered)
        result = serving.model.recalled(row["answer"]) if row else None
        if row is None or result is None:
            return None
        try:
            kind = str(self._header(data).format).replace("MPO", "JPEG")
        except BadImage as error:
            raise Refusal(422, str(error)) from error
        size = row["width"], row["height"]
        return CachedPrediction(result, row["embedding"], *size, kind, EXTENSIONS[kind], row["descriptors"])

    def _entry(
        self,
        prediction: CachedPrediction,
        judgement: Judgement,
        identity: str,
        sha256: str,
        data: bytes,
        source: str,
        began: float,
    ) -> Entry:
        """Return the journal's entry: the prediction as a row of the catalogue, and the image."""
        created_at = datetime.now(UTC)
        row = {
            "request_id": identity,
            "sha256": sha256,
            "created_at": created_at.isoformat(),
            "model_version": self.serving.version,
            "task": self.serving.model.task,
            **judgement.columns,
            "width": prediction.width,
            "height": prediction.height,
            "descriptors": dict(prediction.descriptors),
            "image_key": keys.served_image(self.rules.name, sha256, prediction.extension, created_at),
            "expires_at": (created_at + timedelta(days=self.rules.keep_served_days)).isoformat(),
            "source": source,
            "latency_ms": round((time.monotonic() - began) * 1000, 3),
        }
        kind = CONTENT_TYPES[prediction.format]
        return Entry(self.rules.name, row, prediction.embedding, self.rules.bucket, kind, data)


def ready(state: ProjectState) -> Serving:
    """Return the version of a project that answers.

    Raises:
        Refusal: 503, there is none; says why.
    """
    serving = state.serving
    if serving is not None:
        return serving
    if (refused := state.refused) is not None:
        why = f"version {refused.registered.version} was refused, {refused.why}"
    else:
        why = state.problem or "serving has just started; try again"
    raise unavailable(f"project {state.name} has no model to answer with: {why}")
