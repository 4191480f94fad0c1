"""Image files of every kind that a line may send: good ones in all formats and modes, and twenty hostile ones."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def textured(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Return an RGB image with structure and noise, so that every format has something to store."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    base = 120 + 50 * np.sin(columns / 7 + seed) + 40 * np.cos(rows / 5)
    noise = rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(base[:, :, None] + noise, 0, 255).astype(np.uint8))


def faded() -> Image.Image:
    """Return `textured()` as RGBA, fading out towards the top."""
    image = textured().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return `image` as a file of the format `kind`."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """Return a tiny PNG whose header states `width` x `height` black pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + width // 8) * min(height, 20_000), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def webp_bomb() -> bytes:
    """Return a WebP whose header states 16384 x 16384 pixels."""
    side = (16383).to_bytes(3, "little")
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x00\x00\x00\x00" + side + side
    body = b"WEBP" + canvas + encode(textured(), "WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_bomb() -> bytes:
    """Return a TIFF of few bytes that states 60,000 x 60,000 pixels."""
    entries = [
        (256, 4, 1, 60_000),
        (257, 4, 1, 60_000),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, 60_000),
        (279, 4, 1, 100),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\x00" + struct.pack("<I", 8) + directory + bytes(104)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def hostile_files() -> dict[str, tuple[bytes, str]]:
    """Return twenty files that must be refused: name -> (content, a word that the reason must hold)."""
    frames = [textured(seed=seed) for seed in range(3)]
    jpeg, png, tiff = (encode(frames[0], kind) for kind in ("JPEG", "PNG", "TIFF"))
    animation = {"save_all": True, "append_images": frames[1:]}
    return {
        "empty.jpg": (b"", "empty"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "no_end.jpg": (jpeg[:-2], "truncated"),
        "half_progressive.jpg": (encode(frames[0], "JPEG", progressive=True)[:-200], "truncated"),
        "half.png": (png[: len(png) // 2], "truncated"),
        "flipped_bit.png": (_flipped(png, len(png) // 2), "checksum"),
        "header_only.png": (png[:33], "truncated"),
        "half.bmp": (encode(frames[0], "BMP")[:2000], "truncated"),
        "half.tif": (tiff[: len(tiff) // 2], "damaged"),
        "half.webp": (encode(frames[0], "WEBP")[:-100], "truncated"),
        "text.png": (b"This is not an image at all, whatever its name says.\n" * 20, "no image"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"),
        "report.png": (b"%PDF-1.7\n" + bytes(500), "PDF"),
        "noise.bmp": (np.random.default_rng(0).bytes(5000), "no image"),
        "bomb.png": (png_bomb(50_000, 50_000), "pixels"),
        "bomb.webp": (webp_bomb(), "pixels"),
        "bomb.tif": (tiff_bomb(), "pixels"),
        "tiny.png": (encode(textured(8, 8)), "8 x 8"),
        "animation.webp": (encode(frames[0], "WEBP", **animation), "animation"),
        "animation.png": (encode(frames[0], "PNG", **animation), "animation"),
    }


def more_hostile_files() -> dict[str, tuple[bytes, str]]:
    """Return further files that must be refused, of rarer kinds."""
    frames = [textured(seed=seed) for seed in range(3)]
    png = encode(frames[0])
    bomb_text = png[:33] + png_chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(80_000_000), 9)) + png[33:]
    endless = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 7, 9, 0, 0, 0))
    not_finite = Image.fromarray(np.full((64, 64), np.nan, dtype=np.float32))
    return {
        "animation.gif": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "GIF"),
        "pages.tif": (encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "pages"),
        "text_bomb.png": (bomb_text, "header"),
        "odd_header.png": (png[:8] + endless + png_chunk(b"IEND", b""), "header"),
        "no_pixels.png": (png[:33] + png_chunk(b"IEND", b""), "damaged"),
        "magic_only.jpg": (b"\xff\xd8\xff\xe0", "truncated"),
        "magic_only.bmp": (b"BM", "header"),
        "magic_only.tif": (b"II*\x00", "header"),
        "magic_only.webp": (b"RIFF\x04\x00\x00\x00WEBP", "header"),
        "looping.tif": (b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8), "header"),
        "nan.tif": (encode(not_finite, "TIFF"), "finite"),
        "slim.png": (encode(textured(400, 4)), "400 x 4"),
    }


def every_mode() -> dict[str, bytes]:
    """Return one accepted file of each format and pixel format: name -> content."""
    rgb, alpha = textured(), faded()
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    files = {
        "rgb.jpg": encode(rgb, "JPEG"),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "grey.jpg": encode(rgb.convert("L"), "JPEG"),
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "rgb.webp": encode(rgb, "WEBP"),
        "alpha.webp": encode(alpha, "WEBP", lossless=True),
        "cmyk.tif": encode(rgb.convert("CMYK"), "TIFF"),
        "ycbcr.tif": encode(rgb.convert("YCbCr"), "TIFF", compression="jpeg"),
        "lzw.tif": encode(rgb, "TIFF", compression="tiff_lzw"),
        "deep.tif": encode(deep, "TIFF"),
        "deep.png": encode(deep),
        "int32.tif": encode(deep.convert("I"), "TIFF"),
        "float.tif": encode(rgb.convert("F"), "TIFF"),
        "alpha_palette.png": encode(alpha.quantize(64)),
        "two_pictures.jpg": encode(rgb, "MPO", save_all=True, append_images=[rgb.resize((32, 24))]),
    }
    for mode in ("1", "L", "P", "RGB"):
        files[f"{mode}.png"] = encode(rgb.convert(mode))
        files[f"{mode}.bmp"] = encode(rgb.convert(mode), "BMP")
        files[f"{mode}.tif"] = encode(rgb.convert(mode), "TIFF")
    for mode in ("LA", "RGBA"):
        files[f"alpha_{mode}.png"] = encode(alpha.convert(mode))
        files[f"alpha_{mode}.tif"] = encode(alpha.convert(mode), "TIFF")
    return files
