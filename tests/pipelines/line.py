"""A small inspection line for tests: real samples in S3 and in the catalogue, and real packages that judge them."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image
from sqlalchemy import insert

from pipelines.catalogue import transaction
from pipelines.catalogue.schema import annotations, groups, samples
from pipelines.datasets.pack import build
from pipelines.images.descriptors import describe
from pipelines.registry.package import GRAPH, WEIGHTS
from pipelines.registry.package_store import package_uri
from pipelines.steps import DatasetVersion, ModelPackage, PackRef, Run, TrainingParameters
from pipelines.storage.files import file_digest
from pipelines.storage.s3 import Storage
from tests.pipelines.image_files import png16
from tests.pipelines.packages import good_image, make_package

SIZE = 64


@dataclass
class Line:
    """One project with samples; `add` puts in images, `export` a graph as the export step leaves it."""

    project: str
    bucket: str
    seed: int = 0

    def add(
        self,
        side: str,
        label: str,
        count: int,
        *,
        kind: str | None = None,
        masks: bool = False,
        draw: Callable[[np.random.Generator], np.ndarray] | None = None,
        bits: int | None = None,
    ) -> None:
        """Put in `count` images of a side (training, validation, test): grey noise, or what `draw` makes, at least 48
        pixels high and 64 wide; anomalies bear a dark patch. With `bits`, files have as many
        in 16.
        """
        storage = Storage(self.bucket)
        rows: dict[Any, list[dict[str, Any]]] = {samples: [], groups: [], annotations: []}
        for _ in range(count):
            self.seed += 1
            rng = np.random.default_rng(self.seed)
            # Wider than high, so that an image and its prepared square differ.
            pixels = np.ascontiguousarray(draw(rng) if draw else good_image(rng, SIZE)[:48])
            mask = np.zeros(pixels.shape[:2], np.uint8)
            if label == "anomaly":
                top, left = rng.integers(4, 24), rng.integers(4, 40)
                pixels[top : top + 16, left : left + 16] = 0
                mask[top : top + 16, left : left + 16] = 255
            deep = np.rint(pixels.astype(float) * (2 ** (bits or 8) - 1) / 255).astype(np.uint16)
            data = png16(deep) if bits else png(pixels)
            digest = sha256(data).hexdigest()
            key = f"{self.project}/samples/{digest[:2]}/{digest}.png"
            storage.put(key, data)
            mask_key = None
            if masks and label == "anomaly":
                mask_key = f"{self.project}/samples/{digest[:2]}/{sha256(png(mask)).hexdigest()}_mask.png"
                storage.put(mask_key, png(mask))
            group = f"{side}-{self.seed}"
            rows[samples].append(
                {
                    "project": self.project,
                    "sha256": digest,
                    "key": key,
                    "format": "PNG",
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                    "mode": "RGB",
                    "size_bytes": len(data),
                    "source_key": f"{self.project}/inbox/{label}/{self.seed}.png",
                    "group_key": group,
                    "descriptors": describe(pixels),
                    "sample_bits": 16 if bits else 8,
                    "sample_peak": float(deep.max()) if bits else None,
                }
            )
            rows[groups].append({"project": self.project, "group_key": group, "side": side, "origin": "imported"})
            rows[annotations].append(
                {
                    "project": self.project,
                    "sha256": digest,
                    "label": label,
                    "type": kind,
                    "mask_key": mask_key,
                    "origin": "inbox",
                }
            )
        with transaction() as connection:
            for table, values in rows.items():
                connection.execute(insert(table), values)

    def run(self) -> Run:
        """Return a run as `begin` makes it, without a dataset, for steps that need none."""
        training_id = f"t{uuid.uuid4().hex[:10]}"
        return Run(
            project=self.project,
            kind="retrain",
            training_id=training_id,
            dataset=DatasetVersion(self.project, "v-none", "", ""),
            parameters=TrainingParameters(None, None, "scratch", promote=True),
            dag_run_id=f"manual__{training_id}",
        )

    def export(self, run: Run, folder: Path, *, blind: bool = False, graph: Path | None = None) -> ModelPackage:
        """Leave graph and weights of a model in S3 as the export step does; a `blind` one scores brightness instead.

        The graph is the one at `graph`, if it is given.
        """
        make_package(folder, project=self.project, size=SIZE)
        if graph is not None:
            shutil.copyfile(graph, folder / GRAPH)
        if blind:
            blindfold(folder / GRAPH)
        uri = package_uri(self.bucket, self.project, run.version_id, run.training_id)
        prefix = uri.removeprefix(f"s3://{self.bucket}/")
        for name in (GRAPH, WEIGHTS):
            Storage(self.bucket).upload(folder / name, f"{prefix}/{name}")
        digest = file_digest(folder / GRAPH)
        return ModelPackage(uri, onnx_sha256=digest, max_difference=1e-7, tolerance=1e-5)


def pack_of(run: Run) -> PackRef:
    """Return the run's pack, as the step `pack` does."""
    return build(run.dataset, run.settings.model)


def blindfold(path: Path) -> None:
    """Make the graph's score the image's mean brightness, which a dark patch lowers: an AUROC near 0."""
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if list(node.output) == ["score"]]
    kept = [other for other in model.graph.node if other is not node]
    brightness = onnx.helper.make_node("ReduceMean", ["scaled", "pixels"], ["score"], keepdims=0)
    del model.graph.node[:]
    model.graph.node.extend([*kept, brightness])
    onnx.save(model, path)


def png(pixels: np.ndarray) -> bytes:
    """Return an array as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
