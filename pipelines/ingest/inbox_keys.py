"""Parse and build keys of inbox objects: `<project>/inbox/<good|anomaly[/<type>]|unlabelled>/<any name>`.

Of classifiers: `<project>/inbox/<class|unlabelled>/<any name>`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from urllib.parse import quote

from pipelines.config.class_names import BadClass, class_name, is_unlabelled
from pipelines.storage import keys

INDEX = "index.csv"
# Regions of the image with the same stem, as `pipelines.images.regions` reads them.
REGIONS_ENDING = ".regions.json"
_MASK = re.compile(r"(?P<stem>.+)_mask\.(?:png|bmp|tiff?|webp|jpe?g)", re.IGNORECASE)
# Leaves room below S3's limit of 1,024 bytes, since rejected keys are longer, in particular quoted ones.
_LONGEST = 900
_EXPECTED = "put it into good/, anomaly/, anomaly/<type>/ or unlabelled/ of the inbox"
_EXPECTED_CLASS = "put it into a folder of the inbox that is named as its class, or into unlabelled/"


def inbox_prefix(project: str) -> str:
    """Return the prefix of all keys in a project's inbox."""
    return keys.inbox(project)


def comparable(name: str) -> str:
    """Return a key or path as names are compared and stored: in Unicode's form NFC.

    macOS writes an umlaut as a letter and its dots (NFD), other systems as one letter; both name the same file.
    """
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class InboxPath:
    """A parsed key of the inbox.

    Attributes:
        path: the key without the inbox's prefix.
        folder: the folder part of the path.
        name: the file name.
        label: good, anomaly, a class, or None (default): unlabelled.
        type: type of the anomaly. Default None.
        mask_of: path without extension of the image this is a mask of. Default None.
        regions_of: path without extension of the image that its regions are of. Default None.
        fault: why the key is invalid and what to do. Default None: it is valid.
    """

    path: str
    folder: str
    name: str
    label: str | None = None
    type: str | None = None
    mask_of: str | None = None
    regions_of: str | None = None
    fault: str | None = None

    @property
    def stem(self) -> str:
        """Return the path without extension."""
        name = self.name.rpartition(".")[0] or self.name
        return f"{self.folder}/{name}"


def read_path(path: str, task: str = "anomaly") -> InboxPath:
    """Parse the part of an inbox key after `<project>/inbox/`, of a project with `task` (default anomaly)."""
    folder, _, name = path.rpartition("/")
    if fault := _fault(path):
        return InboxPath(path, folder, name, fault=fault)
    top, _, below = folder.partition("/")
    if task == "classification":
        return _read_class(InboxPath(path, folder, name), top)
    if top not in ("good", "anomaly", "unlabelled"):
        where = f"{top}/" if top else "the inbox itself"
        return InboxPath(path, folder, name, fault=f"{where} says nothing of the image: {_EXPECTED}")
    with_regions = name.lower().endswith(REGIONS_ENDING) and len(name) > len(REGIONS_ENDING)
    if top != "anomaly":
        fault = (
            "regions of an image that is not labelled as an anomaly: put both into anomaly/" if with_regions else None
        )
        return InboxPath(path, folder, name, label="good" if top == "good" else None, fault=fault)
    kind = below.partition("/")[0]
    mask = _MASK.fullmatch(name)
    return InboxPath(
        path,
        folder,
        name,
        label="anomaly",
        type=kind if kind not in ("", "anomaly") else None,  # anomaly/anomaly/ is equivalent to anomaly/
        mask_of=f"{folder}/{mask['stem']}" if mask else None,
        regions_of=f"{folder}/{name[: -len(REGIONS_ENDING)]}" if with_regions else None,
    )


def _read_class(place: InboxPath, top: str) -> InboxPath:
    """Add the class to a path whose first folder is `top`; an index.csv may still give that of an image without."""
    if place.name.lower().endswith(REGIONS_ENDING):
        return replace(place, fault="regions are not used by classes: leave them out")
    if not top:
        return replace(place, fault=f"the inbox itself says nothing of the image: {_EXPECTED_CLASS}")
    if is_unlabelled(top):
        return place
    try:
        return replace(place, label=class_name(top))
    except BadClass as error:
        return replace(place, fault=f"{error}, and {_EXPECTED_CLASS}")


def mask_stem(path: InboxPath) -> str | None:
    """Return the stem of the masked image if the name is that of a mask, regardless of the folder's label."""
    mask = _MASK.fullmatch(path.name)
    return f"{path.folder}/{mask['stem']}" if mask and path.folder else None


def _fault(path: str) -> str | None:
    if len(path.encode("utf-8", "replace")) > _LONGEST:
        return f"its name is longer than {_LONGEST} bytes: shorten it"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") for letter in path) or "\ufffd" in path:
        return "its name holds characters that cannot be read: rename it"
    if "\\" in path or any(part in ("", ".", "..") or part != part.strip() for part in path.split("/")):
        return "its name has empty, dotted or padded parts or a backslash: rename it"
    return None


def rejected_key(project: str, path: str) -> str:
    """Return the key of a rejected object: the same path under rejected/, percent-quoted if the path is invalid."""
    if _fault(path):
        parts = (quote(part, safe=" ()+,;=@!") for part in path.split("/"))
        path = "/".join(part.strip() if part.strip(". ") else part.replace(".", "%2E") or "%" for part in parts)
        path = path[:_LONGEST].rstrip("/")
    return keys.rejected(project, path)


def ingest_prefix(project: str, run_id: str) -> str:
    """Return the prefix of a run's batches and reports, without characters that not every S3 server accepts."""
    return keys.ingest_run(project, run_id)
