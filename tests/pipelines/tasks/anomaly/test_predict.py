"""The score of an image does not depend on the other images, the thread or the batch size."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, load, numpy_helper, save

from pipelines.errors import BadPackage
from pipelines.images.decode import open_image
from pipelines.images.preprocess import restore_map
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import predict, prepare_image
from tests.pipelines.image_files import png16, tiff
from tests.pipelines.packages import defective_image, good_image, make_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> AnomalyPackage:
    return AnomalyPackage.open(make_package(tmp_path_factory.mktemp("package"), size=64), threads=1)


@pytest.fixture
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    sizes = [64, 90, 64, 33, 128, 64, 70]
    return [(good_image if index % 2 else defective_image)(generator, size) for index, size in enumerate(sizes)]


def test_score_when_a_part_is_missing_is_far_above_that_of_good_images(package):
    generator = np.random.default_rng(0)
    good = predict(package, [good_image(generator, 64) for _ in range(8)])
    defective = predict(package, [defective_image(generator, 64) for _ in range(8)])
    assert (
        max(prediction.score for prediction in good)
        < package.card.threshold
        < min(prediction.score for prediction in defective)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_score_whatever_the_batch_size_and_company_is_the_same(package, images, batch_size):
    alone = [predict(package, [image])[0] for image in images]
    for order in (range(len(images)), [3, 1, 2, 0, 6, 5, 4]):
        together = predict(package, [images[index] for index in order], batch_size=batch_size)
        for index, prediction in zip(order, together, strict=True):
            assert prediction.score == pytest.approx(alone[index].score, abs=1e-6)
            np.testing.assert_allclose(prediction.error_map, alone[index].error_map, atol=1e-6)
            np.testing.assert_allclose(prediction.embedding, alone[index].embedding, atol=1e-6)


def test_score_from_many_threads_on_a_fresh_graph_gives_the_same(package, images):
    expected = [prediction.score for prediction in predict(package, images)]
    graph = ScoringGraph(package.folder / "model.onnx", 64, "fit", threads=1)
    with ThreadPoolExecutor(8) as pool:
        for predictions in pool.map(lambda _: predict(graph, images), range(24)):
            assert [prediction.score for prediction in predictions] == pytest.approx(expected, abs=1e-6)


def test_score_when_images_are_prepared_already_is_that_of_the_originals(package, images):
    prepared = [prepare_image(package, image) for image in images]
    assert [prediction.score for prediction in predict(package, prepared)] == [
        prediction.score for prediction in predict(package, images)
    ]


def test_score_of_an_image_in_tiles_is_that_of_its_worst_tile_and_its_map_shows_where(tmp_path: Path):
    tiled = AnomalyPackage.open(make_package(tmp_path / "tiled", size=64, resize="tile"), threads=1)
    generator = np.random.default_rng(3)
    long = np.concatenate([good_image(generator, 64) for _ in range(4)], axis=1)
    spoilt = long.copy()
    spoilt[20:40, 200:220] = 255
    good, bad = predict(tiled, [long, spoilt])
    tiles = prepare_image(tiled, spoilt).tiles
    assert len(tiles) > 3
    alone = predict(tiled, list(tiles))
    assert bad.score == pytest.approx(max(prediction.score for prediction in alone), abs=1e-6)
    assert good.score < tiled.card.threshold < bad.score
    np.testing.assert_allclose(
        bad.embedding, np.mean([prediction.embedding for prediction in alone], axis=0), atol=1e-6
    )
    heat = restore_map(bad.error_map, 64, 256, "tile")
    _, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 190 <= column <= 230
    # Independent of the other images and of the batches of its tiles.
    for batch_size in (1, 2, 5, 16):
        again = predict(tiled, [long, spoilt, good_image(generator, 64)], batch_size=batch_size)
        assert again[1].score == pytest.approx(bad.score, abs=1e-6)
        np.testing.assert_allclose(again[1].error_map, bad.error_map, atol=1e-6)


# Maps have half the side of tiles: 64 of them, the most there are, each 28 pixels from the last, are 1,796 pixels long.
@pytest.mark.parametrize(
    ("resize", "height", "width", "shape"),
    [
        ("auto", 1, 1, (16, 16)),
        ("auto", 1, 4000, (16, 898)),
        ("auto", 4000, 1, (898, 16)),
        ("auto", 5000, 4000, (38, 30)),
        ("tile", 1, 1, (16, 16)),
        ("tile", 1, 4000, (16, 898)),
        ("tile", 4000, 1, (898, 16)),
        ("tile", 5000, 4000, (16, 16)),
        *(("fit", *size, (16, 16)) for size in ((1, 1), (1, 4000), (4000, 1), (5000, 4000))),
    ],
)
def test_score_of_images_of_any_shape_is_a_number_in_range_with_a_map_that_lies_on_the_image(
    network_graph: Path, resize, height, width, shape
):
    graph = ScoringGraph(network_graph, 32, resize, threads=1)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (prediction,) = predict(graph, [image])
    assert 0 <= prediction.score <= 1
    assert prediction.error_map.shape == shape
    assert prediction.error_map.min() >= 0
    assert np.isfinite(prediction.embedding).all()
    heat = restore_map(prediction.error_map, height, width, resize)
    assert heat.shape == (height, width)
    assert np.isfinite(heat).all()


def test_score_of_no_images_is_no_score(package):
    assert predict(package, []) == []


def test_score_when_given_something_else_says_what_it_expects(package):
    with pytest.raises(ValueError, match="expected uint8"):
        predict(package, [np.zeros((4, 4), np.uint8)])


def test_score_when_the_graph_gives_no_number_refuses(tmp_path: Path):
    folder = make_package(tmp_path / "package", size=64)
    model = load(folder / "model.onnx")
    for node in model.graph.node:
        if node.output[0] == "score":
            node.output[0] = "finite"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nan"))
    model.graph.node.append(helper.make_node("Mul", ["finite", "nan"], ["score"]))
    save(model, folder / "model.onnx")
    with pytest.raises(BadPackage, match="not a finite number"):
        predict(ScoringGraph(folder / "model.onnx", 64, "fit", threads=1), [np.zeros((64, 64, 3), np.uint8)])


DEEP_FILES = {
    "png": png16,
    "tiff": tiff,
    "big-endian": lambda samples: tiff(samples, order=">"),
    "compressed": lambda samples: tiff(samples, compressed=True),
}


@settings(max_examples=100, deadline=None)
@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    file=st.sampled_from(sorted(DEEP_FILES)),
    channels=st.sampled_from(["grey", "grey and alpha", "colour", "colour and alpha"]),
    darkness=st.floats(0.05, 1),
    lamp=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_score_when_the_same_picture_has_another_bit_depth_then_the_same_verdict(
    package: AnomalyPackage, bits: int, file: str, channels: str, darkness: float, lamp: bool, seed: int
):
    generator = np.random.default_rng(seed)
    picture = defective_image(generator, 64) if seed % 2 else good_image(generator, 64)
    seen = picture.astype(float) * darkness / 255  # as the light falls on the camera, 0 to 1
    if channels.startswith("grey"):
        seen = np.repeat(seen[..., :1], 3, axis=2)
    if lamp:
        seen[3, 3] = 1
    samples = np.rint(seen * (2**bits - 1)).astype(np.uint16)
    if channels.startswith("grey"):
        samples = samples[..., 0]
    if channels.endswith("alpha"):
        samples = np.dstack([samples, np.full(samples.shape[:2], 65535, np.uint16)])
    eight = np.rint(seen * 255).astype(np.uint8)
    deep = open_image(DEEP_FILES[file](samples), max_pixels=10**6, min_side=1, bits=bits)
    first, second = (prediction.score for prediction in predict(package, [eight, deep.pixels]))
    assert abs(first - second) <= 0.01 * package.card.threshold
