"""The network of `pipelines.tasks.anomaly.restoration`, its loss and its training step in plain PyTorch, as a
reference for timing.

Written in idiomatic PyTorch: channels last, autocast to bfloat16 where we train in bfloat16, a fused AdamW, the average
of the weights in a single call. It starts with the weights of our network, and `check_same` raises unless both compute
the same. PyTorch is optional: only `benchmarks.timed` imports this module, in a separate process in which Keras runs on
PyTorch.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as f
from torch import nn

from pipelines.tasks.anomaly.fitting.batches import Drawn
from pipelines.tasks.anomaly.fitting.state import as_array
from pipelines.tasks.anomaly.fitting.trainer import AVERAGING
from pipelines.tasks.anomaly.restoration import anomaly_score, loss, network
from pipelines.tasks.anomaly.restoration.network import CHANNELS, FIELD, SECOND_CHANNELS

Tensor = Any
_PREWITT = torch.from_numpy(np.ascontiguousarray(anomaly_score._PREWITT.transpose(3, 2, 0, 1)))
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


class Block(nn.Module):
    """Convolution, batch normalisation and ReLU, padded as TensorFlow pads: more at the end than at the beginning."""

    def __init__(self, given: int, width: int, size: int = 3, strides: int = 1) -> None:
        super().__init__()
        total = size - strides
        self.padding = (total // 2, total - total // 2) * 2
        even = total % 2 == 0
        self.conv = nn.Conv2d(given, width, size, strides, total // 2 if even else 0, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=1e-3, momentum=0.05)
        self.padded = not even

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H / strides, W / strides]."""
        return f.relu(self.norm(self.conv(f.pad(x, self.padding) if self.padded else x)))


class Peer(nn.Module):
    """The network of a preset, for training: image [N, 3, S, S] in 0 to 1 -> `restored`, `expected`, `defect`,
    `anomalous` as `build_network` returns them, channels second. The modules have the names of the Keras layers.
    """

    def __init__(self, preset: str) -> None:
        super().__init__()
        first, second = CHANNELS[preset], SECOND_CHANNELS[preset]
        self.parts = nn.ModuleDict({"fold": Block(1, first[0], 10, FIELD)})
        self._add_u_net("", first)
        self._draw("draw", first[0], 3, FIELD)
        self._draw("expect", first[0], 1, FIELD // 2)
        self.parts["second_fold"] = nn.Conv2d(8, second[0], 8, FIELD, 2, bias=False)
        self.parts["second_encode0"] = Block(second[0] + 3 + first[0], second[0])
        self._add_u_net("second_", second)
        self._draw("mark", second[0], 1, FIELD // 2)
        nn.init.constant_(self.parts["mark"].bias, network.RARE)
        self.parts["judge"] = nn.Linear(2 * second[-1], 1)
        self.levels = len(first)

    def _add_u_net(self, name: str, widths: tuple[int, ...]) -> None:
        for level, width in enumerate(widths[1:], start=1):
            self.parts[f"{name}down{level}"] = Block(widths[level - 1], width, strides=2)
            self.parts[f"{name}encode{level}"] = Block(width, width)
        for level in reversed(range(len(widths) - 1)):
            self.parts[f"{name}narrow{level}"] = Block(widths[level + 1], widths[level], size=1)
            self.parts[f"{name}decode{level}"] = Block(widths[level], widths[level])

    def _draw(self, name: str, given: int, channels: int, factor: int) -> None:
        self.parts[name] = nn.ConvTranspose2d(given, channels, 2 * factor, factor, factor // 2)

    def forward(self, image: Tensor) -> Outputs:
        """Run both networks; the caller sets autocast."""
        parts = self.parts
        with exactly():
            grey = image.mean(dim=1, keepdim=True)
            structure = (grey - _mean(_mean(grey, network.BLUR), network.BLUR)) * 4.0
        drawn, _ = self._u_net(parts["fold"](structure), "")
        with exactly():
            wide = drawn.float()
            restored, expected = torch.sigmoid(parts["draw"](wide)), f.softplus(parts["expect"](wide))
            fixed, foretold = restored.detach(), expected.detach()
            errors = gradient_error(image, fixed)
            whole = torch.cat([image - 0.5, (image - fixed) * 4.0, structure, errors[0]], dim=1)
            rest = torch.cat([f.avg_pool2d(errors[1], 2), errors[2], f.avg_pool2d(foretold, 2)], dim=1)
        folded = parts["second_fold"](whole)
        second_input = torch.cat([folded, rest.to(folded.dtype), drawn.detach()], dim=1)
        marked, opinion = self._u_net(parts["second_encode0"](second_input), "second_")
        with exactly():
            pooled = torch.cat([opinion.amax(dim=(2, 3)), opinion.mean(dim=(2, 3))], dim=1).float()
            return restored, expected, parts["mark"](marked.float()), parts["judge"](pooled)

    def _u_net(self, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        skips = [x]
        for level in range(1, self.levels):
            x = self.parts[f"{name}encode{level}"](self.parts[f"{name}down{level}"](x))
            skips.append(x)
        bottleneck = x
        for level in reversed(range(self.levels - 1)):
            x = f.interpolate(self.parts[f"{name}narrow{level}"](x), scale_factor=2.0, mode="nearest")
            x = self.parts[f"{name}decode{level}"](x + skips[level])
        return x, bottleneck


class PeerTraining:
    """Training steps like those of `fit`: AdamW, each gradient clipped to norm 1, averaged weights."""

    def __init__(self, preset: str, input_size: int, precision: str, compiled: bool = False) -> None:
        torch.manual_seed(0)
        self.network = Peer(preset)
        ours = network.build_network(preset, input_size)
        take_weights(self.network, ours)
        check_same(self.network, ours)
        self.network = self.network.train().to(memory_format=torch.channels_last)
        self.weights = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.average = [parameter.detach().clone() for parameter in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, 2e-3, eps=1e-7, weight_decay=1e-4, fused=True)
        self.half = precision != "float32"
        self._loss = torch.compile(self.loss_of) if compiled else self.loss_of

    def take(self, batch: Drawn) -> float:
        """Take one step and return its loss."""
        damaged, (clean, unlocated) = batch
        self.optimizer.zero_grad(set_to_none=True)
        value = self._loss(_image(damaged), _image(clean), torch.from_numpy(unlocated))
        value.backward()
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        factors = [torch.clamp(1 / (norm + 1e-12), max=1.0) for norm in torch._foreach_norm(gradients)]
        torch._foreach_mul_(gradients, factors)
        self.optimizer.step()
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - AVERAGING)
        return float(value.detach())

    def loss_of(self, damaged: Tensor, clean: Tensor, unlocated: Tensor) -> Tensor:
        """Return the loss of a batch: images [N, 3, S, S] and `unlocated` [N]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            outputs = self.network(damaged)
        return training_loss(damaged, clean, unlocated, *outputs)


def exactly() -> torch.autocast:
    """Return a context in which everything is computed in float32."""
    return torch.autocast("cpu", enabled=False)


def gradient_error(image: Tensor, restored: Tensor) -> list[Tensor]:
    """Compute `anomaly_score.gradient_error` in PyTorch."""
    first, second = (picture.mean(dim=1, keepdim=True) for picture in (image, restored))
    errors = []
    for scale in range(anomaly_score.SCALES):
        if scale:
            first, second = f.avg_pool2d(first, 2), f.avg_pool2d(second, 2)
        image_slope, restored_slope = _magnitude(first), _magnitude(second)
        total = image_slope.square() + restored_slope.square() + anomaly_score.SIMILARITY_FLOOR
        errors.append((image_slope - restored_slope).square() / total)
    return errors


def training_loss(
    damaged: Tensor,
    clean: Tensor,
    unlocated: Tensor,
    restored: Tensor,
    expected: Tensor,
    defect: Tensor,
    anomalous: Tensor,
) -> Tensor:
    """Compute `loss.training_loss` in PyTorch."""
    counts = (1 - unlocated).reshape(-1, 1, 1, 1)
    gradient = [error * counts for error in gradient_error(clean, restored)]
    squared = f.avg_pool2d((clean - restored).square().mean(dim=1, keepdim=True), 2) * counts
    colour = f.avg_pool2d(clean - restored, 4).abs().mean(dim=1, keepdim=True)
    fine = (f.avg_pool2d(gradient[0], 2) + gradient[1]) / anomaly_score.SCALES
    coarse = gradient[2] / anomaly_score.SCALES + anomaly_score.COLOUR_WEIGHT * colour * counts
    change = f.avg_pool2d((damaged - clean).abs().mean(dim=1, keepdim=True), 2)

    value = loss.SQUARED_WEIGHT * squared.mean() + loss.GRADIENT_WEIGHT * sum(level.mean() for level in gradient)
    hurt = (change > loss.VISIBLE).float()
    damage = ((fine + loss.SQUARED_WEIGHT * squared) * hurt).mean() + (coarse * f.avg_pool2d(hurt, 2)).mean()
    value = value + loss.DAMAGE_WEIGHT * damage / (hurt.mean() + loss.FEW)
    error = (fine + f.interpolate(coarse, scale_factor=2.0, mode="nearest")).detach()
    scale = expected + loss.LEAST_EXPECTED
    sound = (_mean(_mean(change, anomaly_score.SMOOTHING), anomaly_score.SMOOTHING) < loss.SOUND) * counts
    value = value + loss.EXPECTATION_WEIGHT * ((error / scale + scale.log()) * sound).mean()

    truth = ((change - loss.UNSEEN) / loss.CLEAR).clamp(0, 1)
    chance = defect.sigmoid()
    entropy = f.binary_cross_entropy_with_logits(defect, truth, reduction="none") * counts
    focal = entropy.mean() + loss.FOCAL_WEIGHT * (entropy * (truth - chance).square()).mean()
    both, either = (chance * truth).sum(dim=(1, 2, 3)), chance.sum(dim=(1, 2, 3)) + truth.sum(dim=(1, 2, 3))
    dice = ((1 - (2 * both + loss.DICE_FLOOR) / (either + loss.DICE_FLOOR)) * counts[:, 0, 0, 0]).mean()
    whole = torch.maximum(truth.amax(dim=(2, 3)), 1 - counts[:, :, 0, 0])
    image = f.binary_cross_entropy_with_logits(anomalous, whole)
    return value + focal + loss.DICE_WEIGHT * dice + loss.IMAGE_WEIGHT * image


def take_weights(peer: Peer, ours: keras.Model) -> None:
    """Copy the weights of `build_network` to the peer. Raises ValueError unless layers and shapes are the same."""
    layers = {layer.name: layer for layer in ours.layers if layer.weights}
    wanted = set(peer.parts) | {f"{name}_norm" for name, part in peer.parts.items() if isinstance(part, Block)}
    if set(layers) != wanted:
        raise ValueError(f"the peer has other layers: {sorted(set(layers) ^ wanted)}")
    with torch.no_grad():
        for name, part in peer.parts.items():
            kernel = layers[name].get_weights()[0]
            target = part.conv.weight if isinstance(part, Block) else part.weight
            turned = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
            _lay(target, turned, name)
            if isinstance(part, Block):
                norm = part.norm
                tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
                for tensor, value in zip(tensors, layers[f"{name}_norm"].get_weights(), strict=True):
                    _lay(tensor, value, name)
            elif part.bias is not None:
                _lay(part.bias, layers[name].get_weights()[1], name)


def check_same(peer: Peer, ours: keras.Model) -> None:
    """Raise ValueError unless both have the same number of weights and the same outputs and loss on random images."""
    if _count(peer) != ours.count_params():
        raise ValueError(f"the peer has {_count(peer)} weights, ours {ours.count_params()}")
    generator = np.random.default_rng(0)
    shape = (2, *ours.input_shape[1:])
    damaged, clean = (generator.random(shape, np.float32) for _ in range(2))
    clean[:, : shape[1] // 2] = damaged[:, : shape[1] // 2]  # half of each image is undamaged
    unlocated = np.array([0, 1], np.float32)
    answer = ours(damaged, training=False)
    expected = [answer[name] for name in network.TRAINED_OUTPUTS]
    peer.eval()
    with torch.no_grad():
        outputs = peer(_image(damaged))
        value = float(training_loss(_image(damaged), _image(clean), torch.from_numpy(unlocated), *outputs))
    given = map(keras.ops.convert_to_tensor, (damaged, clean, unlocated))
    wanted = float(as_array(loss.training_loss(*given, *expected)))
    channels_last = [tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor for tensor in outputs]
    pairs = zip(channels_last, expected, strict=True)
    off = max(float(np.abs(tensor.numpy() - as_array(reference)).max()) for tensor, reference in pairs)
    if off > 1e-3 or abs(value - wanted) > 1e-3 * wanted:
        raise ValueError(
            f"the peer computes something else: outputs differ by {off:.1e}, losses are {value} and {wanted}"
        )


def _count(peer: Peer) -> int:
    """Return the number of weights as Keras counts them, including the moving statistics."""
    buffers = [tensor for name, tensor in peer.named_buffers() if not name.endswith("num_batches_tracked")]
    return sum(tensor.numel() for tensor in [*peer.parameters(), *buffers])


def _lay(target: Any, value: np.ndarray, name: str) -> None:
    if tuple(target.shape) != value.shape:
        raise ValueError(f"{name}: the peer's weights are {tuple(target.shape)}, ours {value.shape}")
    target.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _magnitude(grey: Tensor) -> Tensor:
    slopes = f.conv2d(f.pad(grey, (1, 1, 1, 1), mode="replicate"), _PREWITT)
    return (slopes.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _mean(x: Tensor, side: int) -> Tensor:
    return f.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)
