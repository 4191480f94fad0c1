"""Tell whether a file of the inbox is at rest or is still being written.

Objects of S3 appear whole. A server of a folder, such as that of the local stack, lists files while they are being
copied: cut, or at their full size with zeros at the end. There, a file is at rest if its time of modification lies
`REST_SECONDS` back, or if size, content and time have not changed between two looks as far apart. The time alone does
not count where the content changed and the time did not, since some programs set it to that of the original first.

Looks at files that are not at rest yet are kept in S3 from one run to the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.catalogue.schema import now
from pipelines.config.settings import settings
from pipelines.errors import NotFound
from pipelines.storage import keys
from pipelines.storage.s3 import Storage, StoredObject

REST_SECONDS = 30.0
# Serving writes through S3, so that what it posts appears whole.
_POSTED = re.compile(r"[^/]+/inbox/(?:good|anomaly/[^/]+)/posted/[0-9a-f]{64}/[^/]+")


def rest_seconds(storage: Storage) -> float:
    """Return for how long a file must not have changed: 0 where objects appear whole.

    Raises:
        StorageError: S3 is unavailable.
    """
    chosen = settings().rest_seconds
    if chosen is not None:
        return chosen
    return REST_SECONDS if storage.serves_folder() else 0.0


@dataclass
class _Look:
    """What a file was like when it was looked at.

    Attributes:
        state: size, entity tag and time of modification.
        since: when it was first seen like this.
        first: when it was first seen at all.
        untimely: whether it changed while its time did not move on, which therefore says nothing.
    """

    state: list[str]
    since: datetime
    first: datetime
    untimely: bool = False


@dataclass
class Looks:
    """The looks at the files of one inbox, which a run finds, adds to and stores.

    Attributes:
        storage: the bucket.
        project: name of the project.
        seconds: for how long a file must not have changed; with 0, no looks are kept and everything is at rest.
    """

    storage: Storage
    project: str
    seconds: float
    _looks: dict[str, _Look] = field(default_factory=dict)
    _stored: str = ""

    @classmethod
    def load(cls, storage: Storage, project: str) -> Looks:
        """Return the looks that the last run stored.

        Raises:
            StorageError: S3 is unavailable.
        """
        looks = cls(storage, project, rest_seconds(storage))
        if not looks.seconds:
            return looks
        try:
            looks._stored = storage.get(looks._key).decode()
            for key, (state, since, first, untimely) in json.loads(looks._stored).items():
                times = datetime.fromisoformat(since), datetime.fromisoformat(first)
                looks._looks[key] = _Look(state, *times, bool(untimely))
        except (NotFound, ValueError, TypeError, AttributeError):  # none yet, or altered: looked at for the first time
            looks._looks.clear()
        return looks

    @property
    def _key(self) -> str:
        return keys.ingest_state(self.project, "looks")

    def wait(self, item: StoredObject) -> float:
        """Look at a file and return for how many seconds more it must not change; 0 if it is at rest."""
        if not self.seconds or _POSTED.fullmatch(item.key):
            return 0.0
        moment = now()
        state = [str(item.size), item.etag, item.modified.isoformat()]
        look = self._looks.get(item.key)
        if look is None:
            look = self._looks[item.key] = _Look(state, moment, moment)
        elif look.state != state:
            look.untimely = look.untimely or look.state[2] >= state[2]
            look.state, look.since = state, moment
        unchanged = (moment - look.since).total_seconds()
        # Negative where the clock of the file's machine is ahead.
        age = 0.0 if look.untimely else (moment - item.modified).total_seconds()
        return max(0.0, self.seconds - max(unchanged, age))

    def first_seen(self, item: StoredObject) -> datetime:
        """Return since when a file has been in the inbox, whatever its time of modification says."""
        look = self._looks.get(item.key)
        return look.first if look else item.modified

    def store(self, present: Iterable[str]) -> None:
        """Keep the looks at the files that are `present`, for the next run.

        Raises:
            StorageError: S3 is unavailable.
        """
        here = set(present)
        kept = {key: look for key, look in self._looks.items() if key in here}
        text = json.dumps(
            {
                key: [look.state, look.since.isoformat(), look.first.isoformat(), look.untimely]
                for key, look in kept.items()
            }
        )
        if self.seconds and text != (self._stored or "{}"):
            self.storage.put(self._key, text.encode(), "application/json")
