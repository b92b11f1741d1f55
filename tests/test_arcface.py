"""The two trunks of ArcFace against their equations, written out once more as functions of the published names."""

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from pytest import mark, raises
from tiny_faces import TINY, tiny_encoder
from torch import Tensor

from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.views import area_resize

State = dict[str, Tensor]


def faces(size: int = 32, num: int = 2) -> Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1


def norm(state: State, name: str, x: Tensor) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 2))
    mean, variance, gamma, beta = (
        state[f"{name}.{key}"].reshape(shape) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * gamma + beta


def prelu(state: State, name: str, x: Tensor) -> Tensor:
    return torch.where(x > 0, x, x * state[f"{name}.weight"][:, None, None])


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def iresnet(state: State, x: Tensor) -> Tensor:
    x = prelu(state, "prelu", norm(state, "bn1", conv(state, "conv1", x)))
    for stage, num in enumerate(TINY.layers, start=1):
        for index in range(num):
            name, stride = f"layer{stage}.{index}", 2 if index == 0 else 1
            y = norm(state, f"{name}.bn2", conv(state, f"{name}.conv1", norm(state, f"{name}.bn1", x)))
            y = norm(state, f"{name}.bn3", conv(state, f"{name}.conv2", prelu(state, f"{name}.prelu", y), stride))
            if index == 0:
                x = norm(state, f"{name}.downsample.1", conv(state, f"{name}.downsample.0", x, 2))
            x = x + y
    x = norm(state, "bn2", x).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    return norm(state, "features", x)


def ir_se(state: State, x: Tensor) -> Tensor:
    x = prelu(state, "input_layer.2", norm(state, "input_layer.1", conv(state, "input_layer.0", x)))
    first = {sum(TINY.layers[:stage]) for stage in range(4)}
    for index in range(sum(TINY.layers)):
        name, stride = f"body.{index}.res_layer", 2 if index in first else 1
        y = prelu(state, f"{name}.2", conv(state, f"{name}.1", norm(state, f"{name}.0", x)))
        y = norm(state, f"{name}.4", conv(state, f"{name}.3", y, stride))
        seen = F.relu(conv(state, f"{name}.5.fc1", y.mean((2, 3))[:, :, None, None]))
        y = y * torch.sigmoid(conv(state, f"{name}.5.fc2", seen))
        shortcut = f"body.{index}.shortcut_layer"
        if f"{shortcut}.0.weight" in state:
            x = norm(state, f"{shortcut}.1", F.conv2d(x, state[f"{shortcut}.0.weight"], stride=stride))
        else:
            x = x[:, :, ::stride, ::stride]
        x = x + y
    x = norm(state, "output_layer.0", x).flatten(1)
    return norm(state, "output_layer.4", x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"])


@mark.parametrize(("variant", "oracle"), [("iresnet", iresnet), ("ir_se50", ir_se)])
def test_trunk_is_its_equations_by_the_published_names(variant: str, oracle: object) -> None:
    encoder = tiny_encoder(variant=variant).double()
    x = faces().double()
    torch.testing.assert_close(encoder.trunk(x), oracle(encoder.trunk.state_dict(), x))  # type: ignore[operator]


def test_ir_se50_has_the_layout_of_its_file() -> None:
    with torch.device("meta"):
        trunk = ArcFaceEncoder(ArcFaceConfig(variant="ir_se50")).trunk
    shapes = {name: list(tensor.shape) for name, tensor in trunk.state_dict().items()}
    assert {int(name.split(".")[1]) for name in shapes if name.startswith("body.")} == set(range(24))
    assert {name for name in shapes if "shortcut_layer.0" in name} == {
        f"body.{index}.shortcut_layer.0.weight" for index in (3, 7, 21)
    }
    assert shapes["body.3.res_layer.5.fc1.weight"] == [8, 128, 1, 1]
    assert shapes["output_layer.3.weight"] == [512, 25088]
    assert shapes["input_layer.2.weight"] == [64]


def test_embedding_of_another_size_is_that_of_the_resampled_face() -> None:
    encoder, large, small = tiny_encoder(), faces(80), faces(20)
    torch.testing.assert_close(encoder.encode_identity(large), encoder.encode_identity(area_resize(large, 32)))
    grown = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(encoder.encode_identity(small), encoder.encode_identity(grown))


def test_a_size_that_four_halvings_do_not_divide_is_refused() -> None:
    with raises(ValidationError, match="multiple of 16"):
        ArcFaceConfig(input_size=100)
