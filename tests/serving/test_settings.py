"""Settings of serving: a value that cannot be used ends the start with one line that names it."""

import os
import subprocess
import sys

import pytest

from pipelines.config.settings import REPOSITORY
from pipelines.errors import SettingsError
from serving.settings import serving_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("INSPECTLINE_WORKERS", "0"),
        ("INSPECTLINE_REQUEST_SECONDS", "soon"),
        ("INSPECTLINE_LOG_LEVEL", "loud"),
        ("INSPECTLINE_AUTH", "maybe"),
        ("INSPECTLINE_MAX_IMAGE_MB", "-1"),
    ],
)
def test_settings_when_a_value_cannot_be_used_name_it_and_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is .*: give ") as caught:
        serving_settings({name: value})
    assert "\n" not in str(caught.value)


def test_start_with_a_value_that_cannot_be_used_ends_with_one_line() -> None:
    started = subprocess.run(
        [sys.executable, "-m", "serving"],
        env={**os.environ, "INSPECTLINE_REQUEST_SECONDS": "soon"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 1
    assert started.stderr.strip() == "INSPECTLINE_REQUEST_SECONDS is 'soon': give a number from 0.1 to 3600"
