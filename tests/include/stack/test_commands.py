"""The commands as a shell runs them; nothing here starts a stack."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from include.stack.layout import LISTENERS
from tests.conftest import free_port

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a command on a stack of the test's own, and gives status, output and errors."""
    ports = {variable: str(free_port()) for _, variable, _ in LISTENERS.values()}

    def act(*arguments, **variables):
        done = subprocess.run(
            [sys.executable, "-m", "include.stack", "--home", str(tmp_path / "var"), *arguments],
            cwd=REPOSITORY,
            env=os.environ | ports | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return act


@pytest.mark.parametrize("command", [["up"], ["demo"]])
def test_start_when_a_port_is_taken_says_so_in_one_line_and_starts_nothing(run, tmp_path, command):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        status, _, errors = run(*command, SERVING_PORT=str(taken))

    assert status == 1
    assert errors.strip() == (
        f"port {taken} for serving is taken by another program: "
        "stop that, or choose another port with SERVING_PORT=… make up"
    )
    assert not (tmp_path / "var" / "airflow" / "airflow.db").exists()


def test_start_when_a_port_is_no_number_says_so_in_one_line(run):
    status, _, errors = run("up", AIRFLOW_PORT="http")

    assert (status, len(errors.splitlines())) == (1, 1)
    assert "AIRFLOW_PORT is 'http'" in errors


@pytest.mark.parametrize("command", ["demo", "import"])
def test_images_when_the_folder_holds_none_are_asked_for_in_one_line(run, tmp_path, command):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")

    status, _, errors = run(command, "--data", str(empty))

    assert (status, len(errors.splitlines())) == (1, 1)
    assert errors.startswith(f"{empty} holds no images")


@pytest.mark.parametrize("command", ["demo", "import"])
def test_images_when_the_folder_is_not_there_are_asked_for_in_one_line(run, tmp_path, command):
    status, _, errors = run(command, "--data", str(tmp_path / "nowhere"))

    assert (status, len(errors.splitlines())) == (1, 1)
    assert "nowhere is no folder" in errors


def test_project_when_its_name_cannot_be_used_is_told_in_one_line(run, tmp_path):
    from PIL import Image

    (tmp_path / "good").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "good" / "a.png")

    status, _, errors = run("demo", "--data", str(tmp_path), "--project", "Line 3")

    assert (status, len(errors.splitlines())) == (1, 1)
    assert "PROJECT=line_3" in errors


@pytest.mark.parametrize(
    "command",
    [
        ["withdraw", "--sample", "ab12"],
        ["withdraw", "--sample", "ab12", "--undo"],
        ["decide", "--sample", "ab12", "--label", "good"],
    ],
)
def test_sample_when_the_stack_is_down_is_told_in_one_line(run, command):
    status, _, errors = run(*command)

    assert (status, errors.strip()) == (1, "the stack is down: make up")


def test_status_when_the_stack_is_down_lists_every_process_and_fails(run):
    status, output, errors = run("status")

    assert status == 1
    assert {"s3", "scheduler", "serving"} <= {line.split()[0] for line in output.splitlines()}
    assert errors.strip() == "the stack is down: make up"


def test_down_when_nothing_runs_succeeds(run):
    assert run("down") == (0, "The stack was not running.\n", "")


def test_make_help_when_asked_explains_every_command():
    makefile = (REPOSITORY / "Makefile").read_text()
    output = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^\W*(\[1m)?{target}\b", output, re.MULTILINE), target


@pytest.mark.parametrize(
    ("target", "asked"), [("import", "DATA=folder"), ("withdraw", "SAMPLE=sha256"), ("decide", "LABEL=good")]
)
def test_make_when_a_variable_is_missing_says_which(target, asked, tmp_path):
    done = subprocess.run(
        ["make", target, "--old-file=.venv/.installed"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert asked in done.stderr.splitlines()[0]
