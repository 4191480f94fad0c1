"""Every accepted format is decoded to upright RGB; every hostile file is refused in one clear line."""

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.decode import CONTENT_TYPES, EXTENSIONS, OpenedImage, open_image
from tests.pipelines.hostile import encode, every_mode, faded, hostile_files, more_hostile_files, textured

# Pillow's warnings, which pytest shows although `pipelines.images.decode` silences them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

HOSTILE = hostile_files()
RARE = more_hostile_files()
EVERY_MODE = every_mode()


def opened(data: bytes) -> OpenedImage:
    return open_image(data, max_pixels=1_000_000, min_side=32)


def grey_file(values: np.ndarray, kind: str = "TIFF", **options: object) -> bytes:
    return encode(Image.fromarray(values), kind, **options)


@pytest.mark.parametrize("name", ["bomb.png", "bomb.webp", "half.tif"])
def test_open_image_when_pillow_would_warn_then_says_nothing_on_stderr(name: str):
    code = (
        "from tests.pipelines.hostile import hostile_files; from pipelines.images.decode import open_image\n"
        f"try: open_image(hostile_files()[{name!r}][0], max_pixels=10**12, min_side=1)\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("BadImage", "")


def test_hostile_files_are_twenty():
    assert len(HOSTILE) == 20


@pytest.mark.parametrize("name", HOSTILE | RARE)
def test_open_image_when_file_is_hostile_then_refuses_with_one_clear_line(name: str):
    data, word = (HOSTILE | RARE)[name]
    with pytest.raises(BadImage) as refusal:
        opened(data)
    reason = str(refusal.value)
    assert word in reason
    assert "\n" not in reason
    assert len(reason) < 250
    assert ": s" in reason, f"says nothing of what to do: {reason}"  # "send…", "save…"


@pytest.mark.parametrize("name", EVERY_MODE)
def test_open_image_when_kind_is_accepted_then_gives_rgb_like_the_source(name: str):
    image = opened(EVERY_MODE[name])
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (48, 64, 3) == (image.height, image.width, 3)
    assert image.pixels.flags.c_contiguous
    assert image.extension == EXTENSIONS[image.format]
    assert CONTENT_TYPES[image.format].startswith("image/")
    source = textured()
    if name.startswith("alpha"):
        source = Image.alpha_composite(Image.new("RGBA", source.size, "white"), faded())
    expected = np.asarray(source.convert("L"), dtype=float)
    shown = np.asarray(Image.fromarray(image.pixels).convert("L"), dtype=float)
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > (0.3 if name.startswith("1.") else 0.95)
    assert abs(shown.mean() - expected.mean()) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_open_image_when_exif_turns_it_then_comes_upright(kind: str, orientation: int):
    upright = np.zeros((40, 60, 3), dtype=np.uint8)
    upright[:20, :20] = (250, 20, 20)  # red at the top left, blue at the bottom right
    upright[20:, 40:] = (20, 20, 250)
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = opened(encode(stored, kind, exif=exif, **options))
    assert (image.width, image.height) == (60, 40)
    assert np.abs(image.pixels.astype(int) - upright).mean() < 6


def test_open_image_when_exif_is_damaged_then_keeps_the_pixels_as_stored():
    data = encode(textured(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + bytes(30))
    assert opened(data).pixels.shape == (48, 64, 3)


def test_open_image_when_transparent_then_lies_on_white():
    clear = Image.new("RGBA", (64, 64), (10, 20, 30, 0))
    clear.paste((10, 20, 30, 255), (0, 0, 8, 8))
    pixels = opened(encode(clear)).pixels
    assert (pixels[:8, :8] == (10, 20, 30)).all()
    assert (pixels[8:] == 255).all()
    half = Image.new("LA", (64, 64), (0, 128))
    assert np.abs(opened(encode(half)).pixels.astype(int) - 127).max() <= 1
    keyed = Image.new("RGB", (64, 64), (9, 9, 9))
    keyed.paste((5, 5, 5), (0, 0, 8, 8))
    pixels = opened(encode(keyed, transparency=(9, 9, 9))).pixels
    assert (pixels[:8, :8] == 5).all()
    assert (pixels[8:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_open_image_when_sixteen_bits_then_scales_and_does_not_clip(kind: str):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    pixels = opened(grey_file(ramp, kind)).pixels[:, :, 0].astype(float)
    assert np.abs(pixels - ramp / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.linspace(0, 4095, 4096).astype(np.uint16), 4095),  # 12 bits in 16
        (np.linspace(0, 255, 4096).astype(np.int32), 255),
        (np.linspace(0, 65535, 4096).astype(np.int32), 65535),
        (np.linspace(0, 1, 4096).astype(np.float32), 1),
        (np.linspace(0, 255, 4096).astype(np.float32), 255),
    ],
)
def test_open_image_when_range_is_told_by_the_values_then_scales_by_it(values: np.ndarray, white: float):
    pixels = opened(grey_file(values.reshape(64, 64))).pixels[:, :, 0].astype(float)
    assert np.abs(pixels - values.reshape(64, 64) / white * 255).max() <= 0.5 + 1e-6


def test_open_image_when_values_are_negative_or_huge_then_spans_their_own_range():
    for values in (np.linspace(-5, 3, 4096).astype(np.float32), np.linspace(0, 2e9, 4096).astype(np.int32)):
        pixels = opened(grey_file(values.reshape(64, 64))).pixels
        assert (pixels.min(), pixels.max()) == (0, 255)


def test_open_image_when_sixteen_bits_are_one_value_then_keeps_its_level():
    assert (opened(grey_file(np.full((64, 64), 32_768, np.uint16), "PNG")).pixels == 128).all()


def test_open_image_when_content_and_name_differ_then_content_decides():
    assert opened(encode(textured(), "WEBP")).format == "WEBP"


def test_open_image_when_just_within_the_limits_then_accepts():
    data = encode(textured(100, 100))
    assert open_image(data, max_pixels=10_000, min_side=100).width == 100
    with pytest.raises(BadImage, match="9,999 are allowed"):
        open_image(data, max_pixels=9_999, min_side=1)
    with pytest.raises(BadImage, match="101 or more"):
        open_image(data, max_pixels=10_000, min_side=101)


def test_open_image_when_bytes_follow_a_whole_jpeg_then_accepts():
    assert opened(encode(textured(), "JPEG") + bytes(100)).format == "JPEG"


def test_open_image_when_called_from_many_threads_then_gives_the_same():
    files = list(EVERY_MODE.values())
    alone = [opened(data).pixels for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: opened(data).pixels, files * 4))
    for index, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, alone[index % len(files)])


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(EVERY_MODE)),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=6),
)
def test_open_image_when_any_file_is_cut_or_altered_then_gives_pixels_or_bad_image(name, cut, flips):
    data = bytearray(EVERY_MODE[name])
    for place, change in flips:
        data[int(place * len(data))] ^= change
    data = data[: int(len(data) * cut)] if cut < 0.7 else data
    try:
        image = opened(bytes(data))
    except BadImage:
        return
    assert image.pixels.shape == (image.height, image.width, 3)
    assert image.width * image.height <= 1_000_000


@settings(max_examples=200)
@given(
    magic=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"MM\x00*", b"RIFF0000WEBP"]),
    rest=st.binary(max_size=400),
)
def test_open_image_when_bytes_are_random_then_refuses(magic: bytes, rest: bytes):
    with pytest.raises(BadImage):
        opened(magic + rest)


def test_open_image_when_tiff_states_its_bits_then_scales_by_them():
    packed = bytes(64 * 64 * 3 // 2)  # 12 bits a pixel, all zero but the first
    strip = b"\xff\xf0" + packed[2:]
    entries = [(256, 64), (257, 64), (258, 12), (259, 1), (262, 1), (273, 134), (277, 1), (278, 64), (279, len(strip))]
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = (b"II*\x00" + struct.pack("<I", 8) + directory).ljust(134, b"\x00") + strip
    pixels = opened(data).pixels
    assert pixels[0, 0, 0] == 255
    assert pixels[1:].max() == 0
