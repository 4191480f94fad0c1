"""Samples of more than eight bits are read in full and scaled by one scale; transparency and TIFF pages."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.decode import OpenedImage, open_image
from tests.pipelines.hostile import encode, textured
from tests.pipelines.image_files import png16, tiff

# Pillow's warnings, which pytest shows although `pipelines.images.decode` silences them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def opened(data: bytes, bits: int | None = None) -> OpenedImage:
    return open_image(data, max_pixels=1_000_000, min_side=1, bits=bits)


def picture(channels: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.asarray(textured(40, 32, seed)).copy()
    pixels[0, 0], pixels[0, 1] = 0, 255
    return pixels if channels == 3 else pixels[..., 0]


def deepened(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return eight-bit pixels as samples of `bits` in 16."""
    return np.rint(pixels.astype(float) * (2**bits - 1) / 255).astype(np.uint16)


def with_alpha(samples: np.ndarray, opaque: int) -> np.ndarray:
    colours = samples[..., None] if samples.ndim == 2 else samples
    return np.concatenate([colours, np.full_like(colours[..., :1], opaque)], axis=2)


def differ(image: OpenedImage, pixels: np.ndarray) -> int:
    expected = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    return int(np.abs(image.pixels.astype(int) - expected).max())


ENCODERS = {
    "png": png16,
    "tiff": tiff,
    "tiff big-endian": lambda samples: tiff(samples, order=">"),
    "tiff compressed": lambda samples: tiff(samples, compressed=True),
    "tiff compressed big-endian": lambda samples: tiff(samples, compressed=True, order=">"),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("bits", [12, 16])
def test_open_image_when_twelve_or_sixteen_bits_in_any_file_then_as_in_eight(
    encoder: str, channels: int, fixed: bool, bits: int
):
    pixels = picture(3 if channels > 2 else 1)
    samples = deepened(pixels, bits)
    for opaque in (65535, 2**bits - 1):  # either is written for opaque
        stored = with_alpha(samples, opaque) if channels in (2, 4) else samples
        image = opened(ENCODERS[encoder](stored), bits if fixed else None)
        assert differ(image, pixels) == 0
        assert (image.depth.bits, image.depth.high) == (16, 2**bits - 1)


@settings(max_examples=200, deadline=None)
@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    encoder=st.sampled_from(sorted(ENCODERS)),
    colour=st.booleans(),
    darkness=st.integers(1, 40),
    lamp=st.booleans(),
    seed=st.integers(0, 99),
)
def test_open_image_when_bits_are_fixed_then_every_depth_shows_the_same_and_a_lamp_changes_nothing_else(
    bits: int, encoder: str, colour: bool, darkness: int, lamp: bool, seed: int
):
    pixels = picture(3 if colour else 1, seed) // darkness
    samples = deepened(pixels, bits)
    if lamp:
        samples[5, 5] = 2**bits - 1
        pixels[5, 5] = 255
    assert differ(opened(ENCODERS[encoder](samples), bits), pixels) == 0


def test_open_image_when_a_sample_exceeds_the_bits_then_refuses_and_names_the_setting():
    samples = deepened(picture(), 12)
    samples[3, 3, 1] = 4096
    for data in (png16(samples), tiff(samples), tiff(samples.astype(np.float32)[..., 0] * 4)):
        with pytest.raises(BadImage, match=r"image\.bits") as refusal:
            opened(data, 12)
        assert "\n" not in str(refusal.value)


def test_open_image_when_the_file_declares_its_depth_then_the_projects_bits_do_not_count():
    pixels = picture()
    for bits in (8, 10, 16):
        assert differ(opened(encode(Image.fromarray(pixels)), bits), pixels) == 0
    packed = b"\xff\xf8\x00" + bytes(64 * 64 * 3 // 2 - 3)  # 4,095 and 2,048 in twelve bits each
    entries = [(256, 64), (257, 64), (258, 12), (259, 1), (262, 1), (273, 134), (277, 1), (278, 64), (279, len(packed))]
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = (b"II*\x00" + struct.pack("<I", 8) + directory).ljust(134, b"\x00") + packed
    for bits in (None, 12, 16):
        assert opened(data, bits).pixels[0, :3, 0].tolist() == [255, 128, 0]


def test_open_image_when_zero_is_white_then_as_in_eight_bits():
    pixels = picture(1)
    for bits in (12, 16):
        assert differ(opened(tiff(deepened(255 - pixels, bits), photometric=0), bits), pixels) == 0


def test_open_image_when_big_endian_and_compressed_then_signed_and_float_samples_are_right():
    pixels = picture(1)
    for kind in (np.int16, np.int32, np.float32):
        samples = deepened(pixels, 12).astype(kind)
        for order in "<>":
            assert differ(opened(tiff(samples, order=order, compressed=True), 12), pixels) == 0


def test_open_image_when_samples_are_floats_then_the_scale_is_the_projects():
    pixels = picture(1)
    unit = tiff((pixels / 255).astype(np.float32))
    assert differ(opened(unit, 1), pixels) == 0
    for data, bits in ((unit, 12), (png16(deepened(pixels, 12)), 1)):
        with pytest.raises(BadImage, match=r"image\.bits"):
            opened(data, bits)


def test_open_image_when_planes_are_separate_then_reads_or_refuses_them_but_never_gives_noise():
    pixels = picture()
    assert differ(opened(tiff(deepened(pixels, 12), planar=True), 12), pixels) == 0
    with pytest.raises(BadImage, match="planes"):
        opened(tiff(deepened(pixels, 12), planar=True, compressed=True), 12)


def test_open_image_when_deep_and_half_transparent_then_lies_on_white():
    samples = with_alpha(deepened(picture(), 16), 65535)
    samples[:, :20, 3] = 0
    samples[:, 20:30, 3] = 32768
    expected = picture().astype(int)
    expected[:, :20] = 255
    expected[:, 20:30] = np.rint((expected[:, 20:30] + 255) / 2)
    for data in (png16(samples), tiff(samples)):
        assert differ(opened(data), expected) <= 1


def test_open_image_when_transparent_pixels_are_bright_then_they_do_not_set_the_scale():
    samples = with_alpha(deepened(picture(), 12), 65535)
    samples[:4] = (65535, 65535, 65535, 0)
    image = opened(png16(samples))
    assert image.depth.high <= 4095
    assert np.array_equal(image.pixels[4:], picture()[4:])


def test_open_image_when_a_deep_colour_is_transparent_then_only_that_colour():
    samples = np.full((8, 8, 3), 4660, np.uint16)
    samples[:4] = 4661  # the same high byte
    pixels = opened(png16(samples, transparent=(4660, 4660, 4660)), 16).pixels
    assert (pixels[4:] == 255).all()
    assert (pixels[:4] == 18).all()


def bmp_v4(pixels: np.ndarray, alpha: int) -> bytes:
    """Return RGB pixels as a BMP of 32 bits whose header (version 4) declares an alpha channel."""
    height, width = pixels.shape[:2]
    stored = np.dstack([pixels[..., ::-1], np.full((height, width), alpha, np.uint8)])[::-1].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(stored), 2835, 2835, 0, 0) + masks
    info += b"sRGB" + bytes(108 - len(info) - 4)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(stored), 0, 0, 122) + info + stored


def alpha_zero_files() -> dict[str, bytes]:
    pixels = picture()
    clear = Image.fromarray(np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)]))
    grey = Image.fromarray(np.dstack([pixels[..., 0], np.zeros(pixels.shape[:2], np.uint8)]))
    eight = with_alpha(pixels, 0)
    return {
        "png": encode(clear),
        "grey png": encode(grey),
        "webp": encode(clear, "WEBP", lossless=True, exact=True),
        "tiff": encode(clear, "TIFF"),
        "bmp": bmp_v4(pixels, 0),
        "associated alpha": tiff(eight, extra=1),
        "grey, associated": tiff(with_alpha(pixels[..., 0], 0), extra=1),
        "png of 16 bits": png16(with_alpha(deepened(pixels, 16), 0)),
        "grey png of 16 bits": png16(with_alpha(deepened(pixels[..., 0], 16), 0)),
        "tiff of 16 bits": tiff(with_alpha(deepened(pixels, 16), 0)),
        "associated alpha of 16 bits": tiff(with_alpha(deepened(pixels, 16), 0), extra=1),
    }


@pytest.mark.parametrize("name", alpha_zero_files())
def test_open_image_when_alpha_is_zero_everywhere_then_the_colours_count(name: str):
    pixels = picture()[..., 0] if "grey" in name else picture()
    assert differ(opened(alpha_zero_files()[name]), pixels) == 0


def test_open_image_when_a_bmp_has_alpha_that_says_something_then_it_counts():
    assert differ(opened(bmp_v4(picture(), 255)), picture()) == 0


def test_open_image_when_alpha_is_associated_then_colours_are_not_multiplied_twice():
    half = picture() // 2
    for data in (tiff(with_alpha(half, 128), extra=1), tiff(with_alpha(half.astype(np.uint16) * 257, 32896), extra=1)):
        assert differ(opened(data), np.minimum(half.astype(int), 128) + 127) <= 2


REDUCED, OLD_REDUCED, MASK = {254: 1}, {255: 2}, {254: 4, 262: 4}


@pytest.mark.parametrize(
    "copy", [REDUCED, OLD_REDUCED, {254: 5}, {254: 4}], ids=["reduced", "old", "reduced mask", "mask"]
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_open_image_when_a_tiff_has_a_reduced_copy_or_a_mask_then_takes_the_picture(
    copy: dict[int, int], first: bool, order: str
):
    page, small = picture(), picture()[::4, ::4]
    pages, tags = ([small, page], [copy, {}]) if first else ([page, small, small], [{254: 0}, copy, copy])
    image = opened(tiff(*pages, tags=tags, order=order))
    assert (image.width, image.height) == (40, 32)
    assert differ(image, page) == 0
    assert differ(opened(tiff(*(deepened(each, 12) for each in pages), tags=tags, order=order), 12), page) == 0


def test_open_image_when_a_tiffs_copy_cannot_be_decoded_then_takes_the_picture():
    odd = np.zeros((8, 8, 5), np.uint16)
    assert differ(opened(tiff(picture(), odd, tags=[{}, REDUCED])), picture()) == 0


@pytest.mark.parametrize(
    "tags",
    [[{}, {}], [{254: 0}, {254: 2}], [REDUCED, {}, {}], [{}, REDUCED, {}], [REDUCED, REDUCED]],
    ids=["plain", "numbered", "after a copy", "around a copy", "copies of nothing"],
)
def test_open_image_when_a_tiff_has_two_pages_then_refuses(tags: list[dict[int, int]]):
    with pytest.raises(BadImage, match="pages"):
        opened(tiff(*[picture()] * len(tags), tags=tags))


def test_open_image_when_the_picture_behind_a_thumbnail_is_too_large_then_refuses_before_decoding():
    data = tiff(picture()[::4, ::4], np.zeros((2000, 2000), np.uint8), tags=[REDUCED, {}])
    with pytest.raises(BadImage, match="2000 x 2000"):
        opened(data)


def test_open_image_when_a_tiffs_only_page_is_marked_as_reduced_then_takes_it():
    assert differ(opened(tiff(picture(), tags=[REDUCED])), picture()) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_open_image_when_deep_and_turned_by_exif_then_upright(orientation: int):
    from pipelines.images.orientation import turned

    pixels = picture()
    image = opened(tiff(deepened(pixels, 12), tags=[{274: orientation}]), 12)
    assert image.orientation == orientation
    assert differ(image, turned(pixels, orientation)) == 0


DEEP_FILES = [
    encoder(with_alpha(deepened(picture(3 if colour else 1), 12), 65535) if alpha else deepened(picture(), 12))
    for encoder in ENCODERS.values()
    for colour in (True, False)
    for alpha in (True, False)
]
DEEP_FILES += [
    tiff(picture(), picture()[::4, ::4], tags=[{}, REDUCED]),
    tiff(deepened(picture(), 12), planar=True),
    tiff(with_alpha(picture(), 128), extra=1),
    tiff(deepened(picture(1), 12).astype(np.float32), compressed=True, order=">"),
]


@settings(max_examples=400, deadline=None)
@given(
    data=st.sampled_from(DEEP_FILES),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=6),
    near_the_end=st.booleans(),
    bits=st.sampled_from([None, 1, 8, 12, 16]),
)
def test_open_image_when_any_deep_file_is_cut_or_altered_then_gives_pixels_or_bad_image(
    data: bytes, cut: float, flips: list[tuple[float, int]], near_the_end: bool, bits: int | None
):
    altered = bytearray(data)
    for place, change in flips:  # the directory of a TIFF comes last
        altered[-1 - int(place * 250) if near_the_end else int(place * len(altered))] ^= change
    try:
        image = opened(bytes(altered[: int(len(altered) * cut)] if cut < 0.7 else altered), bits)
    except BadImage:
        return
    assert image.pixels.shape == (image.height, image.width, 3)
