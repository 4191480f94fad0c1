"""Class values of masks are read as drawn, in every file format."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.masks import open_mask, read_classes

CLASSES = np.zeros((20, 30), np.uint8)
CLASSES[2:8, 3:9], CLASSES[10:18, 12:25] = 1, 7


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    image.putdata(list(map(int, values.ravel())))
    image.putpalette([number * 37 % 256 for number in range(768)])
    return image


def test_open_mask_when_black_and_white_then_marks_the_white():
    drawn = np.zeros((40, 60), dtype=bool)
    drawn[5:15, 10:30] = True
    for mask in (drawn, drawn.astype(np.uint8) * 255, drawn.astype(np.uint8)):
        np.testing.assert_array_equal(open_mask(encoded(Image.fromarray(mask)), (60, 40)), drawn)
    soft = drawn.astype(np.uint8) * 250 + 3
    np.testing.assert_array_equal(open_mask(encoded(Image.fromarray(soft)), (60, 40)), drawn)
    assert not open_mask(encoded(Image.fromarray(np.zeros((40, 60), np.uint8))), (60, 40)).any()


@pytest.mark.parametrize("size", [(40, 60), (30, 20), (600, 400)])
def test_open_mask_when_not_the_images_size_then_refuses(size: tuple[int, int]):
    data = encoded(Image.fromarray(np.zeros((size[1], size[0]), np.uint8)))
    with pytest.raises(BadImage, match="its image"):
        open_mask(data, (60, 40))


@pytest.mark.parametrize(
    "image",
    [Image.fromarray(CLASSES), palette(CLASSES), Image.fromarray(CLASSES.astype(np.uint16))],
    ids=["grey", "palette", "16 bits"],
)
def test_read_classes_gives_the_values_that_were_drawn(image):
    classes = read_classes(encoded(image), (30, 20))
    assert classes.dtype == np.uint16
    np.testing.assert_array_equal(classes, CLASSES)


def test_read_classes_of_a_bilevel_and_of_a_coloured_mask_are_one_class():
    bilevel = read_classes(encoded(Image.fromarray(CLASSES > 0)), (30, 20))
    coloured = np.zeros((20, 30, 3), np.uint8)
    coloured[CLASSES > 0] = (255, 0, 0)
    np.testing.assert_array_equal(bilevel > 0, CLASSES > 0)
    np.testing.assert_array_equal(read_classes(encoded(Image.fromarray(coloured)), (30, 20)), (CLASSES > 0))


def test_read_classes_of_another_size_is_refused():
    with pytest.raises(BadImage, match="draw it at the image's size"):
        read_classes(encoded(Image.fromarray(CLASSES)), (20, 30))


def test_class_values_survive_ingest(projects, database):
    from pipelines.catalogue import connect
    from pipelines.catalogue.schema import annotations
    from tests.pipelines.ingest.conftest import Line, image_file

    projects.write("line")
    line = Line(projects.bucket, "line")
    image = image_file(1)
    width, height = Image.open(io.BytesIO(image)).size
    values = np.zeros((height, width), np.uint8)
    values[:5, :5], values[8:12, 8:12] = 1, 3
    line.send("anomaly/scratch/7.png", image)
    line.send("anomaly/scratch/7_mask.png", encoded(Image.fromarray(values)))
    line.ingest()
    with connect() as connection:
        key = connection.execute(annotations.select()).mappings().one()["mask_key"]
    np.testing.assert_array_equal(read_classes(line.storage.get(key), (width, height)), values)
