"""Two hundred hostile files and addresses, over HTTP: each is refused in one line, logged, and serving goes on."""

import concurrent.futures
import io
import ipaddress
import json
import struct
import zlib
from typing import Any

import numpy as np
import requests
from PIL import Image

from tests.serving.api.test_addresses import REFUSED, UNUSABLE
from tests.serving.conftest import Registry, Server, encoded, until_rows
from tests.serving.test_hostile_requests import NO_IMAGES, NO_JSON, NO_URL

INTERNAL = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "172.31.255.254", "100.64.1.1"]
KINDS = ["PNG", "JPEG", "BMP", "TIFF", "WEBP"]


def notations(address: str) -> list[str]:
    """Return the ways to write an IPv4 address that somewhere lead to it."""
    number = int(ipaddress.IPv4Address(address))
    parts = [int(part) for part in address.split(".")]
    high, low = number >> 16, number & 0xFFFF
    hosts = [
        str(number),
        hex(number),
        oct(number).replace("0o", "0"),
        ".".join(map(hex, parts)),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"[::ffff:{address}]",
        f"[::ffff:{high:x}:{low:x}]",
        f"[64:ff9b::{high:x}:{low:x}]",
        f"[2002:{high:x}:{low:x}::]",
    ]
    return [f"http://{host}/latest/meta-data/" for host in hosts]


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG that says what it likes of its size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def damaged(kind: str) -> list[bytes]:
    """Return an image of this kind in pieces."""
    good = encoded(np.random.default_rng(1).integers(0, 255, (96, 96, 3), np.uint8), kind)
    half = len(good) // 2
    return [
        good[:4],
        good[:16],
        good[: len(good) // 10],
        good[:half],
        good[:8] + b"\0" * half,
        good[:8] + b"\xff" * half,
        b"\0" + good,
        b"<?php echo 1; ?>" + good,
        good[::-1],
    ]


def files() -> list[bytes]:
    """Return files that are no images, or none that anybody should open."""
    tiny = [
        encoded(np.zeros((side, side, 3), np.uint8), kind) for side, kind in ((8, "PNG"), (16, "JPEG"), (31, "BMP"))
    ]
    made = io.BytesIO()
    Image.new("RGB", (64, 64)).save(made, "GIF")
    bombs = [
        encoded(np.zeros((8000, 8000, 3), np.uint8)),  # 192 MB from 190 kB
        png(65535, 65535, b"\0" * 1000),
        png(2**31 - 1, 2**31 - 1, b""),
        png(0, 0, b""),
        png(64, 0, b""),
        png(64, 64, b""),
        png(64, 64, b"\0" * 10),
        png(64, 64, b"\0" * 64 * 193, colour=5),
        png(64, 64, b"\0" * 64 * 193, depth=3),
        png(64, 64, b"\7" * 64 * 193)[:-20],
    ]
    others = [b"MZ\x90\0", b"\x7fELF", b"\x1f\x8b" + b"\0" * 99, b"{}", b"\0", b"\xff" * 5000, b"P6 99999 99999 255\n"]
    return [*NO_IMAGES, *(piece for kind in KINDS for piece in damaged(kind)), *tiny, *bombs, *others]


def test_serving_when_two_hundred_hostile_things_come_then_each_refused_and_it_goes_on(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start(INSPECTLINE_MAX_IMAGE_MB="1").until_version(version)
    addresses = dict.fromkeys([*REFUSED, *UNUSABLE, *(url for one in INTERNAL for url in notations(one))])
    headers = {"Content-Type": "application/json"}
    hostile: list[dict[str, Any]] = [
        *({"files": {"file": ("x.png", data)}} for data in dict.fromkeys(files())),
        *({"data": json.dumps({"image_url": url}), "headers": headers} for url in addresses),
        *({"data": data, "headers": headers} for data in NO_JSON),
        *({"data": json.dumps(body), "headers": headers} for body in NO_URL),
    ]
    assert len(hostile) >= 200

    def send(sent: dict[str, Any]) -> requests.Response:
        return requests.post(f"{server.address}/predict", timeout=30, **sent)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, hostile))
    for sent, answer in zip(hostile, answers, strict=True):
        assert 400 <= answer.status_code < 500, (str(sent)[:300], answer.text)
        assert answer.headers["Content-Type"] == "application/json"
        assert "\n" not in answer.json()["error"]
        assert 10 < len(answer.json()["error"]) < 500
    assert server.predict(good_file).status_code == 200
    assert len(until_rows(1)) == 1
    server.end()
    logged = {line.get("request_id"): line for line in server.lines() if line.get("message") == "request"}
    for answer in answers:
        line = logged[answer.json()["request_id"]]
        assert (line["status"], line["error"]) == (answer.status_code, answer.json()["error"])
    assert "Traceback" not in server.log.read_text(encoding="utf-8")
