"""StyleGAN3 generators as NVIDIA's pickles record them, and one at work in an edit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_edits import SHORT, do, noise, with_sound
from tiny_world import write_tiny_world
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.stylegan3_files import from_nvidia
from soundguide.manipulator import Manipulator
from soundguide.model_facts import read_model_facts
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.stylegan3 import StyleGAN3, StyleGAN3Config

TINY = StyleGAN3Config(resolution=16, z_dim=6, w_dim=5, num_layers=6, channel_max=4, mapping_layers=3)
# as the published training script passes them
SYNTHESIS = {"channel_base": 32768, "channel_max": 4, "num_layers": 6, "magnitude_ema_beta": 0.9994, "num_fp16_res": 4}
OTHERS = {"z_dim": 6, "c_dim": 0, "w_dim": 5, "img_resolution": 16, "img_channels": 3}
MAPPING = {"mapping_kwargs": {"num_layers": 3}}


def recorded(**changes: Any) -> dict[str, Any]:
    return {**OTHERS, **MAPPING, **SYNTHESIS, **changes}


def state(config: StyleGAN3Config = TINY, seed: int = 7) -> dict[str, Tensor]:
    return StyleGAN3(config, seed=seed).state_dict()


@pytest.mark.parametrize(
    "arguments",
    [recorded(), {**OTHERS, **MAPPING, "synthesis_kwargs": SYNTHESIS}],
    ids=["flat", "nested"],
)
def test_a_recorded_generator_is_rebuilt(arguments: dict[str, Any]) -> None:
    before = dict(arguments)
    network, config = from_nvidia(arguments, state())
    assert config == TINY and network.config == TINY and arguments == before
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state().items())
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_configuration_r_is_rebuilt() -> None:
    config = TINY.model_copy(update={"conv_kernel": 1, "use_radial_filters": True, "conv_clamp": None})
    arguments = recorded(conv_kernel=1, use_radial_filters=True, conv_clamp=None)
    network, found = from_nvidia(arguments, state(config))
    assert found == config
    assert network.state_dict()["synthesis.L0_36_4.down_filter"].shape == (12, 12)


def test_two_mapping_layers_are_the_default_of_the_published_code() -> None:
    arguments = {name: value for name, value in recorded().items() if name != "mapping_kwargs"}
    config = TINY.model_copy(update={"mapping_layers": 2})
    assert from_nvidia(arguments, state(config))[1] == config


def test_filters_of_the_file_replace_the_designed_ones() -> None:
    tensors = state()
    designed = from_nvidia(recorded(), tensors)[0]
    name = "synthesis.L1_36_4.up_filter"
    tensors[name] = torch.full_like(tensors[name], 1 / 12)
    network = from_nvidia(recorded(), tensors)[0]
    assert torch.equal(network.state_dict()[name], tensors[name])
    ws = network.map(torch.ones(1, 6))
    assert (network.synthesize(ws) - designed.synthesize(ws)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c_dim": 10}, "c_dim, the number of labels, must be 0, got 10"),
        ({"img_channels": 1}, "img_channels must be 3, got 1"),
        ({"noise_dim": 3, "attention": True}, "does not take: attention, noise_dim"),
        ({"mapping_kwargs": {"embed_features": 4}}, "does not take: mapping_kwargs.embed_features"),
        ({"mapping_kwargs": 5}, "mapping_kwargs must be a dict, got 5"),
        ({"img_resolution": "large"}, "resolution"),
        ({"img_resolution": 2**30}, "resolution"),
        ({"num_layers": 10**9}, "num_layers"),
        ({"z_dim": torch.ones(2)}, "z_dim"),
        # would take 900 GB: told from the file's tensors before any memory is taken
        ({"channel_max": 2**16, "channel_base": 2**31}, r"synthesis\.L0_36_4.*expected nothing, got \["),
        ({"img_resolution": 32}, "expected nothing"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=f"^ffhq.pkl: .*{message}"):
        from_nvidia(recorded(**changes), state(), source="ffhq.pkl")


def test_tensors_that_do_not_fit_are_named() -> None:
    tensors = state()
    del tensors["synthesis.input.transform"]
    tensors["synthesis.input.freqs"] = torch.zeros(5, 2)
    tensors["mapping.embed.weight"] = torch.zeros(1)
    with pytest.raises(InvalidCheckpoint) as caught:
        from_nvidia(recorded(), tensors)
    assert "mapping.embed.weight: expected nothing, got [1]" in str(caught.value)
    assert "synthesis.input.freqs: expected [4, 2], got [5, 2]" in str(caught.value)
    assert "synthesis.input.transform: expected [3, 3], got nothing" in str(caught.value)


def test_an_imported_generator_is_saved_loaded_and_edited(tmp_path: Path) -> None:
    network, config = from_nvidia(recorded(), state())
    models = write_tiny_world(tmp_path)
    save_model(tmp_path / "generator", network, config, half=False, made_by="a test")
    loaded = load_model(tmp_path / "generator", device="cpu")
    assert isinstance(loaded.module, StyleGAN3) and loaded.config == config
    facts = read_model_facts(models)
    assert (facts.resolution, facts.num_ws, facts.w_dim) == (16, 8, 5)

    result = do(Manipulator(models), with_sound("edit", noise(0), SHORT.override({"latent_space": "w+"})))
    assert result.image.shape == (16, 16, 3) and result.ws.shape == (8, 5)
    assert result.steps == SHORT.num_steps and result.latent_distance > 0
