"""One node of an ArcFace ONNX graph as a layer of ours: by operator, attributes and constants, never by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from soundguide.foreign.onnx_file import Constant, tensor_of

if TYPE_CHECKING:
    from onnx import NodeProto

PASSING = ("Identity", "Dropout")  # what they give is what they get: nobody trains here
LAYERS = ("Conv", "BatchNormalization", "PRelu", "Add", "Sub", "Mul", "Flatten", "Reshape", "Gemm", "MatMul")

Inputs = Sequence[Constant | None]
"""Of a node, in order: constants, and None for values that depend on the picture."""


class UnfitNode(ValueError):
    """A node is no layer of an ArcFace network: expected, got."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The fields of a `GraphNode` but those that name its inputs, and its tensors."""

    fields: dict[str, Any]
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)


def constant_of(node: NodeProto, inputs: Inputs) -> Constant:
    """Return what a node without values gives. Raises `UnfitNode` unless it is a Constant or adds axes to one."""
    from onnx import TensorProto

    if node.op_type == "Constant":
        value = attributes_of(node, value=TensorProto())["value"]
        return tensor_of(value, source=f"the constant {node.output[0]!r:.80}")
    if node.op_type == "Unsqueeze" and inputs and inputs[0] is not None:
        given = [int(axis) for each in inputs[1:] if each is not None for axis in each.reshape(-1)]  # since opset 13
        axes = attributes_of(node, axes=given)["axes"]
        try:
            added: Constant = np.expand_dims(inputs[0], tuple(axes))
            return added
        except (ValueError, TypeError) as error:  # numpy's AxisError is a ValueError
            raise UnfitNode(f"expected axes of a tensor, got {axes}") from error
    raise UnfitNode("expected a constant, or a layer that reads the picture")


def layer_of(node: NodeProto, inputs: Inputs, *, rank: int) -> Layer:
    """Return the layer that a node is.

    ``rank``: dimensions of the value that it reads, without the batch. Raises `UnfitNode` for other operators,
    attributes or constants.
    """
    weights = [each for each in inputs[1:] if each is not None]
    match node.op_type, [each is None for each in inputs]:
        case "Conv", [True, False] | [True, False, False]:
            return _convolution(node, *weights)
        case "BatchNormalization", [True, False, False, False, False]:
            return _normalisation(node, *weights)
        case "PRelu", [True, False]:
            attributes_of(node)
            slope = _by_channel(weights[0], rank)
            return Layer({"op": "prelu", "channels": slope.size}, {"weight": slope})
        case "Add", [True, True]:
            attributes_of(node)
            return Layer({"op": "add"})
        case "Add" | "Sub" | "Mul", [True, False] | [False, True]:
            return _arithmetic(node, inputs, rank)
        case "Flatten", [True]:
            if attributes_of(node, axis=1)["axis"] == 1:
                return Layer({"op": "flatten"})
        case "Reshape", [True, False]:
            target = weights[0].tolist()  # the batch: as it is, one picture, or what is left
            if not attributes_of(node, allowzero=0)["allowzero"] and target[:-1] in ([0], [1], [-1]):
                return Layer({"op": "flatten"})
        case "Gemm" | "MatMul", [True, False] | [True, False, False]:
            return _matrix(node, *weights)
    raise UnfitNode(f"expected one of {', '.join(LAYERS)} as ArcFace has them, with the picture first and then weights")


def attributes_of(node: NodeProto, **defaults: Any) -> dict[str, Any]:
    """Return a node's attributes over their defaults. Raises `UnfitNode` for one without, or of another type."""
    from onnx.helper import get_attribute_value

    given = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    if strange := [name for name, value in given.items() if not isinstance(value, type(defaults.get(name)))]:
        raise UnfitNode(f"expected attributes among {sorted(defaults)}, each of its type, got {strange[0]!r:.80}")
    return {**defaults, **given}


def _convolution(node: NodeProto, weight: Constant, *bias: Constant) -> Layer:
    found = attributes_of(
        node, kernel_shape=[], strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=1, auto_pad=b"NOTSET"
    )
    kernel, pads = list(weight.shape[2:]), list(found["pads"])
    plain = list(found["dilations"]) == [1, 1] and found["auto_pad"] == b"NOTSET" and pads[:2] == pads[2:]
    if weight.ndim != 4 or not plain or list(found["kernel_shape"] or kernel) != kernel:
        raise UnfitNode(f"expected a plain convolution with equal padding on both sides, got {found!r:.300}")
    fields = {
        "op": "conv",
        "in_channels": weight.shape[1] * found["group"],
        "out_channels": weight.shape[0],
        "kernel": kernel,
        "stride": found["strides"],
        "padding": pads[:2],
        "groups": found["group"],
        "bias": bool(bias),
    }
    return Layer(fields, dict(zip(("weight", "bias"), (weight, *bias), strict=False)))


def _normalisation(node: NodeProto, *statistics: Constant) -> Layer:
    found = attributes_of(node, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1)
    gamma, beta, mean, variance = (each.astype(np.float64) for each in statistics)
    if gamma.ndim != 1 or len({each.shape for each in statistics}) > 1:
        raise UnfitNode(f"expected four vectors of one length, got {[list(each.shape) for each in statistics]}")
    if found["training_mode"] or not found["spatial"] or not found["epsilon"] > 0 or not variance.min() >= 0:
        raise UnfitNode("expected a normalisation by fixed statistics for each channel, variances at least 0")
    factor = gamma / np.sqrt(variance + found["epsilon"])
    return _scale(factor, beta - mean * factor)


def _arithmetic(node: NodeProto, inputs: Inputs, rank: int) -> Layer:
    attributes_of(node)
    if node.op_type == "Sub" and inputs[1] is None:
        raise UnfitNode("expected a value less a constant, got a constant less a value")
    (given,) = (each for each in inputs if each is not None)
    constant = _by_channel(given, rank).astype(np.float64)
    if node.op_type == "Mul":
        return _scale(constant, np.zeros_like(constant))
    return _scale(np.ones_like(constant), -constant if node.op_type == "Sub" else constant)


def _matrix(node: NodeProto, weight: Constant, *bias: Constant) -> Layer:
    found = attributes_of(node, alpha=1.0, beta=1.0, transA=0, transB=0)
    if weight.ndim != 2 or found["alpha"] != 1 or found["beta"] != 1 or found["transA"]:
        raise UnfitNode(f"expected a plain matrix, got {found} and the shape {list(weight.shape)}")
    weight = weight if found["transB"] else weight.T
    fields = {
        "op": "linear",
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": bool(bias),
    }
    return Layer(fields, dict(zip(("weight", "bias"), (weight, *(each.reshape(-1) for each in bias)), strict=False)))


def _scale(factor: NDArray[Any], offset: NDArray[Any]) -> Layer:
    return Layer({"op": "scale", "channels": factor.size}, {"weight": factor, "bias": offset})


def _by_channel(constant: Constant, rank: int) -> Constant:
    """Return ``[C]`` or ``[1]`` of a constant that broadcasts over the channels of pictures, or over features.

    ``rank``: dimensions of the value that it meets, without the batch. Raises `UnfitNode` for other shapes.
    """
    shape = (1,) * (rank + 1 - constant.ndim) + constant.shape
    if len(shape) != rank + 1 or shape[0] != 1 or max(shape[2:], default=1) != 1:
        raise UnfitNode(f"expected one number for each channel, or one, got the shape {list(constant.shape)}")
    return constant.reshape(-1)
