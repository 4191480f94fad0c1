"""Files of tensors as PyTorch's legacy format has them; and files that only look like it."""

import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.backbones.torch_weights import BadWeights, read_tensors, read_weights

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8", "HalfStorage": "<f2"}


class Pickled:
    """A tensor to write: a storage's type and key, offset, shape and strides."""

    def __init__(self, kind: str, key: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.parts = kind, key, offset, shape, strides

    def __reduce__(self) -> tuple[Any, ...]:
        kind, key, offset, shape, strides = self.parts
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (  # type: ignore[attr-defined]
            Reference(kind, key),
            offset,
            shape,
            strides,
            False,
            OrderedDict(),
        )


class Reference:
    """A storage that is written by its persistent id."""

    def __init__(self, kind: str, key: str) -> None:
        self.kind, self.key = kind, key


class Writer(pickle.Pickler):
    """Writes references as persistent ids, as PyTorch does."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Reference):
            return ("storage", getattr(sys.modules["torch"], value.kind), value.key, "cpu", 0, None)
        return None


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have modules of the names that a file of PyTorch refers to, so that it can be written here."""
    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in DTYPES:
        setattr(module, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def written(state: Any, storages: dict[str, np.ndarray], magic: int = MAGIC, system: Any = SYSTEM) -> bytes:
    out = io.BytesIO()
    for each in (magic, PROTOCOL, system, state, sorted(storages)):
        Writer(out, 2).dump(each)
    for key in sorted(storages):
        out.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())
    return out.getvalue()


VALUES = np.arange(24, dtype="<f4")
STATE = OrderedDict(
    plain=Pickled("FloatStorage", "1", 0, (2, 3), (3, 1)),
    turned=Pickled("FloatStorage", "1", 6, (3, 2), (1, 3)),
    count=Pickled("LongStorage", "2", 0, (), ()),
)
STORAGES = {"1": VALUES, "2": np.array([7], dtype="<i8")}


def test_read_when_tensors_share_a_storage_then_each_is_its_view():
    tensors = read_tensors(written(STATE, STORAGES), "w.pth")
    np.testing.assert_array_equal(tensors["plain"], VALUES[:6].reshape(2, 3))
    np.testing.assert_array_equal(tensors["turned"], VALUES[6:12].reshape(2, 3).T)
    assert tensors["turned"].flags["C_CONTIGUOUS"]
    assert tensors["count"] == 7


def test_read_weights_when_the_digest_differs_then_nothing_is_parsed(tmp_path: Path):
    file = tmp_path / "w.pth"
    file.write_bytes(written(STATE, STORAGES))
    with pytest.raises(BadWeights, match="SHA-256"):
        read_weights(file, "0" * 64)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_read_when_the_file_would_run_a_command_then_it_does_not(tmp_path: Path):
    with pytest.raises(BadWeights, match=r"system"):
        read_tensors(written(Runs(f"touch {tmp_path / 'ran'}"), {}), "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + b"0" * 100, pickle.dumps(5, 2), b"\x80\x02" * 40])
def test_read_when_it_is_another_file_then_refuses_in_one_line(data: bytes):
    with pytest.raises(BadWeights) as caught:
        read_tensors(data, "w.pth")
    assert "\n" not in str(caught.value)


def test_read_when_the_frame_is_wrong_or_parts_are_not_tensors_then_refuses():
    for data in (
        written(STATE, STORAGES, magic=5),
        written(STATE, STORAGES, system={"little_endian": False}),
        written(OrderedDict(a=1), {}),
        written(OrderedDict(a=Pickled("HalfStorage", "1", 0, (1,), (1,))), {"1": VALUES}),
        written(OrderedDict(a=Pickled("FloatStorage", "1", 20, (2, 3), (3, 1))), {"1": VALUES}),
        written(OrderedDict(a=Pickled("FloatStorage", "1", 0, (2, 3), (-3, 1))), {"1": VALUES}),
        written(OrderedDict(a=Pickled("FloatStorage", "1", 0, (10**12,), (1,))), {"1": VALUES}),
        written(STATE, STORAGES)[:-9],
    ):
        with pytest.raises(BadWeights):
            read_tensors(data, "w.pth")
