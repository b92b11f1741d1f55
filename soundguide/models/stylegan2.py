"""The StyleGAN2 generator (Karras et al. 2019, 2020, 2020b), without labels and with constant noise.

Parameters and buffers have the names and meanings of the published StyleGAN2-ADA checkpoints, so that those load with
``strict=True`` and draw the same images. In the shapes, C is a number of channels; see the package for the others.
"""

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn

from soundguide.models.mapping_network import MappingNetwork, require_codes
from soundguide.models.stylegan2_layers import (
    SynthesisLayer,
    ToRGBLayer,
    resample_filter,
    upsample_image,
)


class StyleGAN2Config(BaseModel):
    """The architecture of one generator; travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["stylegan2"] = "stylegan2"
    resolution: Annotated[int, Field(description="Height and width of the images in pixels, a power of two.")]
    z_dim: Annotated[PositiveInt, Field(description="Width of z.")] = 512
    w_dim: Annotated[PositiveInt, Field(description="Width D of one layer's code.")] = 512
    mapping_layers: Annotated[PositiveInt, Field(description="Depth of the mapping network.")] = 8
    mapping_lr_multiplier: Annotated[
        float, Field(gt=0, description="Learning rate of the mapping network relative to the rest.")
    ] = 0.01
    channel_base: Annotated[
        PositiveInt, Field(description="Channels times resolution, where `channel_max` does not bind.")
    ] = 32768
    channel_max: Annotated[PositiveInt, Field(description="Most channels at any resolution.")] = 512
    channels: Annotated[
        tuple[PositiveInt, ...] | None,
        Field(description="Channels at 4, 8, ... `resolution` pixels; overrides `channel_base` and `channel_max`."),
    ] = None
    conv_clamp: Annotated[
        float | None, Field(gt=0, description="Bound on activations, for float16; None for no bound.")
    ] = None

    @model_validator(mode="after")
    def _check_resolution_and_channels(self) -> Self:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            lower = 2 ** max(3, self.resolution.bit_length() - 1) if self.resolution > 0 else 8
            raise ValueError(
                f"resolution must be a power of two and at least 8, got {self.resolution}. Use {lower} or {2 * lower}."
            )
        if self.channels is not None and len(self.channels) != len(self.block_resolutions):
            raise ValueError(
                f"channels must have one entry for each of the resolutions {self.block_resolutions}, "
                f"got {len(self.channels)} entries. Add or remove entries, or leave channels out."
            )
        return self

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """The resolutions 4, 8, ... up to the images'."""
        return tuple(2**power for power in range(2, int(math.log2(self.resolution)) + 1))

    @property
    def block_channels(self) -> tuple[int, ...]:
        """The number of channels at each of `block_resolutions`."""
        if self.channels is not None:
            return self.channels
        return tuple(max(1, min(self.channel_base // size, self.channel_max)) for size in self.block_resolutions)

    @property
    def num_ws(self) -> int:
        """Number L of layers of a W+ code: two for each resolution."""
        return 2 * int(math.log2(self.resolution)) - 2


class SynthesisBlock(nn.Module):
    """The layers of one resolution: learned constant or doubling convolution, convolution, sRGB output."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        *,
        resolution: int,
        config: StyleGAN2Config,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        w_dim, conv_clamp = config.w_dim, config.conv_clamp
        self.const: nn.Parameter | None = None
        self.conv0: SynthesisLayer | None = None
        if in_channels is None:  # the first block has nothing to double
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution, generator=generator))
        else:
            self.conv0 = SynthesisLayer(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=resolution,
                upsample=True,
                conv_clamp=conv_clamp,
                generator=generator,
            )
        self.conv1 = SynthesisLayer(
            out_channels,
            out_channels,
            w_dim=w_dim,
            resolution=resolution,
            upsample=False,
            conv_clamp=conv_clamp,
            generator=generator,
        )
        self.torgb = ToRGBLayer(out_channels, w_dim=w_dim, conv_clamp=conv_clamp, generator=generator)
        self.register_buffer("resample_filter", resample_filter())

    def begin(self, ws: Tensor) -> tuple[Tensor, Tensor]:
        """Start from the constant with codes ``[B, 2, D]``; return features and images."""
        assert self.const is not None
        x = self.conv1(self.const[None].expand(len(ws), -1, -1, -1), ws[:, 0])
        return x, self.torgb(x, ws[:, 1])

    def forward(self, x: Tensor, images: Tensor, ws: Tensor) -> tuple[Tensor, Tensor]:
        """Double features ``[B, C, h, w]`` and images ``[B, 3, h, w]`` with codes ``[B, 3, D]``."""
        assert self.conv0 is not None
        x = self.conv1(self.conv0(x, ws[:, 0]), ws[:, 1])
        return x, upsample_image(images, self.resample_filter) + self.torgb(x, ws[:, 2])


class SynthesisNetwork(nn.Module):
    """W+ -> images, with sRGB skip connections (Karras et al. 2020, figure 7b)."""

    def __init__(self, config: StyleGAN2Config, *, generator: torch.Generator) -> None:
        super().__init__()
        widths = (None, *config.block_channels)
        self.blocks = [f"b{resolution}" for resolution in config.block_resolutions]
        for name, resolution, in_channels, out_channels in zip(
            self.blocks, config.block_resolutions, widths, config.block_channels, strict=False
        ):
            block = SynthesisBlock(in_channels, out_channels, resolution=resolution, config=config, generator=generator)
            self.add_module(name, block)

    def forward(self, ws: Tensor) -> Tensor:
        """Map ``[B, L, D]`` to ``[B, 3, H, W]``, not clamped."""
        first, *others = (self.get_submodule(name) for name in self.blocks)
        assert isinstance(first, SynthesisBlock)
        x, images = first.begin(ws[:, :2])
        for index, block in enumerate(others):
            # the sRGB layer of a block shares its code with the first convolution of the next block
            x, images = block(x, images, ws[:, 2 * index + 1 : 2 * index + 4])
        return images


class StyleGAN2(nn.Module):
    """A style-based generator; meets `soundguide.models.protocols.Generator`.

    ``seed`` draws the initial weights and the constant noise; a checkpoint replaces both.
    """

    def __init__(self, config: StyleGAN2Config, *, seed: int = 0) -> None:
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
        """The mean code, ``[D]``; zeros until a checkpoint or `map` of many seeds sets ``mapping.w_avg``."""
        return self.mapping.w_avg

    def map(self, z: Tensor, *, truncation_psi: float | Tensor = 1.0) -> Tensor:
        """Map seeds to W+ codes.

        ``z``: ``[B, z_dim]`` from N(0, 1). ``truncation_psi``: one number or ``[B]``; 1 keeps the code, 0 gives
        `w_avg`. Returns ``[B, L, D]``, the same code in every layer. Raises `InvalidLatent` for another shape.
        """
        return self.mapping.codes(z, num_ws=self.num_ws, truncation_psi=truncation_psi)

    def synthesize(self, ws: Tensor) -> Tensor:
        """Draw the images of W+ codes ``[B, L, D]``.

        Returns ``[B, 3, H, W]``, sRGB, nominally in [-1, 1]. They are not clamped, so that gradients pass everywhere:
        clamp where pixels leave for a file. Raises `InvalidLatent` for another shape.
        """
        require_codes(ws, num_ws=self.num_ws, w_dim=self.w_dim)
        images: Tensor = self.synthesis(ws)
        return images
