"""Any encoding of one region gives that region; class values are read as drawn; odd masks are noted."""

import io

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFilter

from pipelines.errors import BadImage
from pipelines.images.mask_placement import coverage_note, placed
from pipelines.images.masks import is_class_map, open_mask, read_classes
from pipelines.images.orientation import turned
from tests.pipelines.image_files import png16, tiff

# Pillow's warnings, which pytest shows although `pipelines.images.decode` silences them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CLASSES = np.zeros((20, 30), np.uint8)
CLASSES[2:8, 3:9], CLASSES[10:18, 12:25] = 1, 7
REGION = CLASSES > 0
UNDO = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that turns an upright picture as stored


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def palette(values: np.ndarray, colours: list[int] | None = None) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    image.putdata(list(map(int, values.ravel())))
    image.putpalette(colours or [number * 37 % 256 for number in range(768)])
    return image


def region_of(data: bytes, region: np.ndarray = REGION) -> np.ndarray:
    return open_mask(data, (region.shape[1], region.shape[0]))


@st.composite
def regions(draw: st.DrawFn) -> np.ndarray:
    """Draw a region that marks something, and not all."""
    shape = draw(st.tuples(st.integers(4, 24), st.integers(4, 24)))
    region = draw(arrays.arrays(bool, shape))
    assume(region.any() and not region.all())
    return region


@st.composite
def encodings(draw: st.DrawFn, region: np.ndarray) -> bytes:
    """Draw a file that marks `region`, in any way that people and programs do."""
    marked = region.astype(np.uint8)
    number = draw(st.integers(1, 255))
    colour = draw(st.tuples(*[st.integers(0, 255)] * 3).filter(any))
    any_colour = draw(st.tuples(*[st.integers(0, 255)] * 3))
    two = np.where(region, draw(arrays.arrays(np.uint8, region.shape, elements=st.sampled_from([number, 200]))), 0)
    deep = draw(st.integers(1, 65535))
    painted = np.where(region[..., None], np.array(colour, np.uint8), np.uint8(0))
    over = np.broadcast_to(np.array(any_colour, np.uint8), (*region.shape, 3))
    clear = np.dstack([over, marked * np.uint8(255)])
    lossless = st.sampled_from(
        [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("WEBP", {"lossless": True})]
    )
    kind, options = draw(lossless)
    no_webp, no_bmp = ("PNG" if kind == "WEBP" else kind), ("PNG" if kind in ("BMP", "WEBP") else kind)
    more = options if kind == "TIFF" else {}
    makers = {
        "bilevel": lambda: encoded(Image.fromarray(region), no_webp, **more),
        "grey": lambda: encoded(Image.fromarray(marked * np.uint8(number)), no_webp, **more),
        "classes": lambda: encoded(Image.fromarray(two.astype(np.uint8)), "TIFF"),
        "grey 16": lambda: png16(region.astype(np.uint16) * np.uint16(deep)),
        "grey 16 tiff": lambda: tiff(region.astype(np.uint16) * np.uint16(deep), order=draw(st.sampled_from("<>"))),
        "grey 32": lambda: tiff(region.astype(np.int32) * np.int32(deep)),
        "float": lambda: tiff(region.astype(np.float32)),
        "palette": lambda: encoded(palette(marked * np.uint8(number), [number * 53 % 251 for number in range(1, 769)])),
        "rgb": lambda: encoded(Image.fromarray(painted.astype(np.uint8)), kind, **options),
        "rgb 16": lambda: png16(painted.astype(np.uint16) * np.uint16(draw(st.sampled_from([1, 257])))),
        "rgba": lambda: encoded(Image.fromarray(clear), no_bmp, **more),
        "rgba webp": lambda: encoded(Image.fromarray(clear), "WEBP", lossless=True),
        "rgba 16": lambda: png16(clear.astype(np.uint16) * 257),
        "la": lambda: encoded(Image.fromarray(np.dstack([marked * np.uint8(any_colour[0]), marked * np.uint8(255)]))),
        "la 16": lambda: png16(np.dstack([marked, marked]).astype(np.uint16) * np.uint16(deep)),
        "opaque": lambda: encoded(Image.fromarray(np.dstack([painted, np.full_like(marked, 255)]).astype(np.uint8))),
        "alpha 0": lambda: encoded(Image.fromarray(np.dstack([painted, np.zeros_like(marked)]).astype(np.uint8))),
        "colour key": lambda: encoded(Image.fromarray(painted.astype(np.uint8)), transparency=(0, 0, 0)),
        "grey key": lambda: encoded(Image.fromarray(marked * np.uint8(number)), transparency=0),
        "palette key": lambda: encoded(palette(marked * np.uint8(number)), transparency=0),
        "deep key": lambda: png16(region.astype(np.uint16) * np.uint16(deep), transparent=[0]),
    }  # fmt: skip
    return makers[draw(st.sampled_from(sorted(makers)))]()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_open_mask_when_a_region_is_encoded_in_any_way_then_gives_that_region(data: st.DataObject):
    region = data.draw(regions())
    np.testing.assert_array_equal(region_of(data.draw(encodings(region)), region), region)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_placed_when_an_image_is_turned_by_exif_then_its_masks_region_is_turned_with_it(data: st.DataObject):
    stored = data.draw(regions())
    orientation = data.draw(st.integers(1, 8))
    upright = turned(stored, orientation)
    mask = placed(data.draw(encodings(stored)), (upright.shape[1], upright.shape[0]), orientation)
    np.testing.assert_array_equal(mask.marked, upright)
    np.testing.assert_array_equal(region_of(mask.data, upright), upright)
    ambiguous = orientation != 1 and stored.shape == upright.shape
    assert any("EXIF" in note for note in mask.notes) == ambiguous


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_open_mask_when_the_mask_itself_is_turned_by_exif_then_comes_upright(kind: str, orientation: int):
    region = np.kron(REGION, np.ones((8, 8), bool))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = turned(region, UNDO[orientation]).astype(np.uint8) * 255
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = encoded(Image.fromarray(stored).convert("RGB"), kind, exif=exif, **options)
    np.testing.assert_array_equal(region_of(data, region), region)
    mask = placed(data, (region.shape[1], region.shape[0]), orientation)
    np.testing.assert_array_equal(mask.marked, region)


def test_placed_when_the_image_is_turned_by_exif_and_the_mask_is_upright_then_stays_as_sent():
    data = encoded(Image.fromarray(CLASSES))
    mask = placed(data, (30, 20), 6)
    assert (mask.data, mask.notes) == (data, [])
    np.testing.assert_array_equal(mask.marked, REGION)


def test_placed_when_turned_then_class_values_are_kept():
    for values in (CLASSES, CLASSES.astype(np.uint16) * 300):
        mask = placed(encoded(Image.fromarray(turned(values, 8))), (30, 20), 6)
        np.testing.assert_array_equal(read_classes(mask.data, (30, 20)), values)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("shape", [(10, 10), (100, 100), (31, 20)])
def test_placed_when_a_mask_fits_neither_size_of_a_turned_image_then_says_which_sizes_fit(shape, orientation: int):
    with pytest.raises(BadImage, match="EXIF") as refusal:
        placed(encoded(Image.fromarray(np.zeros(shape, np.uint8))), (30, 20), orientation)
    assert "30 x 20" in str(refusal.value)
    assert ("20 x 30" in str(refusal.value)) == (orientation in (6, 8))
    assert "\n" not in str(refusal.value)


def drawing(scale: int, kind: str) -> Image.Image:
    image = Image.new("L", (96 * scale, 80 * scale))
    pen = ImageDraw.Draw(image)
    if kind == "blob":
        pen.ellipse([20 * scale, 20 * scale, 50 * scale, 45 * scale], fill=255)
    else:
        pen.polygon([(10 * scale, 10 * scale), (80 * scale, 33 * scale), (25 * scale, 71 * scale)], fill=255)
    return image


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("kind", ["blob", "corner"])
def test_open_mask_when_edges_are_soft_then_they_neither_grow_nor_shrink_it_much(kind: str):
    hard = np.asarray(drawing(4, kind).resize((96, 80), Image.Resampling.BOX)) > 127
    picture = Image.fromarray(hard.astype(np.uint8) * 255)
    smooth = [drawing(4, kind).resize((96, 80), how) for how in (Image.Resampling.BOX, Image.Resampling.LANCZOS)]
    smooth += [drawing(2, kind).resize((96, 80), Image.Resampling.BOX)]
    deep = [np.asarray(image).astype(np.uint16) * 257 for image in smooth]
    files = [encoded(image) for image in smooth] + [png16(each) for each in deep]
    files += [encoded(Image.merge("RGB", (image, Image.new("L", image.size), image))) for image in smooth]
    files += [encoded(Image.merge("RGBA", (image, image, image, image))) for image in smooth]
    files += [encoded(image.convert("P")) for image in smooth]
    for data in files:
        assert overlap(region_of(data, hard), hard) > 0.93
    blurred = picture.filter(ImageFilter.GaussianBlur(1.5))
    assert overlap(region_of(encoded(blurred), hard), hard) > 0.8


@pytest.mark.parametrize("quality", [50, 75, 90, 95, 100])
@pytest.mark.parametrize("kind", ["blob", "corner"])
def test_open_mask_when_compressed_with_loss_then_the_region_is_kept_also_as_png_made_of_it(kind: str, quality: int):
    hard = np.asarray(drawing(1, kind)) > 127
    for mode in ("L", "RGB"):
        picture = Image.fromarray(hard.astype(np.uint8) * 255).convert(mode)
        for data in (encoded(picture, "JPEG", quality=quality), encoded(picture, "WEBP", quality=quality)):
            again = encoded(Image.open(io.BytesIO(data)))
            assert overlap(region_of(data, hard), hard) > 0.98
            assert overlap(region_of(again, hard), hard) > 0.98
        assert overlap(region_of(encoded(picture, "TIFF", compression="jpeg"), hard), hard) > 0.98


def test_open_mask_when_background_is_not_quite_black_then_marks_the_rest():
    soft = REGION.astype(np.uint8) * 250 + 3
    np.testing.assert_array_equal(region_of(encoded(Image.fromarray(soft))), REGION)


def test_open_mask_when_many_instances_are_numbered_then_all_are_marked():
    numbers = np.zeros((96, 96), np.uint8)
    for number in range(144):
        row, column = divmod(number, 12)
        numbers[8 * row : 8 * row + 2 + number % 6, 8 * column : 8 * column + 7] = number + 100
    assert is_class_map(numbers)
    np.testing.assert_array_equal(region_of(encoded(Image.fromarray(numbers)), numbers), numbers > 0)
    np.testing.assert_array_equal(read_classes(encoded(Image.fromarray(numbers)), (96, 96)), numbers)


def test_open_mask_when_black_and_white_has_a_palette_in_any_order_then_white_is_marked():
    white_first = palette(1 - REGION.astype(np.uint8), [255, 255, 255, 0, 0, 0])
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(region_of(encoded(white_first, kind)), REGION)
    brown_first = palette(REGION.astype(np.uint8), [165, 42, 42, 255, 255, 255])
    np.testing.assert_array_equal(region_of(encoded(brown_first)), REGION)


def test_open_mask_when_a_canvas_is_transparent_everywhere_then_marks_nothing():
    for colour in ((255, 255, 255, 0), (0, 0, 0, 0)):
        assert not region_of(encoded(Image.new("RGBA", (30, 20), colour))).any()


def test_open_mask_when_a_sample_cannot_be_one_of_a_mask_then_refuses():
    for values in (CLASSES.astype(np.int32) - 1, CLASSES.astype(np.float32) - 1):
        with pytest.raises(BadImage, match="below 0"):
            region_of(tiff(values))
    with pytest.raises(BadImage, match="finite"):
        region_of(tiff(np.full((20, 30), np.nan, np.float32)))


@settings(max_examples=200, deadline=None)
@given(
    st.data(),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=6),
    st.integers(1, 8),
)
def test_placed_when_any_file_is_cut_or_altered_then_gives_a_mask_or_bad_image(data, cut, flips, orientation):
    region = data.draw(regions())
    file = bytearray(data.draw(encodings(region)))
    for place, change in flips:
        file[int(place * len(file))] ^= change
    size = (region.shape[1], region.shape[0])
    try:
        mask = placed(bytes(file[: int(len(file) * cut)] if cut < 0.7 else file), size, orientation)
    except BadImage:
        return
    assert mask.marked.shape == region.shape


@pytest.mark.parametrize("size", [(40, 60), (30, 20), (600, 400)])
def test_open_mask_when_not_the_images_size_then_refuses(size: tuple[int, int]):
    data = encoded(Image.fromarray(np.zeros((size[1], size[0]), np.uint8)))
    with pytest.raises(BadImage, match="its image"):
        open_mask(data, (60, 40))


def test_open_mask_when_a_tiff_has_a_reduced_copy_then_reads_the_mask():
    data = tiff(CLASSES[::2, ::2], CLASSES, tags=[{254: 1}, {}])
    np.testing.assert_array_equal(region_of(data), REGION)


def test_coverage_note_when_nothing_or_nearly_everything_is_marked_then_says_so():
    assert coverage_note(REGION) is None
    assert "nothing" in str(coverage_note(np.zeros((20, 30), bool)))
    assert "nearly everything" in str(coverage_note(~np.pad(np.ones((4, 4), bool), 8)))
    assert placed(encoded(Image.fromarray(CLASSES * 0)), (30, 20)).notes


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(CLASSES)),
        encoded(Image.fromarray(CLASSES), "TIFF"),
        encoded(Image.fromarray(CLASSES), "BMP"),
        encoded(palette(CLASSES)),
        encoded(palette(CLASSES), bits=4),
        encoded(Image.fromarray(CLASSES.astype(np.uint16))),
        tiff(CLASSES.astype(np.uint16), order=">", compressed=True),
        tiff(CLASSES.astype(np.int32)),
        encoded(Image.fromarray(np.dstack([CLASSES, 255 * REGION.astype(np.uint8)]))),
    ],
    ids=["grey", "tiff", "bmp", "palette", "4 bits", "16 bits", "big-endian", "32 bits", "alpha"],
)
def test_read_classes_gives_the_values_that_were_drawn(data: bytes):
    classes = read_classes(data, (30, 20))
    assert classes.dtype == np.uint16
    np.testing.assert_array_equal(classes, CLASSES)


def test_read_classes_of_a_bilevel_and_of_a_coloured_mask_are_one_class():
    coloured = np.zeros((20, 30, 3), np.uint8)
    coloured[REGION] = (255, 0, 0)
    for image in (Image.fromarray(REGION), Image.fromarray(coloured)):
        np.testing.assert_array_equal(read_classes(encoded(image), (30, 20)), REGION)


def test_read_classes_where_compressed_with_loss_is_one_class():
    region = np.kron(REGION, np.ones((8, 8), bool))
    data = encoded(Image.fromarray(region.astype(np.uint8) * 255), "JPEG", quality=90)
    np.testing.assert_array_equal(read_classes(data, (240, 160)), region)


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
