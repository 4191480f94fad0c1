"""Read the tensors of a weight file that PyTorch saved in its legacy format, without PyTorch.

The format is a sequence of pickles (a magic number, the protocol, the system's sizes, the state, the storage keys)
followed by the storages in order of their keys: each a 64-bit count and that many little-endian values
(`torch.serialization._legacy_save`). Only the names that a dictionary of tensors needs are resolved, so that no code of
the file's choosing runs; a file is also read by its digest alone (`read_weights`).
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InspectlineError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LEADING_PICKLES = 5
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class BadWeights(InspectlineError):
    """A file of weights is not the one that was asked for, or cannot be read."""


@dataclass(frozen=True)
class _Storage:
    """The type of a storage, in place of PyTorch's class.

    Attributes:
        dtype: its values.
    """

    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage that has not been read yet.

    Attributes:
        storage: type of the storage.
        key: its key in the file.
        offset: first value, in values.
        shape: shape of the tensor.
        strides: strides, in values.
    """

    storage: _Storage
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_weights(file: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file by name, after comparing its digest.

    Raises:
        BadWeights: the file has another digest, or is no file of tensors.
    """
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BadWeights(f"{file} has the SHA-256 {found} instead of {sha256}: fetch it again")
    return read_tensors(data, str(file))


def read_tensors(data: bytes, name: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file's bytes by name; `name` is that of the file, for messages.

    Raises:
        BadWeights: it is not PyTorch's legacy format, is damaged, or holds something other than tensors.
    """
    stream = io.BytesIO(data)
    try:
        pickles = [_Unpickler(stream).load() for _ in range(_LEADING_PICKLES)]
        magic, protocol, system, state, keys = pickles
        if magic != _MAGIC or protocol != _PROTOCOL or not system["little_endian"]:
            raise ValueError("it is not PyTorch's legacy format")
        tensors = {str(key): tensor for key, tensor in state.items()}
        if not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
            raise ValueError("it holds something other than tensors")
        storages = _read_storages(stream, keys, tensors)
        return {key: _view(tensor, storages[tensor.key]) for key, tensor in tensors.items()}
    except BadWeights:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise BadWeights(f"{name} cannot be read as weights of PyTorch ({text}): fetch it again") from None


class _Unpickler(pickle.Unpickler):
    """Resolves the names that tensors need to functions of this module, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name of the file stands for; refuse any that tensors do not need."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        raise BadWeights(f"the file names {module}.{name}, which weights do not need: it is refused")

    def persistent_load(self, pid: Any) -> tuple[_Storage, str]:
        """Return type and key of a storage."""
        kind, storage, key, _, _, view = pid
        if kind != "storage" or not isinstance(storage, _Storage) or view is not None:
            raise BadWeights("the file refers to something other than a storage: it is refused")
        return storage, str(key)


def _rebuild(
    storage: tuple[_Storage, str], offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any
) -> _Tensor:
    return _Tensor(storage[0], storage[1], int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _read_storages(stream: io.BytesIO, keys: Sequence[str], tensors: Mapping[str, _Tensor]) -> dict[str, NDArray[Any]]:
    dtypes = {tensor.key: tensor.storage.dtype for tensor in tensors.values()}
    storages: dict[str, NDArray[Any]] = {}
    for key in map(str, keys):
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * dtypes[key].itemsize
        data = stream.read(size) if count >= 0 else b""
        if count < 0 or len(data) != size:
            raise ValueError(f"the storage {key} is cut off")
        storages[key] = np.frombuffer(data, dtypes[key])
    return storages


def _view(tensor: _Tensor, values: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor as a contiguous array."""
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise ValueError("a tensor has a negative size or stride")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and last >= len(values):
        raise ValueError("a tensor reaches beyond its storage")
    steps = [step * values.itemsize for step in tensor.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, steps))
