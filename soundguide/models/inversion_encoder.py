"""From a picture to its code in one pass: the encoders pSp (Richardson et al. 2021) and e4e (Tov et al. 2021).

Both read three levels of a feature pyramid over an IR-SE50: the coarse level for the first codes, the fine level for
the last. pSp's heads give the codes themselves. e4e's give one code and, for each other layer, how far it is from that
one, which keeps the codes near to what the generator itself maps. Parameters have the names of the published files.
"""

import math
from itertools import accumulate
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from soundguide.models.ir_se import IR_SE50_UNITS, IR_SE50_WIDTHS, ir_se_body, ir_se_input
from soundguide.models.stylegan2_layers import EqualizedLinear

NUM_COARSE, NUM_TO_MIDDLE = 3, 7  # codes 0-2 read the coarse level, 3-6 the middle one, the others the fine one
COARSE_STRIDE = 16  # pixels of the picture under one of the coarse level; each finer level has half of it

_Width = Annotated[int, Field(ge=1, le=2048)]
_Units = Annotated[int, Field(ge=1, le=64)]


class InversionEncoderConfig(BaseModel):
    """One encoder for one generator; travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["inversion_encoder"] = "inversion_encoder"
    variant: Annotated[
        Literal["e4e", "psp"], Field(description="'e4e': one code and differences from it; 'psp': each code by itself.")
    ]
    num_ws: Annotated[int, Field(ge=2, le=64, description="Number L of layers of a W+ code of its generator.")]
    w_dim: Annotated[_Width, Field(description="Width D of one layer's code.")] = 512
    input_size: Annotated[
        int, Field(ge=32, le=1024, description="Longer side of what it reads, pixels, a power of two.")
    ] = 256
    widths: Annotated[
        tuple[_Width, _Width, _Width, _Width], Field(description="Channels of the four stages of the residual network.")
    ] = IR_SE50_WIDTHS
    units: Annotated[
        tuple[_Units, _Units, _Units, _Units], Field(description="Residual blocks of the four stages.")
    ] = IR_SE50_UNITS

    @model_validator(mode="after")
    def _check_input_size(self) -> Self:
        if self.input_size & (self.input_size - 1):
            raise ValueError(f"input_size must be a power of two, got {self.input_size}. Use 256 for published files.")
        return self


class StyleHead(nn.Module):
    """From a level of the pyramid to one code: convolutions that halve it down to one pixel, and a linear layer."""

    def __init__(self, channels: int, w_dim: int, *, num_halvings: int, generator: torch.Generator) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(num_halvings):
            layers += [nn.Conv2d(w_dim if index else channels, w_dim, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualizedLinear(w_dim, w_dim, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, h, w]`` to ``[B, D]``."""
        code: Tensor = self.linear(self.convs(x).flatten(1))
        return code


class StylePyramid(nn.Module):
    """The network between a picture and its code, without the mean code."""

    def __init__(self, config: InversionEncoderConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.is_relative = config.variant == "e4e"
        _, *ends = accumulate(config.units)
        self.ends = tuple(end - 1 for end in ends)  # the last blocks of the stages that the pyramid stands on
        _, fine, middle, coarse = config.widths
        self.input_layer = ir_se_input(config.widths[0])
        self.body = ir_se_body(config.widths, config.units)
        halvings = int(math.log2(config.input_size // COARSE_STRIDE))
        self.styles = nn.ModuleList(
            StyleHead(coarse, config.w_dim, num_halvings=halvings + _level(layer), generator=generator)
            for layer in range(config.num_ws)
        )
        self.latlayer1 = nn.Conv2d(middle, coarse, 1)
        self.latlayer2 = nn.Conv2d(fine, coarse, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``[B, 3, H, W]`` of the input's size to ``[B, L, D]``."""
        x = self.input_layer(x)
        stages = []
        for index, block in enumerate(self.body):
            x = block(x)
            if index in self.ends:
                stages.append(x)
        fine, middle, coarse = stages
        middle = _upsample(coarse, middle) + self.latlayer1(middle)
        fine = _upsample(middle, fine) + self.latlayer2(fine)
        levels = (coarse, middle, fine)
        codes = torch.stack([head(levels[_level(layer)]) for layer, head in enumerate(self.styles)], 1)  # [B, L, D]
        if self.is_relative:
            first, others = codes[:, :1], codes[:, 1:]
            codes = torch.cat([first, first + others], 1)
        return codes


class InversionEncoder(nn.Module):
    """Finds the codes of pictures in one pass; meets `soundguide.models.protocols.Inverter`.

    ``seed`` draws the initial weights; a checkpoint replaces them, and `latent_avg` with them.
    """

    latent_avg: Tensor

    def __init__(self, config: InversionEncoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.num_ws = config.num_ws
        self.w_dim = config.w_dim
        with torch.random.fork_rng(devices=[]):  # convolutions draw from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.encoder = StylePyramid(config, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))

    def invert(self, images: Tensor) -> Tensor:
        """Return the codes ``[B, L, D]`` of ``images`` ``[B, 3, H, W]``, sRGB in [-1, 1].

        Pictures of any size are resampled so that their longer side has `input_size` pixels. `latent_avg` is added to
        what the network says.
        """
        codes: Tensor = self.encoder(_resample(images, self.config.input_size))
        return codes + self.latent_avg


def _level(layer: int) -> int:
    """Return the level of the pyramid that a layer's code is read from: 0 coarse, 1 middle, 2 fine."""
    return 0 if layer < NUM_COARSE else 1 if layer < NUM_TO_MIDDLE else 2


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def _resample(images: Tensor, longer: int) -> Tensor:
    """Bring the longer side to ``longer`` pixels as the encoders were trained, by antialiased triangles."""
    height, width = images.shape[2:]
    share = longer / max(height, width)
    size = (max(1, round(height * share)), max(1, round(width * share)))
    if size == (height, width):
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)
