"""The layers of StyleGAN2 on a CPU where only codes are learnt: the same pictures, in fewer passes over memory.

A step of an edit is bound by memory as much as by products. What depends on the weights alone is computed once; pixels
lie in channels_last, which the convolutions of a CPU prefer; scaling, noise, bias and activation are done in strips,
which stay in the cache; and less is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from soundguide.models.winograd import WinogradWeight, convolve_strips, fits

STRIP_VALUES = 2**18  # of one megabyte, a share of the second cache


@dataclass(frozen=True, slots=True)
class FrozenLayer:
    """What a synthesis layer with constant weights computes with.

    ``energy`` ``[out, in]``: of its weights, for `demodulation`; ``weight``: as its convolution reads it; ``noise``
    ``[H, W]`` and ``bias`` ``[out]``, with the gain of the activation; ``filter`` ``[out, 1, 4, 4]``, of gain 4, comes
    after the doubling convolution, None for no doubling.
    """

    energy: Tensor
    weight: Tensor | WinogradWeight
    noise: Tensor
    bias: Tensor
    filter: Tensor | None

    @classmethod
    def of(cls, weight: Tensor, noise: Tensor, bias: Tensor, *, upsampling_filter: Tensor | None) -> FrozenLayer:
        """Prepare a layer of ``weight`` ``[out, in, 3, 3]``; ``upsampling_filter`` ``[4, 4]`` for one that doubles."""
        outputs, inputs = weight.shape[:2]
        prepared: Tensor | WinogradWeight
        if upsampling_filter is not None:
            prepared = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
            upsampling_filter = (4 * upsampling_filter).expand(outputs, 1, 4, 4)
        elif fits(noise.shape[0], noise.shape[1], inputs, outputs):
            prepared = WinogradWeight.of(weight)
        else:
            prepared = weight.contiguous(memory_format=torch.channels_last)
        return cls(weight.square().sum(dim=(2, 3)), prepared, noise, bias, upsampling_filter)

    def __call__(self, x: Tensor, styles: Tensor, factors: Tensor, slope: float) -> Tensor:
        """Map ``[B, in, h, w]``, styles ``[B, in]`` and factors ``[B, out]`` to ``[B, out, H, W]``, channels_last."""
        x = x.contiguous(memory_format=torch.channels_last)
        if isinstance(self.weight, WinogradWeight):
            y: Tensor = _Convolution.apply(x, styles, factors, self.weight, self.noise, self.bias, slope)
            return y
        x = x * styles[:, :, None, None]
        if self.filter is None:
            x = F.conv2d(x, self.weight, padding=1)
        else:
            x = F.conv_transpose2d(x, self.weight, stride=2)
            x = F.conv2d(x, self.filter, padding=1, groups=len(self.filter))
        y = _Activation.apply(x, factors, self.noise, self.bias, slope)
        return y


class _Convolution(torch.autograd.Function):
    """``leaky_relu(factors * conv(x * styles) + noise + bias)``, once differentiable in x, styles and factors."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        styles: Tensor,
        factors: Tensor,
        weight: WinogradWeight,
        noise: Tensor,
        bias: Tensor,
        slope: float,
    ) -> Tensor:
        pixels = _pixels(x)
        y = x.new_empty(*pixels.shape[:3], len(bias))

        def fill(row: int, rows: slice, into: Tensor) -> None:
            torch.mul(pixels[row, rows], styles[row], out=into)

        def finish(row: int, rows: slice, tiles: Tensor) -> None:
            strip = y[row : row + 1, rows]
            strip.view(tiles.shape).copy_(tiles)
            _activate(strip, factors[row : row + 1], noise[rows], bias, slope)

        convolve_strips(pixels, weight.forwards, fill, finish)
        y = y.permute(0, 3, 1, 2)
        ctx.save_for_backward(x, styles, factors, noise, bias, y)
        ctx.weight, ctx.slope = weight, slope
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, styles, factors, noise, bias, y = ctx.saved_tensors
        x, y, grad = _pixels(x), _pixels(y), _pixels(grad)
        grad_x, grad_styles, grad_factors = torch.empty_like(x), torch.empty_like(styles), torch.zeros_like(factors)

        def fill(row: int, rows: slice, into: Tensor) -> None:
            torch.mul(_before_relu(grad[row, rows], y[row, rows], ctx.slope), factors[row], out=into)

        def finish(row: int, rows: slice, tiles: Tensor) -> None:
            strip, one = grad_x[row, rows], slice(row, row + 1)
            strip.view(tiles.shape).copy_(tiles)
            grad_styles[row] += (strip * x[row, rows]).sum((0, 1))
            strip.mul_(styles[row])
            grad_factors[one] += _factor_gradient(grad[one, rows], y[one, rows], noise[rows], bias, ctx.slope)

        grad_styles.zero_()
        convolve_strips(y, ctx.weight.backwards, fill, finish)
        return grad_x.permute(0, 3, 1, 2), grad_styles, grad_factors / factors, None, None, None, None


class _Activation(torch.autograd.Function):
    """``leaky_relu(factors * x + noise + bias)`` in the place of x, once differentiable in x and factors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor, noise: Tensor, bias: Tensor, slope: float) -> Tensor:
        ctx.mark_dirty(x)
        pixels = _pixels(x)
        for some, rows in _strips(pixels):
            _activate(pixels[some, rows], factors[some], noise[rows], bias, slope)
        ctx.save_for_backward(factors, noise, bias, x)
        ctx.slope = slope
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factors, noise, bias, y = ctx.saved_tensors
        y, grad = _pixels(y), _pixels(grad)
        grad_x, grad_factors = torch.empty_like(y), torch.zeros_like(factors)
        for some, rows in _strips(y):
            outer, strip = grad[some, rows], y[some, rows]
            grad_factors[some] += _factor_gradient(outer, strip, noise[rows], bias, ctx.slope)
            inner = _before_relu(outer, strip, ctx.slope)
            torch.mul(inner, factors[some, None, None], out=grad_x[some, rows])
        return grad_x.permute(0, 3, 1, 2), grad_factors / factors, None, None, None


def _pixels(x: Tensor) -> Tensor:
    """Return ``[B, C, H, W]`` as contiguous ``[B, H, W, C]``, without a copy where it is channels_last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _activate(strip: Tensor, factors: Tensor, noise: Tensor, bias: Tensor, slope: float) -> None:
    """Scale ``[b, h, W, C]`` by ``[b, C]``, add noise ``[h, W]`` and bias ``[C]``, apply the leaky ReLU: in place."""
    strip.mul_(factors[:, None, None]).add_(noise[:, :, None]).add_(bias)
    F.leaky_relu_(strip, slope)


def _before_relu(grad: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return the gradient before the leaky ReLU, from that behind it and what it gave."""
    before: Tensor = torch.ops.aten.leaky_relu_backward(grad, y, slope, True)
    return before


def _factor_gradient(grad: Tensor, y: Tensor, noise: Tensor, bias: Tensor, slope: float) -> Tensor:
    """Return the gradient ``[b, C]`` of the factors of `_activate`, times these.

    It is the sum of gradient x (value - noise - bias), both before the ReLU. That is homogeneous: gradient and value
    have the same product behind it, so that what was before need not be kept.
    """
    before = _before_relu(grad, y, slope).flatten(1, 2)  # [b, h * W, C]
    added = torch.stack([noise.flatten(), torch.ones_like(noise).flatten()]) @ before  # [b, 2, C]
    return (grad * y).sum((1, 2)) - added[:, 0] - bias * added[:, 1]


def _strips(pixels: Tensor) -> Iterator[tuple[slice, slice]]:
    """Divide ``[B, H, W, C]`` into strips of about `STRIP_VALUES`: rows of the batch, and rows of the picture."""
    batch, height, width, channels = pixels.shape
    num = max(1, STRIP_VALUES // (width * channels))
    if num >= height:
        together = num // height
        yield from ((slice(row, row + together), slice(0, height)) for row in range(0, batch, together))
    else:
        yield from (
            (slice(row, row + 1), slice(first, first + num)) for row in range(batch) for first in range(0, height, num)
        )
