"""Draw photographs of mushrooms of ten species for the demo of classification, each cap photographed twice.

Species share colours, so that shape, underside, spots, scales and rings tell them apart. Light, ground, size and
rotation are those of the moment, and grass lies before some. One seed, species and cap always give the same mushroom.
"""

from __future__ import annotations

import argparse
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PER_SPECIES = 60
SIZE = 192  # pixels a side
_PHOTOGRAPHS = 2  # of each cap
_QUALITY = 92

Picture = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Species:
    """What a species looks like; lengths are in units of about half the height of a mushroom.

    Attributes:
        shape: profile of the cap.
        width: half width of the cap.
        height: height of the cap.
        cap: its colour, RGB in [0, 1].
        below: colour of gills or pores.
        stem: colour of the stem.
        stem_width: half width of the stem.
        gills: number of gills; 0: pores.
        spots: number of white warts. Default 0.
        scales: number of brown scales. Default 0.
        zones: strength of concentric zones. Default 0.
        ring: whether the stem has a ring. Default False.
    """

    shape: Literal["dome", "flat", "cone", "bell", "funnel"]
    width: float
    height: float
    cap: Colour
    below: Colour
    stem: Colour
    stem_width: float
    gills: int
    spots: int = 0
    scales: int = 0
    zones: float = 0.0
    ring: bool = False


_WHITE, _CREAM, _BROWN = (0.93, 0.91, 0.86), (0.88, 0.8, 0.62), (0.5, 0.33, 0.2)
SPECIES: dict[str, Species] = {
    "amanita muscaria": Species("dome", 0.62, 0.4, (0.78, 0.14, 0.08), _WHITE, _WHITE, 0.12, 40, spots=26, ring=True),
    "amanita pantherina": Species("dome", 0.6, 0.38, _BROWN, _WHITE, _WHITE, 0.11, 40, spots=30, ring=True),
    "amanita phalloides": Species("dome", 0.58, 0.36, (0.52, 0.52, 0.27), _WHITE, _CREAM, 0.11, 40, ring=True),
    "boletus edulis": Species("dome", 0.6, 0.42, (0.52, 0.32, 0.17), (0.8, 0.72, 0.4), _CREAM, 0.24, 0),
    "cantharellus cibarius": Species(
        "funnel", 0.58, 0.62, (0.9, 0.62, 0.13), (0.88, 0.6, 0.16), (0.87, 0.62, 0.2), 0.13, 16
    ),
    "coprinus comatus": Species("bell", 0.3, 0.85, (0.87, 0.83, 0.76), (0.3, 0.25, 0.25), _WHITE, 0.09, 30, scales=40),
    "hygrocybe conica": Species("cone", 0.46, 0.55, (0.84, 0.25, 0.08), _CREAM, (0.85, 0.6, 0.2), 0.08, 30),
    "lactarius deliciosus": Species(
        "funnel", 0.62, 0.4, (0.82, 0.47, 0.2), (0.85, 0.55, 0.28), (0.8, 0.55, 0.35), 0.14, 44, zones=0.5
    ),
    "macrolepiota procera": Species(
        "flat", 0.72, 0.2, (0.78, 0.68, 0.53), _WHITE, (0.68, 0.56, 0.42), 0.07, 46, scales=60, ring=True
    ),
    "russula emetica": Species("flat", 0.56, 0.2, (0.77, 0.15, 0.13), _WHITE, _WHITE, 0.13, 36),
}
# Ground of the moment: moss, needles, earth, leaves.
_GROUNDS: tuple[Colour, ...] = (
    (0.26, 0.38, 0.14), (0.42, 0.29, 0.17), (0.26, 0.21, 0.17), (0.55, 0.4, 0.2), (0.4, 0.45, 0.25),
)  # fmt: skip


def draw(seed: int, species: str, cap: int, photograph: int = 0) -> NDArray[np.uint8]:
    """Return a photograph uint8 [192, 192, 3] of one cap; another number of `photograph` shows the same cap again."""
    place = list(SPECIES).index(species)
    own = np.random.default_rng([seed, place, cap])
    moment = np.random.default_rng([seed, place, cap, 1 + photograph])
    picture = _ground(moment)
    turn = math.radians(moment.normal(0, 22))
    size = moment.uniform(0.62, 1.0)
    middle = moment.uniform(-0.2, 0.2), moment.uniform(-0.15, 0.15)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    x, y = columns / (SIZE / 2) - 1 - middle[0], 1 - rows / (SIZE / 2) - middle[1]
    u = (x * math.cos(turn) + y * math.sin(turn)) / size
    v = (y * math.cos(turn) - x * math.sin(turn)) / size
    picture = _mushroom(picture, _varied(SPECIES[species], own), u, v, own, moment)
    return _photographed(_grass(picture, moment), moment)


def _varied(species: Species, rng: np.random.Generator) -> Species:
    """Return the species as one mushroom shows it: proportions and colours vary."""

    def colour(mean: Colour) -> Colour:
        shade, tint = rng.normal(1, 0.1), rng.normal(0, 0.035, 3)
        red, green, blue = np.clip(np.asarray(mean) * shade + tint, 0.04, 0.97)
        return float(red), float(green), float(blue)

    return Species(
        species.shape,
        species.width * rng.normal(1, 0.12),
        species.height * rng.normal(1, 0.15),
        colour(species.cap),
        colour(species.below),
        colour(species.stem),
        species.stem_width * rng.normal(1, 0.15),
        species.gills,
        max(8, round(species.spots * rng.normal(1, 0.3))) if species.spots else 0,
        round(species.scales * rng.normal(1, 0.2)),
        species.zones * rng.uniform(0.6, 1.2),
        species.ring,
    )


def _noise(rng: np.random.Generator, cells: int) -> Picture:
    """Return smooth noise [192, 192] of mean 0 and deviation 1 with about `cells` waves across."""
    small = Image.fromarray(rng.standard_normal((cells + 3, cells + 3), dtype=np.float32))
    noise = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def _ground(rng: np.random.Generator) -> Picture:
    """Return out-of-focus ground [192, 192, 3] of two materials."""
    first, second = (np.asarray(_GROUNDS[place], np.float32) for place in rng.integers(len(_GROUNDS), size=2))
    share = 1 / (1 + np.exp(-2 * _noise(rng, 4)))[..., np.newaxis]
    texture = 0.1 * _noise(rng, 9) + 0.13 * _noise(rng, 24) + 0.12 * _noise(rng, 60)
    picture = (first * share + second * (1 - share)) * (1 + texture[..., np.newaxis])
    for _ in range(rng.integers(0, 9)):  # fallen leaves and berries, some as bright as a cap
        x, y, radius = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.05, 0.17)
        picture = _over(picture, rng.uniform(0.1, 0.8, 3) * [1, 0.8, 0.4], _blob(x, y, radius, rng))
    return picture.astype(np.float32)


def _blob(x: float, y: float, radius: float, rng: np.random.Generator) -> Picture:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / (SIZE / 2) - 1
    angle, stretch = rng.uniform(0, math.pi), rng.uniform(1, 2.5)
    along = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
    off = (rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)
    return _inside(1 - np.hypot(along / stretch, off) / radius, 0.15)


def _inside(depth: Picture, edge: float = 0.02) -> Picture:
    """Return the coverage of what has a positive depth, with a soft edge."""
    return np.clip(depth / edge + 0.5, 0, 1).astype(np.float32)


def _over(picture: Picture, colour: Picture | Colour | NDArray[np.float64], cover: Picture) -> Picture:
    cover = cover[..., np.newaxis]
    return (picture * (1 - cover) + np.asarray(colour, np.float32) * cover).astype(np.float32)


def _mushroom(
    picture: Picture,
    species: Species,
    u: Picture,
    v: Picture,
    own: np.random.Generator,
    moment: np.random.Generator,
) -> Picture:
    """Draw a mushroom whose cap begins at v = 0.1 and whose stem goes down; `u` and `v` are its own axes."""
    light = moment.uniform(-0.8, 0.8)
    tilt = moment.uniform(0.08, 0.2)  # how much of the underside, or of the top of a funnel, is seen
    bend, length = own.normal(0, 0.12), own.uniform(0.8, 1.05)
    v = v - 0.1
    picture = _stem(picture, species, u - bend * v**2, v, length, light, own)
    t = u / species.width
    wave = 1 + 0.04 * np.sin(own.uniform(2, 5) * np.arctan2(v, u) + own.uniform(0, 6))
    if species.shape == "funnel":
        return _funnel(picture, species, u, v, wave, tilt, light, own)
    inside = np.sqrt(np.clip(1 - t**2, 0, 1))
    top = species.height * _profile(species.shape, t, own) * wave
    below = _gills(species, u, v, light)
    rim = np.minimum(np.minimum(v + tilt * inside * species.width, 0.03 - v), 1 - np.abs(t))
    picture = _over(picture, below, _inside(rim))
    picture = _stem(picture, species, u - bend * v**2, v, length, light, own, most=-0.6 * tilt)
    lower = -0.25 * tilt * inside * species.width
    s = np.clip((v - lower) / np.maximum(top - lower, 1e-3), 0, 1)
    cover = _inside(np.minimum(np.minimum(v - lower, top - v), (1 - np.abs(t)) * 2))
    return _over(picture, _skin(species, t, s, v / species.height, light, own), cover)


def _profile(shape: str, t: Picture, rng: np.random.Generator) -> Picture:
    """Return the height of the top of the cap at t in [-1, 1], as a share of its height."""
    across = np.clip(np.abs(t), 0, 1)
    if shape == "cone":
        return (1 - across**1.15).astype(np.float32)
    if shape == "bell":
        return ((1 - across**3.2) ** 0.8).astype(np.float32)
    if shape == "flat":
        umbo = rng.uniform(-0.25, 0.3)
        return (np.sqrt(1 - across**3.5) * 0.8 + umbo * np.exp(-((t / 0.2) ** 2))).astype(np.float32)
    return np.sqrt(1 - across**2.1).astype(np.float32)


def _shaded(colour: Colour, across: Picture, up: Picture, light: float) -> Picture:
    """Return a rounded surface in a colour, lit from above and from one side."""
    facing = 0.72 + 0.28 * up + 0.22 * light * across - 0.16 * across**2
    return np.asarray(colour, np.float32) * np.clip(facing, 0.25, 1.25)[..., np.newaxis]


def _skin(species: Species, t: Picture, s: Picture, height: Picture, light: float, rng: np.random.Generator) -> Picture:
    """Return the surface of the cap with its warts, scales and shades; `s` is 0 at the edge and 1 at the top."""
    skin = _shaded(species.cap, t, s, light)
    skin = skin * (1 + 0.05 * _noise(rng, 8) + 0.04 * _noise(rng, 40))[..., np.newaxis]
    if species.shape in ("cone", "bell"):  # streaks run down from the tip
        skin = skin * (1 + 0.1 * np.sin(34 * t / (1.15 - 0.9 * s)))[..., np.newaxis]
    for count, colour, least, most in ((species.spots, _WHITE, 0.03, 0.075), (species.scales, _BROWN, 0.02, 0.05)):
        for _ in range(count):
            x, y, radius = rng.uniform(-0.95, 0.95), rng.uniform(0, 0.97), rng.uniform(least, most)
            if y > math.sqrt(1 - x * x) and species.shape == "dome":
                continue
            stretch = math.sqrt(max(1 - x * x, 0.08))  # foreshortened towards the sides
            reach = np.hypot((t - x) / stretch, (height - y) * rng.uniform(0.7, 1.2)) / radius
            spot = _inside(1 - reach, 0.4)
            skin = _over(skin, _shaded(colour, t, s, light), spot * rng.uniform(0.7, 1))
    glint = np.exp(-(((t - 0.4 * light) / 0.22) ** 2) - ((s - 0.75) / 0.16) ** 2) * rng.uniform(0, 0.3)
    return (skin + glint[..., np.newaxis]).astype(np.float32)


def _gills(species: Species, u: Picture, v: Picture, light: float) -> Picture:
    below = _shaded(species.below, u / species.width, np.full_like(u, -0.2), light)
    if not species.gills:  # pores
        pores = np.sin(70 * u) * np.sin(70 * v)
        return (below * (0.95 + 0.08 * pores)[..., np.newaxis]).astype(np.float32)
    stripes = np.sin(species.gills * np.arctan2(v - 0.12, u))
    return (below * (0.88 + 0.16 * stripes)[..., np.newaxis]).astype(np.float32)


def _stem(
    picture: Picture,
    species: Species,
    u: Picture,
    v: Picture,
    length: float,
    light: float,
    rng: np.random.Generator,
    most: float = 0.05,
) -> Picture:
    """Draw the stem from `most` downwards, with a bulb and, at a third of it, a ring."""
    down = np.clip(-v / length, 0, 1)
    width = species.stem_width * (0.85 + 0.35 * down**2)
    across = np.clip(u / width, -1, 1)
    stem = _shaded(species.stem, across, 0.2 - down, light)
    cover = _inside(np.minimum(np.minimum(width - np.abs(u), most - v), v + length))
    picture = _over(picture, stem, cover)
    if species.ring:
        place = -0.36 * length
        skirt = species.stem_width * (1.35 + 1.2 * np.clip(place + 0.07 - v, 0, 0.14) / 0.14)
        cover = _inside(np.minimum(skirt - np.abs(u), 0.07 - np.abs(v - place)))
        picture = _over(picture, _shaded(_WHITE, np.clip(u / skirt, -1, 1), 0.1 - down, light), cover)
    return picture


def _funnel(
    picture: Picture,
    species: Species,
    u: Picture,
    v: Picture,
    wave: Picture,
    tilt: float,
    light: float,
    rng: np.random.Generator,
) -> Picture:
    """Draw a cap that widens upwards, with gills running down its outside and a hollow top."""
    up = np.clip((v + 0.1) / (species.height + 0.1), 0, 1)
    half = species.stem_width + (species.width * wave - species.stem_width) * up ** rng.uniform(1.1, 1.8)
    outside = _shaded(species.below, np.clip(u / half, -1, 1), up - 0.7, light)
    ridges = np.sin(species.gills * np.clip(u / half, -1, 1) * 1.5)
    outside = outside * (0.9 + 0.14 * ridges)[..., np.newaxis]
    wall = np.minimum(np.minimum(half - np.abs(u), v + 0.1), species.height - v)
    picture = _over(picture, outside.astype(np.float32), _inside(wall))
    t, depth = u / (species.width * wave), (v - species.height) / (1.3 * tilt * species.width)
    reach = np.hypot(t, depth)
    top = _shaded(species.cap, t, 0.6 - 0.5 * (1 - np.clip(reach, 0, 1)) - 0.3 * depth, light)
    top = top * (1 + 0.05 * _noise(rng, 12))[..., np.newaxis]
    if species.zones:
        top = top * (1 - 0.35 * species.zones * (1 + np.sin(26 * reach)) / 2)[..., np.newaxis]
    return _over(picture, top.astype(np.float32), _inside(1 - reach, 0.05))


def _grass(picture: Picture, rng: np.random.Generator) -> Picture:
    """Lay some blades of grass before the mushroom."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / (SIZE / 2) - 1
    for _ in range(rng.integers(0, 5)):
        foot, lean, curve = rng.uniform(-1, 1), rng.normal(0, 0.4), rng.normal(0, 0.3)
        high, width = rng.uniform(0.4, 1.4), rng.uniform(0.01, 0.03)
        up = 1 - rows
        off = np.abs(columns - foot - lean * up - curve * up**2)
        colour = np.array([0.3, 0.45, 0.12]) * rng.uniform(0.6, 1.4)
        picture = _over(picture, colour, _inside(np.minimum(width * (1 - up / high), high - up) - off, 0.01))
    return picture


def _photographed(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light and expose the scene: strength, colour and shadows of the moment, focus, and the sensor's noise."""
    dapple = 1 + rng.uniform(0, 0.16) * _noise(rng, 3)
    warmth = rng.normal(0, 0.07)
    colour = np.array([1 + warmth, 1 + rng.normal(0, 0.03), 1 - warmth], np.float32)
    lit = np.clip(picture * (rng.uniform(0.65, 1.2) * dapple)[..., np.newaxis] * colour, 0, 1)
    sharp = Image.fromarray((lit * 255).astype(np.uint8))
    side = round(SIZE * rng.uniform(0.5, 1))  # focus
    soft = sharp.resize((side, side), Image.Resampling.BILINEAR).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    noisy = np.asarray(soft, np.float32) + rng.uniform(1, 6) * rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)


def write_images(folder: Path, per_species: int = PER_SPECIES, seed: int = 0) -> dict[str, int]:
    """Write `<species>/find-<cap>-<photograph>.jpg`; return how many of each species.

    Images that are there already stay as they are, so that an interrupted run is completed.
    """
    jobs = [
        (folder / species / f"find-{place:02}{number // _PHOTOGRAPHS:04}-{number % _PHOTOGRAPHS}.jpg", species, number)
        for place, species in enumerate(SPECIES)
        for number in range(per_species)
    ]
    for species in SPECIES:
        (folder / species).mkdir(parents=True, exist_ok=True)

    def write(job: tuple[Path, str, int]) -> None:
        path, species, number = job
        if path.exists():
            return
        half = path.with_name(f".{path.name}")
        pixels = draw(seed, species, number // _PHOTOGRAPHS, number % _PHOTOGRAPHS)
        Image.fromarray(pixels).save(half, format="JPEG", quality=_QUALITY, subsampling=0)
        half.replace(path)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, jobs))
    return dict.fromkeys(SPECIES, per_species)


def main(arguments: list[str]) -> int:
    """Write a set of images from the command line."""
    parser = argparse.ArgumentParser(prog="python -m include.demo_caps", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-species", type=int, default=PER_SPECIES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    counts = write_images(options.folder, options.per_species, options.seed)
    print(", ".join(f"{count} {species}" for species, count in counts.items()), "in", options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
