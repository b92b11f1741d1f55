"""The StyleGAN3 generator against the published names, the paper's layer specifications, and invariants."""

import math
from decimal import Decimal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidLatent
from soundguide.models.stylegan3 import StyleGAN3, StyleGAN3Config

R = {"conv_kernel": 1, "use_radial_filters": True}
# Karras et al. 2021, figure 5: millions of parameters, with the capacities of figure 16
PUBLISHED = [
    (1024, {}, "22.3"),
    (256, {"channel_base": 2**14}, "23.3"),
    (256, {"channel_base": 2**15, "channel_max": 1024, **R}, "15.8"),
]


def tiny_config(**changes: object) -> StyleGAN3Config:
    settings: dict[str, object] = {"resolution": 32, "z_dim": 9, "w_dim": 7, "channel_max": 4, "num_layers": 6}
    return StyleGAN3Config.model_validate(settings | changes)


def tiny_generator(**changes: object) -> StyleGAN3:
    """Return a float64 generator in which every parameter matters (biases and the input's affine are not zero)."""
    network = StyleGAN3(tiny_config(**changes)).double()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias") or name == "synthesis.input.affine.weight":
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
        network.mapping.w_avg.copy_(torch.randn(7, generator=random))
    return network


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# architecture


def specifications(resolution: int, base: int, most: int) -> tuple[list[str], list[int]]:
    """Names and rates of equations 35 and 36, in decimal numbers, whose powers of two are exact."""
    names, rates = [], []
    last_cutoff = Decimal(resolution.bit_length() - 2)  # log2
    for index in range(15):
        share = min(Decimal(index) / 12, Decimal(1))
        cutoff = 1 + (last_cutoff - 1) * share
        stopband = Decimal("2.1") + (last_cutoff + Decimal("0.3") - Decimal("2.1")) * share
        rate = 1
        while rate < resolution and Decimal(rate.bit_length() - 1) < stopband + 1:
            rate *= 2
        channels = 3 if index == 14 else round(min(base / 2 / 2 ** float(cutoff), most))
        names.append(f"L{index}_{rate + 20 if index < 13 else resolution}_{channels}")
        rates.append(rate)
    return names, rates


@pytest.mark.parametrize("resolution", [128, 256, 512, 1024])
@pytest.mark.parametrize(("base", "most"), [(32768, 512), (65536, 1024)])
def test_layers_follow_the_flexible_specifications(resolution: int, base: int, most: int) -> None:
    config = StyleGAN3Config(resolution=resolution, channel_base=base, channel_max=most)
    assert (list(config.layer_names), [band.rate for band in config.bands]) == specifications(resolution, base, most)


def test_layers_of_1024_pixels_are_those_of_published_checkpoints() -> None:
    names = StyleGAN3Config(resolution=1024, channel_base=65536, channel_max=1024, conv_kernel=1).layer_names
    assert names[:8] == (
        *("L0_36_1024", "L1_36_1024", "L2_52_1024", "L3_52_1024", "L4_84_1024", "L5_148_1024", "L6_148_1024"),
        "L7_276_645",
    )
    assert names[8:] == (
        *("L8_276_406", "L9_532_256", "L10_1044_161", "L11_1044_102", "L12_1044_64", "L13_1024_64", "L14_1024_3"),
    )


@pytest.mark.parametrize(("resolution", "changes", "millions"), PUBLISHED, ids=["T 1024", "T 256", "R 256"])
def test_number_of_parameters_is_the_published_one(resolution: int, changes: dict[str, object], millions: str) -> None:
    with torch.device("meta"):
        network = StyleGAN3(StyleGAN3Config.model_validate({"resolution": resolution} | changes))
    assert f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f}" == millions
    assert len(network.state_dict()) == 114  # counted in a checkpoint that the published code wrote
    assert network.num_ws == 16


def test_transition_bands_reach_the_stopband_or_half_the_rate() -> None:
    bands = StyleGAN3Config(resolution=1024).bands
    assert bands[0].cutoff == 2.0 and bands[0].half_width == 6.0  # 16 / 2 - 2
    for band in bands[12:]:  # critical: 512 cycles, and 2^0.3 times that for the stopband
        assert band.cutoff == 512.0 and band.half_width == pytest.approx(512 * (2**0.3 - 1))


def test_names_and_shapes_are_those_of_published_checkpoints() -> None:
    network = StyleGAN3(tiny_config(use_radial_filters=True))
    entries = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {
        "mapping.w_avg": (7,),
        "mapping.fc0.weight": (7, 9),
        "mapping.fc0.bias": (7,),
        "mapping.fc1.weight": (7, 7),
        "mapping.fc1.bias": (7,),
        "synthesis.input.weight": (4, 4),
        "synthesis.input.affine.weight": (4, 7),
        "synthesis.input.affine.bias": (4,),
        "synthesis.input.transform": (3, 3),
        "synthesis.input.freqs": (4, 2),
        "synthesis.input.phases": (4,),
    }
    for index, name in enumerate(("L0_36_4", "L1_36_4", "L2_52_4", "L3_52_4", "L4_52_4", "L5_32_4", "L6_32_3")):
        layer = f"synthesis.{name}"
        expected |= {f"{layer}.affine.weight": (4, 7), f"{layer}.affine.bias": (4,), f"{layer}.magnitude_ema": ()}
        expected |= {f"{layer}.weight": (4, 4, 3, 3) if index < 6 else (3, 4, 1, 1)}
        expected |= {f"{layer}.bias": (4 if index < 6 else 3,)}
        if index < 6:  # sRGB has no filters
            expected[f"{layer}.up_filter"] = (24,) if index == 2 else (12,)  # L2 doubles the rate
            expected[f"{layer}.down_filter"] = (12, 12) if index < 4 else (12,)
    assert entries == expected


# behaviour


def test_synthesis_gives_each_layer_its_code() -> None:
    network = tiny_generator(output_scale=0.5)
    ws = normal(2, network.num_ws, 7)
    x = network.synthesis.input(ws[:, 0])
    for number, name in enumerate(network.config.layer_names):
        x = network.synthesis.get_submodule(name)(x, ws[:, number + 1])
    torch.testing.assert_close(network.synthesize(ws), 0.5 * x)
    assert x.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("changes", [{}, R], ids=["T", "R"])
def test_batch_equals_singles(changes: dict[str, object]) -> None:
    network = tiny_generator(**changes)
    ws = network.map(normal(3, 9))
    singles = torch.cat([network.synthesize(ws[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(network.synthesize(ws), singles)


def test_truncation_pulls_each_sample_towards_the_mean_code() -> None:
    network = tiny_generator()
    z = normal(3, 9)
    full, ws = network.map(z), network.map(z, truncation_psi=torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    assert torch.equal(ws[0], network.w_avg.expand(network.num_ws, 7))
    torch.testing.assert_close(ws[1], network.w_avg + 0.25 * (full[1] - network.w_avg))
    torch.testing.assert_close(ws[2], full[2])


def test_every_parameter_learns() -> None:
    network = tiny_generator()
    images = network.synthesize(network.map(normal(2, 9)))
    gradients = torch.autograd.grad(images.square().sum(), list(network.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_near_float64(autocast: bool) -> None:
    network = tiny_generator()
    ws = network.map(normal(2, 9))
    expected = network.synthesize(ws)
    if autocast:
        network = network.float().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            images = network.synthesize(ws.float())
    else:
        images = network.bfloat16().synthesize(ws.bfloat16())
    assert images.dtype == torch.float32
    assert (images - expected).square().mean() < 1e-3 * expected.var()


def test_affines_run_in_full_precision_under_autocast() -> None:
    network = tiny_generator().float()
    w = normal(2, 7).float()
    expected = network.synthesis.input(w)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.synthesis.input(w), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 48}, "power of two and at least 16, got 48. Use 32 or 64"),
        ({"resolution": 2**20}, "less than or equal to 4096"),
        ({"num_critical": 6}, "num_critical must be below num_layers, 6, got 6"),
        ({"first_cutoff": 5.0}, "first_cutoff must be below first_stopband"),
        ({"first_cutoff": 16.0, "first_stopband": 17.0}, "half the resolution, 16, got 16"),
        ({"first_stopband": math.inf}, "finite"),
        ({"lrelu_upsampling": 3}, "multiple of 2"),
    ],
)
def test_architecture_that_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_config(**changes)


def test_codes_of_another_generator_are_refused() -> None:
    with pytest.raises(InvalidLatent, match=r"ws must be \[B, 8, 7\], got \[1, 10, 7\]"):
        tiny_generator().synthesize(normal(1, 10, 7))
