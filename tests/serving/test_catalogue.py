"""What serving asks of the catalogue comes late, and all of it is there."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

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


def test_names_when_several_threads_ask_for_them_then_one_imports_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """Two that import parts of one package at once can each wait for the other, and one is told of a deadlock."""
    names, active, most = ("Posted", "annotate", "read_page", "take_in"), threading.Semaphore(1), []

    def slow(name: str):
        most.append(active.acquire(blocking=False))
        time.sleep(0.02)
        active.release()
        return import_module(name)

    monkeypatch.setattr(catalogue, "import_module", slow)
    for name in names:
        monkeypatch.delitem(vars(catalogue), name, raising=False)
    with ThreadPoolExecutor(len(names)) as pool:
        assert all(pool.map(lambda name: getattr(catalogue, name), names))
    assert len(most) == 2 * len(names)
    assert all(most)
