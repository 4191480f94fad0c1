from pathlib import Path

import pytest

from include.stack.layout import LISTENERS, Stack
from tests.conftest import free_port


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """Lay out a stack of the test's own, on ports that nothing listens on."""
    new_stack = Stack(tmp_path / "var", {listener: free_port() for listener in LISTENERS})
    new_stack.make_folders()
    return new_stack
