# ruff: noqa: UP031
"""Report in one line why this Python cannot run Inspectline; the file's syntax is valid in old versions as well."""

import sys

FIRST, LAST = (3, 11), (3, 13)


def problem(version, missing):
    """Return what is wrong with a Python of this `version` (major, minor) that lacks these modules, or None."""
    if not FIRST <= version <= LAST:
        return (
            "Inspectline needs Python 3.11, 3.12 or 3.13, and this is %d.%d: "
            "install one and name it, as in: make PYTHON=python3.12 setup" % version
        )
    if missing:
        return (
            "this Python has no %s, which makes virtual environments: "
            "sudo apt install python%d.%d-venv (or python3-venv)" % ((missing[0],) + version)
        )
    return None


def missing_modules():
    """Return which of the modules that make a virtual environment are not there; Debian packs them apart."""
    missing = []
    for name in ("venv", "ensurepip"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    return missing


if __name__ == "__main__":
    fault = problem(sys.version_info[:2], missing_modules())
    if fault:
        sys.exit(fault)
