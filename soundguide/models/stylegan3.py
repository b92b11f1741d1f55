"""The StyleGAN3 generator (Karras et al. 2021), configurations T and R, without labels.

Parameters and buffers have the names and meanings of the published checkpoints, so that those load with ``strict=True``
and draw the same images.
"""

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn

from soundguide.models.mapping_network import MappingNetwork, require_codes
from soundguide.models.stylegan3_layers import Band, FilteredLayer, FourierInput, ToRGBLayer

NUM_COLOURS = 3


class StyleGAN3Config(BaseModel):
    """The architecture of one generator; travels with its weights. The defaults are configuration T's.

    Configuration R has ``conv_kernel`` 1, twice the channels and ``use_radial_filters``. Frequencies are in cycles per
    picture width.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["stylegan3"] = "stylegan3"
    resolution: Annotated[int, Field(le=4096, description="Height and width of the images in pixels, a power of two.")]
    z_dim: Annotated[PositiveInt, Field(le=65536, description="Width of z.")] = 512
    w_dim: Annotated[PositiveInt, Field(le=65536, description="Width D of one layer's code.")] = 512
    mapping_layers: Annotated[PositiveInt, Field(le=64, description="Depth of the mapping network.")] = 2
    mapping_lr_multiplier: Annotated[
        float, Field(gt=0, description="Learning rate of the mapping network relative to the rest.")
    ] = 0.01
    channel_base: Annotated[
        PositiveInt, Field(le=2**31, description="Channels times twice the cutoff, where `channel_max` does not bind.")
    ] = 32768
    channel_max: Annotated[PositiveInt, Field(le=65536, description="Most channels in any layer.")] = 512
    num_layers: Annotated[
        PositiveInt, Field(le=64, description="Layers between the Fourier features and sRGB, at any resolution.")
    ] = 14
    num_critical: Annotated[
        PositiveInt, Field(description="Layers at the end whose cutoff is half the resolution.")
    ] = 2
    first_cutoff: Annotated[float, Field(ge=0.01, description="Cutoff frequency of the first layer.")] = 2.0
    first_stopband: Annotated[
        float, Field(gt=0, le=4096, description="Least stopband frequency of the first layer.")
    ] = 2**2.1
    last_stopband_rel: Annotated[
        float, Field(gt=1, le=16, description="Least stopband frequency of the last layer relative to its cutoff.")
    ] = 2**0.3
    margin_size: Annotated[int, Field(ge=0, le=1024, description="Samples kept on each side outside the picture.")] = 10
    output_scale: Annotated[float, Field(gt=0, description="Factor of the last layer's output.")] = 0.25
    conv_kernel: Annotated[Literal[1, 3], Field(description="Side of the convolutions, 1 for configuration R.")] = 3
    filter_size: Annotated[
        PositiveInt, Field(le=64, description="Taps of each filter at the lower of its two rates.")
    ] = 6
    lrelu_upsampling: Annotated[
        int, Field(ge=2, le=16, multiple_of=2, description="Rate of the leaky ReLU relative to the layer's.")
    ] = 2
    use_radial_filters: Annotated[
        bool, Field(description="Downsample alike in all directions, except in critical layers.")
    ] = False
    conv_clamp: Annotated[
        float | None, Field(gt=0, description="Bound on activations, for float16; None for no bound.")
    ] = 256.0

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            lower = 2 ** max(4, self.resolution.bit_length() - 1) if self.resolution > 0 else 16
            raise ValueError(
                f"resolution must be a power of two and at least 16, got {self.resolution}. Use {lower} or {2 * lower}."
            )
        if self.num_critical >= self.num_layers:
            raise ValueError(
                f"num_critical must be below num_layers, {self.num_layers}, got {self.num_critical}. Use a smaller one."
            )
        if not self.first_cutoff < self.resolution / 2 or not self.first_cutoff < self.first_stopband:
            raise ValueError(
                f"first_cutoff must be below first_stopband, {self.first_stopband:g}, and half the resolution, "
                f"{self.resolution // 2}, got {self.first_cutoff:g}. Use a smaller one."
            )
        return self

    @property
    def num_ws(self) -> int:
        """Number L of layers of a W+ code: the Fourier features', one for each layer, and sRGB's."""
        return self.num_layers + 2

    @property
    def bands(self) -> tuple[Band, ...]:
        """How the output of each layer is sampled, from the first to sRGB (section 3.2, "flexible layers")."""
        return tuple(self._band(index) for index in range(self.num_layers + 1))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names that published checkpoints give the layers."""
        return tuple(f"L{index}_{band.size}_{band.channels}" for index, band in enumerate(self.bands))

    def _band(self, index: int) -> Band:
        progress = min(index / (self.num_layers - self.num_critical), 1.0)
        last_cutoff = self.resolution / 2
        cutoff = self.first_cutoff * (last_cutoff / self.first_cutoff) ** progress
        stopband = self.first_stopband * (last_cutoff * self.last_stopband_rel / self.first_stopband) ** progress
        # where the stopband is itself a power of two, rounding must not raise the rate: layer 9 of 14 at 256 pixels
        rate = min(2 ** math.ceil(math.log2(2 * stopband) - 1e-9), self.resolution)
        return Band(
            channels=max(1, round(min(self.channel_base / 2 / cutoff, self.channel_max)))
            if index < self.num_layers
            else NUM_COLOURS,
            size=rate + 2 * self.margin_size if index < self.num_layers - 1 else self.resolution,
            rate=rate,
            cutoff=cutoff,
            half_width=max(stopband, rate / 2) - cutoff,
        )


class SynthesisNetwork(nn.Module):
    """W+ -> images (Karras et al. 2021, figure 4b)."""

    def __init__(self, config: StyleGAN3Config, *, generator: torch.Generator) -> None:
        super().__init__()
        bands = config.bands
        self.layers = config.layer_names
        self.output_scale = config.output_scale
        self.input = FourierInput(bands[0], w_dim=config.w_dim, generator=generator)
        sources = (bands[0], *bands)
        for index, name in enumerate(self.layers[:-1]):
            layer = FilteredLayer(
                sources[index],
                bands[index],
                w_dim=config.w_dim,
                kernel_size=config.conv_kernel,
                filter_size=config.filter_size,
                oversampling=config.lrelu_upsampling,
                radial=config.use_radial_filters and index < config.num_layers - config.num_critical,
                conv_clamp=config.conv_clamp,
                generator=generator,
            )
            self.add_module(name, layer)
        to_rgb = ToRGBLayer(
            sources[-2], bands[-1], w_dim=config.w_dim, conv_clamp=config.conv_clamp, generator=generator
        )
        self.add_module(self.layers[-1], to_rgb)

    def forward(self, ws: Tensor) -> Tensor:
        """Map ``[B, L, D]`` to ``[B, 3, H, W]``, not clamped."""
        first, *others = ws.unbind(dim=1)
        x: Tensor = self.input(first)
        for name, w in zip(self.layers, others, strict=True):
            x = self.get_submodule(name)(x, w)
        return x * self.output_scale


class StyleGAN3(nn.Module):
    """An alias-free style-based generator; meets `soundguide.models.protocols.Generator`.

    ``synthesis.input.transform`` moves and turns the picture's content. ``seed`` draws the initial weights; a
    checkpoint replaces them, and the filters.
    """

    def __init__(self, config: StyleGAN3Config, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config = config
        self.z_dim = config.z_dim
        self.w_dim = config.w_dim
        self.num_ws = config.num_ws
        self.resolution = config.resolution
        self.mapping = MappingNetwork(
            config.z_dim,
            config.w_dim,
            num_layers=config.mapping_layers,
            lr_multiplier=config.mapping_lr_multiplier,
            generator=generator,
        )
        self.synthesis = SynthesisNetwork(config, generator=generator)

    @property
    def w_avg(self) -> Tensor:
        """The mean code, ``[D]``; zeros until a checkpoint sets ``mapping.w_avg``."""
        return self.mapping.w_avg

    def map(self, z: Tensor, *, truncation_psi: float | Tensor = 1.0) -> Tensor:
        """Map seeds ``z`` ``[B, z_dim]`` to W+ codes ``[B, L, D]``; see `MappingNetwork.codes`."""
        return self.mapping.codes(z, num_ws=self.num_ws, truncation_psi=truncation_psi)

    def synthesize(self, ws: Tensor) -> Tensor:
        """Draw the images of W+ codes ``[B, L, D]``.

        Returns ``[B, 3, H, W]``, sRGB, nominally in [-1, 1] and not clamped. Raises `InvalidLatent` for another shape.
        """
        require_codes(ws, num_ws=self.num_ws, w_dim=self.w_dim)
        images: Tensor = self.synthesis(ws)
        return images
