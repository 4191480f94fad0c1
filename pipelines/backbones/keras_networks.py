"""The networks of keras.applications, with weights from the local cache, S3, or Keras' download, in this order."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipelines.backbones.torch_weights import BadWeights
from pipelines.config.settings import settings
from pipelines.errors import NotFound, first_line
from pipelines.storage import keys
from pipelines.storage.s3 import Storage


def network_names() -> dict[str, str]:
    """Return the names of all networks of keras.applications by their lower-case names without underscores."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name.lower(): name for name, _ in functions}


def load(name: str, input_size: int, storage: Storage | None, say: Callable[[str], None]) -> tuple[keras.Model, str]:
    """Return a network with its weights, and the digest of the weights; see `pipelines.backbones.load_backbone`.

    Raises:
        BadWeights: there is no such network, its weights are damaged, or they cannot be downloaded.
    """
    network = build(name, input_size)
    path = weights_path(name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        if storage is None or not _fetched(name, path, storage, say):
            _download(name, input_size, network, path, say)
            if storage is not None:
                storage.upload(path, keys.backbone(path.name))
    try:
        network.load_weights(path)
    except Exception as error:  # h5py and Keras raise OSError, ValueError, KeyError and more on damaged files
        raise BadWeights(
            f"{path} does not hold the weights of {name} ({first_line(error)}): delete it, here and in S3, to download "
            "it again"
        ) from None
    return network, weights_digest(network)


def build(name: str, input_size: int) -> keras.Model:
    """Return a network of keras.applications without weights, behind its own normalisation; outputs `embedding`.

    Raises:
        BadWeights: there is no such network, or it does not take images of this size.
    """
    function = _function(name)
    images = keras.Input((input_size, input_size, 3), name="images")
    normalised = sys.modules[function.__module__].preprocess_input(images)
    try:
        network = function(include_top=False, weights=None, input_tensor=normalised, pooling="avg")
    except ValueError as error:
        raise BadWeights(f"{name} does not take images of {input_size} pixels: {first_line(error)}") from None
    return keras.Model(images, {"embedding": network.output}, name=_short(name))


def weights_path(name: str) -> Path:
    """Return where the local cache keeps the weights of a network."""
    return settings().cache / "backbones" / f"{_short(name)}.weights.h5"


def weights_digest(network: keras.Model) -> str:
    """Return the SHA-256 of the shapes and values of all weights in their order."""
    digest = hashlib.sha256()
    for array in network.get_weights():
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def _function(name: str) -> Callable[..., keras.Model]:
    names = network_names()
    if _short(name) not in names:
        known = ", ".join(sorted(names))
        raise BadWeights(f"there is no backbone {name!r}: set model.backbone to efficientnet_lite0 or one of {known}")
    function: Callable[..., keras.Model] = getattr(keras.applications, names[_short(name)])
    return function


def _short(name: str) -> str:
    return name.lower().replace("_", "")


def _fetched(name: str, path: Path, storage: Storage, say: Callable[[str], None]) -> bool:
    """Bring the weights from S3 into the cache; return False if they are not there."""
    try:
        storage.download(keys.backbone(path.name), path)
    except NotFound:
        return False
    say(f"the weights of {name} come from S3")
    return True


def _download(name: str, input_size: int, network: keras.Model, path: Path, say: Callable[[str], None]) -> None:
    """Let Keras download the weights (kept in its own cache, `KERAS_HOME`), and write them to `path`."""
    say(f"downloading the weights of {name} through keras.applications; they are kept in {path.parent} and in S3")
    arguments: dict[str, Any] = {"include_top": False, "pooling": "avg", "input_shape": (input_size, input_size, 3)}
    try:
        downloaded = _function(name)(weights="imagenet", **arguments)
    except Exception as error:  # Keras raises a bare Exception when it cannot download
        raise BadWeights(
            f"the weights of {name} cannot be downloaded ({first_line(error)}): let this machine reach the network "
            f"once, put the weights that another machine cached into {path}, or set model.backbone to "
            "efficientnet_lite0, which is installed"
        ) from None
    network.set_weights(downloaded.get_weights())
    part = path.with_name(f"part-{path.name}")
    network.save_weights(part)
    part.replace(path)
