"""Small real model packages for tests.

A complete ONNX graph that looks for bright or dark spots, made in milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipelines.registry.package import GRAPH, WEIGHTS
from pipelines.registry.reference import write_reference
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.package import write_card
from pipelines.tasks.anomaly.predict import predict, prepare_image


def make_package(
    folder: Path,
    *,
    threshold: float = 0.1,
    project: str = "ev_batteries",
    size: int = 128,
    resize: str = "fit",
    n_reference: int = 24,
    descriptor_names: tuple[str, ...] = ("brightness", "contrast"),
    seed: int = 0,
    **card: object,
) -> Path:
    """Write a complete package into `folder` and return it.

    Its score is the largest difference (0 to 1) between an 8 x 8 mean and the mean of the image: about 0.01 for
    `good_image`, above 0.3 for `defective_image`, so that the threshold of 0.1 tells them apart. `card`
    overrides fields of model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_spot_graph(size), folder / GRAPH)
    (folder / WEIGHTS).write_bytes(b"weights of a test package")
    generator = np.random.default_rng(seed)
    images = [good_image(generator, size) for _ in range(n_reference)]
    graph = ScoringGraph(folder / GRAPH, size, resize, threads=1)
    scored = predict(graph, images)
    scores = np.array([one.score for one in scored], np.float32)
    descriptors = np.array([[image.mean(), image.std()] for image in images])
    write_reference(
        folder,
        score=scores,
        embedding=np.stack([one.embedding for one in scored]),
        sha256=[f"{index:064x}" for index in range(n_reference)],
        descriptors=np.resize(descriptors, (n_reference, len(descriptor_names))),
        descriptor_names=list(descriptor_names),
        examples=[prepare_image(graph, image) for image in images[:2]],
    )
    fields: dict[str, object] = {
        "project": project,
        "preset": "small",
        "input_size": size,
        "resize": resize,
        "threshold": threshold,
        "threshold_policy": "conformal",
        "score_range": {
            "p50": float(np.quantile(scores, 0.5)),
            "p99": float(np.quantile(scores, 0.99)),
            "max": float(scores.max()),
        },
        "version_id": "v-test",
        "training_id": "t-test",
        "git_revision": "unknown",
        "onnx_tolerance": 1e-3,
    }
    write_card(folder, **{**fields, **card})
    return folder


def good_image(generator: np.random.Generator, size: int = 128) -> np.ndarray:
    """Return uint8 [size, size, 3]: even grey with a little noise."""
    return np.clip(generator.normal(128, 6, (size, size, 3)), 0, 255).astype(np.uint8)


def defective_image(generator: np.random.Generator, size: int = 128) -> np.ndarray:
    """Return `good_image` with a black patch of a quarter of its side."""
    image = good_image(generator, size)
    top, left = generator.integers(0, size - size // 4, 2)
    image[top : top + size // 4, left : left + size // 4] = 0
    return image


def _spot_graph(size: int) -> onnx.ModelProto:
    """Return image -> score, error_map [N, size/4, size/4], embedding [N, 48] (means of 4 x 4 fields), from
    standard ONNX operators.
    """
    cell, field = size // 4, 4
    constants = [
        numpy_helper.from_array(np.float32(255), "white"),
        numpy_helper.from_array(np.array([1], np.int64), "channel"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "pixels"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "plane"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "map_axes"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["planes", "channel"], ["grey"], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["local"], kernel_shape=[8, 8], strides=[4, 4], pads=[2, 2, 2, 2]),
        helper.make_node("ReduceMean", ["grey", "pixels"], ["level"], keepdims=1),
        helper.make_node("Sub", ["local", "level"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Squeeze", ["distance", "channel"], ["error_map"]),
        helper.make_node("ReduceMax", ["error_map", "map_axes"], ["score"], keepdims=0),
        helper.make_node("AveragePool", ["planes"], ["fields"], kernel_shape=[cell, cell], strides=[cell, cell]),
        helper.make_node("Flatten", ["fields"], ["embedding"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("error_map", TensorProto.FLOAT, ["n", size // 4, size // 4]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3 * field * field]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model
