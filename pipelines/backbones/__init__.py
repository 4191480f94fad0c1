"""Pretrained networks that describe images, shared by tasks.

`load_backbone("efficientnet_lite0", 224)` needs no internet; any other name is one of `keras.applications`, whose
weights Keras downloads at first use. They are kept in the local cache and in S3, so that other machines need none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from pipelines.storage.s3 import Storage

DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True)
class Backbone:
    """A pretrained network.

    Attributes:
        name: its name, as in a project file.
        sha256: digest of its weights.
        network: takes RGB images, float [n, S, S, 3] from 0 to 255; outputs by name, among them `embedding` [n, d].
    """

    name: str
    sha256: str
    network: keras.Model


def load_backbone(
    name: str, input_size: int, storage: Storage | None = None, say: Callable[[str], None] | None = None
) -> Backbone:
    """Return a pretrained network for square images.

    Args:
        name: `efficientnet_lite0`, or the name of a network of keras.applications in any case, such as `vgg16`.
        input_size: side of the images in pixels.
        storage: bucket that shares downloaded weights with other machines. Default None: the local cache alone.
        say: takes a line about a download. Default None.

    Raises:
        BadWeights: there is no such network, its weights are damaged, or they cannot be downloaded.
    """
    if name == DEFAULT:
        from pipelines.backbones import efficientnet_lite0

        return Backbone(name, efficientnet_lite0.SHA256, efficientnet_lite0.load(input_size))
    from pipelines.backbones.keras_networks import load

    network, digest = load(name, input_size, storage, say or (lambda line: None))
    return Backbone(name, digest, network)
