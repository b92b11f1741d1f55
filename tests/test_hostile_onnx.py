"""ONNX files made to harm: each is refused with a reason, none is followed, run or unfolded in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_faces import tiny_encoder

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign import onnx_file
from soundguide.foreign.face_files import read_arcface_onnx
from soundguide.foreign.onnx_export import write_arcface_onnx


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """An ArcFace file of our own making."""
    write_arcface_onnx(tiny_encoder(), tmp_path / "face.onnx")
    return tmp_path / "face.onnx"


def change(path: Path, how: Callable[[ModelProto], object]) -> Path:
    model = onnx.load_model(path)
    how(model)
    path.write_bytes(model.SerializeToString())
    return path


def first(model: ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def outside(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)


def hidden_outside(model: ModelProto) -> None:
    tensor = TensorProto(name="t", data_type=1, dims=[4])
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def said_twice(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:400]
    tensor.float_data.extend([0.0] * 8)


def subgraph(model: ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["picture"], ["y"])], "body", [], [])
    model.graph.node.insert(0, helper.make_node("If", ["picture"], ["z"], then_branch=body, else_branch=body))


def looping(model: ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def misnamed(model: ModelProto) -> None:
    model.graph.node[2].output[0] = model.graph.node[0].output[0]


def dead_end(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Flatten", ["picture"], ["nowhere"]))


def set_attribute(operator: str, name: str, value: object) -> Callable[[ModelProto], object]:
    def how(model: ModelProto) -> None:
        node = first(model, operator)
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return how


def swap(operator: str, other: str) -> Callable[[ModelProto], object]:
    return lambda model: setattr(first(model, operator), "op_type", other)


def with_dims(*dims: int) -> Callable[[ModelProto], object]:
    def how(model: ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)

    return how


def with_function(model: ModelProto) -> None:
    model.functions.append(helper.make_function("x", "F", ["a"], ["b"], [], [helper.make_opsetid("", 13)]))


def set_sides(side: int) -> Callable[[ModelProto], object]:
    def how(model: ModelProto) -> None:
        for each in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            each.dim_value = side

    return how


def flat_slope(model: ModelProto) -> None:
    name = first(model, "PRelu").input[1]
    tensor = next(each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ones(4, np.float32), name))


HOSTILE: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "external data": (outside, "another file"),
    "external data in an attribute": (hidden_outside, "another file"),
    "subgraph": (subgraph, "graph of its own"),
    "function": (with_function, "functions"),
    "operator of its own": (lambda m: setattr(m.graph.node[0], "domain", "com.evil"), "com.evil"),
    "unknown operator": (swap("PRelu", "LeakyRelu"), "LeakyRelu"),
    "loop": (swap("Flatten", "Loop"), "Loop"),
    "huge shape": (with_dims(2**40, 2**40), "numbers, got 108"),
    "negative shape": (with_dims(-1, 3, 3, 3), "sides of at least 1"),
    "shape of nothing": (with_dims(0, 2**62), "sides of at least 1"),
    "too few numbers": (with_dims(4, 3, 3, 4), "needs 144 numbers, got 108"),
    "numbers in two places": (said_twice, "needs 108 numbers, got 100"),
    "doubles": (lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.DOUBLE), "float32"),
    "cycle": (looping, "come before it"),
    "name given twice": (misnamed, "new name"),
    "dead end": (dead_end, "nothing reads"),
    "two inputs": (lambda m: m.graph.input.append(m.graph.output[0]), "2 inputs"),
    "two outputs": (lambda m: m.graph.output.append(m.graph.input[0]), "outputs"),
    "no input shape": (lambda m: m.graph.input[0].type.Clear(), "S, S"),
    "not square": (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[3], "dim_value", 33), "S, S"),
    "input too small": (set_sides(16), "expected"),
    "huge input": (set_sides(2**20), "at most"),
    "stride of zero": (set_attribute("Conv", "strides", [0, 0]), "strides|stride"),
    "padding without end": (set_attribute("Conv", "pads", [2**40] * 4), "less padding"),
    "negative padding": (set_attribute("Conv", "pads", [-1] * 4), "padding"),
    "no groups": (set_attribute("Conv", "group", 0), "in_channels"),
    "groups that do not divide": (set_attribute("Conv", "group", 2), "H, W"),
    "text for a number": (set_attribute("Conv", "group", "many"), "group"),
    "dilation": (set_attribute("Conv", "dilations", [2, 2]), "plain convolution"),
    "own kernel": (set_attribute("Conv", "kernel_shape", [9, 9]), "plain convolution"),
    "training": (set_attribute("BatchNormalization", "training_mode", 1), "fixed statistics"),
    "negative epsilon": (set_attribute("BatchNormalization", "epsilon", -1.0), "fixed statistics"),
    "factor": (set_attribute("Gemm", "alpha", 3.0), "plain matrix"),
    "strange attribute": (set_attribute("PRelu", "slope", 1.0), "slope"),
    "flattened elsewhere": (set_attribute("Flatten", "axis", 2), "Flatten"),
    "slope along the width": (flat_slope, "for each channel"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "no nodes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_with_a_reason(written: Path, case: str) -> None:
    how, reason = HOSTILE[case]
    with pytest.raises(InvalidCheckpoint, match=reason) as caught:
        read_arcface_onnx(change(written, how))
    assert str(written) in str(caught.value)


def test_half_a_file_and_what_is_no_file_are_refused(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    for data in (b"", b"\x80\x04", os.urandom(500), whole[: len(whole) // 2], whole[:-1], whole + b"\x3a"):
        written.write_bytes(data)
        with pytest.raises(InvalidCheckpoint, match="face.onnx"):
            read_arcface_onnx(written)
    for path in (tmp_path, tmp_path / "nothing.onnx"):
        with pytest.raises(InvalidCheckpoint, match="cannot be read"):
            read_arcface_onnx(path)


def wrap(tag: int, data: bytes) -> bytes:
    return bytes([tag]) + varint(len(data)) + data


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def test_nesting_without_end_is_refused(written: Path) -> None:
    graph = b""
    for _ in range(5000):  # node -> attribute -> graph
        graph = wrap(0x0A, wrap(0x2A, wrap(0x32, graph)))
    written.write_bytes(wrap(0x3A, graph))
    with pytest.raises(InvalidCheckpoint, match="damaged"):
        read_arcface_onnx(written)


def test_names_that_are_no_text_are_refused(written: Path) -> None:
    written.write_bytes(written.read_bytes().replace(b"PRelu_1", b"PRelu\xff1"))
    with pytest.raises(InvalidCheckpoint, match="UTF-8"):
        read_arcface_onnx(written)


def test_a_small_file_cannot_become_a_large_model(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written.write_bytes(wrap(0x3A, b"\x0a\x00" * (onnx_file.MAX_STRUCTURE_BYTES // 2 + 1)))  # empty nodes
    with pytest.raises(InvalidCheckpoint, match="beside the numbers"):
        read_arcface_onnx(written)
    written.write_bytes(wrap(0x3A, b"\x0a\x00" * (onnx_file.MAX_NODES + 1)))
    with pytest.raises(InvalidCheckpoint, match="nodes, at most"):
        read_arcface_onnx(written)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 100)
    with pytest.raises(InvalidCheckpoint, match="the most that is read"):
        read_arcface_onnx(written)
