"""Every call of the description under schemathesis: what it generates, good and bad, is answered as described."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.catalogue import passwords, transaction, users
from pipelines.config.settings import REPOSITORY
from pipelines.storage.s3 import Storage
from tests.conftest import Projects
from tests.serving.conftest import Registry, Server

PASSWORD = "a password of some length"
CONFIG = f"""
seed = 4
continue-on-failure = true
generation = {{{{ max-examples = {{examples}}, database = "none" }}}}
auth.basic = {{{{ username = "root", password = "{PASSWORD}" }}}}

# What a schema cannot say of valid data: whether an address leads to an image, and a file is one that can be used.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 410, 413, 415, 422, 424, 429]

# Nor whether a cursor is one that was given, a password repeats itself, and a word is more than blanks.
[[operations]]
include-operation-id-regex = "(past_predictions|add_user|change_user|retrain|anomaly|annotate)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 410, 413, 415, 422, 424, 429]
"""


@pytest.fixture
def stand(server: Server, registry: Registry, projects: Projects, good_file: bytes, bad_file: bytes) -> Server:
    """Serving with accounts, an administrator `root`, three versions of a model and an image in S3."""
    with transaction() as connection:
        users.add(connection, "root", passwords.hash_password(PASSWORD), "administrator")
    version = [registry.register() for _ in range(3)][-1]
    server.start(INSPECTLINE_AUTH="accounts", INSPECTLINE_PROXIES="1", INSPECTLINE_WAIT_SECONDS="0").until_version(
        version
    )
    image = Storage(projects.bucket).put(f"{registry.project}/camera/good.png", good_file)
    addresses = [
        image,
        image.replace("good", "none"),
        "s3://other/x.png",
        "http://127.0.0.1/x.png",
        "https://127.0.0.1/x",
    ]
    files = [good_file, bad_file, good_file[: len(good_file) // 2]]
    sent = {"files": [data.hex() for data in files], "addresses": addresses}
    (server.log.parent / "sent.json").write_text(json.dumps(sent), encoding="utf-8")
    return server


def schemathesis(server: Server, examples: int) -> tuple[int, str]:
    """Run schemathesis with all its checks; return its exit status and what it printed."""
    folder = server.log.parent
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG.format(examples=examples), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run", "--checks", "all"]
        + ["--no-color", f"{server.address}/openapi.json"],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(REPOSITORY),
            "SCHEMATHESIS_HOOKS": "tests.serving.generated",
            "SENT_BY_SCHEMATHESIS": str(folder / "sent.json"),
        },
        capture_output=True,
        text=True,
        timeout=3600,
    )
    return done.returncode, done.stdout + done.stderr


def check(server: Server, examples: int) -> None:
    """Let schemathesis pass, and look for what it does not see."""
    status, output = schemathesis(server, examples)
    assert status == 0, output[-6000:]
    assert re.search(r"Selected: (\d\d)/\1\s+Tested: \1\s", output), output[-2000:]
    assert "Traceback" not in server.log.read_text(encoding="utf-8")
    print(output[output.rindex("= SUMMARY =") :])


def test_calls_when_generated_then_answered_as_described(stand: Server):
    check(stand, 1)


@pytest.mark.soak
def test_calls_when_generated_at_length_then_answered_as_described(stand: Server):
    check(stand, 100)
