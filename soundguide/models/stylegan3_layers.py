"""The layers of StyleGAN3: Fourier features, modulated convolution, nonlinearities between low-pass filters.

As in StyleGAN2's layers, activations are scaled instead of weights, and all samples share one weight. Only the
convolution follows autocast. The filters run in full precision: what they must suppress is small, and on a CPU
depthwise convolutions in bfloat16 take ten times as long.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.models.stylegan2_layers import (
    LEAKY_GAIN,
    LEAKY_SLOPE,
    EqualizedLinear,
    demodulation,
    full_precision,
)


@dataclass(frozen=True, slots=True)
class Band:
    """How one feature map is sampled. A picture, without its margin, is one unit wide.

    ``size``: samples on a side, margin included. ``rate``: samples per unit. ``cutoff`` and ``half_width``: middle of
    the low-pass filter's transition band and half the width of it, in cycles per unit.
    """

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


def lowpass_filter(num_taps: int, band: Band, *, rate: int, radial: bool = False) -> Tensor:
    """Design the low-pass filter of ``band`` at ``rate`` samples per unit: ``[num_taps]``, of sum one.

    A windowed sinc under a Kaiser window whose length gives the transition band. ``radial``: the jinc, ``[num_taps,
    num_taps]``, whose response is the same in all directions; ``num_taps`` is even (Karras et al. 2021, appendix C).
    """
    from scipy.signal import firwin, kaiser_atten, kaiser_beta
    from scipy.special import j1

    width = 2 * band.half_width
    if not radial:
        return torch.tensor(firwin(num_taps, band.cutoff, width=width, fs=rate), dtype=torch.float32)
    window = np.kaiser(num_taps, kaiser_beta(kaiser_atten(num_taps, width / (rate / 2))))
    place = (np.arange(num_taps) - (num_taps - 1) / 2) / rate
    radius = np.hypot(place[:, None], place)  # never 0: the middle lies between two taps
    taps = j1(2 * math.pi * band.cutoff * radius) / radius * np.outer(window, window)
    return torch.tensor(taps / taps.sum(), dtype=torch.float32)


def upsample(x: Tensor, taps: Tensor, *, factor: int, crop: int) -> Tensor:
    """Put ``factor - 1`` zeros after each sample of ``[B, C, H, W]`` and low-pass with ``taps`` ``[n]``.

    The gain makes up for the zeros. ``crop`` samples are cut from each side of the full convolution.
    """
    channels = x.shape[1]
    taps = (factor * taps).to(x.dtype).expand(channels, 1, 1, -1)
    x = F.conv_transpose2d(x, taps, stride=(1, factor), padding=(0, crop), groups=channels)
    return F.conv_transpose2d(x, taps.mT, stride=(factor, 1), padding=(crop, 0), groups=channels)


def downsample(x: Tensor, taps: Tensor, *, factor: int) -> Tensor:
    """Low-pass ``[B, C, H, W]`` with symmetric ``taps``, ``[n]`` or ``[n, n]``, and keep each ``factor``-th sample."""
    channels = x.shape[1]
    taps = taps.to(x.dtype)
    if taps.ndim == 2:
        return F.conv2d(x, taps.expand(channels, 1, -1, -1), stride=factor, groups=channels)
    taps = taps.expand(channels, 1, 1, -1)
    x = F.conv2d(x, taps.mT, stride=(factor, 1), groups=channels)
    return F.conv2d(x, taps, stride=(1, factor), groups=channels)


class FourierInput(nn.Module):
    """An infinite picture of waves, seen where the code and the user's ``transform`` put the view (section 3.2).

    ``transform`` ``[3, 3]`` maps the view to the picture: homogeneous (x, y), in units of the view's width, y down.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, band: Band, *, w_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.band = band
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels, generator=generator))
        self.affine = EqualizedLinear(w_dim, 4, generator=generator)
        with torch.no_grad():  # cos, sin, x, y: every code begins with the untransformed view
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        angles = 2 * math.pi * torch.rand(band.channels, generator=generator)
        radii = band.cutoff * torch.rand(band.channels, generator=generator).sqrt()  # even over the disc
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", radii[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1))
        self.register_buffer("phases", torch.rand(band.channels, generator=generator) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        """Draw the waves of codes ``[B, D]``: ``[B, C, size, size]``."""
        with torch.autocast(w.device.type, enabled=False):
            cosine, sine, *move = full_precision(self.affine(w)).unbind(1)
            length = torch.hypot(cosine, sine)
            cosine, sine = cosine / length, sine / length
            turn = torch.stack([cosine, -sine, sine, cosine], dim=1).unflatten(1, (2, 2))  # [B, 2, 2]
            transform, freqs = full_precision(self.transform), full_precision(self.freqs)
            shift = turn @ (transform[:2, 2] - torch.stack(move, dim=1) / length[:, None])[:, :, None]  # [B, 2, 1]
            phases = full_precision(self.phases) + (freqs @ shift)[:, :, 0]  # [B, C]
            return self._waves(freqs @ turn @ transform[:2, :2], phases)

    def _waves(self, freqs: Tensor, phases: Tensor) -> Tensor:
        """Sample waves of frequencies ``[B, C, 2]`` in cycles per unit, and phases ``[B, C]`` in cycles."""
        band = self.band
        # a transform that shrinks the picture raises frequencies: none may pass what the rate can hold
        amplitudes = 1 - (freqs.norm(dim=2) - band.cutoff) / (band.rate / 2 - band.cutoff)
        place = (torch.arange(band.size, device=freqs.device, dtype=freqs.dtype) - (band.size - 1) / 2) / band.rate
        x, y = (freqs[..., None] * place).unbind(2)  # [B, C, size] each
        cycles = x[:, :, None, :] + (y + phases[:, :, None])[..., None]
        waves = torch.sin(2 * math.pi * cycles) * amplitudes.clamp(0, 1)[:, :, None, None]
        weight = full_precision(self.weight) / math.sqrt(band.channels)
        return torch.einsum("oc,bcyx->boyx", weight, waves)


class FilteredLayer(nn.Module):
    """Modulated convolution, bias, leaky ReLU at a higher rate between two low-pass filters (figure 4b).

    ``filter_size``: taps at the lower of a filter's two rates. ``oversampling``: rate of the leaky ReLU relative to the
    higher of the two bands' rates; even. The picture stays in the middle: what the convolution and the filters have too
    much is cut alike from all sides.
    """

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self,
        source: Band,
        target: Band,
        *,
        w_dim: int,
        kernel_size: int,
        filter_size: int,
        oversampling: int,
        radial: bool,
        conv_clamp: float | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        rate = oversampling * max(source.rate, target.rate)
        self.up, self.down = rate // source.rate, rate // target.rate
        num_up, num_down = filter_size * self.up, filter_size * self.down
        full = (source.size + kernel_size - 2) * self.up + num_up  # of the convolution by the first filter
        self.crop = (full - ((target.size - 1) * self.down + num_down)) // 2
        self.padding = kernel_size - 1
        self.conv_clamp = conv_clamp
        self.affine = EqualizedLinear(w_dim, source.channels, bias_init=1.0, generator=generator)
        shape = (target.channels, source.channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator))
        self.bias = nn.Parameter(torch.zeros(target.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))  # mean square of the input, followed in training
        self.register_buffer("up_filter", lowpass_filter(num_up, source, rate=rate))
        self.register_buffer("down_filter", lowpass_filter(num_down, target, rate=rate, radial=radial))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map ``[B, in, h, w]`` and codes ``[B, D]`` to ``[B, out, size, size]``, float32 or wider."""
        styles = full_precision(self.affine(w))
        # demodulation undoes the styles' scale; each row's own, where the published code takes the batch's
        styles = styles * torch.rsqrt(styles.square().mean(dim=1, keepdim=True) + 1e-8)
        # the leaky ReLU is homogeneous, so its gain joins the factors before it and costs no pass over the pixels
        factors = demodulation(self.weight, styles) * torch.rsqrt(full_precision(self.magnitude_ema)) * LEAKY_GAIN
        x = (x * styles[:, :, None, None]).to(self.weight.dtype)
        x = F.conv2d(x, self.weight, padding=self.padding)
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x) * factors[:, :, None, None]
            x = x + full_precision(self.bias * LEAKY_GAIN)[:, None, None]
            x = upsample(x, self.up_filter, factor=self.up, crop=self.crop)
            x = F.leaky_relu_(x, LEAKY_SLOPE)
            if self.conv_clamp is not None:
                x = x.clamp(-self.conv_clamp, self.conv_clamp)
            return downsample(x, self.down_filter, factor=self.down)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to sRGB, without demodulation, filters or nonlinearity."""

    magnitude_ema: Tensor

    def __init__(
        self, source: Band, target: Band, *, w_dim: int, conv_clamp: float | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = EqualizedLinear(w_dim, source.channels, bias_init=1.0, generator=generator)
        self.weight = nn.Parameter(torch.randn(target.channels, source.channels, 1, 1, generator=generator))
        self.bias = nn.Parameter(torch.zeros(target.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map ``[B, in, H, W]`` and codes ``[B, D]`` to ``[B, out, H, W]``, float32 or wider."""
        gain = torch.rsqrt(full_precision(self.magnitude_ema) * len(self.affine.bias))
        x = x * (full_precision(self.affine(w)) * gain)[:, :, None, None]
        x = full_precision(F.conv2d(x.to(self.weight.dtype), self.weight)) + full_precision(self.bias)[:, None, None]
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
