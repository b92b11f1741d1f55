"""The layers of StyleGAN2: equalised linear, modulated convolution, FIR upsampling.

The modulated convolution scales the activations instead of the weights (Karras et al. 2020, section 2.2: the two are
equal). All samples then share one weight: a batch is one plain convolution, and a frozen network computes no weight
gradient at all.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.models.stylegan2_frozen import FrozenLayer

LEAKY_SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2.0)  # keeps the second moment through the leaky ReLU
RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


def resample_filter() -> Tensor:
    """Return the ``[4, 4]`` low-pass filter of all resampling, of sum one (Karras et al. 2020, appendix B)."""
    taps = torch.tensor(RESAMPLE_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class EqualizedLinear(nn.Module):
    """A linear layer whose weights are scaled at run time, so that all learn at one rate (Karras et al. 2018, 4.1).

    Runs in the precision of its parameters, also under autocast: codes and styles are small, and are what is edited.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        generator: torch.Generator,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features, generator=generator) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_features]`` to ``[B, out_features]``."""
        with torch.autocast(x.device.type, enabled=False):
            # the gain scales the few values of x and not the many of the weight
            return F.linear(x.to(self.weight.dtype) * self.weight_gain, self.weight, self.bias * self.bias_gain)


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Return ``[B, out]``, the factors that bring each output channel back to unit deviation.

    ``weight``: ``[out, in, k, k]``; ``styles``: ``[B, in]``. Computed in float32 or wider.
    Karras et al. 2020, equation 3.
    """
    with torch.autocast(styles.device.type, enabled=False):
        return demodulation_of_energy(full_precision(weight).square().sum(dim=(2, 3)), styles)


def demodulation_of_energy(energy: Tensor, styles: Tensor) -> Tensor:
    """Return `demodulation` for the energy ``[out, in]`` of a weight, its squares summed over the kernel."""
    return torch.rsqrt(full_precision(styles).square() @ energy.T + 1e-8)


def upsampling_convolution(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """Convolve ``[B, in, H, W]`` with ``weight`` ``[out, in, 3, 3]`` at twice the resolution and low-pass the result.

    The convolution is a true one (kernel flipped) of the zero-stuffed input, as in the published networks; ``kernel``,
    ``[4, 4]`` and symmetric, has gain 4, one for each stuffed zero. Returns ``[B, out, 2H, 2W]``.
    """
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [B, out, 2H + 1, 2W + 1]
    # depthwise: on a CPU half the time of folding the filter into the weight, which makes 4 times the products
    channels = x.shape[1]
    return F.conv2d(x, (4 * kernel).to(x.dtype).expand(channels, 1, 4, 4), padding=1, groups=channels)


def upsample_image(images: Tensor, kernel: Tensor) -> Tensor:
    """Upsample ``[B, 3, H, W]`` to ``[B, 3, 2H, 2W]`` with the ``[4, 4]`` low-pass kernel; zeros lie outside."""
    batch, channels, height, width = images.shape
    planes = images.reshape(batch * channels, 1, height, width)
    with torch.autocast(images.device.type, enabled=False):
        planes = F.conv_transpose2d(planes, (4 * kernel)[None, None].to(planes.dtype), stride=2, padding=1)
    return planes.reshape(batch, channels, 2 * height, 2 * width)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, constant noise, bias, leaky ReLU (Karras et al. 2020, figure 2c)."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        upsample: bool,
        conv_clamp: float | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv_clamp = conv_clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0, generator=generator)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3, generator=generator))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution, generator=generator))
        self.register_buffer("resample_filter", resample_filter())
        self._frozen: tuple[object, FrozenLayer] | None = None  # with the state of the weights that it is of

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map ``[B, in, h, w]`` and codes ``[B, D]`` to ``[B, out, resolution, resolution]``."""
        styles = self.affine(w)
        if self._is_frozen(x, styles):
            frozen = self._prepared()
            factors = demodulation_of_energy(frozen.energy, styles) * LEAKY_GAIN
            return frozen(x, styles, factors, LEAKY_SLOPE)
        # the leaky ReLU is homogeneous, so its gain joins the factors before it and costs no pass over the pixels
        factors = demodulation(self.weight, styles) * LEAKY_GAIN
        x = x * styles[:, :, None, None].to(x.dtype)
        x = (
            upsampling_convolution(x, self.weight, self.resample_filter)
            if self.upsample
            else F.conv2d(x, self.weight, padding=1)
        )
        x = x * factors[:, :, None, None].to(x.dtype)
        x = x.add_((self.noise_const * (self.noise_strength * LEAKY_GAIN)).to(x.dtype))
        x = x.add_((self.bias * LEAKY_GAIN)[:, None, None].to(x.dtype))
        x = F.leaky_relu_(x, LEAKY_SLOPE)
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)

    def _is_frozen(self, x: Tensor, styles: Tensor) -> bool:
        """Return whether the way of a CPU whose weights are constants is open: no clamp, all float32."""
        constants = (self.weight, self.bias, self.noise_strength, self.noise_const)
        return (
            x.device.type == "cpu"
            and self.conv_clamp is None
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and all(each.dtype == torch.float32 for each in (x, styles, *constants))
            and not any(each.requires_grad or each.is_inference() for each in constants)
        )

    def _prepared(self) -> FrozenLayer:
        """Return what `FrozenLayer` computes once, and again where the weights have changed since."""
        constants = (self.weight, self.bias, self.noise_strength, self.noise_const)
        state = [(each.data_ptr(), each._version) for each in constants]
        if self._frozen is None or self._frozen[0] != state:
            frozen = FrozenLayer.of(
                self.weight.detach(),
                (self.noise_const * self.noise_strength * LEAKY_GAIN).detach(),
                (self.bias * LEAKY_GAIN).detach(),
                upsampling_filter=self.resample_filter if self.upsample else None,
            )
            self._frozen = state, frozen
        return self._frozen[1]


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to sRGB, without demodulation (Karras et al. 2020, figure 7)."""

    def __init__(self, in_channels: int, *, w_dim: int, conv_clamp: float | None, generator: torch.Generator) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0, generator=generator)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1, generator=generator))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map ``[B, in, H, W]`` and codes ``[B, D]`` to ``[B, 3, H, W]``, float32 or wider."""
        styles = self.affine(w) * self.weight_gain
        # three outputs alone: a weight of its own for each picture is cheaper than another pass over its pixels
        weight = (self.weight.flatten(1) * styles[:, None].to(self.weight.dtype)).to(x.dtype)  # [B, 3, in]
        size = x.shape[2:]
        if x.is_contiguous():
            x = weight @ x.flatten(2)  # [B, 3, H * W]
        else:  # channels_last: the gradient must lie in memory as x does
            x = (x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.mT).mT
        x = x.unflatten(2, size)
        x = full_precision(x) + full_precision(self.bias)[:, None, None]
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
