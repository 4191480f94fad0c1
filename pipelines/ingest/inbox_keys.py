"""What the key of an inbox object says: `<project>/inbox/<good|anomaly[/<type>]|unlabelled>/<any name>`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote

from pipelines.storage import keys

INDEX = "index.csv"
_MASK = re.compile(r"(?P<stem>.+)_mask\.(?:png|bmp|tiff?|webp|jpe?g)", re.IGNORECASE)
# A rejected object's key is longer by a few letters, quoted ones by far more; S3 allows 1,024 bytes.
_LONGEST = 900
_EXPECTED = "put it into good/, anomaly/, anomaly/<type>/ or unlabelled/ of the inbox"


def inbox_prefix(project: str) -> str:
    """Return the prefix of all keys in a project's inbox."""
    return keys.inbox(project)


@dataclass(frozen=True)
class InboxPath:
    """A key below the inbox, read.

    `path` is the key without the inbox's prefix, `folder` and `name` its parts. `label` is good, anomaly or None
    (unlabelled), `type` the anomaly's, `mask_of` the path without extension of the image that it is a mask of. `fault`
    says why the key cannot be used, with what to do.
    """

    path: str
    folder: str
    name: str
    label: str | None = None
    type: str | None = None
    mask_of: str | None = None
    fault: str | None = None

    @property
    def stem(self) -> str:
        """Return the path without the name's extension."""
        name = self.name.rpartition(".")[0] or self.name
        return f"{self.folder}/{name}"


def read_path(path: str) -> InboxPath:
    """Read the part of an inbox key that follows `<project>/inbox/`."""
    folder, _, name = path.rpartition("/")
    if fault := _fault(path):
        return InboxPath(path, folder, name, fault=fault)
    top, _, below = folder.partition("/")
    if top not in ("good", "anomaly", "unlabelled"):
        where = f"{top}/" if top else "the inbox itself"
        return InboxPath(path, folder, name, fault=f"{where} says nothing of the image: {_EXPECTED}")
    if top != "anomaly":
        return InboxPath(path, folder, name, label="good" if top == "good" else None)
    kind = below.partition("/")[0]
    mask = _MASK.fullmatch(name)
    return InboxPath(
        path,
        folder,
        name,
        label="anomaly",
        type=kind if kind not in ("", "anomaly") else None,  # anomaly/anomaly/ says no more than anomaly/
        mask_of=f"{folder}/{mask['stem']}" if mask else None,
    )


def mask_stem(path: InboxPath) -> str | None:
    """Return the stem of the image that the name says this is a mask of, whatever its folder."""
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
    """Return where a refused object goes: the same path under rejected/, quoted where the name itself is the fault."""
    if _fault(path):
        parts = (quote(part, safe=" ()+,;=@!") for part in path.split("/"))
        path = "/".join(part.strip() if part.strip(". ") else part.replace(".", "%2E") or "%" for part in parts)
        path = path[:_LONGEST].rstrip("/")
    return keys.rejected(project, path)


def ingest_prefix(project: str, run_id: str) -> str:
    """Return where a run's batches and reports lie; run ids hold characters that not every S3 server takes."""
    return keys.ingest_run(project, run_id)
