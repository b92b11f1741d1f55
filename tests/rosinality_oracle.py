"""StyleGAN2 drawn from a file in rosinality's layout, slowly: one picture at a time, weights modulated as in the paper.

Written from Karras et al. 2020 (section 2.2, figures 2 and 7, appendix B) and the names of the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def made_weights(channels: list[int], *, style_dim: int, n_mlp: int, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights; ``channels``: at 4, 8, ... pixels."""
    random = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        weights[name] = mean + torch.randn(shape, generator=random)

    def styled(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.conv.weight", 1, outputs, inputs, 3, 3)
        add(f"{name}.conv.modulation.weight", inputs, style_dim)
        add(f"{name}.conv.modulation.bias", inputs, mean=1.0)
        add(f"{name}.noise.weight", 1)
        add(f"{name}.activate.bias", outputs)

    def to_rgb(name: str, inputs: int) -> None:
        add(f"{name}.conv.weight", 1, 3, inputs, 1, 1)
        add(f"{name}.conv.modulation.weight", inputs, style_dim)
        add(f"{name}.conv.modulation.bias", inputs, mean=1.0)
        add(f"{name}.bias", 1, 3, 1, 1)

    for layer in range(1, n_mlp + 1):
        add(f"style.{layer}.weight", style_dim, style_dim)
        weights[f"style.{layer}.weight"] *= 100  # drawn so, for they learn at a hundredth of the rate
        add(f"style.{layer}.bias", style_dim)
    add("input.input", 1, channels[0], 4, 4)
    styled("conv1", channels[0], channels[0])
    to_rgb("to_rgb1", channels[0])
    add("noises.noise_0", 1, 1, 4, 4)
    for index, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False)):
        size = 8 * 2**index
        styled(f"convs.{2 * index}", inputs, outputs)
        styled(f"convs.{2 * index + 1}", outputs, outputs)
        to_rgb(f"to_rgbs.{index}", outputs)
        add(f"noises.noise_{2 * index + 1}", 1, 1, size, size)
        add(f"noises.noise_{2 * index + 2}", 1, 1, size, size)
        weights[f"convs.{2 * index}.conv.blur.kernel"] = blur_kernel()
        weights[f"to_rgbs.{index}.upsample.kernel"] = blur_kernel()
    return weights


def blur_kernel() -> Tensor:
    """Return ``[1, 3, 3, 1]`` by itself, with the gain of four that doubling needs."""
    rows = [[1, 3, 3, 1], [3, 9, 9, 3], [3, 9, 9, 3], [1, 3, 3, 1]]
    return torch.tensor(rows, dtype=torch.float32) / 16


def map_seed(weights: Weights, z: Tensor) -> Tensor:
    """Return the code ``[D]`` of one seed ``[D]``."""
    x = z / math.sqrt(float((z * z).mean()) + 1e-8)
    layer = 1
    while f"style.{layer}.weight" in weights:
        weight, bias = weights[f"style.{layer}.weight"], weights[f"style.{layer}.bias"]
        y = (weight @ x) * 0.01 / math.sqrt(len(x)) + bias * 0.01
        x = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
        layer += 1
    return x


def draw(weights: Weights, ws: Tensor) -> Tensor:
    """Return the picture ``[3, H, W]`` of the codes ``[L, D]`` of its layers."""
    x = _styled(weights, "conv1", weights["input.input"][0], ws[0], noise=0)
    picture = _to_rgb(weights, "to_rgb1", x, ws[1])
    index = 0
    while f"convs.{2 * index}.conv.weight" in weights:
        first, second = f"convs.{2 * index}", f"convs.{2 * index + 1}"
        x = _styled(weights, first, x, ws[2 * index + 1], noise=2 * index + 1)
        x = _styled(weights, second, x, ws[2 * index + 2], noise=2 * index + 2)
        kernel = weights[f"to_rgbs.{index}.upsample.kernel"]
        picture = _filtered(_zero_stuffed(picture, 2 * picture.shape[-1]), kernel, before=2, after=1)
        picture = picture + _to_rgb(weights, f"to_rgbs.{index}", x, ws[2 * index + 3])
        index += 1
    return picture


def _styled(weights: Weights, name: str, x: Tensor, w: Tensor, *, noise: int) -> Tensor:
    weight = _modulated(weights, name, w)
    weight = weight / torch.sqrt((weight**2).sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
    if f"{name}.conv.blur.kernel" in weights:
        # a true convolution of the zero-stuffed picture: its flipped weight slides over it
        stuffed = _zero_stuffed(x, 2 * x.shape[-1] - 1)
        x = F.conv2d(stuffed[None], weight.flip(2, 3), padding=2)[0]
        x = _filtered(x, weights[f"{name}.conv.blur.kernel"], before=1, after=1)
    else:
        x = F.conv2d(x[None], weight, padding=1)[0]
    x = x + weights[f"{name}.noise.weight"] * weights[f"noises.noise_{noise}"][0]
    x = x + weights[f"{name}.activate.bias"][:, None, None]
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def _to_rgb(weights: Weights, name: str, x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x[None], _modulated(weights, name, w))[0] + weights[f"{name}.bias"][0]


def _modulated(weights: Weights, name: str, w: Tensor) -> Tensor:
    """Return the weight ``[out, in, k, k]`` of a layer for one code."""
    affine, bias = weights[f"{name}.conv.modulation.weight"], weights[f"{name}.conv.modulation.bias"]
    style = (affine @ w) / math.sqrt(len(w)) + bias
    weight = weights[f"{name}.conv.weight"][0]
    return weight / math.sqrt(weight[0].numel()) * style[None, :, None, None]


def _zero_stuffed(x: Tensor, size: int) -> Tensor:
    stuffed = x.new_zeros(len(x), size, size)
    stuffed[:, ::2, ::2] = x
    return stuffed


def _filtered(x: Tensor, kernel: Tensor, *, before: int, after: int) -> Tensor:
    padded = F.pad(x, (before, after, before, after))
    size = padded.shape[-1] - 3
    return torch.stack(
        [
            sum((kernel[i, j] * plane[i : i + size, j : j + size] for i in range(4) for j in range(4)), torch.zeros(()))
            for plane in padded
        ]
    )
