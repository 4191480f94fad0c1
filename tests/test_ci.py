"""`.ci/run` and the GitHub workflow: what they would do, without doing it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


@pytest.fixture
def machine(tmp_path):
    """A copy of `.ci/run`, and a PATH of its own whose programs only say that they were called."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "env", "id"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "python3").symlink_to(Path(sys.executable).resolve())
    for name in ("make", "git", "initdb", "chromium", "chromedriver", "apt-get", "sudo"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $* CI=$CI"\n')
        (programs / name).chmod(0o755)
    return programs


def run(programs):
    return subprocess.run(
        [programs.parent / ".ci" / "run"],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        stdin=subprocess.PIPE,
        timeout=60,
    )


def test_run_when_everything_is_there_installs_nothing_and_calls_make_test(machine):
    result = run(machine)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "make test PYTHON=python3 CI=true"


def test_run_when_something_is_missing_installs_that_alone(machine):
    (machine / "git").unlink()
    (machine / "apt-get").write_text('#!/bin/sh\necho "apt-get $*" >&2\n')
    (machine / "sudo").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    result = run(machine)
    assert result.stdout.splitlines() == ["installing git", "make test PYTHON=python3 CI=true"]
    assert result.stderr.splitlines() == ["apt-get update -qq", "apt-get install -y -qq --no-install-recommends git"]


def test_run_when_no_python_can_be_used_says_so(machine):
    (machine / "python3").unlink()
    (machine / "python3").write_text("#!/bin/sh\nexit 1\n")
    (machine / "python3").chmod(0o755)
    result = run(machine)
    assert result.returncode == 1
    assert "there is no Python from 3.11 to 3.13" in result.stderr


def test_run_when_tests_fail_fails(machine):
    (machine / "make").write_text("#!/bin/sh\nexit 2\n")
    assert run(machine).returncode == 2


def test_run_can_be_executed():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_workflow_runs_what_everybody_runs():
    assert any(step.get("run") == ".ci/run" for step in WORKFLOW["jobs"]["test"]["steps"])


def test_workflow_pins_every_action_to_a_commit():
    for step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])


def test_workflow_may_read_and_nothing_else():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())


def test_workflow_pushes_images_only_from_main_and_only_after_the_tests():
    images = WORKFLOW["jobs"]["images"]
    assert set(images["needs"]) == {"lint", "test"}
    assert "refs/heads/main" in images["if"]
    pushing = [step for step in STEPS if "docker push" in step.get("run", "") or "login-action" in step.get("uses", "")]
    assert pushing
    assert all(step in images["steps"] and step["if"] == "env.REGISTRY != ''" for step in pushing)
