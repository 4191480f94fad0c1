import base64
import re
import stat
import subprocess
import sys

import pytest

from include.docker import make_env
from include.docker.make_env import EXAMPLE, assigned, fill


def test_fill_when_there_is_no_env_gives_every_secret_a_value_that_can_stand_in_an_address():
    text, generated = fill(EXAMPLE.read_text())
    values = assigned(text)
    assert generated == [name for name, value in assigned(EXAMPLE.read_text()).items() if not value]
    assert len({values[name] for name in generated}) == len(generated)
    for name in generated:
        if name != "AIRFLOW_FERNET_KEY":
            assert re.fullmatch(r"[A-Za-z0-9]{16,}", values[name])


def test_fill_makes_keys_as_airflow_wants_them():
    values = assigned(fill(EXAMPLE.read_text())[0])
    assert len(base64.urlsafe_b64decode(values["AIRFLOW_FERNET_KEY"])) == 32
    assert len(values["AIRFLOW_JWT_SECRET"]) >= 64


def test_fill_when_an_env_is_there_keeps_it_and_adds_what_is_new():
    example = "A_PASSWORD=\nB_PASSWORD=\n# C_PORT=1\n"
    text, generated = fill(example, "# mine\nA_PASSWORD=kept\nC_PORT=2\n")
    assert generated == ["B_PASSWORD"]
    assert text.startswith("# mine\nA_PASSWORD=kept\nC_PORT=2\nB_PASSWORD=")


@pytest.mark.parametrize("present", ["A_PASSWORD=\nC=1\n", "A_PASSWORD=x\nB_PASSWORD=\n"])
def test_fill_when_a_value_is_empty_makes_it(present):
    values = assigned(fill("A_PASSWORD=\nB_PASSWORD=\n", present)[0])
    assert values["A_PASSWORD"]
    assert values["B_PASSWORD"]


def test_script_run_twice_writes_a_private_file_once(tmp_path):
    target = tmp_path / ".env"
    runs = [
        subprocess.run([sys.executable, make_env.__file__, target], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert "values made" in runs[0]
    assert "nothing changed" in runs[1]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [".env"]
