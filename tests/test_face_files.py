"""Face encoders of other projects: what insightface computes, ours computes, and nothing else is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from insightface.model_zoo import get_model
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_faces import export, tiny_encoder
from torch import Tensor

from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.foreign.face_files import read_arcface_onnx, read_ir_se50
from soundguide.foreign.onnx_export import write_arcface_onnx
from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.models.checkpoint import load_model, save_model

CROPS = [np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8) for seed in range(3)]


def as_images(crops: list[NDArray[np.uint8]]) -> Tensor:
    """Return BGR bytes as the library's pictures."""
    return torch.from_numpy(np.stack(crops)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def insightface_says(path: Path, crops: list[NDArray[np.uint8]] = CROPS) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(ArcFaceONNX(str(path)).get_feat(crops)), dim=1)


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


# agreement


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])
def test_rebuilt_network_agrees_with_insightface_on_its_crops(tmp_path: Path, folded: bool) -> None:
    path = export(tiny_encoder(), tmp_path / "face.onnx", folded=folded)
    found = read_arcface_onnx(path)
    assert (found.role, found.config.input_mean, found.config.input_std) == ("identity", 127.5, 127.5)
    ours = found.module.encode_identity(as_images(CROPS))
    torch.testing.assert_close(ours, insightface_says(path), rtol=0, atol=1e-5)


def test_what_we_write_insightface_loads_and_computes_alike(tmp_path: Path) -> None:
    encoder = tiny_encoder(layers=(1, 1, 1, 1), widths=(2, 2, 2, 4), input_size=112)
    write_arcface_onnx(encoder, tmp_path / "face.onnx")
    model = get_model(str(tmp_path / "face.onnx"), providers=["CPUExecutionProvider"])
    assert isinstance(model, ArcFaceONNX) and model.input_size == (112, 112)
    crop = np.random.default_rng(7).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    expected = encoder.trunk(as_images([crop]))
    np.testing.assert_allclose(model.get_feat(crop), expected.numpy(), rtol=1e-4, atol=1e-5)
    again = read_arcface_onnx(tmp_path / "face.onnx").module
    torch.testing.assert_close(again.encode_identity(as_images([crop])), encoder.encode_identity(as_images([crop])))


def test_a_gated_encoder_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="iresnet"):
        write_arcface_onnx(tiny_encoder(variant="ir_se50"), tmp_path / "face.onnx")


def test_gradients_are_those_of_the_network_that_was_exported(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    found = read_arcface_onnx(export(encoder, tmp_path / "face.onnx", folded=True)).module
    assert not any(parameter.requires_grad for parameter in found.parameters())
    gradients = []
    for network in (encoder, found):
        images = as_images(CROPS).requires_grad_()
        gradients += torch.autograd.grad(network.encode_identity(images)[:, 0].sum(), images)
    assert gradients[0].abs().max() > 1e-5
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)


def test_rebuilt_network_survives_its_folder(written: Path, tmp_path: Path) -> None:
    found = read_arcface_onnx(written)
    save_model(tmp_path / "face", found.module, found.config, half=False, made_by="test", extra=found.extra)
    back = load_model(tmp_path / "face", device="cpu")
    assert back.config == found.config
    images = as_images(CROPS)
    assert torch.equal(back.module.encode_identity(images), found.module.encode_identity(images))


def mobile(model: ModelProto) -> None:
    """Rewrite the stem as a convolution by groups, the end as matrix and sum, flattened by a shape: as others do it."""
    rename = {"Flatten": "Reshape", "Gemm": "MatMul"}
    for node in model.graph.node:
        if node.op_type in rename:
            node.op_type = rename[node.op_type]
            del node.attribute[:]
            if node.op_type == "Reshape":
                node.input.append("row")
                continue
            bias = node.input.pop()
            output, node.output[0] = node.output[0], "product"
            tensors = {each.name: each for each in model.graph.initializer}
            matrix = numpy_helper.to_array(tensors[node.input[1]])
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(matrix.T.copy(), node.input[1]))
            adding = helper.make_node("Add", ["product", bias], [output])
    index = next(i for i, node in enumerate(model.graph.node) if node.op_type == "MatMul")
    model.graph.node.insert(index + 1, adding)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 32], np.int64), "row"))
    weight = numpy_helper.from_array(np.linspace(-1, 1, 27, dtype=np.float32).reshape(3, 1, 3, 3), "depthwise")
    model.graph.initializer.append(weight)
    model.graph.node[0].input[0] = "deep"
    attributes = {"group": 3, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    model.graph.node.insert(0, helper.make_node("Conv", ["picture", "depthwise"], ["deep"], **attributes))


def with_its_own_range(model: ModelProto) -> None:
    """Put the bytes' normalisation inside, as exports of MXNet have it."""
    model.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in (("mean", 127.5), ("factor", 1 / 128))
    )
    model.graph.node[0].input[0] = "scaled"
    scale = helper.make_node("Mul", ["centred", "factor"], ["scaled"], name="_mulscalar0")
    model.graph.node.insert(0, scale)
    model.graph.node.insert(0, helper.make_node("Sub", ["picture", "mean"], ["centred"], name="_minusscalar0"))
    model.graph.input.extend(
        helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.dims) for each in model.graph.initializer
    )


@pytest.mark.parametrize("how", [mobile, with_its_own_range])
def test_other_exports_agree_with_insightface(written: Path, how: Callable[[ModelProto], object]) -> None:
    found = read_arcface_onnx(change(written, how))
    assert found.config.input_mean == (0 if how is with_its_own_range else 127.5)
    ours = found.module.encode_identity(as_images(CROPS))
    torch.testing.assert_close(ours, insightface_says(written), rtol=0, atol=1e-5)


# IR-SE50


def test_ir_se50_is_read_without_its_counters() -> None:
    encoder = ArcFaceEncoder(ArcFaceConfig(variant="ir_se50"), seed=5).eval()
    tree = {k: v for k, v in encoder.trunk.state_dict().items() if not k.endswith("num_batches_tracked")}
    found = read_ir_se50(tree, "model_ir_se50.pth")
    assert found.config == encoder.config
    state = found.module.state_dict()
    assert all(torch.equal(state[f"trunk.{name}"], tensor) for name, tensor in tree.items())
    shorter = {**tree, "output_layer.3.weight": torch.zeros(512, 8)}
    shorter.pop("body.3.shortcut_layer.0.weight")
    with pytest.raises(InvalidCheckpoint) as caught:
        read_ir_se50(shorter, "model_ir_se50.pth")
    assert "trunk.body.3.shortcut_layer.0.weight: expected [128, 64, 1, 1], got nothing" in str(caught.value)
    assert "trunk.output_layer.3.weight: expected [512, 25088], got [512, 8]" in str(caught.value)


@pytest.mark.parametrize("tree", [None, [torch.zeros(1)], {"state": {}}, {3: torch.zeros(1)}])
def test_what_is_no_dict_of_tensors_is_refused(tree: object) -> None:
    with pytest.raises(InvalidCheckpoint, match="a.pth: expected a flat dict of tensors"):
        read_ir_se50(tree, "a.pth")
