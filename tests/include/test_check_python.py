import subprocess
import sys
from pathlib import Path

import pytest

from include.check_python import problem

CHECK = Path(__file__).parents[2] / "include" / "check_python.py"


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_python_when_it_fits_has_no_problem(version):
    assert problem(version, []) is None


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 14), (4, 0)])
def test_python_when_too_old_or_too_new_is_told_in_one_line_with_the_way_out(version):
    message = problem(version, [])

    assert "\n" not in message
    assert f"this is {version[0]}.{version[1]}" in message
    assert "make PYTHON=python3.12" in message


def test_python_when_it_cannot_make_environments_names_debians_package():
    message = problem((3, 11), ["ensurepip"])

    assert "\n" not in message
    assert "sudo apt install python3.11-venv" in message


def test_check_when_run_with_a_good_python_says_nothing():
    done = subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_check_when_read_by_an_old_python_has_only_old_syntax():
    source = CHECK.read_text()

    assert not any(new in source for new in ('f"', "f'", ":=", "->", "print(", "match "))
