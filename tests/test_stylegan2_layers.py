"""The layers of StyleGAN2 against slow loops written from the papers."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.models.stylegan2_layers import (
    SynthesisLayer,
    ToRGBLayer,
    resample_filter,
    upsample_image,
    upsampling_convolution,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def zero_stuffed(x: Tensor) -> Tensor:
    """Put a zero after every pixel: ``[C, H, W]`` to ``[C, 2H, 2W]``."""
    channels, height, width = x.shape
    stuffed = x.new_zeros(channels, 2 * height, 2 * width)
    stuffed[:, ::2, ::2] = x
    return stuffed


def true_convolution(x: Tensor, kernel: Tensor, first: int, size: int) -> Tensor:
    """Evaluate sum_k kernel[k] x[n - k] for n from ``first`` on, pixel by pixel; zeros lie outside of x."""
    result = x.new_zeros(size, size)
    for row in range(size):
        for column in range(size):
            for i in range(kernel.shape[0]):
                for j in range(kernel.shape[1]):
                    y, z = row + first - i, column + first - j
                    if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                        result[row, column] += kernel[i, j] * x[y, z]
    return result


def literal_upsampling_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Stuff zeros, convolve with the full support 2H + 1 of the kernel, filter with gain 4, keep 2H from the second."""
    size = 2 * x.shape[1]
    stuffed = zero_stuffed(x)
    outputs = []
    for kernels in weight:
        full = torch.stack([true_convolution(stuffed[i], kernels[i], 0, size + 1) for i in range(len(x))]).sum(0)
        outputs.append(true_convolution(full, 4 * resample_filter().double(), 2, size))
    return torch.stack(outputs)


def per_sample_layer(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """Form each sample's modulated, demodulated weights (Karras et al. 2020, equations 1 and 3), then convolve."""
    images = []
    for sample, code in zip(x, w, strict=True):
        style = layer.affine.weight @ code / math.sqrt(len(code)) + layer.affine.bias
        weight = layer.weight * style[None, :, None, None]
        weight = weight / torch.sqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if layer.upsample:
            y = literal_upsampling_convolution(sample, weight)
        else:
            y = F.conv2d(sample[None], weight, padding=1)[0]
        y = y + layer.noise_const * layer.noise_strength + layer.bias[:, None, None]
        images.append(torch.where(y > 0, y, 0.2 * y) * math.sqrt(2))
    return torch.stack(images)


def layer_with_offsets(*, upsample: bool, conv_clamp: float | None = None) -> SynthesisLayer:
    random = torch.Generator().manual_seed(2)
    layer = SynthesisLayer(
        3, 2, w_dim=5, resolution=6, upsample=upsample, conv_clamp=conv_clamp, generator=random
    ).double()
    nn.init.constant_(layer.noise_strength, 0.7)
    nn.init.normal_(layer.bias, generator=random)
    return layer


@pytest.mark.parametrize("upsample", [False, True])
def test_layer_matches_per_sample_modulated_weights(upsample: bool) -> None:
    layer = layer_with_offsets(upsample=upsample)
    size = 3 if upsample else 6
    outcomes = []
    evaluations: list[Callable[[Tensor, Tensor], Tensor]] = [layer, lambda x, w: per_sample_layer(layer, x, w)]
    for evaluate in evaluations:
        x, w = normal(2, 3, size, size).requires_grad_(), normal(2, 5, seed=3).requires_grad_()
        y = evaluate(x, w)
        gradients = torch.autograd.grad((y * normal(2, 2, 6, 6, seed=4)).sum(), [x, w, *layer.parameters()])
        outcomes.append((y, *gradients))
    for actual, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_upsampling_convolution_matches_its_definition() -> None:
    x, weight = normal(2, 2, 4, 4), normal(3, 2, 3, 3, seed=1)
    expected = torch.stack([literal_upsampling_convolution(sample, weight) for sample in x])
    torch.testing.assert_close(upsampling_convolution(x, weight, resample_filter().double()), expected)


def test_upsampled_image_matches_its_definition() -> None:
    images = normal(2, 3, 4, 4)
    kernel = resample_filter().double()
    expected = torch.stack(
        [torch.stack([true_convolution(plane, 4 * kernel, 1, 8) for plane in zero_stuffed(image)]) for image in images]
    )
    torch.testing.assert_close(upsample_image(images, kernel), expected)


def test_upsampled_image_keeps_a_flat_interior() -> None:
    upsampled = upsample_image(torch.ones(1, 3, 6, 6), resample_filter())
    torch.testing.assert_close(upsampled[:, :, 1:-1, 1:-1], torch.ones(1, 3, 10, 10))


def test_clamp_bounds_the_activations() -> None:
    x, w = 10 * normal(2, 3, 6, 6), normal(2, 5, seed=3)
    free, bounded = layer_with_offsets(upsample=False)(x, w), layer_with_offsets(upsample=False, conv_clamp=0.5)(x, w)
    assert free.abs().max() > 0.5
    torch.testing.assert_close(bounded, free.clamp(-0.5, 0.5))


def test_rgb_layer_scales_by_fan_in_and_does_not_demodulate() -> None:
    layer = ToRGBLayer(4, w_dim=5, conv_clamp=None, generator=torch.Generator().manual_seed(2)).double()
    x, w = normal(2, 4, 3, 3), normal(2, 5, seed=3)
    style = w @ layer.affine.weight.T / math.sqrt(5) + 1.0
    expected = torch.einsum("bi,oi,bihw->bohw", style, layer.weight[:, :, 0, 0], x) / 2.0
    torch.testing.assert_close(layer(x, w), expected)
