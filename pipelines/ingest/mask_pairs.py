"""Pair masks with their images: by folder, name and suffix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.ingest.folder_layouts import FolderTree, Parts
from pipelines.ingest.folder_names import folded, mask_base, stem_key
from pipelines.ingest.name_lists import some


@dataclass(frozen=True)
class Pairs:
    """The masks of a folder.

    Attributes:
        masks: mask files by image file.
        problems: masks that fit no image, or several.
    """

    masks: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def pair_masks(tree: FolderTree, images: Sequence[Path], masks: Iterable[Path]) -> Pairs:
    """Return the masks of each image.

    An image fits a mask if it has the same stem (without a suffix such as `_mask`), or the mask's folder has the
    image's stem, or their names agree but for words such as `image` and `mask`; and if the words of the mask's path
    occur in the image's path in the same order. Of several, an image that is not labelled good fits better, then the
    one whose path has the most words in common.
    """
    by_stem: dict[str, list[Path]] = {}
    by_key: dict[str, list[Path]] = {}
    for image in images:
        by_stem.setdefault(folded(image.stem), []).append(image)
        by_key.setdefault(stem_key(image.stem), []).append(image)
    paired: dict[Path, list[Path]] = {}
    orphans, ambiguous = [], []
    for mask in masks:
        words = tree.place(_parts(tree, mask)).words
        base = mask_base(mask.stem)
        stems = [mask.stem] if base is None else [base[0], mask.stem]
        candidates = [image for stem in stems for image in by_stem.get(folded(stem), [])]
        fitting = _fitting(tree, mask, candidates, words)
        if not fitting:
            folder = mask.parent.name
            shorter = words[:-1] if words and words[-1] in folded(folder).split("_") else words
            fitting = _fitting(tree, mask, by_stem.get(folded(folder), []), shorter)
        if not fitting:
            fitting = _fitting(tree, mask, by_key.get(stem_key(mask.stem), []), words)
        if not fitting:
            orphans.append(mask)
        elif len({(image.parent, folded(image.stem)) for image in fitting}) > 1:
            ambiguous.append((mask, fitting))
        else:
            for image in fitting:
                paired.setdefault(image, []).append(mask)
    problems = [_no_image(tree.root, orphans)] if orphans else []
    problems += [
        f"the mask {mask.relative_to(tree.root)} fits {fitting[0].relative_to(tree.root)} and "
        f"{fitting[1].relative_to(tree.root)}: put masks into folders named as their images' folders"
        for mask, fitting in ambiguous[:5]
    ]
    return Pairs({image: tuple(of_image) for image, of_image in paired.items()}, tuple(problems))


def _no_image(root: Path, orphans: Sequence[Path]) -> str:
    names = some([str(mask.relative_to(root)) for mask in orphans], 3)
    return (
        f"{len(orphans)} {'mask has' if len(orphans) == 1 else 'masks have'} no image ({names}): add the images, "
        "or say with --map FOLDER=ignore that they are not wanted"
    )


def _fitting(tree: FolderTree, mask: Path, candidates: Sequence[Path], words: Parts) -> list[Path]:
    """Return the candidates that fit best."""
    ranked = []
    for image in dict.fromkeys(candidates):
        place = tree.place(_parts(tree, image))
        if image != mask and _in_order(words, place.words):
            common = sum(a == b for a, b in zip(image.parts, mask.parts, strict=False))
            rank = (image.parent == mask.parent, place.kind != "good", -len(place.words) if words else 0, common)
            ranked.append((rank, image))
    best = max((rank for rank, _ in ranked), default=None)
    return [image for rank, image in ranked if rank == best]


def _in_order(few: Sequence[str], many: Sequence[str]) -> bool:
    """Return whether `few` occur in `many` in the same order."""
    rest = iter(many)
    return all(word in rest for word in few)


def _parts(tree: FolderTree, file: Path) -> Parts:
    return file.relative_to(tree.root).parts[:-1]
