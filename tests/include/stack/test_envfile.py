import pytest

from include.stack.envfile import read_env
from include.stack.errors import StackError


def test_env_file_when_read_gives_values_without_quotes_and_comments(tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n\nPLAIN=value\nexport EXPORTED = spaced out  \nQUOTED='a # b'\nDOUBLE=\"x=y\"\n"
        "URL=smtp://user:p%40ss@host:587/?a=1&b=2 # real server\nEMPTY=\nHASH=a#b\n"
    )

    assert read_env(file) == {
        "PLAIN": "value",
        "EXPORTED": "spaced out",
        "QUOTED": "a # b",
        "DOUBLE": "x=y",
        "URL": "smtp://user:p%40ss@host:587/?a=1&b=2",
        "EMPTY": "",
        "HASH": "a#b",
    }


def test_env_file_when_a_line_is_no_assignment_names_file_and_line(tmp_path):
    file = tmp_path / ".env"
    file.write_text("A=1\nthis is not one\n")

    with pytest.raises(StackError, match=rf"{file}, line 2: write NAME=value"):
        read_env(file)
