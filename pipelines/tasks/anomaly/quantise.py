"""The exported graph with its convolutions in 8-bit integers, where it loses nothing and gains time.

Static quantisation (Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018), weights per channel, in ONNX's own QuantizeLinear and DequantizeLinear: the runtime that serves
fuses them and needs nothing more. What compares image and restoration, and what scores, stays in float32. Weights take
seven bits, since processors without VNNI add up products of eight in sixteen bits and would give other scores.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation import metrics
from pipelines.tasks.anomaly.fitting.batches import Images, validation_batches
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.anomaly.synthetic.fixed_set import with_defect

# What AUROC on good images and synthetic defects may lose, how closely the scores must follow those of before (AUROC
# alone would pass a broken graph beside a network that finds nothing), and the share of the time that must be saved.
MOST_LOST = 0.002
LEAST_AGREEMENT = 0.98
LEAST_SAVED = 0.05
CALIBRATED_ON = 128
BATCH = 16
ROUNDS = 20


@dataclass(frozen=True)
class Trial:
    """What came of a trial of the int8 graph beside the float32 graph, on `images` good images and as many defects.

    `agreement` is the correlation of the scores before and after, `difference` the largest between those of a good
    image; times are milliseconds of one image alone.
    """

    images: int
    auroc: float
    auroc_before: float
    agreement: float
    difference: float
    milliseconds: float
    milliseconds_before: float

    @property
    def passed(self) -> bool:
        """Return whether the int8 graph may take the other's place."""
        return self.fault is None

    @property
    def fault(self) -> str | None:
        """Return why the int8 graph may not take the other's place, None if it may."""
        lost = self.auroc_before - self.auroc
        if not lost < MOST_LOST:
            return f"int8 loses {lost:.4f} of AUROC, {MOST_LOST} or more"
        if not self.agreement >= LEAST_AGREEMENT:  # NaN, where all scores are the same, is no agreement
            return f"the scores of int8 follow the others too loosely, with a correlation of {self.agreement:.3f}"
        if self.milliseconds > (1 - LEAST_SAVED) * self.milliseconds_before:
            return "int8 is not faster on this machine"
        return None

    def __str__(self) -> str:
        verdict = f"float32 is kept: {self.fault}" if self.fault else "int8 is taken"
        return (
            f"{verdict} (AUROC {self.auroc_before:.4f} before and {self.auroc:.4f} after, {self.images} good images and"
            f" as many synthetic defects; {self.milliseconds_before:.1f} and {self.milliseconds:.1f} ms an image)"
        )


def quantise(path: Path, images: Images, target: Path, seed: int = 0) -> Path:
    """Write the graph at `path` to `target` with its convolutions in int8, and return `target`.

    The range of each activation is what it takes on at most 128 of `images`, good ones [n, S, S, 3] uint8, half of them
    with the defects of training: ranges of good images alone would cut off what defects do.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = _calibration(images, seed)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    logging.getLogger("onnxruntime").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="quantise-") as folder:
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(path, folded, skip_symbolic_shape=True)
        nodes = _convolutions(onnx.load(folded))
        quantize_static(
            folded,
            target,
            Reader(),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return target


def attempt(path: Path, quantised: Path, images: NDArray[np.uint8]) -> Trial:
    """Compare the graphs at `path` and `quantised` on good images [n, S, S, 3] and the fixed synthetic defects on
    them.
    """
    size = images.shape[1]
    before, after = (ScoringGraph(each, size, "fit") for each in (path, quantised))
    defects = [with_defect(image, hashlib.sha256(image.tobytes()).hexdigest())[0] for image in images]
    scores = []
    for graph in (before, after):
        scores.append([np.array([each.score for each in predict(graph, part)]) for part in (list(images), defects)])
    old, new = (np.concatenate(parts) for parts in scores)
    with np.errstate(invalid="ignore"):
        agreement = float(np.corrcoef(old, new)[0, 1])
    fast, slow = _milliseconds(after, before, images[:1])
    return Trial(
        images=len(images),
        auroc=metrics.delong(*scores[1])[0],
        auroc_before=metrics.delong(*scores[0])[0],
        agreement=agreement,
        difference=float(np.abs(old - new)[: len(images)].max()),
        milliseconds=fast,
        milliseconds_before=slow,
    )


def _calibration(images: Images, seed: int) -> Iterator[NDArray[np.uint8]]:
    for damaged, _ in validation_batches(images, BATCH, seed, most=CALIBRATED_ON):
        yield np.rint(damaged * 255).astype(np.uint8)


def _convolutions(model: object) -> list[str]:
    """Return the names of the networks' convolutions.

    Not those of one input channel: the operators of the comparison, and the first layer, whose input is faint.
    """
    graph = model.graph  # type: ignore[attr-defined]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in shapes]
    return [node.name for node in convolutions if shapes[node.input[1]][1] > 1]


def _milliseconds(first: ScoringGraph, other: ScoringGraph, image: NDArray[np.uint8]) -> tuple[float, float]:
    """Return how long each takes for one image: in turns, the best of several, whatever else the machine does."""
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for place, graph in enumerate((first, other)):
            start = time.perf_counter()
            predict(graph, image)
            best[place] = min(best[place], 1000 * (time.perf_counter() - start))
    return best[0], best[1]
