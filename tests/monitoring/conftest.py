"""A project whose champion is a real package in a real registry, and images that serving judged."""

import hashlib
import io
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from pipelines.catalogue import predictions
from pipelines.images.descriptors import DESCRIPTORS, describe
from pipelines.registry.package import GRAPH, package_digest
from pipelines.registry.reference import write_reference
from pipelines.storage import keys
from pipelines.storage.s3 import Storage
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.package import AnomalyPackage, read_card, write_card
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.classification.package import ClassificationPackage
from pipelines.tasks.classification.predict import predict as classify
from serving.tasks.classification import ServedClassifier
from tests.conftest import Projects
from tests.pipelines.line import Line as Samples
from tests.pipelines.packages import COLOURS, coloured_image, make_classifier, make_package

SIDE = 64  # pixels


def surface(generator: np.random.Generator, brighter: float = 0.0) -> np.ndarray:
    """Return uint8 [SIDE, SIDE, 3]: a surface whose lighting varies slightly from image to image."""
    level = generator.normal(110, 8) + brighter
    grain = generator.gamma(9, 0.7)
    tilt = np.linspace(-1, 1, SIDE)[:, None, None] * generator.normal(0, 6)
    return np.clip(level + tilt + generator.normal(0, grain, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def scratched(generator: np.random.Generator) -> np.ndarray:
    """Return a `surface` with a black patch."""
    image = surface(generator)
    image[20:36, 20:36] = 0
    return image


def make_champion(folder: Path, images: list[np.ndarray], *, gain: float = 1, **card: Any) -> AnomalyPackage:
    """Write a package whose reference holds the scores and descriptors of `images`.

    `gain` multiplies its scores and embeddings, as a network with another scale would give them.
    """
    make_package(folder, size=SIDE, **card)
    fields = read_card(folder).model_dump(exclude={"files", "onnx_sha256"})
    model = onnx.load(folder / GRAPH)
    white = next(constant for constant in model.graph.initializer if constant.name == "white")
    white.CopyFrom(numpy_helper.from_array(np.float32(255 / gain), "white"))
    onnx.save(model, folder / GRAPH)
    scored = predict(ScoringGraph(folder / GRAPH, SIDE, "fit", 1), images)
    described = [describe(image) for image in images]
    write_reference(
        folder,
        score=np.array([prediction.score for prediction in scored], np.float32),
        embedding=np.stack([prediction.embedding for prediction in scored]),
        sha256=[f"{index:064x}" for index in range(len(images))],
        descriptors=np.array([[values[name] for name in DESCRIPTORS] for values in described]),
        descriptor_names=list(DESCRIPTORS),
    )
    write_card(folder, **fields)
    return AnomalyPackage.open(folder)


def promote(client: Any, name: str, bucket: str, folder: Path, *, with_run: bool = True) -> str:
    """Register the package in `folder` as the champion of the project `name`, and return its version.

    `with_run` False: as a version that was brought from another server.
    """
    with suppress(Exception):
        client.create_registered_model(name)
    experiment = client.get_experiment_by_name("monitoring")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("monitoring")
    run_id = None
    if with_run:
        run = client.create_run(experiment_id)
        run_id, source = run.info.run_id, f"{run.info.artifact_uri}/model"
        client.log_artifacts(run_id, str(folder), "model")
    else:
        source = f"s3://{bucket}/brought/{folder.name}"
        for path in folder.iterdir():
            Storage(bucket).upload(path, f"brought/{folder.name}/{path.name}")
    registered = client.create_model_version(name, source, run_id, tags={"package_sha256": package_digest(folder)})
    client.set_registered_model_alias(name, "champion", registered.version)
    return str(registered.version)


def keep_served(project: str, bucket: str, image: np.ndarray, moment: datetime) -> dict[str, Any]:
    """Keep an image in S3 as serving does, and return the columns of its prediction that no model decides."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    key = keys.served_image(project, digest, "png", moment)
    Storage(bucket).put(key, stream.getvalue(), "image/png")
    return {
        "request_id": str(uuid.uuid4()),
        "project": project,
        "sha256": digest,
        "created_at": moment,
        "latency_ms": 5.0,
        "width": image.shape[1],
        "height": image.shape[0],
        "descriptors": describe(image),
        "image_key": key,
        "expires_at": moment + timedelta(days=30),
        "source": "test",
    }


@dataclass
class Line:
    """One project: promotes packages, and serves images as serving enters them."""

    name: str
    bucket: str
    folder: Path
    client: Any
    package: AnomalyPackage | None = None
    version: str = ""
    packages: int = field(default=0)

    def promote(self, images: list[np.ndarray], *, with_run: bool = True, **card: Any) -> str:
        """Register a package with `images` as its reference and make it champion.

        `with_run` False: as a version that was brought from another server.
        """
        self.packages += 1
        folder = self.folder / f"package-{self.packages}"
        self.package = make_champion(folder, images, project=self.name, **card)
        self.version = promote(self.client, self.name, self.bucket, folder, with_run=with_run)
        return self.version

    def serve(self, images: list[np.ndarray], when: datetime | None = None, **columns: Any) -> None:
        """Judge images with the champion, keep them in S3 and enter the predictions."""
        assert self.package is not None
        moment = when or datetime.now(UTC) - timedelta(hours=1)
        threshold = self.package.card.threshold
        rows = [
            keep_served(self.name, self.bucket, image, moment)
            | {
                "model_version": self.version,
                "score": prediction.score,
                "threshold": threshold,
                "is_anomaly": prediction.score > threshold,
                "embedding": prediction.embedding.astype("<f4").tobytes(),
            }
            | columns
            for image, prediction in zip(images, predict(self.package, images), strict=True)
        ]
        predictions.enter(rows)


@pytest.fixture
def surfaces() -> Callable[..., list[np.ndarray]]:
    """Return a maker of images: how many, from which seed, how much brighter."""

    def make(count: int, seed: int, brighter: float = 0.0) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        return [surface(generator, brighter) for _ in range(count)]

    return make


@pytest.fixture
def line(projects: Projects, mlflow_server: str, database: str, cache: Path, tmp_path: Path) -> Line:
    """Return a project without a model yet: two recipients, drift from 50 images of 7 days."""
    from mlflow import MlflowClient

    name = f"line_{uuid.uuid4().hex[:8]}"
    projects.write(
        name,
        title="Test line",
        timezone="Europe/Berlin",
        recipients=["quality@example.com", "shift@example.com"],
        threshold={"defect_rate": 0.02},
        drift={"minimum_images": 50},
    )
    return Line(name, projects.bucket, tmp_path / "packages", MlflowClient(mlflow_server))


@dataclass
class Classifier:
    """One project of a classifier of colours: promotes packages, serves images as serving enters them, has samples."""

    name: str
    bucket: str
    folder: Path
    client: Any
    package: ClassificationPackage | None = None
    version: str = ""
    packages: int = field(default=0)

    def promote(self, *, n_reference: int = 60, **card: Any) -> str:
        """Register a package whose reference has each colour equally often, and make it champion."""
        self.packages += 1
        folder = self.folder / f"package-{self.packages}"
        make_classifier(folder, project=self.name, n_reference=n_reference, **card)
        self.package = ClassificationPackage.open(folder)
        self.version = promote(self.client, self.name, self.bucket, folder)
        return self.version

    def serve(self, images: list[np.ndarray], when: datetime | None = None) -> list[str]:
        """Classify images with the champion, keep them, enter the predictions, and return the images' digests."""
        assert self.package is not None
        moment = when or datetime.now(UTC) - timedelta(hours=1)
        model = ServedClassifier(self.package)
        rows = [
            keep_served(self.name, self.bucket, image, moment)
            | {
                "model_version": self.version,
                "task": "classification",
                "embedding": output.embedding.astype("<f4").tobytes(),
                **model.judge(output.probabilities).columns,
            }
            for image, output in zip(images, classify(self.package, images), strict=True)
        ]
        predictions.enter(rows)
        return [row["sha256"] for row in rows]

    def add(self, side: str, label: str, count: int, seed: int, colour: str | None = None) -> None:
        """Enter samples of a class in a subset, of its own colour or of another one."""
        samples = Samples(self.name, self.bucket, seed)
        samples.add(side, label, count, draw=lambda generator: coloured_image(colour or label, generator))


@pytest.fixture
def classifier(projects: Projects, mlflow_server: str, database: str, cache: Path, tmp_path: Path) -> Classifier:
    """Return a project of a classifier without a model yet."""
    from mlflow import MlflowClient

    name = f"caps_{uuid.uuid4().hex[:8]}"
    projects.write(
        name,
        task="classification",
        title="Test caps",
        timezone="Europe/Berlin",
        recipients=["quality@example.com"],
        drift={"minimum_images": 50},
    )
    return Classifier(name, projects.bucket, tmp_path / "packages", MlflowClient(mlflow_server))


@pytest.fixture
def colours() -> Callable[..., list[np.ndarray]]:
    """Return a maker of images: how many, from which seed, of which colours in turn."""

    def make(count: int, seed: int, *names: str) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        named = names or COLOURS
        return [coloured_image(named[number % len(named)], generator) for number in range(count)]

    return make
