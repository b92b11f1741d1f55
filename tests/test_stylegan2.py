"""The StyleGAN2 generator against the published names, the papers' equations, and invariants."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidLatent
from soundguide.models.protocols import Generator
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config, SynthesisBlock
from soundguide.models.stylegan2_layers import EqualizedLinear, resample_filter, upsample_image

CHANNELS = {4: 6, 8: 5, 16: 4, 32: 3}


def tiny_config(**changes: object) -> StyleGAN2Config:
    settings: dict[str, object] = {
        "resolution": 32,
        "z_dim": 9,
        "w_dim": 7,
        "mapping_layers": 2,
        "channels": tuple(CHANNELS.values()),
    }
    return StyleGAN2Config.model_validate(settings | changes)


def tiny_generator(**changes: object) -> StyleGAN2:
    """Return a float64 generator in which every parameter matters (biases and noise are not zero)."""
    network = StyleGAN2(tiny_config(**changes)).double()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
        network.mapping.w_avg.copy_(torch.randn(7, generator=random))
    return network


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv_entries(prefix: str, inputs: int, outputs: int, resolution: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.weight": (outputs, inputs, 3, 3),
        f"{prefix}.bias": (outputs,),
        f"{prefix}.noise_const": (resolution, resolution),
        f"{prefix}.noise_strength": (),
        f"{prefix}.resample_filter": (4, 4),
        f"{prefix}.affine.weight": (inputs, 7),
        f"{prefix}.affine.bias": (inputs,),
    }


def published_entries() -> dict[str, tuple[int, ...]]:
    entries: dict[str, tuple[int, ...]] = {
        "mapping.w_avg": (7,),
        "mapping.fc0.weight": (7, 9),
        "mapping.fc0.bias": (7,),
        "mapping.fc1.weight": (7, 7),
        "mapping.fc1.bias": (7,),
        "synthesis.b4.const": (6, 4, 4),
    }
    for size, width in CHANNELS.items():
        block = f"synthesis.b{size}"
        if size > 4:
            entries |= conv_entries(f"{block}.conv0", CHANNELS[size // 2], width, size)
        entries |= conv_entries(f"{block}.conv1", width, width, size)
        entries[f"{block}.resample_filter"] = (4, 4)
        entries[f"{block}.torgb.weight"] = (3, width, 1, 1)
        entries[f"{block}.torgb.bias"] = (3,)
        entries[f"{block}.torgb.affine.weight"] = (width, 7)
        entries[f"{block}.torgb.affine.bias"] = (width,)
    return entries


def test_names_and_shapes_are_those_of_published_checkpoints() -> None:
    entries = {name: tuple(value.shape) for name, value in StyleGAN2(tiny_config()).state_dict().items()}
    assert entries == published_entries()
    assert len(entries) == 75  # counted in a checkpoint of this depth written by the published code


def test_synthesis_gives_each_layer_its_code() -> None:
    network = tiny_generator()
    ws = normal(2, network.num_ws, 7)
    first, *others = (block for block in network.synthesis.children() if isinstance(block, SynthesisBlock))
    assert first.const is not None
    x = first.conv1(first.const.expand(2, -1, -1, -1), ws[:, 0])
    images = first.torgb(x, ws[:, 1])
    for number, block in enumerate(others):
        assert block.conv0 is not None
        x = block.conv1(block.conv0(x, ws[:, 1 + 2 * number]), ws[:, 2 + 2 * number])
        images = upsample_image(images, resample_filter()) + block.torgb(x, ws[:, 3 + 2 * number])
    torch.testing.assert_close(network.synthesize(ws), images)


def test_map_matches_a_plain_loop() -> None:
    network = tiny_generator()
    z = normal(3, 9)
    expected = []
    for row in z:
        x = row / torch.sqrt(row.square().mean() + 1e-8)
        for layer in (network.mapping.fc0, network.mapping.fc1):
            assert isinstance(layer, EqualizedLinear)
            y = 0.01 * (layer.weight @ x / math.sqrt(len(x)) + layer.bias)
            x = math.sqrt(2) * torch.where(y > 0, y, 0.2 * y)
        expected.append(x.expand(network.num_ws, -1))
    torch.testing.assert_close(network.map(z), torch.stack(expected))


def test_batch_equals_singles() -> None:
    network = tiny_generator()
    ws = network.map(normal(3, 9))
    singles = torch.cat([network.synthesize(ws[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(network.synthesize(ws), singles)


def test_permuting_the_batch_permutes_the_images() -> None:
    network = tiny_generator()
    z, order = normal(3, 9), torch.tensor([2, 0, 1])
    torch.testing.assert_close(network.synthesize(network.map(z[order])), network.synthesize(network.map(z))[order])


@pytest.mark.parametrize(("resolution", "num_ws"), [(64, 10), (128, 12), (256, 14), (512, 16), (1024, 18)])
def test_number_of_codes_follows_the_resolution(resolution: int, num_ws: int) -> None:
    assert StyleGAN2Config(resolution=resolution).num_ws == num_ws


def test_channels_follow_the_paper() -> None:
    config = StyleGAN2Config(resolution=1024)  # Karras et al. 2020: 512 up to 64 pixels, then halved down to 32
    assert config.block_channels == (512, 512, 512, 512, 512, 256, 128, 64, 32)


def test_truncation_zero_gives_the_mean_code_everywhere() -> None:
    network = tiny_generator()
    ws = network.map(normal(2, 9), truncation_psi=0.0)
    assert torch.equal(ws, network.w_avg.expand(2, network.num_ws, 7))


def test_truncation_may_differ_by_sample() -> None:
    network = tiny_generator()
    z = normal(2, 9)
    ws = network.map(z, truncation_psi=torch.tensor([0.25, 1.0], dtype=torch.float64))
    full = network.map(z)
    torch.testing.assert_close(ws[0], network.w_avg + 0.25 * (full[0] - network.w_avg))
    torch.testing.assert_close(ws[1], full[1])


def test_noise_is_constant() -> None:
    network = tiny_generator()
    ws = network.map(normal(2, 9))
    assert torch.equal(network.synthesize(ws), network.synthesize(ws))


def test_one_seed_makes_one_network() -> None:
    first, again, other = (StyleGAN2(tiny_config(), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["synthesis.b8.conv0.noise_const"], other["synthesis.b8.conv0.noise_const"])


def test_frozen_network_computes_only_the_gradient_of_the_codes() -> None:
    network = tiny_generator().requires_grad_(False)
    ws = network.map(normal(2, 9)).requires_grad_()
    leaves, pending = set(), [network.synthesize(ws).grad_fn]
    while pending:
        node = pending.pop()
        if node is None:
            continue
        if node.name() == "torch::autograd::AccumulateGrad":
            leaves.add(id(node.variable))  # type: ignore[attr-defined]  # only this kind of node has it
        pending += [parent for parent, _ in node.next_functions]
    assert leaves == {id(ws)}


def test_every_parameter_learns() -> None:
    network = tiny_generator()
    images = network.synthesize(network.map(normal(2, 9)))
    gradients = torch.autograd.grad(images.square().sum(), list(network.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_channels_last_stays_near_float64(autocast: bool) -> None:
    network = tiny_generator()
    ws = network.map(normal(2, 9))
    expected = network.synthesize(ws)
    if autocast:
        network = network.float().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            images = network.synthesize(ws.float())
    else:
        network = network.bfloat16().to(memory_format=torch.channels_last)
        images = network.synthesize(ws.bfloat16())
    assert images.dtype == torch.float32
    assert (images - expected).square().mean() < 1e-3 * expected.square().mean()


def test_resolution_that_is_no_power_of_two_names_the_remedy() -> None:
    with pytest.raises(ValidationError, match="power of two and at least 8, got 48. Use 32 or 64"):
        tiny_config(resolution=48)


def test_channels_that_do_not_fit_the_resolution_are_refused() -> None:
    with pytest.raises(ValidationError, match="got 3 entries"):
        tiny_config(channels=(4, 4, 4))


def test_codes_of_another_generator_are_refused() -> None:
    with pytest.raises(InvalidLatent, match=r"ws must be \[B, 8, 7\], got \[1, 10, 7\]"):
        tiny_generator().synthesize(normal(1, 10, 7))


def test_seeds_of_another_width_are_refused() -> None:
    with pytest.raises(InvalidLatent, match=r"z must be \[B, 9\]"):
        tiny_generator().map(normal(1, 8))


def test_generator_meets_its_protocol() -> None:
    generator: Generator = tiny_generator()  # the type checker reads this line
    assert (generator.num_ws, generator.z_dim, generator.w_dim, generator.resolution) == (8, 9, 7, 32)
    assert generator.w_avg.shape == (7,)
