"""Small real model packages for tests.

A complete ONNX graph that looks for bright or dark spots, and one that tells colours, made in milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipelines.images.descriptors import describe
from pipelines.images.preprocess import PreparedImage, prepare
from pipelines.registry.onnx_session import open_session
from pipelines.registry.package import GRAPH, WEIGHTS
from pipelines.registry.reference import write_reference
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.package import write_card
from pipelines.tasks.anomaly.predict import predict, prepare_image
from pipelines.tasks.classification import package as classification_package
from pipelines.tasks.classification import predict as classification


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


COLOURS = ("blue", "green", "red")  # classes in alphabetical order
_CHANNEL = {"red": 0, "green": 1, "blue": 2}


def make_classifier(
    folder: Path,
    *,
    project: str = "mushrooms",
    size: int = 64,
    classes: tuple[str, ...] = COLOURS,
    n_reference: int = 24,
    seed: int = 0,
    **card: object,
) -> Path:
    """Write a complete package of a classifier into `folder` and return it.

    Its first three classes are those of `coloured_image`, whatever their names; further ones are never probable. An
    even mixture of two colours leaves it unsure. `card` overrides fields of model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_colour_graph(size, len(classes)), folder / GRAPH)
    (folder / WEIGHTS).write_bytes(b"weights of a test package")
    fields: dict[str, object] = {
        "project": project,
        "backbone": "none",
        "backbone_sha256": "0" * 64,
        "layers": 1,
        "fine_tuned": False,
        "input_size": size,
        "resize": "crop",
        "classes": classes,
        "temperature": 2.0,
        "coverage": 0.9,
        "set_threshold": 0.2,
        "validation_images": n_reference,
        "version_id": "v-test",
        "training_id": "t-test",
        "git_revision": "unknown",
        "onnx_tolerance": 1e-3,
    }
    generator = np.random.default_rng(seed)
    places = [number % 3 for number in range(n_reference)]
    images = [coloured_image(COLOURS[place], generator, size) for place in places]
    tiles = [prepare(image, size, "crop") for image in images]
    session = open_session(folder / GRAPH, 1)
    logits, embeddings = session.run(list(classification_package.OUTPUTS), {"image": np.concatenate(tiles)})
    probabilities = classification.softmax(logits / 2.0)
    write_reference(
        folder,
        score=probabilities.max(axis=1),
        embedding=embeddings,
        sha256=[f"{index:064x}" for index in range(n_reference)],
        descriptors=np.array([[described["brightness"], described["contrast"]] for described in map(describe, images)]),
        descriptor_names=["brightness", "contrast"],
        examples=[PreparedImage(tile, size, size) for tile in tiles[:2]],
        more={classification_package.LOGITS: logits, classification_package.LABEL: np.array(places)},
    )
    classification_package.write_card(folder, **{**fields, **card})
    return folder


def coloured_image(colour: str, generator: np.random.Generator, size: int = 64) -> np.ndarray:
    """Return uint8 [size, size, 3]: grey with a little noise and more of one colour, or of two joined by `+`."""
    image = generator.normal(90, 6, (size, size, 3))
    for name in colour.split("+"):
        image[..., _CHANNEL[name]] += 60
    return np.clip(image, 0, 255).astype(np.uint8)


def _colour_graph(size: int, classes: int) -> onnx.ModelProto:
    """Return image -> logits [N, classes], embedding [N, 3] (mean colour in the order of `COLOURS`, 0 to 1)."""
    weights = np.zeros((3, classes), np.float32)
    weights[:, :3] = 40 * np.eye(3, dtype=np.float32)
    constants = [
        numpy_helper.from_array(np.float32(255), "white"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "pixels"),
        numpy_helper.from_array(np.array([2, 1, 0], np.int64), "order"),
        numpy_helper.from_array(weights, "weights"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "pixels"], ["colour"], keepdims=0),
        helper.make_node("Gather", ["colour", "order"], ["embedding"], axis=1),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


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
