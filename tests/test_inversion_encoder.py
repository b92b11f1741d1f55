"""The encoders that find a picture's code in one pass: their arithmetic, their names, and what they make of shapes."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from soundguide.models.inversion_encoder import InversionEncoder, InversionEncoderConfig

WIDTHS, UNITS = (4, 5, 6, 8), (1, 2, 2, 1)
BLOCKS = ((4, 4, 2), (4, 5, 2), (5, 5, 1), (5, 6, 2), (6, 6, 1), (6, 8, 2))  # in, out, stride; levels end at 2, 4, 5


def encoder(variant: str = "psp", num_ws: int = 9) -> InversionEncoder:
    """Return an encoder whose normalisations have seen something, so that each number counts."""
    config = InversionEncoderConfig(variant=variant, num_ws=num_ws, w_dim=7, input_size=32, widths=WIDTHS, units=UNITS)
    network = InversionEncoder(config).eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and "styles" not in name:
            value.copy_(torch.rand(value.shape, generator=draw) - 0.3)
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
    return network


def pictures(height: int = 32, width: int = 32, num: int = 2) -> Tensor:
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


class Slow:
    """The network again, from its weights alone and with plain operations."""

    def __init__(self, network: InversionEncoder) -> None:
        self.state = {name.removeprefix("encoder."): value for name, value in network.state_dict().items()}

    def normalise(self, name: str, x: Tensor) -> Tensor:
        mean, var, gain, bias = (
            self.state[f"{name}.{part}"][None, :, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * gain + bias

    def prelu(self, name: str, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.state[f"{name}.weight"][None, :, None, None])

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)

    def block(self, name: str, x: Tensor, inputs: int, outputs: int, stride: int) -> Tensor:
        shortcut = x[:, :, ::stride, ::stride]
        if inputs != outputs:
            shortcut = self.normalise(f"{name}.shortcut_layer.1", self.conv(f"{name}.shortcut_layer.0", x, stride))
        y = self.conv(f"{name}.res_layer.1", self.normalise(f"{name}.res_layer.0", x))
        y = self.conv(f"{name}.res_layer.3", self.prelu(f"{name}.res_layer.2", y), stride)
        y = self.normalise(f"{name}.res_layer.4", y)
        squeezed = self.conv(f"{name}.res_layer.5.fc1", y.flatten(2).mean(2)[:, :, None, None]).clamp_min(0)
        return shortcut + y / (1 + torch.exp(-self.conv(f"{name}.res_layer.5.fc2", squeezed)))

    def head(self, layer: int, x: Tensor) -> Tensor:
        index = 0
        while f"styles.{layer}.convs.{index}.weight" in self.state:
            x = self.conv(f"styles.{layer}.convs.{index}", x, 2)
            x, index = torch.where(x > 0, x, 0.01 * x), index + 2
        assert x.shape[2:] == (1, 1)
        weight, bias = (self.state[f"styles.{layer}.linear.{part}"] for part in ("weight", "bias"))
        return x[:, :, 0, 0] @ (weight / weight.shape[1] ** 0.5).T + bias

    def levels(self, images: Tensor) -> list[Tensor]:
        x = self.prelu("input_layer.2", self.normalise("input_layer.1", self.conv("input_layer.0", images)))
        ends = []
        for index, shape in enumerate(BLOCKS):
            x = self.block(f"body.{index}", x, *shape)
            if index in (2, 4, 5):
                ends.append(x)
        fine, middle, coarse = ends
        middle = enlarged(coarse, middle) + self.conv("latlayer1", middle)
        return [coarse, middle, enlarged(middle, fine) + self.conv("latlayer2", fine)]

    def codes(self, images: Tensor) -> list[Tensor]:
        levels = self.levels(images)
        return [self.head(layer, levels[0 if layer < 3 else 1 if layer < 7 else 2]) for layer in range(9)]


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate between corners that stay where they are."""
    for axis in (2, 3):
        before, after = x.shape[axis], like.shape[axis]
        rows = torch.zeros(after, before)
        for index in range(after):
            place = index * (before - 1) / (after - 1)
            low = min(int(place), max(before - 2, 0))
            rows[index, low] += 1 - (place - low)
            rows[index, min(low + 1, before - 1)] += place - low
        x = torch.movedim(torch.movedim(x, axis, -1) @ rows.T, -1, axis)
    return x


@pytest.mark.parametrize("shape", [(32, 32), (24, 32)], ids=["square", "wide"])
def test_codes_are_those_of_plain_operations(shape: tuple[int, int]) -> None:
    network, images = encoder("psp"), pictures(*shape)
    expected = torch.stack(Slow(network).codes(images), 1) + network.latent_avg
    torch.testing.assert_close(network.invert(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.std(0).min() > 1e-6  # both pictures say something in every number


def test_e4e_adds_its_first_code_to_the_others() -> None:
    network, images = encoder("e4e"), pictures()
    first, *moves = Slow(network).codes(images)
    expected = torch.stack([first, *(first + move for move in moves)], 1) + network.latent_avg
    torch.testing.assert_close(network.invert(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(128, 128), (48, 64), (9, 12)])
def test_pictures_of_other_sizes_are_read_with_their_longer_side_at_the_input_size(shape: tuple[int, int]) -> None:
    network, images = encoder(), pictures(*shape)
    size = (32 * shape[0] // shape[1], 32)
    read = F.interpolate(images, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(network.invert(images), network.invert(read))


def test_a_flat_picture_is_the_same_at_every_size() -> None:
    network = encoder()
    small, large = (network.invert(torch.full((1, 3, side, side), 0.3)) for side in (16, 256))
    torch.testing.assert_close(small, large)


def test_the_published_names_and_shapes() -> None:
    with torch.device("meta"):  # names and shapes alone: the whole network has a quarter of a billion numbers
        network = InversionEncoder(InversionEncoderConfig(variant="e4e", num_ws=18))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes.pop("latent_avg") == (18, 512)
    assert {name.split(".")[0] for name in shapes} == {"encoder"}
    parts = {name.split(".")[1] for name in shapes}
    assert parts == {"input_layer", "body", "styles", "latlayer1", "latlayer2"}
    blocks = {int(name.split(".")[2]) for name in shapes if name.startswith("encoder.body.")}
    widening = {int(name.split(".")[2]) for name in shapes if "shortcut_layer" in name}
    assert blocks == set(range(24)) and widening == {3, 7, 21}
    assert shapes["encoder.input_layer.0.weight"] == (64, 3, 3, 3)
    assert shapes["encoder.input_layer.2.weight"] == (64,)
    assert shapes["encoder.body.7.shortcut_layer.0.weight"] == (256, 128, 1, 1)
    assert shapes["encoder.body.23.res_layer.5.fc1.weight"] == (32, 512, 1, 1)
    assert shapes["encoder.latlayer1.weight"] == (512, 256, 1, 1) and shapes["encoder.latlayer1.bias"] == (512,)
    assert shapes["encoder.latlayer2.weight"] == (512, 128, 1, 1)
    for layer, last in {0: 6, 2: 6, 3: 8, 6: 8, 7: 10, 17: 10}.items():
        convs = {name.split(".")[4] for name in shapes if name.startswith(f"encoder.styles.{layer}.convs.")}
        assert convs == {str(index) for index in range(0, last + 1, 2)}
        assert shapes[f"encoder.styles.{layer}.convs.{last}.weight"] == (512, 512, 3, 3)
        assert shapes[f"encoder.styles.{layer}.linear.weight"] == (512, 512)
    assert "encoder.styles.18.linear.weight" not in shapes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_size": 48}, "power of two"),
        ({"variant": "restyle"}, "'e4e' or 'psp'"),
        ({"num_ws": 1}, "greater than or equal to 2"),
        ({"w_dim": 10**6}, "less than or equal to 2048"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        InversionEncoderConfig.model_validate({"variant": "psp", "num_ws": 6} | changes)
