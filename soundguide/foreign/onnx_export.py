"""IResNet face encoders as ONNX files that insightface loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundguide.errors import InvalidConfig
from soundguide.models.arcface import ArcFaceEncoder, PlainTrunk

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET, IR_VERSION = 13, 8  # of the year 2021: every runtime in use reads them


def write_arcface_onnx(encoder: ArcFaceEncoder, path: Path) -> None:
    """Write an IResNet encoder, as in evaluation mode, in the layout of insightface's own files.

    Normalisations that follow a convolution are folded into it; the embedding is not normalised. insightface takes
    sizes of at least 112 that are multiples of 16. Raises `InvalidConfig` for another trunk.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx. Install the extra: pip install 'soundguide[identity]'"
        ) from error

    trunk = encoder.trunk
    if not isinstance(trunk, PlainTrunk):
        raise InvalidConfig(f"expected an encoder of variant 'iresnet', got {encoder.config.variant!r}. Train one.")
    size = encoder.resolution
    writer = _Writer()
    output = writer.trunk(trunk, "picture")
    pictures = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, size, size])
    embeddings = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", encoder.embed_dim])
    graph = helper.make_graph(writer.nodes, "arcface", [pictures], [embeddings], writer.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="soundguide")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class _Writer:
    """Nodes and tensors in the order of the network; each method returns the name of what its layer gives."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def trunk(self, trunk: PlainTrunk, value: str) -> str:
        value = self.prelu(self.conv(value, trunk.conv1, trunk.bn1), trunk.prelu)
        for block in trunk.blocks:
            change = self.prelu(self.conv(self.norm(value, block.bn1), block.conv1, block.bn2), block.prelu)
            change = self.conv(change, block.conv2, block.bn3)
            if block.downsample is not None:
                conv, norm = block.downsample
                assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                value = self.conv(value, conv, norm)
            value = self._add("Add", value, change)
        value = self._add("Flatten", self.norm(value, trunk.bn2), axis=1)
        value = self._add("Gemm", value, self._keep(trunk.fc.weight), self._keep(trunk.fc.bias), transB=1)
        return self.norm(value, trunk.features)

    def conv(self, value: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        gamma, beta, mean, variance = (each.detach().double() for each in _statistics(norm))
        factor = gamma / torch.sqrt(variance + norm.eps)
        weight = self._keep(conv.weight.detach().double() * factor[:, None, None, None])
        bias = self._keep(beta - mean * factor)
        pads = [*conv.padding, *conv.padding] if isinstance(conv.padding, tuple) else []
        return self._add(
            "Conv", value, weight, bias, kernel_shape=conv.kernel_size, strides=conv.stride, pads=pads, group=1
        )

    def norm(self, value: str, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> str:
        return self._add("BatchNormalization", value, *map(self._keep, _statistics(norm)), epsilon=norm.eps)

    def prelu(self, value: str, prelu: nn.PReLU) -> str:
        return self._add("PRelu", value, self._keep(prelu.weight.reshape(-1, 1, 1)))

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def _keep(self, tensor: Tensor) -> str:
        from onnx import numpy_helper

        values: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
        self.tensors.append(numpy_helper.from_array(values, name=f"tensor_{len(self.tensors)}"))
        return self.tensors[-1].name


def _statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.weight, norm.bias, norm.running_mean, norm.running_var
