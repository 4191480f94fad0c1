"""Tell from its name what a file in an inbox or in an imported folder is that is no image: to be left where it is.

Two kinds: files of the system, which say nothing, and copies that are not finished, which get their name at the end.
The same name without the ending of an unfinished copy is not finished either: browsers reserve it, empty.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

Kind = Literal["system", "unfinished"]

_SYSTEM = re.compile(
    r"""
    \.ds_store | \._.* | __macosx | \.(?:spotlight-.*|trashes|fseventsd|temporaryitems|appledouble|lsoverride)
    | \.(?:documentrevisions-.*|volumeicon\.icns|apdisk|apple\..*|localized|metadata_never_index|com\.apple\..*)
    | icon[\r\ufffd?_] | network\ trash\ folder | \.mobilebackups
    | (?:eh)?thumbs(?:_vista)?\.db(?:[:-]encryptable)? | desktop\.ini | folder\.htt | \$recycle\.bin
    | system\ volume\ information | .*:zone\.identifier | autorun\.inf | iconcache\.db
    | \.trash(?:-.*|es)? | \.directory | lost\+found | \.nfs[0-9a-f]+ | \.fuse_hidden.* | \.thumbnails | \.snapshots?
    | @eadir | \#recycle | @recycle | @recently-snapshot | \.@__thumb | \.syncthing\..* | \.stfolder | \.stversions
    | \.(?:git|svn|hg)(?:keep|ignore|attributes|modules)? | \.keep | \.placeholder | \.nomedia
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ENDINGS = (
    r"part|partial|filepart|tmp|temp|crdownload|download|opdownload|unfinished|incomplete|inprogress|in-progress"
    r"|uploading|upload|writing|copying|lock|lck|aria2|bc!|!ut|!qb|!bt|td|jc!|swp|swo|swx|bak~|sb-[0-9a-f]{8}-[a-z0-9]{6}"
)
_UNFINISHED = re.compile(rf"\..* | ~\$.* | ~.*\.tmp | .*~ | .+\.(?:{_ENDINGS})(?:\.\d+)?", re.VERBOSE | re.IGNORECASE)
_UNFINISHED_FOLDER = re.compile(r"\..* | .+\.(?:download|crdownload|part)", re.VERBOSE | re.IGNORECASE)
_RESERVED = re.compile(rf"(?P<name>.+)\.(?:{_ENDINGS})", re.IGNORECASE)


def left_alone(path: str) -> Kind | None:
    """Return why a file is no one's to take, by its path with `/`: it or a folder of it has such a name; else None.

    >>> left_alone("good/.DS_Store"), left_alone("good/7.png.part"), left_alone("good/7.png")
    ('system', 'unfinished', None)
    """
    parts = path.split("/")
    if any(_SYSTEM.fullmatch(part) for part in parts):
        return "system"
    *folders, name = parts
    hidden = any(_UNFINISHED_FOLDER.fullmatch(folder) for folder in folders if folder not in (".", ".."))
    if hidden or _UNFINISHED.fullmatch(name):
        return "unfinished"
    return None


def reserved(paths: Collection[str]) -> set[str]:
    """Return those of `paths` beside which an unfinished copy lies that will have their name.

    >>> reserved(["a.png", "a.png.part", "b.png"])
    {'a.png'}
    """
    names = {match["name"] for path in paths if (match := _RESERVED.fullmatch(path))}
    return names.intersection(paths)
