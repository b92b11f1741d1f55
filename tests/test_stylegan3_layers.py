"""The layers of StyleGAN3 against slow NumPy written from the paper's appendices C and F."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d, correlate2d
from torch import Tensor, nn

from soundguide.models.stylegan3 import StyleGAN3Config
from soundguide.models.stylegan3_layers import Band, FilteredLayer, FourierInput, ToRGBLayer, lowpass_filter

Array = NDArray[np.float64]

W_DIM = 5
BANDS = StyleGAN3Config(resolution=32, num_layers=6, channel_max=3).bands  # rates 16, 16, 32, ...: one doubles


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# filters


def kaiser_window(num_taps: int, attenuation: float) -> Array:
    """Equations 5 and 8, with the Bessel function I0 as its power series."""
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation >= 21 else 0.0

    def bessel_i0(x: float) -> float:
        return sum((x / 2) ** (2 * k) / math.factorial(k) ** 2 for k in range(60))

    extent = (num_taps - 1) / 2
    places = [(index - extent) / extent for index in range(num_taps)]
    return np.array([bessel_i0(beta * math.sqrt(1 - place**2)) / bessel_i0(beta) for place in places])


def literal_filter(num_taps: int, band: Band, rate: int, *, radial: bool) -> Array:
    """Equations 6, 7 and 12, with the Bessel function J1 as its integral."""
    fraction = 2 * band.half_width / (rate / 2)
    window = kaiser_window(num_taps, 2.285 * (num_taps - 1) * math.pi * fraction + 7.95)
    places = [(index - (num_taps - 1) / 2) / rate for index in range(num_taps)]
    if not radial:
        taps = np.array([np.sinc(2 * band.cutoff * place) for place in places]) * window
        return np.asarray(taps / taps.sum())
    angles = (np.arange(2000) + 0.5) * math.pi / 2000
    disc = np.zeros((num_taps, num_taps))
    for row, y in enumerate(places):
        for column, x in enumerate(places):
            z = math.pi * 2 * band.cutoff * math.hypot(x, y)
            disc[row, column] = 2 * np.cos(angles - z * np.sin(angles)).mean() / z * window[row] * window[column]
    return np.asarray(disc / disc.sum())


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize("band", [BANDS[0], BANDS[1], BANDS[-1]], ids=["first", "second", "critical"])
def test_filters_follow_appendix_c(band: Band, radial: bool) -> None:
    taps = lowpass_filter(12, band, rate=2 * band.rate, radial=radial)
    np.testing.assert_allclose(taps, literal_filter(12, band, 2 * band.rate, radial=radial), atol=2e-7)


def test_radial_filter_passes_all_directions_alike() -> None:
    band, rate = Band(channels=1, size=36, rate=16, cutoff=5.0, half_width=3.0), 32
    places = (torch.arange(12) - 5.5) / rate
    separable = lowpass_filter(12, band, rate=rate)
    kernels = (torch.outer(separable, separable), lowpass_filter(12, band, rate=rate, radial=True))
    cycles = 2 * math.pi * 6.0 * places
    straight, slant = torch.cos(cycles).expand(12, 12), torch.cos((cycles[:, None] + cycles) / math.sqrt(2))
    uneven, even = (float((kernel * (straight - slant)).sum().abs()) for kernel in kernels)
    assert uneven > 0.1 and even < 0.01


# the layer


def literal_layer(layer: FilteredLayer, source: Band, target: Band, x: Tensor, w: Tensor) -> Array:
    """One sample: modulated weights, zero-stuffing, full convolutions, and samples found by their places."""
    style = (layer.affine.weight @ w / math.sqrt(len(w)) + layer.affine.bias).detach().numpy()
    weight = layer.weight.detach().numpy() * style[None, :, None, None]
    weight = weight / np.sqrt(np.square(weight).sum((1, 2, 3), keepdims=True))
    weight = weight / math.sqrt(float(layer.magnitude_ema))
    up_taps, down_taps = layer.up_filter.numpy(), layer.down_filter.numpy()
    up_kernel = np.outer(up_taps, up_taps) * layer.up**2
    down_kernel = down_taps if down_taps.ndim == 2 else np.outer(down_taps, down_taps)
    rate = source.rate * layer.up
    outputs = []
    for kernels, bias in zip(weight, layer.bias.detach().numpy(), strict=True):
        y = sum(correlate2d(plane, kernel, "full") for plane, kernel in zip(x.numpy(), kernels, strict=True)) + bias
        place = -(len(y) - 1) / 2 / source.rate  # of the first sample; the picture's middle is 0
        stuffed = np.zeros((len(y) * layer.up,) * 2)
        stuffed[:: layer.up, :: layer.up] = y
        y = convolve2d(stuffed, up_kernel, "full")
        place -= (len(up_taps) - 1) / 2 / rate
        y = math.sqrt(2) * np.where(y > 0, y, 0.2 * y)
        y = y if layer.conv_clamp is None else np.clip(y, -layer.conv_clamp, layer.conv_clamp)
        y = convolve2d(y, down_kernel, "full")
        place -= (len(down_taps) - 1) / 2 / rate
        indices = ((np.arange(target.size) - (target.size - 1) / 2) / target.rate - place) * rate
        chosen = np.rint(indices).astype(int)
        np.testing.assert_allclose(indices, chosen, atol=1e-6)  # the layer's samples lie on this grid
        outputs.append(y[np.ix_(chosen, chosen)])
    return np.stack(outputs)


def layer_between(source: Band, target: Band, **changes: object) -> FilteredLayer:
    options: dict[str, object] = {"kernel_size": 3, "oversampling": 2, "radial": False, "conv_clamp": None}
    random = torch.Generator().manual_seed(2)
    layer = FilteredLayer(source, target, w_dim=W_DIM, filter_size=6, generator=random, **(options | changes))  # type: ignore[arg-type]
    nn.init.normal_(layer.bias, generator=random)
    layer.magnitude_ema.fill_(1.7)
    return layer.double()


@pytest.mark.parametrize(
    ("source", "target", "changes"),
    [
        (BANDS[0], BANDS[1], {}),
        (BANDS[1], BANDS[2], {}),
        (BANDS[3], BANDS[5], {}),
        (BANDS[1], BANDS[2], {"kernel_size": 1, "radial": True}),
        (BANDS[0], BANDS[0], {"oversampling": 4}),
        (BANDS[0], BANDS[0], {"conv_clamp": 0.7}),
    ],
    ids=["same rate", "twice the rate", "margin cut off", "configuration R", "oversampled 4 times", "clamped"],
)
def test_layer_matches_a_slow_reference(source: Band, target: Band, changes: dict[str, object]) -> None:
    layer = layer_between(source, target, **changes)
    x, w = normal(2, source.channels, source.size, source.size), normal(2, W_DIM, seed=3)
    actual = layer(x, w)
    for row in range(2):
        expected = literal_layer(layer, source, target, x[row], w[row])
        # the radial filter's float32 taps are symmetric to a rounding only
        np.testing.assert_allclose(actual[row].detach().numpy(), expected, rtol=1e-9, atol=1e-7)


def test_layer_has_true_gradients() -> None:
    source = Band(channels=2, size=6, rate=4, cutoff=1.0, half_width=1.0)
    layer = layer_between(source, source)
    x, w = normal(1, 2, 6, 6).requires_grad_(), normal(1, W_DIM, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x, w))


def test_scale_of_the_styles_has_no_influence() -> None:
    layer = layer_between(BANDS[0], BANDS[1])
    x, w = normal(1, 3, 36, 36), normal(1, W_DIM, seed=3)
    expected = layer(x, w)
    with torch.no_grad():
        layer.affine.weight.mul_(1e-6)
        layer.affine.bias.mul_(1e-6)
    torch.testing.assert_close(layer(x, w), expected, rtol=1e-3, atol=1e-6)


# input and output


def test_input_shows_the_waves_where_code_and_user_put_the_view() -> None:
    band = Band(channels=4, size=7, rate=5, cutoff=1.5, half_width=0.5)
    layer = FourierInput(band, w_dim=W_DIM, generator=torch.Generator().manual_seed(4)).double()
    nn.init.normal_(layer.affine.weight, generator=torch.Generator().manual_seed(5))
    user = torch.tensor([[1.2, -0.4, 0.3], [0.5, 1.1, -0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    layer.transform.copy_(user)
    w = normal(2, W_DIM)
    actual = layer(w).detach().numpy()
    for row in range(2):
        code = (layer.affine.weight @ w[row] / math.sqrt(W_DIM) + layer.affine.bias).detach().numpy()
        cosine, sine, across, down = code / math.hypot(code[0], code[1])
        turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        move = np.array([[1, 0, -across], [0, 1, -down], [0, 0, 1]])
        view = turn @ move @ user.numpy()
        waves = np.zeros((4, 7, 7))
        for channel in range(4):
            frequency = layer.freqs[channel].numpy()
            seen = np.linalg.norm(view[:2, :2].T @ frequency)
            for i, j in np.ndindex(7, 7):
                x, y, _ = view @ [(j - 3) / 5, (i - 3) / 5, 1]
                cycles = frequency @ [x, y] + float(layer.phases[channel])
                waves[channel, i, j] = np.clip((2.5 - seen) / (2.5 - 1.5), 0, 1) * math.sin(2 * math.pi * cycles)
        expected = np.einsum("oc,cij->oij", layer.weight.detach().numpy(), waves) / 2
        np.testing.assert_allclose(actual[row], expected, atol=1e-12)


def test_frequencies_fill_the_disc_evenly() -> None:
    band = Band(channels=4000, size=36, rate=16, cutoff=2.0, half_width=6.0)
    radii = FourierInput(band, w_dim=1, generator=torch.Generator().manual_seed(0)).freqs.norm(dim=1)
    assert radii.max() <= 2.0
    for share in (0.25, 0.5, 0.75):  # of the area lies within sqrt(share) of the radius
        assert (radii < 2.0 * math.sqrt(share)).float().mean() == pytest.approx(share, abs=0.03)


def test_rgb_layer_scales_by_fan_in_and_does_not_demodulate() -> None:
    source, target = Band(4, 3, 3, 1.5, 0.5), Band(3, 3, 3, 1.5, 0.5)
    layer = ToRGBLayer(
        source, target, w_dim=W_DIM, conv_clamp=None, generator=torch.Generator().manual_seed(2)
    ).double()
    nn.init.normal_(layer.bias)
    layer.magnitude_ema.fill_(0.25)
    x, w = normal(2, 4, 3, 3), normal(2, W_DIM, seed=3)
    style = w @ layer.affine.weight.T / math.sqrt(W_DIM) + 1.0
    expected = torch.einsum("bi,oi,bihw->bohw", style, layer.weight[:, :, 0, 0], x) / 2.0 / math.sqrt(0.25)
    torch.testing.assert_close(layer(x, w), expected + layer.bias[:, None, None])
