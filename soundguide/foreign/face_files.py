"""Face encoders of other projects: IR-SE50 as a state dict, ArcFace as ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Imported, fit
from soundguide.foreign.onnx_file import Constant, read_onnx, tensor_of
from soundguide.foreign.onnx_layers import PASSING, Inputs, UnfitNode, constant_of, layer_of
from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.models.arcface_graph import ArcFaceGraph, ArcFaceGraphConfig, GraphNode, Shape, shape_after
from soundguide.validation import describe

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_NODE: TypeAdapter[GraphNode] = TypeAdapter(GraphNode)

NUM_SNIFFED = 8  # nodes whose names insightface looks at to choose mean and standard deviation


def read_ir_se50(tree: object, source: str) -> Imported:
    """Return the encoder of ``model_ir_se50.pth``, read as ``tree``: a flat dict of tensors.

    ``source`` names the file in errors. Raises `InvalidCheckpoint` where tensors are missing, too many or misshapen.
    """
    if not isinstance(tree, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tree.items()):
        raise InvalidCheckpoint(f"{source}: expected a flat dict of tensors, as model_ir_se50.pth is. Name that file.")
    config = ArcFaceConfig(variant="ir_se50")
    encoder = ArcFaceEncoder(config)
    counters = {name: value for name, value in encoder.state_dict().items() if name.endswith("num_batches_tracked")}
    # old files do not count batches, and a frozen network does not either
    state = counters | {f"trunk.{name}": value for name, value in tree.items() if not name.endswith("_tracked")}
    fit(encoder, state, source=source)
    return Imported("identity", encoder, config, {"layout": "model_ir_se50"})


def read_arcface_onnx(path: Path) -> Imported:
    """Return the encoder in an ArcFace ONNX file, such as insightface's ``w600k_r50.onnx``, rebuilt layer by layer.

    Nothing is run. Bytes are brought to the network's range as insightface does it. Raises `InvalidCheckpoint` for
    files that `read_onnx` refuses, operators that ArcFace does not have, and layers that do not fit together.
    """
    model = read_onnx(path)
    name, size = _input_of(path, model.graph)
    nodes, tensors, shape = _read_graph(path, model.graph, name, size)
    mean, std = _mean_and_std(model)
    try:
        config = ArcFaceGraphConfig(
            input_size=size, input_mean=mean, input_std=std, embed_dim=shape[0], nodes=tuple(nodes)
        )
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, str(path))) from error
    encoder = ArcFaceGraph(config)
    fit(encoder, tensors, source=str(path))
    extra = {"layout": "arcface_onnx", "producer": f"{model.producer_name:.80} {model.producer_version:.80}".strip()}
    return Imported("identity", encoder, config, extra)


_Layers = tuple[list[GraphNode], dict[str, Tensor], Shape]


def _read_graph(path: Path, graph: GraphProto, name: str, size: int) -> _Layers:
    """Return the layers of a graph whose picture is ``name``, their tensors, and the shape of what the last gives."""
    constants: dict[str, Constant] = {
        each.name: tensor_of(each, source=f"{path}: {each.name:.80}") for each in graph.initializer
    }
    values = {name: 0}  # names of what depends on the picture: 0 is the picture, i + 1 what layer i gives
    shapes: list[Shape] = [(3, size, size)]
    nodes: list[GraphNode] = []
    tensors: dict[str, Tensor] = {}
    for node in graph.node:
        try:
            inputs = _inputs_of(node, constants, values)
            output, read = node.output[0], [values[each] for each in node.input if each in values]
            if node.op_type in PASSING and len(inputs) == 1:
                known: dict[str, Any] = values if read else constants
                known[output] = known[node.input[0]]
            elif not read:
                constants[output] = constant_of(node, inputs)
            else:
                layer = layer_of(node, inputs, rank=len(shapes[read[0]]))
                made = _NODE.validate_python(layer.fields | dict(zip(("value", "other"), read, strict=False)))
                shapes.append(shape_after(made, [shapes[each] for each in read]))
                tensors |= {
                    f"layers.{len(nodes)}.{key}": torch.tensor(each, dtype=torch.float32)
                    for key, each in layer.tensors.items()
                }
                nodes.append(made)
                values[output] = len(nodes)
        except ValueError as error:  # pydantic's too
            told = describe(error, "its fields") if isinstance(error, ValidationError) else error
            where = f"{path}: the node {node.name!r:.80} ({node.op_type:.80})"
            raise InvalidCheckpoint(f"{where}: {told}. Name an ArcFace network, exported for inference.") from error
    _check_end(path, graph, values, len(nodes))
    return nodes, tensors, shapes[-1]


def _inputs_of(node: NodeProto, constants: Mapping[str, Constant], values: Mapping[str, int]) -> Inputs:
    """Return a node's inputs; raise `UnfitNode` for names that are not there yet, or are given twice."""
    names = list(node.input)
    while names and not names[-1]:
        names.pop()  # an optional input that is left out
    for name in names:
        if name not in constants and name not in values:
            raise UnfitNode(f"expected inputs that come before it, got {name!r:.80}")
    for name in node.output:
        if name in constants or name in values:
            raise UnfitNode(f"expected an output of a new name, got {name!r:.80}")
    if not node.output:
        raise UnfitNode("expected an output, got none")
    return [constants.get(name) for name in names]


def _check_end(path: Path, graph: GraphProto, values: Mapping[str, int], num_layers: int) -> None:
    """Raise `InvalidCheckpoint` unless everything leads to the last layer, and that to the one output."""
    outputs = [each.name for each in graph.output]
    unread = values.keys() - {name for node in graph.node for name in node.input} - {*outputs}
    if len(outputs) != 1 or not num_layers or values.get(outputs[0]) != num_layers or unread:
        raise InvalidCheckpoint(
            f"{path}: expected a network whose layers all lead to one embedding, got the outputs {outputs!r:.200} and "
            f"{len(unread)} values that nothing reads. Name an ArcFace network."
        )


def _input_of(path: Path, graph: GraphProto) -> tuple[str, int]:
    """Return name and side of the one picture that a graph reads; old files list their weights as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InvalidCheckpoint(f"{path}: {len(inputs)} inputs, a face encoder has one. Name such a file.")
    kind = inputs[0].type.tensor_type
    sides = [side.dim_value for side in kind.shape.dim]
    if kind.elem_type != 1 or len(sides) != 4 or sides[1] != 3 or sides[2] != sides[3] or sides[2] < 1:
        raise InvalidCheckpoint(
            f"{path}: reads {_told(inputs[0])}; expected float32 pictures [N, 3, S, S] of a fixed size. "
            "Name an ArcFace file."
        )
    return inputs[0].name, sides[2]


def _told(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type
    return f"{[side.dim_value or 'any' for side in kind.shape.dim][:8]} of the ONNX type {kind.elem_type}"


def _mean_and_std(model: ModelProto) -> tuple[float, float]:
    """Return what insightface's `ArcFaceONNX` subtracts from bytes and divides them by: MXNet exports hold it inside.

    It goes by the names of the first nodes, so that this does too.
    """
    names = [node.name for node in model.graph.node[:NUM_SNIFFED]]
    inside = all(any(name.startswith(starts) for name in names) for starts in (("Sub", "_minus"), ("Mul", "_mul")))
    return (0.0, 1.0) if inside else (127.5, 127.5)
