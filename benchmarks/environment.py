"""The environment of the serving benchmarks, in a folder: a registered version, S3, a catalogue and images."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from PIL import Image

PROJECT = "benchmark"
SIDE = 128
_DRAWN = 64


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Stage:
    """The environment of a benchmark.

    Attributes:
        folder: where everything lies.
        source: folder of the JPEGs to send; None draws battery cells.
    """

    folder: Path
    source: Path | None = None

    @property
    def images(self) -> Path:
        """The folder of the JPEGs that are sent."""
        return self.folder / "images"

    @property
    def package(self) -> Path:
        """The model package of a `small` network, untrained, which does not affect its speed."""
        return self.folder / "package"

    @property
    def tensors(self) -> Path:
        """The bodies for MLflow's scoring server: a list of JSON documents in base64."""
        return self.folder / "tensors.json"

    @contextmanager
    def set(self) -> Iterator[Stage]:
        """Start all services and build the package; stop the services on exit."""
        s3, mlflow = free_port(), free_port()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "INSPECTLINE_AUTH": "none",
            "INSPECTLINE_CACHE": str(self.folder / "cache"),
            "INSPECTLINE_DATABASE_URL": f"sqlite:///{self.folder / 'catalogue.db'}",
            "INSPECTLINE_DEFAULT_PROJECT": PROJECT,
            "INSPECTLINE_PROJECTS": str(self.folder / "projects"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        (self.folder / "projects").mkdir()
        (self.folder / "projects" / f"{PROJECT}.yaml").write_text("bucket: benchmark\n", encoding="utf-8")
        (self.folder / "s3" / "benchmark").mkdir(parents=True)
        self._images()
        commands = (
            (sys.executable, "-m", "localbucket", "--host", "127.0.0.1", "--port", str(s3), str(self.folder / "s3")),
            (sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1")
            + ("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}")
            + ("--artifacts-destination", str(self.folder / "artifacts")),
        )
        null = subprocess.DEVNULL
        # On the client's core: these services are not part of the measurement.
        processes = [
            subprocess.Popen(
                ["taskset", "-c", "1", *command], cwd=self.folder, stdout=null, stderr=null, start_new_session=True
            )
            for command in commands
        ]
        try:
            subprocess.run([sys.executable, "-m", "benchmarks.environment", str(self.folder)], check=True)
            yield self
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=30)

    def _images(self) -> None:
        from include.demo_images import draw

        self.images.mkdir()
        if self.source is not None:
            for number, path in enumerate(sorted(self.source.rglob("*.jp*g"))[:256]):
                shutil.copy(path, self.images / f"{number:04d}.jpg")
        else:
            for number in range(_DRAWN):
                Image.fromarray(draw(1, number)[0]).save(self.images / f"{number:04d}.jpg", quality=92)
        bodies = []
        for path in sorted(self.images.iterdir())[:16]:
            pixels = np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE)))
            stream = io.StringIO()
            json.dump({"inputs": {"image": pixels[np.newaxis].tolist()}}, stream)
            bodies.append(base64.b64encode(stream.getvalue().encode()).decode())
        self.tensors.write_text(json.dumps(bodies), encoding="utf-8")


def build(stage: Stage) -> None:
    """Build the package, register it as version 1 and champion, and create the catalogue's tables."""
    import mlflow

    from pipelines.catalogue import migrate
    from pipelines.images.decode import open_image
    from pipelines.images.descriptors import DESCRIPTORS
    from pipelines.registry.package import GRAPH, WEIGHTS
    from pipelines.registry.reference import write_reference
    from pipelines.registry.register import save_flavour
    from pipelines.tasks.anomaly.export import write_graph
    from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
    from pipelines.tasks.anomaly.package import AnomalyPackage, write_card
    from pipelines.tasks.anomaly.predict import predict, prepare_image
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
    from pipelines.tasks.anomaly.restoration.network import build_network

    stage.package.mkdir()
    network = build_network("small", SIDE)
    network.save(stage.package / WEIGHTS)
    graph = ScoringGraph(write_graph(inspection_model(network), stage.package / GRAPH), SIDE, "fit")
    files = [path.read_bytes() for path in sorted(stage.images.iterdir())[:8]]
    pixels = [open_image(data, max_pixels=50_000_000, min_side=32).pixels for data in files]
    scored = predict(graph, pixels)
    scores = np.array([prediction.score for prediction in scored])
    write_reference(
        stage.package,
        score=scores.astype(np.float32),
        embedding=np.stack([prediction.embedding for prediction in scored]),
        sha256=[f"{number:064x}" for number in range(len(files))],
        descriptors=np.zeros((len(files), len(DESCRIPTORS))),
        descriptor_names=list(DESCRIPTORS),
        examples=[prepare_image(graph, image) for image in pixels[:4]],
    )
    spread = {"p50": float(np.median(scores)), "p99": float(scores.max()), "max": float(scores.max())}
    card = {"project": PROJECT, "preset": "small", "input_size": SIDE, "resize": "fit", "score_range": spread}
    card |= {"threshold": float(scores.max()), "threshold_policy": "conformal", "onnx_tolerance": 1e-3}
    card |= {"version_id": "v-benchmark", "training_id": "t-benchmark", "git_revision": "unknown"}
    write_card(stage.package, **card)

    deadline = time.monotonic() + 180
    while True:
        try:
            requests.get(f"{os.environ['MLFLOW_TRACKING_URI']}/health", timeout=2).raise_for_status()
            break
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    package, client = AnomalyPackage.open(stage.package), mlflow.MlflowClient()
    save_flavour(package, stage.folder / "flavour")
    client.create_registered_model(PROJECT)
    run = client.create_run(client.create_experiment(PROJECT))
    client.log_artifacts(run.info.run_id, str(stage.folder / "flavour"), "model")
    source = f"{run.info.artifact_uri}/model"
    client.create_model_version(PROJECT, source, run.info.run_id, tags={"package_sha256": package.digest})
    client.set_registered_model_alias(PROJECT, "champion", "1")
    migrate()


if __name__ == "__main__":
    build(Stage(Path(sys.argv[1])))
