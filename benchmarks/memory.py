"""Measures the memory of serving while it scores large images: `python -m benchmarks.memory [--images N]`.

Serving runs with the command of its container and a `small` model, and receives camera-sized images, each sent once.
Resident memory is the sum over all its processes, once serving is ready and while images arrive.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.environment import Stage
from benchmarks.servers import serving
from benchmarks.serving import send

AIM = 300
_PICTURES = 4
_HOURS = 3600.0


def main(arguments: list[str]) -> int:
    """Measure, print a line for each part of the images, and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--connections", type=int, default=8)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-memory-") as folder, ExitStack() as stack:
        pictures, place = Path(folder) / "pictures", Path(folder) / "stage"
        side = draw_pictures(pictures, asked.megapixels)
        place.mkdir()
        stage = stack.enter_context(Stage(place, pictures).set())
        server = stack.enter_context(serving())
        print(f"ready: {server.resident('VmRSS'):.0f} MB resident", flush=True)
        sent = 0
        for part in sorted({max(1, asked.images // 10), max(1, asked.images // 2), asked.images}):
            result = send(stage, server, asked.connections, _HOURS, most=part - sent)
            if result["failures"]:
                raise SystemExit(f"serving failed: {result['failures']}")
            sent += result["answers"]
            print(
                f"after {sent} images of {side} x {side} over {asked.connections} connections, {result['rate']:.1f}/s: "
                f"{server.resident('VmRSS'):.0f} MB, at most {server.resident('VmHWM'):.0f} MB (aim {AIM})",
                flush=True,
            )
    return 0


def draw_pictures(folder: Path, megapixels: float) -> int:
    """Write JPEGs of battery cells, enlarged and with camera-like grain, and return their side in pixels."""
    from include.demo_images import draw

    folder.mkdir()
    side = round((megapixels * 1e6) ** 0.5)
    for number in range(_PICTURES):
        enlarged = Image.fromarray(draw(1, number)[0]).resize((side, side), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(number).integers(-6, 7, (side, side, 1), np.int16)
        pixels = np.clip(np.asarray(enlarged, np.int16) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=88)
    return side


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
