"""Serving's image stays thin: what it may import, what it installs, how it listens."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest

import serving.__main__
from pipelines.config.cpu import usable_cores
from pipelines.config.settings import REPOSITORY
from serving.server.asgi import threads
from serving.settings import serving_settings
from tests.pipelines.packages import make_classifier, make_package

HEAVY = {"tensorflow", "keras", "torch", "jax", "airflow", "mlflow", "pandas", "pyarrow", "scipy", "sklearn", "onnx"}
HEAVY |= {"matplotlib", "evidently", "data_profiling", "alembic", "include", "monitoring", "dags", "plugins"}
SERVES_ONCE = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy}:
            raise ImportError(f"{{name}} is not in serving's image")
sys.meta_path.insert(0, Blocker())
import io
from pathlib import Path
import numpy as np
from PIL import Image
import serving.__main__
import serving.server.asgi
from pipelines.registry.client import RegisteredVersion
from pipelines.storage.s3 import Storage
from serving.app import create_app
from serving.models.served_models import load
app = create_app()
service = app.extensions["inspectline"]
client = app.test_client()
assert client.get("/status").status_code == 200
state = service.predictor.state("ev_batteries")
state.serving = load(RegisteredVersion("ev_batteries", "1"), Path({package!r}), 1)
file = io.BytesIO()
Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(file, "PNG")
answer = client.post("/predict", data=file.getvalue(), content_type="image/png")
assert answer.status_code == 200, answer.text
assert Storage("bucket").url("key").startswith("http")
service.stop()
print("served")
"""


@pytest.mark.parametrize("make", [make_package, make_classifier])
def test_serving_when_only_its_requirements_are_there_then_it_predicts(
    make: Callable[..., Path], tmp_path: Path, database: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(REPOSITORY / "include" / "projects"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("INSPECTLINE_AUTH", "none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    package = make(tmp_path / "package", project="ev_batteries")
    program = SERVES_ONCE.format(heavy=HEAVY, package=str(package))
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("served"), done.stderr


def pins(path: Path) -> dict[str, str]:
    """Return the pinned versions by package, extras left out."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[\w+\])?==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): number for name, number in found}


def test_requirements_when_read_then_pinned_as_in_the_lock_and_nothing_heavy():
    serving, lock = pins(REPOSITORY / "serving" / "requirements.txt"), pins(REPOSITORY / "requirements.txt")
    assert len(serving) <= 18
    assert {name: lock.get(name) for name in serving} == serving
    assert not set(serving) & HEAVY


def test_requirements_when_resolved_then_nothing_heavy_comes_along():
    waiting, seen = set(pins(REPOSITORY / "serving" / "requirements.txt")), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        try:
            version(name)
        except PackageNotFoundError:
            continue
        for need in requires(name) or []:
            if "extra ==" not in need:
                needed = re.split(r"[\s<>=!~;\[(]", need, maxsplit=1)[0].lower().replace("_", "-")
                waiting |= {needed} - seen
    assert not seen & HEAVY


def options(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Any]:
    """Return what uvicorn is started with in an environment."""
    for name in ("HOST", "PORT", "INSPECTLINE_WORKERS", "INSPECTLINE_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return serving.__main__.options(serving_settings())


def test_server_when_nothing_is_said_then_one_process_on_loopback(monkeypatch: pytest.MonkeyPatch):
    started = options(monkeypatch)
    assert (started["host"], started["port"], started["workers"]) == ("127.0.0.1", 8000, 1)
    assert threads() == max(32, 4 * usable_cores())


def test_server_when_host_and_port_are_given_then_it_listens_there(monkeypatch: pytest.MonkeyPatch):
    started = options(monkeypatch, HOST="0.0.0.0", PORT="9999", INSPECTLINE_WORKERS="2", INSPECTLINE_THREADS="3")
    assert (started["host"], started["port"], started["workers"], threads()) == ("0.0.0.0", 9999, 2, 3)


def test_server_when_a_setting_is_wrong_then_it_ends_with_a_line_that_names_it():
    wrong = os.environ | {"INSPECTLINE_QUEUE": "many"}
    command = [sys.executable, "-m", "serving"]
    done = subprocess.run(command, cwd=REPOSITORY, env=wrong, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "INSPECTLINE_QUEUE is 'many': give a number from 1 to 100000\n"


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "1e9"])
def test_settings_when_a_number_is_wrong_then_named(value: str):
    with pytest.raises(Exception, match="INSPECTLINE_POLL_SECONDS"):
        serving_settings({"INSPECTLINE_POLL_SECONDS": value})


def test_dockerfile_when_read_then_not_root_and_all_that_serving_imports_is_copied():
    text = (REPOSITORY / "serving" / "Dockerfile").read_text(encoding="utf-8")
    assert "# syntax" not in text
    assert re.search(r"^USER inspectline$", text, re.MULTILINE)
    assert set(re.findall(r"^COPY (\S+) \S+$", text, re.MULTILINE)) == {
        "requirements.txt", "serving/requirements.txt", "pipelines", "serving", "include/projects",
    }  # fmt: skip
