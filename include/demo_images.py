"""Draw battery cells as a camera above the line would see them: for the demo, for tests, and to try things out.

Each image shows the top of a cylindrical cell in its holder: a rolled rim, a gasket, a lathe-turned cap, and a nickel
tab welded on with six spots. Light (strength, direction, colour, gradient), metal textures, position, rotation and
focus vary from image to image, in good ones as much as in defective ones, so that neither brightness nor any other
plain number tells them apart. Defects: scratches, dents, stains, missing welds, each with its mask.

Everything follows from the seed and the image's number: `python -m include.demo_images FOLDER --good 540`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 192  # pixels
DEFECTS = ("scratch", "dent", "stain", "missing_weld")
GOOD, ANOMALIES = 540, 120
_QUALITY = 92

Plane = NDArray[np.float32]  # [side, side]
Picture = NDArray[np.float32]  # [side, side, 3], 0 to 1
Mask = NDArray[np.bool_]  # [side, side]


@dataclass(frozen=True)
class Scene:
    """What the parts of a picture share: coordinates in units of half an image side, and the light's direction.

    `x`, `y` are fixed to the cell (its centre is 0, 0), turned and shifted with it; `pixel` is the size of a pixel.
    """

    rng: np.random.Generator
    x: Plane
    y: Plane
    light: tuple[float, float]
    pixel: float

    @property
    def radius(self) -> Plane:
        """Distance from the cell's centre."""
        return np.hypot(self.x, self.y)

    def inside(self, distance: Plane) -> Plane:
        """Return how much of each pixel lies where `distance` (signed, negative inside) is below zero."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def noise(self, cells: float) -> Plane:
        """Return smooth noise, about -1 to 1, with roughly `cells` bumps across the image."""
        side = self.x.shape[0]
        coarse = self.rng.standard_normal((int(cells) + 3, int(cells) + 3), dtype=np.float32)
        return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)) * np.float32(0.6)


def draw(seed: int, number: int, defect: str | None = None, side: int = SIDE) -> tuple[NDArray[np.uint8], Mask]:
    """Return image `number` of a seed: uint8 [side, side, 3] and the mask of its defect, bool [side, side].

    `defect` is one of `DEFECTS`, or None for a good cell, whose mask is empty.
    """
    # The defect has a generator of its own: with and without it, the cell is the same.
    rng, fault = (np.random.default_rng([seed, number, part]) for part in (0, 1))
    scene = _scene(rng, side)
    picture = _holder(scene)
    picture = _can(scene, picture)
    gone = _missing(fault) if defect == "missing_weld" else frozenset()
    picture, spots = _tab(scene, picture, gone)
    mask = spots > 0.5
    if defect in _DAMAGES:
        picture, mask = _DAMAGES[defect](Scene(fault, scene.x, scene.y, scene.light, scene.pixel), picture)
    return _photograph(scene, picture), mask


def _scene(rng: np.random.Generator, side: int) -> Scene:
    angle = math.radians(rng.normal(0, 2.5))
    zoom = 1.2 * rng.normal(1, 0.015)
    shift = rng.normal(0, 0.025, 2)
    axis = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
    across, down = np.meshgrid(axis - np.float32(shift[0]), axis - np.float32(shift[1]))
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    towards = math.radians(rng.normal(-120, 18))
    light = (math.cos(towards), math.sin(towards))
    return Scene(rng, across * cosine + down * sine, down * cosine - across * sine, light, 2 / side)


def _over(picture: Picture, colour: Picture, cover: Plane) -> Picture:
    return picture + (colour - picture) * cover[..., np.newaxis]


def _tinted(grey: Plane, *tint: float) -> Picture:
    return grey[..., np.newaxis] * np.array(tint, dtype=np.float32)


def _holder(scene: Scene) -> Picture:
    """Moulded plastic with a fine grain, darker around the cell's bore."""
    grain = 0.02 * scene.noise(90) + 0.015 * scene.noise(14)
    bore = 0.10 * np.exp(-(((scene.radius - 0.84) / 0.05) ** 2))
    ribs = 0.03 * scene.inside(np.abs(np.abs(scene.x) + np.abs(scene.y) - 1.32) - 0.02)
    return _tinted(0.24 + grain + ribs - bore, 0.95, 1.0, 1.08)


def _turned(scene: Scene) -> Plane:
    """Brightness of lathe-turned metal: fine grooves around the centre, and the light's bow-tie reflection."""
    rng, radius = scene.rng, scene.radius
    grooves = np.convolve(rng.standard_normal(700), np.hanning(5) / 2, mode="same").astype(np.float32)
    lines = grooves[np.clip((radius * 480).astype(np.intp), 0, 699)]
    direction = np.arctan2(scene.y, scene.x) - math.atan2(scene.light[1], scene.light[0])
    bow = np.cos(direction + rng.normal(0, 0.15)) ** 2
    return (0.56 + 0.025 * lines + 0.20 * bow**3 + 0.02 * scene.noise(8)).astype(np.float32)


def _can(scene: Scene, picture: Picture) -> Picture:
    """The rolled rim, the gasket, and the cap."""
    radius = scene.radius
    # A torus: its slope across the rim, seen from the light.
    slope = np.clip((radius - 0.725) / 0.055, -1, 1)
    facing = (scene.x * scene.light[0] + scene.y * scene.light[1]) / np.maximum(radius, 1e-3)
    rim = 0.55 + 0.30 * slope * facing + 0.12 * (1 - slope**2) + 0.015 * scene.noise(40)
    picture = _over(picture, _tinted(rim, 0.98, 1.0, 1.01), scene.inside(radius - 0.78))
    gasket = 0.20 + 0.05 * slope * facing + 0.015 * scene.noise(60)
    hue = scene.rng.normal(1.3, 0.05)
    picture = _over(picture, _tinted(gasket, 0.8, 1.0, hue), scene.inside(radius - 0.665))
    picture = _over(picture, _tinted(_turned(scene), 1.0, 0.99, 0.96), scene.inside(radius - 0.60))
    groove = np.exp(-(((radius - 0.50) / 0.012) ** 2)) * (0.10 + 0.10 * facing)
    return picture - groove[..., np.newaxis]


def _spot_places() -> Iterator[tuple[int, float, float]]:
    for row in range(2):
        for column in range(3):
            yield row * 3 + column, (column - 1) * 0.25 - 0.02, (row - 0.5) * 0.23


def _tab(scene: Scene, picture: Picture, gone: frozenset[int]) -> tuple[Picture, Plane]:
    """The nickel tab, which enters from the left, with its welds but those that are `gone`; also where those were."""
    rng = scene.rng
    end = 0.42 + rng.normal(0, 0.012)
    lift = rng.normal(0, 0.012)
    corner = 0.08

    def distance(shift_x: float, shift_y: float) -> Plane:
        right = scene.x - shift_x - end + corner
        off = np.abs(scene.y - shift_y - lift) - (0.245 - corner)
        outside = np.hypot(np.maximum(right, 0), np.maximum(off, 0))
        return (outside + np.minimum(np.maximum(right, off), 0) - corner).astype(np.float32)

    shadow = np.clip(0.5 - distance(-0.03 * scene.light[0], -0.03 * scene.light[1]) / 0.05, 0, 1)
    picture = (picture * (1 - 0.38 * shadow[..., np.newaxis])).astype(np.float32)
    side = scene.x.shape[0]
    strokes = rng.standard_normal((side, 6)).astype(np.float32)  # brushed along the tab
    brushed = np.asarray(Image.fromarray(strokes).resize((side, side), Image.Resampling.BICUBIC))
    edge = np.exp(-((distance(0, 0) / 0.015) ** 2)) * (0.10 - 0.12 * np.sign(scene.y) * scene.light[1])
    metal = 0.66 + 0.022 * brushed + 0.02 * scene.noise(6) + 0.05 * scene.y * scene.light[1] + edge
    picture = _over(picture, _tinted(metal, 1.0, 0.985, 0.94), scene.inside(distance(0, 0)))
    empty = np.zeros_like(scene.x)
    for number, across, down in _spot_places():
        x, y = across + rng.normal(0, 0.008), down + lift + rng.normal(0, 0.008)
        size, depth, tint = 0.066 * rng.normal(1, 0.05), rng.normal(1, 0.12), rng.uniform(0.3, 1)
        if number in gone:
            empty += scene.inside((np.hypot(scene.x - x, scene.y - y) - 1.5 * size).astype(np.float32))
        else:
            picture = _weld(scene, picture, x, y, size, depth, tint)
    return picture, empty


def _weld(scene: Scene, picture: Picture, x: float, y: float, size: float, depth: float, tint: float) -> Picture:
    """A weld nugget: a pressed pit, a bright centre, a raised ring, and the colours of the heat around it."""
    across, down = (scene.x - x) / size, (scene.y - y) / size
    reach = np.hypot(across, down)
    heat = np.exp(-((reach / 1.9) ** 2))
    colours = np.array([0.02, 0.06, 0.12], dtype=np.float32) * np.float32(tint)
    picture = picture * (1 - heat[..., np.newaxis] * colours).astype(np.float32)
    pit = -0.34 * np.exp(-(((reach - 0.62) / 0.32) ** 2)) + 0.22 * np.exp(-((reach / 0.34) ** 2))
    ring = 0.16 * np.exp(-(((reach - 1.15) / 0.2) ** 2))
    facing = (across * scene.light[0] + down * scene.light[1]) / np.maximum(reach, 1e-3)
    relief = pit * (1 - 0.25 * facing) + ring * (0.35 + 0.65 * facing)
    return picture + (relief * depth)[..., np.newaxis].astype(np.float32)


def _missing(rng: np.random.Generator) -> frozenset[int]:
    return frozenset(int(spot) for spot in rng.choice(6, size=1 if rng.random() < 0.7 else 2, replace=False))


def _somewhere(rng: np.random.Generator, reach: float) -> tuple[float, float]:
    """Return a place on the cell, evenly spread over the disc of radius `reach`."""
    angle, distance = rng.uniform(0, 2 * math.pi), reach * math.sqrt(rng.random())
    return distance * math.cos(angle), distance * math.sin(angle)


def _scratch(scene: Scene, picture: Picture) -> tuple[Picture, Mask]:
    """A bent line of bare metal with a burr on its shaded side."""
    rng = scene.rng
    x, y = _somewhere(rng, 0.5)
    angle, length = rng.uniform(0, math.pi), rng.uniform(0.16, 0.45)
    along = (scene.x - x) * math.cos(angle) + (scene.y - y) * math.sin(angle)
    off = (scene.y - y) * math.cos(angle) - (scene.x - x) * math.sin(angle)
    off = off - rng.normal(0, 0.35) * (along**2 - length**2 / 2) - 0.006 * np.sin(along * rng.uniform(20, 60))
    width = rng.uniform(0.009, 0.018)
    fade = np.clip((length - np.abs(along)) / (0.25 * length), 0, 1) * (scene.radius < 0.78)
    strength = rng.uniform(0.25, 0.5) * (0.7 + 0.3 * np.sign(np.sin(along * rng.uniform(15, 40))))
    cut = np.exp(-((off / width) ** 2)) - 0.8 * np.exp(-(((off - 1.9 * width) / width) ** 2))
    changed = (strength * fade * cut).astype(np.float32)
    return picture + changed[..., np.newaxis], (np.abs(off) < 2.2 * width) & (fade > 0.2)


def _dent(scene: Scene, picture: Picture) -> tuple[Picture, Mask]:
    """A smooth hollow: dark towards the light, bright away from it."""
    rng = scene.rng
    x, y = _somewhere(rng, 0.62)
    size, stretch, angle = rng.uniform(0.06, 0.12), rng.uniform(1, 1.6), rng.uniform(0, math.pi)
    along = ((scene.x - x) * math.cos(angle) + (scene.y - y) * math.sin(angle)) / (size * stretch)
    off = ((scene.y - y) * math.cos(angle) - (scene.x - x) * math.sin(angle)) / size
    hollow = np.exp(-(along**2 + off**2))
    down_x = along * math.cos(angle) / stretch - off * math.sin(angle)
    down_y = along * math.sin(angle) / stretch + off * math.cos(angle)
    slope = -(down_x * scene.light[0] + down_y * scene.light[1]) * hollow
    shade = (rng.uniform(0.45, 0.85) * slope + 0.06 * slope**2).astype(np.float32)
    return picture * (1 + 1.6 * shade[..., np.newaxis]), (along**2 + off**2) < 1.7


def _stain(scene: Scene, picture: Picture) -> tuple[Picture, Mask]:
    """A dried drop of electrolyte or flux: a ragged film with a darker border."""
    rng = scene.rng
    x, y = _somewhere(rng, 0.55)
    size = rng.uniform(0.08, 0.17)
    ragged = np.hypot(scene.x - x, scene.y - y) / size + 0.45 * scene.noise(9) + 0.2 * scene.noise(22)
    film = np.clip((1.0 - ragged) / 0.25, 0, 1)
    border = np.exp(-(((ragged - 0.9) / 0.13) ** 2)) * (np.hypot(scene.x - x, scene.y - y) < 2 * size)
    # Some darken, some leave a whitish crust: the mean brightness stays where it was.
    crust = rng.random() < 0.4
    if crust:
        tint = rng.uniform(1.1, 1.3) * rng.uniform([0.95, 0.98, 0.98], [1.0, 1.0, 1.05])
    else:
        tint = rng.uniform([0.72, 0.6, 0.42], [0.9, 0.8, 0.68])
    grain = 1 + 0.06 * scene.noise(70)
    coloured = picture * (tint.astype(np.float32) * grain[..., np.newaxis])
    stained = _over(picture, coloured, film.astype(np.float32))
    rim = rng.uniform(0.12, 0.3) * border
    return stained * (1 - rim[..., np.newaxis]).astype(np.float32), film > 0.2


_DAMAGES: dict[str, Callable[[Scene, Picture], tuple[Picture, Mask]]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
}


def _photograph(scene: Scene, picture: Picture) -> NDArray[np.uint8]:
    """Light and expose the scene: strength, gradient, colour and focus of the moment, and the sensor's noise."""
    rng = scene.rng
    angle, fall = rng.uniform(0, 2 * math.pi), abs(rng.normal(0, 0.06))
    gradient = 1 + fall * (scene.x * math.cos(angle) + scene.y * math.sin(angle))
    vignette = 1 - rng.uniform(0.04, 0.10) * (scene.x**2 + scene.y**2)
    colour = np.array([rng.normal(1, 0.015), 1.0, rng.normal(1, 0.02)], dtype=np.float32)
    lit = np.clip(picture, 0, 1) * (rng.normal(1, 0.06) * gradient * vignette)[..., np.newaxis] * colour
    blurred = _defocus(lit.astype(np.float32), rng.uniform(0.35, 0.8))
    noisy = blurred + rng.uniform(0.006, 0.014) * rng.standard_normal(lit.shape, dtype=np.float32)
    return (np.clip(noisy, 0, 1) ** 0.9 * 255 + 0.5).astype(np.uint8)


def _defocus(picture: Picture, sigma: float) -> Picture:
    """Blur by a Gaussian of `sigma` pixels, below 1: five taps a direction."""
    taps = np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        widths = [(2, 2) if axis == each else (0, 0) for each in range(3)]
        padded = np.pad(picture, widths, mode="edge")
        length = picture.shape[axis]
        picture = sum(
            (tap * np.take(padded, np.arange(start, start + length), axis=axis) for start, tap in enumerate(taps)),
            np.zeros_like(picture),
        )
    return picture


def write_images(folder: Path, good: int = GOOD, anomalies: int = ANOMALIES, seed: int = 0) -> dict[str, int]:
    """Write `good/` and `anomaly/<defect>/` with masks beside the anomalies; return how many of each kind.

    Images that are there already stay as they are, so that an interrupted run is completed.
    """
    jobs: list[tuple[Path, int, str | None]] = []
    for number in range(good):
        jobs.append((folder / "good" / f"cell_{number:05d}.jpg", number, None))
    for number in range(anomalies):
        defect = DEFECTS[number % len(DEFECTS)]
        jobs.append((folder / "anomaly" / defect / f"cell_{10_000 + number:05d}.jpg", 10_000 + number, defect))
    for parent in {path.parent for path, _, _ in jobs}:
        parent.mkdir(parents=True, exist_ok=True)

    def write(job: tuple[Path, int, str | None]) -> None:
        path, number, defect = job
        if path.exists():
            return
        pixels, mask = draw(seed, number, defect)
        if defect:
            Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))
        half = path.with_name(f".{path.name}")
        Image.fromarray(pixels).save(half, format="JPEG", quality=_QUALITY, subsampling=0)
        half.replace(path)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, jobs))
    return {"good": good} | {kind: sum(job[2] == kind for job in jobs) for kind in DEFECTS}


def main(arguments: list[str]) -> int:
    """Write a set of images from the command line."""
    parser = argparse.ArgumentParser(prog="python -m include.demo_images", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--good", type=int, default=GOOD)
    parser.add_argument("--anomalies", type=int, default=ANOMALIES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    counts = write_images(options.folder, options.good, options.anomalies, options.seed)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()), "in", options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
