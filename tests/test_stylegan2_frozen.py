"""StyleGAN2 on a CPU with frozen weights, against the general way and against plain convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan2_layers import SynthesisLayer
from soundguide.models.winograd import WinogradWeight, convolve_strips


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("direction", ["forwards", "backwards"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 8), (64, 64)])  # one tile; an odd number of rows; strips
def test_winograd_matches_a_plain_convolution(height: int, width: int, direction: str) -> None:
    weight, transformed = normal(5, 3, 3, 3), WinogradWeight.of(normal(5, 3, 3, 3))
    x = normal(2, 5 if direction == "backwards" else 3, height, width, seed=1)
    if direction == "forwards":
        expected = F.conv2d(x.double(), weight.double(), padding=1)
    else:
        expected = F.conv_transpose2d(x.double(), weight.double(), padding=1)
    pixels, y = x.permute(0, 2, 3, 1), torch.full_like(expected, torch.nan).permute(0, 2, 3, 1).contiguous()

    def fill(row: int, rows: slice, into: Tensor) -> None:
        into.copy_(pixels[row, rows])

    def finish(row: int, rows: slice, tiles: Tensor) -> None:
        y[row, rows].view(tiles.shape).copy_(tiles)

    convolve_strips(pixels, getattr(transformed, direction), fill, finish)
    error = (y.permute(0, 3, 1, 2) - expected).norm() / expected.norm()
    assert error < 1e-5


def layer_of(inputs: int, outputs: int, *, resolution: int, upsample: bool) -> SynthesisLayer:
    random = torch.Generator().manual_seed(2)
    layer = SynthesisLayer(
        inputs, outputs, w_dim=5, resolution=resolution, upsample=upsample, conv_clamp=None, generator=random
    )
    nn.init.constant_(layer.noise_strength, 0.7)
    nn.init.normal_(layer.bias, generator=random)
    return layer


# plain, doubling, by Winograd, and one whose pixels take several strips
@pytest.mark.parametrize(
    ("inputs", "outputs", "resolution", "upsample"),
    [(6, 5, 8, False), (6, 5, 8, True), (64, 72, 32, False), (4, 24, 128, True)],
)
def test_frozen_layer_matches_the_one_that_learns(inputs: int, outputs: int, resolution: int, upsample: bool) -> None:
    layer = layer_of(inputs, outputs, resolution=resolution, upsample=upsample)
    size = resolution // 2 if upsample else resolution
    outcomes = []
    for learns in (True, False):
        layer.requires_grad_(learns)
        x, w = normal(2, inputs, size, size).requires_grad_(), normal(2, 5, seed=3).requires_grad_()
        y = layer(x, w)
        gradients = torch.autograd.grad((y * normal(*y.shape, seed=4)).sum(), [x, w])
        outcomes.append((y.detach(), *gradients))
    for expected, actual in zip(*outcomes, strict=True):
        assert (actual - expected).norm() < 2e-5 * expected.norm()


def test_rows_of_a_batch_are_the_same_to_the_bit_alone() -> None:
    layer = layer_of(64, 64, resolution=32, upsample=False).requires_grad_(False)
    x, w = normal(3, 64, 32, 32), normal(3, 5, seed=3)
    styles = [layer.affine(w[row : row + 1]) for row in range(3)]
    together = layer._prepared()(x, torch.cat(styles), torch.ones(3, 64), 0.2)
    alone = [layer._prepared()(x[row : row + 1], styles[row], torch.ones(1, 64), 0.2) for row in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_frozen_layer_notices_new_weights() -> None:
    layer = layer_of(64, 64, resolution=32, upsample=False).requires_grad_(False)
    x, w = normal(1, 64, 32, 32), normal(1, 5, seed=3)
    before = layer(x, w)
    layer.load_state_dict({name: value + 0.1 for name, value in layer.state_dict().items()})
    after = layer(x, w)
    expected = layer.requires_grad_()(x, w)
    assert (after - expected).norm() < 1e-4 * expected.norm() < (after - before).norm()


def test_frozen_generator_draws_the_same_picture() -> None:
    config = StyleGAN2Config(resolution=64, z_dim=8, w_dim=8, mapping_layers=2, channels=(72, 72, 72, 72, 16))
    network = StyleGAN2(config)
    ws = network.map(normal(2, 8)).detach() + 0.3 * normal(2, network.num_ws, 8, seed=5)
    expected = network.double().synthesize(ws.double()).detach()
    images = network.float().requires_grad_(False).synthesize(ws)
    error = float((images - expected).norm() / expected.norm())
    assert 0 < error < 1e-5
