"""Every address in a project's bucket, each made by one function. Keys have no leading slash; see DESIGN: Storage.

<project>/inbox/…                                   where data lands
<project>/samples/<2 hex>/<sha256>.<ext>            samples, and masks beside them
<project>/rejected/…                                what ingest refused
<project>/ingest/<run>/…                            batches and the report of an ingest
<project>/ingest/state/…                            what one ingest leaves for the next
<project>/served/<day>/<sha256>.<ext>               served images, kept for some days
<project>/<version_id>/<artefact type>/…            all that a dataset version produced
backbones/…                                         downloaded weights of pretrained networks, for all projects
"""

from __future__ import annotations

import re
from datetime import datetime


def inbox(project: str) -> str:
    """Return the prefix under which data lands, with a slash at its end.

    >>> inbox("cells")
    'cells/inbox/'
    """
    return f"{project}/inbox/"


def rejected(project: str, path: str) -> str:
    """Return where a refused file goes; `path` is its path below the inbox."""
    return f"{project}/rejected/{path}"


def ingest_run(project: str, run_id: str) -> str:
    """Return the folder of an ingest run, without a slash at its end; `run_id` is made safe for a key."""
    return f"{project}/ingest/{re.sub(r'[^A-Za-z0-9._-]', '_', run_id)[:200]}"


def ingest_state(project: str, name: str) -> str:
    """Return where ingest keeps what one run leaves for the next."""
    return f"{project}/ingest/state/{name}.json"


def sample(project: str, sha256: str, extension: str) -> str:
    """Return where a sample is stored.

    >>> sample("cells", "ab12", "png")
    'cells/samples/ab/ab12.png'
    """
    return f"{project}/samples/{sha256[:2]}/{sha256}.{extension}"


def mask(project: str, sha256: str) -> str:
    """Return where a mask is stored; `sha256` is the mask's own."""
    return f"{project}/samples/{sha256[:2]}/{sha256}_mask.png"


def served_image(project: str, sha256: str, extension: str, created_at: datetime) -> str:
    """Return where a served image is kept."""
    return f"{project}/served/{created_at:%Y-%m-%d}/{sha256}.{extension}"


def manifest(project: str, version_id: str) -> str:
    """Return the manifest of a dataset version."""
    return f"{project}/{version_id}/dataset/manifest.parquet"


def pack(project: str, version_id: str, size: int, resize: str, preparation: int) -> str:
    """Return the folder of a pack: images of `size` pixels a side, resized by `resize`."""
    return f"{project}/{version_id}/pack/{size}-{resize}-{preparation}"


def profile(project: str, version_id: str) -> str:
    """Return the profile of a dataset version, an HTML page."""
    return f"{project}/{version_id}/profile/profile.html"


def checkpoint(project: str, version_id: str, training_id: str) -> str:
    """Return the checkpoint of a training."""
    return f"{project}/{version_id}/checkpoint/{training_id}/state.npz"


def package(project: str, version_id: str, training_id: str) -> str:
    """Return the folder of the package that a training makes, without a slash at its end."""
    return f"{project}/{version_id}/model/{training_id}"


def evaluation(project: str, version_id: str, training_id: str) -> str:
    """Return the report of an evaluation."""
    return f"{project}/{version_id}/evaluation/{training_id}.json"


def decision(project: str, version_id: str, training_id: str) -> str:
    """Return the gate's decision on what a training made."""
    return f"{project}/{version_id}/evaluation/{training_id}_decision.json"


def drift_report(project: str, version_id: str, name: str) -> str:
    """Return a drift report, an HTML page, below the version that served."""
    return f"{project}/{version_id}/drift/{name}.html"


def backbone(file_name: str) -> str:
    """Return where the weights of a pretrained network are shared."""
    return f"backbones/{file_name}"
