"""Which code made something: the git revision where there is one, else the installed release."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version

from pipelines.config.settings import REPOSITORY


def git_revision() -> str:
    """Return the commit of the running code, `+changed` behind it if files differ from it; else `release <version>`.

    `GIT_REVISION`, which an image's build sets, comes first: an image holds no repository.
    """
    if revision := os.environ.get("GIT_REVISION", "").strip():
        return revision
    commit = _git("rev-parse", "HEAD")
    if commit:
        return commit + ("+changed" if _git("status", "--porcelain", "--untracked-files=no") else "")
    try:
        return f"release {version('inspectline')}"
    except PackageNotFoundError:
        return "unknown"


def _git(*arguments: str) -> str:
    """Return what git prints, or nothing where it cannot answer (not installed, no repository)."""
    try:
        # The path is ours and the arguments are fixed.
        completed = subprocess.run(  # noqa: S603
            ["git", "-C", str(REPOSITORY), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.strip() if completed.returncode == 0 else ""
