"""Faces into the space of ArcFace (Deng et al. 2019): its two common residual trunks, IR-SE and IResNet.

Parameters and buffers have the names of the published checkpoints: `model_ir_se50.pth`, which inversion encoders train
with, and the backbones of insightface's arcface_torch.
"""

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn

from soundguide.views import resample

DOWNSCALE = 16  # four stages, each of which halves the picture
SQUEEZE = 16  # channels of an IR-SE block per channel of its gate (Hu et al. 2018)


class AlignmentConfig(BaseModel):
    """Where an identity encoder's faces lie in a picture; travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: Annotated[
        Literal["ffhq", "whole"],
        Field(description="Without a detector: the face of a picture aligned like FFHQ, or all of the picture."),
    ] = "ffhq"
    detector_sha256: Annotated[
        str, Field(pattern="^([0-9a-f]{64})?$", description="Of detector.onnx beside the weights; empty for none.")
    ] = ""


class ArcFaceConfig(BaseModel):
    """One face encoder; travels with its weights. The defaults are those of the published networks of 50 layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["arcface"] = "arcface"
    variant: Annotated[
        Literal["ir_se50", "iresnet"], Field(description="The trunk: with gates on its channels, or without.")
    ] = "iresnet"
    layers: Annotated[
        tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt], Field(description="Blocks of each stage.")
    ] = (3, 4, 14, 3)
    widths: Annotated[
        tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt], Field(description="Channels of each stage.")
    ] = (64, 128, 256, 512)
    input_size: Annotated[PositiveInt, Field(description="Height and width in pixels of the faces that it reads.")] = (
        112
    )
    embed_dim: Annotated[PositiveInt, Field(description="Width of the embedding space.")] = 512
    alignment: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.input_size % DOWNSCALE:
            raise ValueError(f"input_size must be a multiple of {DOWNSCALE}, got {self.input_size}. Use 112.")
        return self

    @property
    def num_features(self) -> int:
        """Numbers that the last stage leaves of a face."""
        return self.widths[-1] * (self.input_size // DOWNSCALE) ** 2


class _Gate(nn.Module):
    """Weights each channel by what all of them see (squeeze and excitation, Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SQUEEZE)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class _GatedBlock(nn.Module):
    """A residual block of IR-SE; where the width stays, its shortcut only leaves pixels out."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            _conv3(in_channels, channels),
            nn.PReLU(channels),
            _conv3(channels, channels, stride),
            nn.BatchNorm2d(channels),
            _Gate(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.res_layer(x)
        shortcut: Tensor = self.shortcut_layer(x)
        return change + shortcut


class GatedTrunk(nn.Module):
    """IR-SE (Deng et al. 2019, with the gates of Hu et al. 2018): ``[B, 3, S, S]`` to ``[B, embed_dim]``."""

    def __init__(self, config: ArcFaceConfig) -> None:
        super().__init__()
        stem, last = config.widths[0], config.widths[-1]
        self.input_layer = nn.Sequential(_conv3(3, stem), nn.BatchNorm2d(stem), nn.PReLU(stem))
        self.body = nn.Sequential(*(_GatedBlock(*shape) for stage in _stages(config) for shape in stage))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Identity(),  # dropout while it was trained
            nn.Flatten(),
            nn.Linear(config.num_features, config.embed_dim),
            nn.BatchNorm1d(config.embed_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map faces to embeddings of any length."""
        embedding: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return embedding


class _PlainBlock(nn.Module):
    """A residual block of IResNet; the first of each stage has a convolution on its shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv3(in_channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = _conv3(channels, channels, stride)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return change + (x if self.downsample is None else self.downsample(x))


class PlainTrunk(nn.Module):
    """IResNet (Duta et al. 2020, as arcface_torch has it): ``[B, 3, S, S]`` to ``[B, embed_dim]``."""

    def __init__(self, config: ArcFaceConfig) -> None:
        super().__init__()
        stem, last = config.widths[0], config.widths[-1]
        self.conv1 = _conv3(3, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.prelu = nn.PReLU(stem)
        stages = [nn.Sequential(*(_PlainBlock(*shape) for shape in stage)) for stage in _stages(config)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(last)
        self.fc = nn.Linear(config.num_features, config.embed_dim)
        self.features = nn.BatchNorm1d(config.embed_dim)

    @property
    def blocks(self) -> list[_PlainBlock]:
        """All residual blocks, in order."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [block for stage in stages for block in stage if isinstance(block, _PlainBlock)]

    def forward(self, x: Tensor) -> Tensor:
        """Map faces to embeddings of any length."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for block in self.blocks:
            x = block(x)
        embedding: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return embedding


class ArcFaceEncoder(nn.Module):
    """A trunk on aligned faces; meets `soundguide.models.protocols.IdentityEncoder`.

    ``seed`` draws the initial weights; a checkpoint replaces them. Batch statistics count in training mode alone.
    """

    def __init__(self, config: ArcFaceConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.input_size
        self.embed_dim = config.embed_dim
        self.trunk: GatedTrunk | PlainTrunk
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.trunk = GatedTrunk(config) if config.variant == "ir_se50" else PlainTrunk(config)

    def encode_identity(self, images: Tensor) -> Tensor:
        """Embed aligned faces ``[B, 3, H, W]``, sRGB in [-1, 1], as ``[B, embed_dim]`` of unit norm, float32 at least.

        Faces of another size than `resolution` are resampled first.
        """
        embedding: Tensor = self.trunk(resample(images, self.resolution))
        return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)


def _stages(config: ArcFaceConfig) -> list[list[tuple[int, int, int]]]:
    """Return input channels, channels and stride of each block, stage by stage; a stage's first block halves."""
    before = (config.widths[0], *config.widths)
    return [
        [(before[stage], width, 2), *[(width, width, 1)] * (num - 1)]
        for stage, (num, width) in enumerate(zip(config.layers, config.widths, strict=True))
    ]


def _conv3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
