"""What serving asks of the catalogue comes late, and all of it is there."""

import subprocess
import sys

import pytest

from serving import catalogue


def test_app_when_imported_then_neither_the_database_nor_the_registrys_client_is():
    code = "import sys, serving.app; print(*sorted({'sqlalchemy', 'requests', 'boto3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_load_when_done_then_every_name_is_there():
    catalogue.load()
    assert all(getattr(catalogue, name) is not None for name in catalogue.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = catalogue.no_such_name
