"""Which version serves when people choose one: held by hand until it is released, whatever runs would promote.

Over MLflow's REST interface, so that the thin serving container can do it as well as the pipeline. The registered
model's tag `held` names the version; `held_by` and `held_at` say who chose it, and the version's own tag `chosen_by`
goes on saying so.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.catalogue.locks import PATIENCE, registry_turn
from pipelines.errors import NoSuchVersion
from pipelines.registry.client import CHAMPION, RegisteredVersion, as_version, champion, latest
from pipelines.registry.rest import call

HELD, HELD_BY, HELD_AT, CHOSEN_BY = "held", "held_by", "held_at", "chosen_by"
_NO = ("", "false", "no", "0")


@dataclass(frozen=True)
class Hold:
    """The version that is held, by whom and since when, as far as that was noted."""

    version: str
    by: str | None = None
    at: str | None = None


def version_of(project: str, version: str) -> RegisteredVersion:
    """Return a registered version with its tags.

    Raises:
        NoSuchVersion: it is not there.
        RegistryError: the registry gives no answer that can be used.
    """
    number = version if version.isascii() and version.isdecimal() and len(version) < 10 else ""
    registered = number and call("model-versions/get", {"name": project, "version": number})
    if not registered:
        raise NoSuchVersion(
            f"there is no version {version[:32]!r} of {project}; GET /models lists those that there are"
        )
    return as_version(registered["model_version"])


def held(project: str) -> Hold | None:
    """Return what is held by hand, by the registered model's tag or the champion's own, or None."""
    model = (call("registered-models/get", {"name": project}) or {}).get("registered_model", {})
    tags = {tag["key"]: str(tag.get("value", "")).strip() for tag in model.get("tags", [])}
    if version := tags.get(HELD):
        return Hold(version, tags.get(HELD_BY) or None, tags.get(HELD_AT) or None)
    now = champion(project)
    if now is None or now.tags.get(HELD, "").strip().lower() in _NO:
        return None
    return Hold(now.version)


def hold(project: str, version: str, by: str = "", patience: float = PATIENCE) -> RegisteredVersion:
    """Make `version` the champion by hand, keep every run from replacing it until `release`, and return it.

    Raises:
        NoSuchVersion: it is not there; nothing was changed.
        RegistryError: the registry gives no answer that can be used.
        CatalogueError: the turn does not come within `patience` seconds.
    """
    with registry_turn(project, patience):
        chosen = version_of(project, version)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        for key, value in ((HELD_BY, by), (HELD_AT, at), (HELD, version)):
            _tag(project, key, value)
        if by:
            note = {"name": project, "version": version, "key": CHOSEN_BY, "value": f"{by}, {at}"}
            call("model-versions/set-tag", note, "POST")
        call("registered-models/alias", {"name": project, "alias": CHAMPION, "version": version}, "POST")
    return chosen


def release(project: str, patience: float = PATIENCE) -> Hold | None:
    """Let runs replace the champion again, and return what was held; without a hold this changes nothing.

    Raises:
        RegistryError: the registry gives no answer that can be used.
        CatalogueError: the turn does not come within `patience` seconds.
    """
    with registry_turn(project, patience):
        was = held(project)
        if was is None:
            return None
        for key in (HELD, HELD_BY, HELD_AT):
            call("registered-models/delete-tag", {"name": project, "key": key}, "DELETE")
        now = champion(project)
        if now and HELD in now.tags:
            mark = {"name": project, "version": now.version, "key": HELD}
            call("model-versions/delete-tag", mark, "DELETE")
    return was


def to_serve(project: str, serve: str) -> RegisteredVersion | None:
    """Return the version that serving is to serve: with `serve: latest` the newest one, unless another one is held."""
    if serve == "champion":
        return champion(project)
    chosen = held(project)
    return version_of(project, chosen.version) if chosen else latest(project)


def _tag(project: str, key: str, value: Any) -> None:
    call("registered-models/set-tag", {"name": project, "key": key, "value": str(value)}, "POST")
