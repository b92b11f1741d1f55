"""Face encoders that came as a graph (ArcFace in ONNX), rebuilt in torch: layers in order, each naming its inputs.

Exports fold normalisation into convolutions and lose the names of layers, so that only the graph itself says what the
network is. It is kept as data and interpreted: any mix of the few layers below, nothing else.
"""

import math
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from soundguide.models.arcface import AlignmentConfig
from soundguide.views import resample

MAX_NODES = 4096
MAX_NUMBERS = 2**23  # of one picture between two layers; the widest ArcFace has a tenth

Shape = tuple[int, ...]


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[NonNegativeInt, Field(description="Its input: 0 is the picture, i + 1 what node i gave.")]


class ConvNode(_Node):
    """A convolution; weights ``[out, in / groups, *kernel]`` and bias ``[out]``."""

    op: Literal["conv"] = "conv"
    in_channels: PositiveInt
    out_channels: PositiveInt
    kernel: tuple[PositiveInt, PositiveInt]
    stride: tuple[PositiveInt, PositiveInt]
    padding: tuple[NonNegativeInt, NonNegativeInt]
    groups: PositiveInt
    bias: bool


class ScaleNode(_Node):
    """A factor ``weight`` and an offset ``bias`` for each channel, ``[C]``, or for all: what normalisation comes to."""

    op: Literal["scale"] = "scale"
    channels: PositiveInt


class PReluNode(_Node):
    """A leaky rectifier whose slope is learned, ``[C]`` or one for all."""

    op: Literal["prelu"] = "prelu"
    channels: PositiveInt


class AddNode(_Node):
    """The sum of two earlier values of one shape."""

    op: Literal["add"] = "add"
    other: NonNegativeInt


class FlattenNode(_Node):
    """All numbers of a picture in one row."""

    op: Literal["flatten"] = "flatten"


class LinearNode(_Node):
    """A full matrix ``[out, in]`` and bias ``[out]``."""

    op: Literal["linear"] = "linear"
    in_features: PositiveInt
    out_features: PositiveInt
    bias: bool


GraphNode = Annotated[ConvNode | ScaleNode | PReluNode | AddNode | FlattenNode | LinearNode, Field(discriminator="op")]


class ArcFaceGraphConfig(BaseModel):
    """One face encoder as a graph; travels with its weights. Raises where shapes do not fit together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["arcface_graph"] = "arcface_graph"
    input_size: Annotated[PositiveInt, Field(description="Height and width in pixels of the faces that it reads.")]
    input_mean: Annotated[float, Field(description="Subtracted from bytes 0..255 before the first layer.")] = 127.5
    input_std: Annotated[float, Field(gt=0, description="They are divided by it.")] = 127.5
    embed_dim: Annotated[PositiveInt, Field(description="Width of the embedding space.")]
    nodes: Annotated[
        tuple[GraphNode, ...],
        Field(min_length=1, max_length=MAX_NODES, description="Layers in order; the last one gives the embedding."),
    ]
    alignment: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        shapes: list[Shape] = [(3, self.input_size, self.input_size)]
        for index, node in enumerate(self.nodes):
            inputs = [node.value, node.other] if isinstance(node, AddNode) else [node.value]
            if max(inputs) > index:
                raise ValueError(f"node {index} ({node.op}) reads value {max(inputs)}, which comes later. Order them.")
            try:
                shapes.append(shape_after(node, [shapes[each] for each in inputs]))
            except ValueError as error:
                raise ValueError(f"node {index} ({node.op}): {error}") from error
        if shapes[-1] != (self.embed_dim,):
            raise ValueError(f"the last node must give [{self.embed_dim}], got {list(shapes[-1])}. Correct either.")
        return self


class _Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.weight.reshape(shape) + self.bias.reshape(shape)


class _Add(nn.Module):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + other


class ArcFaceGraph(nn.Module):
    """The interpreted graph; meets `soundguide.models.protocols.IdentityEncoder`. Weights are random until loaded."""

    def __init__(self, config: ArcFaceGraphConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.input_size
        self.embed_dim = config.embed_dim
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(_build(node) for node in config.nodes)
        self._inputs = [(n.value, n.other) if isinstance(n, AddNode) else (n.value,) for n in config.nodes]
        self._last_use = {value: index for index, inputs in enumerate(self._inputs) for value in inputs}

    def forward(self, x: Tensor) -> Tensor:
        """Map what the first layer reads, ``[B, 3, S, S]``, to embeddings ``[B, embed_dim]`` of any length."""
        values = {0: x}
        for index, (layer, inputs) in enumerate(zip(self.layers, self._inputs, strict=True)):
            values[index + 1] = layer(*(values[value] for value in inputs))
            for value in set(inputs):
                if self._last_use[value] == index:
                    del values[value]  # or a frozen pass would hold every layer's pictures at once
        return values[len(self.layers)]

    def encode_identity(self, images: Tensor) -> Tensor:
        """Embed aligned faces ``[B, 3, H, W]``, sRGB in [-1, 1], as ``[B, embed_dim]`` of unit norm, float32 at least.

        Faces of another size than `resolution` are resampled first.
        """
        pixels = (resample(images, self.resolution) + 1) * 127.5
        embedding = self((pixels - self.config.input_mean) / self.config.input_std)
        return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)


def _build(node: GraphNode) -> nn.Module:
    match node:
        case ConvNode():
            sizes = (node.in_channels, node.out_channels, node.kernel, node.stride, node.padding)
            return nn.Conv2d(*sizes, groups=node.groups, bias=node.bias)
        case ScaleNode():
            return _Scale(node.channels)
        case PReluNode():
            return nn.PReLU(node.channels)
        case AddNode():
            return _Add()
        case FlattenNode():
            return nn.Flatten()
        case LinearNode():
            return nn.Linear(node.in_features, node.out_features, bias=node.bias)


def shape_after(node: GraphNode, inputs: list[Shape]) -> Shape:
    """Return what a node makes of values of these shapes, the batch left out; raise ValueError where it cannot."""
    shape = inputs[0]
    match node:
        case ConvNode():
            _require(len(shape) == 3 and shape[0] == node.in_channels, f"[{node.in_channels}, H, W]", shape)
            whole = node.in_channels % node.groups == 0 == node.out_channels % node.groups
            _require(whole, f"channels that {node.groups} groups divide", shape)
            _require(all(p < k for p, k in zip(node.padding, node.kernel, strict=True)), "less padding", shape)
            sides = zip(shape[1:], node.kernel, node.stride, node.padding, strict=True)
            after = tuple((side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in sides)
            _require(min(after) >= 1, f"sides of at least {node.kernel}", shape)
            shape = (node.out_channels, *after)
        case ScaleNode() | PReluNode():
            _require(node.channels in (1, shape[0]), f"{node.channels} channels", shape)
        case AddNode():
            _require(inputs[1] == shape, f"two values of the shape {list(inputs[1])}", shape)
        case FlattenNode():
            shape = (math.prod(shape),)
        case LinearNode():
            _require(shape == (node.in_features,), f"[{node.in_features}]", shape)
            shape = (node.out_features,)
    _require(math.prod(shape) <= MAX_NUMBERS, f"at most {MAX_NUMBERS} numbers", shape)
    return shape


def _require(holds: bool, expected: str, got: Shape) -> None:
    if not holds:
        raise ValueError(f"expected {expected}, got {list(got)}")
