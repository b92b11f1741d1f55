"""What StyleGAN3 is for: moving and turning its input moves and turns the picture, details included.

With random weights. Pictures are compared as in appendix E of Karras et al. 2021: in decibels, relative to the range of
the picture. Measured over four seeds: T 55 to 81 dB for whole pixels, lowest for the longest way, where the border has
come in; R 73 to 85; half pixels 69 to 90; R turned by 45 degrees 71 to 76, T 17 to 25. The trained networks of the
paper (figure 5) reach 59 to 66 dB for whole pixels, 40 dB or so turned, and StyleGAN2 14 to 19 dB.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan3 import StyleGAN3, StyleGAN3Config
from soundguide.models.stylegan3_layers import Band, FourierInput

SIZE = 64
HALF_WINDOW = 8  # pixels, of the interpolation
CONFIGS: dict[str, dict[str, object]] = {
    "T": {},
    "R": {"conv_kernel": 1, "use_radial_filters": True},
    "R with separable filters": {"conv_kernel": 1},
}


def generator(name: str, seed: int) -> StyleGAN3:
    size: dict[str, object] = {"resolution": SIZE, "z_dim": 8, "w_dim": 8, "channel_max": 16}
    return StyleGAN3(StyleGAN3Config.model_validate(size | CONFIGS[name]), seed=seed).eval().requires_grad_(False)


def drawn(network: StyleGAN3, transform: Tensor) -> NDArray[np.float64]:
    """Return the picture ``[3, SIZE, SIZE]`` of one seed, with the view of the input waves transformed."""
    network.synthesis.input.transform.copy_(transform)
    ws = network.map(torch.randn(1, network.z_dim, generator=torch.Generator().manual_seed(6)))
    return network.synthesize(ws)[0].double().numpy()


def moved_by(right: float, down: float) -> Tensor:
    """Return the transform that moves the picture's content by pixels: the view goes the other way."""
    return torch.tensor([[1.0, 0.0, -right / SIZE], [0.0, 1.0, -down / SIZE], [0.0, 0.0, 1.0]])


def turned_by(degrees: float) -> Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def seen_through(transform: Tensor, picture: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Look at a picture through a transform, with a sinc in a Kaiser window, and say where that is valid."""
    middle = (SIZE - 1) / 2
    rows, columns = np.mgrid[:SIZE, :SIZE] - middle
    view = transform.double().numpy()
    x = view[0, 0] * columns + view[0, 1] * rows + view[0, 2] * SIZE + middle
    y = view[1, 0] * columns + view[1, 1] * rows + view[1, 2] * SIZE + middle

    def weights(place: NDArray[np.float64]) -> NDArray[np.float64]:
        distance = place[..., None] - np.arange(SIZE)
        window = np.i0(8 * np.sqrt(np.clip(1 - (distance / HALF_WINDOW) ** 2, 0, None))) / np.i0(8.0)
        return np.asarray(np.sinc(distance) * window * (np.abs(distance) < HALF_WINDOW))

    seen = np.einsum("abi,cij,abj->cab", weights(y), picture, weights(x))
    nearest, farthest = np.minimum(x, y), np.maximum(x, y)
    return seen, (nearest > HALF_WINDOW) & (farthest < SIZE - 1 - HALF_WINDOW)


def decibels(got: NDArray[np.float64], wanted: NDArray[np.float64], where: NDArray[np.bool_] | None = None) -> float:
    """Return the peak signal-to-noise ratio of equation 18, with the range of ``wanted`` as its peak."""
    error = np.square(got - wanted)
    return float(10 * np.log10(np.ptp(wanted) ** 2 / (error.mean() if where is None else error[:, where].mean())))


def agreement(network: StyleGAN3, transform: Tensor) -> float:
    """Compare the picture of a transformed input with the transformed picture, in decibels."""
    seen, valid = seen_through(transform, drawn(network, torch.eye(3)))
    return decibels(drawn(network, transform), seen, valid)


@pytest.mark.parametrize("name", ["T", "R"])
@pytest.mark.parametrize("seed", [0, 1])
def test_whole_pixels_move_the_picture(name: str, seed: int) -> None:
    network = generator(name, seed)
    still = drawn(network, torch.eye(3))
    for right, down in [(1, 0), (3, 2), (8, 5)]:
        moved = drawn(network, moved_by(right, down))
        assert decibels(moved[:, down:, right:], still[:, : SIZE - down, : SIZE - right]) > 50


@pytest.mark.parametrize("name", ["T", "R"])
@pytest.mark.parametrize("seed", [0, 1])
def test_half_pixels_move_the_picture_as_ideal_interpolation_does(name: str, seed: int) -> None:
    assert agreement(generator(name, seed), moved_by(0.5, -0.5)) > 60


def test_a_quarter_turn_of_the_input_turns_the_picture_of_r_exactly() -> None:
    view = turned_by(-90)  # the content turns the other way
    for seed in (0, 1):
        for name, least, most in [("R", 110, 200), ("T", 0, 35)]:  # R is left with the rounding of float32
            network = generator(name, seed)
            still = torch.from_numpy(drawn(network, torch.eye(3)))
            turned = torch.rot90(still, -1, dims=(1, 2)).numpy()
            assert least < decibels(drawn(network, view), turned) < most


@pytest.mark.parametrize("degrees", [10.0, 45.0])
def test_any_turn_of_the_input_turns_the_picture_of_r(degrees: float) -> None:
    for seed in (0, 1):
        found = {name: agreement(generator(name, seed), turned_by(degrees)) for name in CONFIGS}
        assert found["R"] > 60 and found["T"] < 40
        assert found["R"] > found["R with separable filters"] + (1 if degrees == 45.0 else 0)  # worst on the diagonal


def test_stylegan2_does_not_move_with_its_input() -> None:
    """The control: the paper's configuration B, StyleGAN2 with Fourier features in place of its constant."""
    config = StyleGAN2Config(resolution=SIZE, z_dim=8, w_dim=8, mapping_layers=2, channel_max=16)
    network = StyleGAN2(config, seed=0).requires_grad_(False)
    waves = FourierInput(Band(16, 4, 4, 1.0, 1.0), w_dim=8, generator=torch.Generator().manual_seed(0))
    waves.requires_grad_(False)
    ws = network.map(torch.randn(1, 8, generator=torch.Generator().manual_seed(6)))

    def picture(transform: Tensor) -> NDArray[np.float64]:
        waves.transform.copy_(transform)
        network.synthesis.get_parameter("b4.const").copy_(waves(ws[:, 0])[0])
        return network.synthesize(ws)[0].double().numpy()

    still, moved = picture(torch.eye(3)), picture(moved_by(8, 0))
    assert decibels(moved[:, 16:-16, 24:-16], still[:, 16:-16, 16:-24]) < 25
