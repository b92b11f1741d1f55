"""ONNX files as data: parsed within bounds, never run, and refused where they point outside of themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from soundguide.errors import InvalidCheckpoint

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    _Numbers = dict[int, "_Numbers"]

MAX_BYTES = 512 * 2**20  # twice what an ArcFace of 100 layers takes
MAX_STRUCTURE_BYTES = 2 * 2**20  # all but the numbers of tensors: two bytes of it can become a hundred in memory
MAX_NODES = 10_000
MAX_RANK = 8

STANDARD_DOMAINS = ("", "ai.onnx")

_FLOAT, _INT64 = 1, 7  # of TensorProto.DataType
_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}
# fields of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.float_data and raw_data
_NUMBERS_AT: _Numbers = {7: {5: {4: {}, 9: {}}}}

Constant = NDArray[Any]
"""Float32 or int64."""


def read_onnx(path: Path) -> ModelProto:
    """Return the parsed model of a file that stands alone: operators of the standard, all tensors inside.

    Raises `InvalidCheckpoint` for a file that is none, is too large, has subgraphs, functions, operators of its own or
    sparse tensors, or names other files.
    """
    try:
        from google.protobuf.message import DecodeError
        from onnx import ModelProto
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx. Install the extra: pip install 'soundguide[identity]'"
        ) from error
    data = _read_bytes(path)
    _spend(path, memoryview(data), _NUMBERS_AT, MAX_STRUCTURE_BYTES)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _damaged(path, error) from error
    graph = model.graph
    if not graph.node:
        raise InvalidCheckpoint(f"{path}: no ONNX model, its graph has no nodes. Name the .onnx file of a network.")
    if len(graph.node) > MAX_NODES:
        raise InvalidCheckpoint(f"{path}: {len(graph.node)} nodes, at most {MAX_NODES} are read. Name another file.")
    if model.functions or model.training_info or graph.sparse_initializer:
        raise InvalidCheckpoint(
            f"{path}: holds functions, training steps or sparse tensors; only plain graphs are read. Export the "
            "network again for inference."
        )
    if not all(isinstance(text, str) for text in _texts(model)):
        raise _damaged(path, "a name in it is no UTF-8")
    for node in graph.node:
        _check_node(path, node)
    for tensor in graph.initializer:
        _check_inside(path, tensor)
    return model


def tensor_of(proto: TensorProto, *, source: str) -> Constant:
    """Return a tensor of float32 or int64 that the file holds; `source` names it in errors.

    Raises `InvalidCheckpoint` for another type, or where its numbers are not as many as its shape says: nothing is
    allocated for a shape alone.
    """
    if proto.data_type not in (_FLOAT, _INT64):
        raise InvalidCheckpoint(
            f"{source}: of the ONNX type {proto.data_type}; expected float32 (1), or int64 (7) for shapes. "
            "Export the network again in float32."
        )
    dtype = np.dtype("<f4" if proto.data_type == _FLOAT else "<i8")
    numbers = proto.float_data if proto.data_type == _FLOAT else proto.int64_data
    shape = tuple(proto.dims)
    if len(shape) > MAX_RANK or any(side < 1 for side in shape):
        raise InvalidCheckpoint(f"{source}: has the shape {list(shape[:MAX_RANK])}, expected sides of at least 1.")
    raw = proto.raw_data
    count = len(raw) / dtype.itemsize if raw else len(numbers)
    if math.prod(shape) != count:
        raise InvalidCheckpoint(
            f"{source}: its shape {list(shape)} needs {math.prod(shape)} numbers, got {count:g}. "
            "Download the file again."
        )
    flat = np.frombuffer(raw, dtype) if raw else np.array(numbers, dtype)
    return flat.reshape(shape).astype(dtype.newbyteorder("="))


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidCheckpoint(f"{path}: cannot be read ({error.strerror}). Name an .onnx file.") from error
    if len(data) > MAX_BYTES:
        raise InvalidCheckpoint(f"{path}: more than {MAX_BYTES >> 20} MiB, the most that is read. Name another file.")
    return data


def _spend(path: Path, data: memoryview, numbers_at: _Numbers, budget: int) -> int:
    """Return what is left of ``budget`` bytes after a message in protobuf's wire format, its numbers not counted."""
    position = 0
    while position < len(data):
        tag, start = _varint(path, data, position)
        kind, inside = tag & 7, None
        if kind == _LENGTH_DELIMITED:
            length, start = _varint(path, data, start)
            end, inside = start + length, numbers_at.get(tag >> 3)
        elif kind in _FIXED_BYTES:
            end = start + _FIXED_BYTES[kind]
        else:
            end = _varint(path, data, start)[1] if kind == 0 else len(data) + 1
        if end > len(data):
            raise _damaged(path, "it ends within a field")
        budget -= (end if inside is None else start) - position
        if inside:
            budget = _spend(path, data[start:end], inside, budget)
        if budget < 0:
            raise InvalidCheckpoint(
                f"{path}: more than {MAX_STRUCTURE_BYTES >> 20} MiB beside the numbers of its tensors, the most that "
                "is read. Name another file, or export the network again with its weights as initializers."
            )
        position = end
    return budget


def _varint(path: Path, data: memoryview, position: int) -> tuple[int, int]:
    """Return the number that starts at ``position``, seven bits a byte, and where it ends."""
    number = 0
    for index, byte in enumerate(data[position : position + 10]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, position + index + 1
    raise _damaged(path, "a number in it has no end")


def _damaged(path: Path, what: object) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"{path}: damaged, or no ONNX file ({what}). Download it again.")


def _texts(model: ModelProto) -> Iterator[object]:
    """Yield the names in a model; protobuf gives bytes for what is no UTF-8."""
    yield from (model.producer_name, model.producer_version)
    for node in model.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for named in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        yield named.name


def _check_node(path: Path, node: NodeProto) -> None:
    if node.domain not in STANDARD_DOMAINS:
        raise InvalidCheckpoint(
            f"{path}: the node {node.name!r:.80} is {node.op_type!r:.80} of {node.domain!r:.80}, no operator of the "
            "ONNX standard. Export the network with standard operators."
        )
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
            raise InvalidCheckpoint(
                f"{path}: the node {node.name!r:.80} ({node.op_type!r:.80}) holds a graph of its own or a sparse "
                "tensor; only plain graphs are read. Export the network again for inference."
            )
        for tensor in (attribute.t, *attribute.tensors):
            _check_inside(path, tensor)


def _check_inside(path: Path, tensor: TensorProto) -> None:
    if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
        raise InvalidCheckpoint(
            f"{path}: the tensor {tensor.name!r:.80} lies in another file, and no other file is opened. "
            "Save the model as one file."
        )
