"""Generators of NVIDIA and rosinality become ours and go back: the same tensors, the same pictures."""

from __future__ import annotations

import argparse
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rosinality_oracle
import torch
from foreign_files import (
    EasyDict,
    Persistent,
    lively,
    module_state,
    named_as,
    nvidia_generator,
    saved,
    write_module,
    write_nvidia,
)
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Imported
from soundguide.foreign.nvidia import nvidia_state
from soundguide.foreign.recognise import read_foreign
from soundguide.foreign.rosinality import write_rosinality
from soundguide.foreign.stylegan2_shapes import stylegan2_shapes
from soundguide.foreign.torch_file import read_torch_file
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config

TINY = StyleGAN2Config(resolution=16, z_dim=5, w_dim=7, mapping_layers=2, channels=(4, 3, 2))
EXPRESSIBLE = StyleGAN2Config(resolution=64, z_dim=6, w_dim=6, mapping_layers=3, channel_base=16384, conv_clamp=256.0)


def only(path: Path, **options: str) -> Imported:
    (found,) = read_foreign(path, **options)  # type: ignore[arg-type]
    return found


def network(path: Path) -> StyleGAN2:
    module = only(path).module
    assert isinstance(module, StyleGAN2)
    return module


@pytest.mark.parametrize(
    "config", [TINY, EXPRESSIBLE, StyleGAN2Config(resolution=256, channel_max=8)], ids=lambda each: each.resolution
)
def test_shapes_are_known_without_making_the_network(config: StyleGAN2Config) -> None:
    made = {name: tuple(value.shape) for name, value in StyleGAN2(config).state_dict().items()}
    assert stylegan2_shapes(config) == made


def assert_same_tensors(got: StyleGAN2, wanted: StyleGAN2) -> None:
    mine, theirs = got.state_dict(), wanted.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def codes(generator: StyleGAN2, number: int = 2) -> Tensor:
    return torch.randn(number, generator.num_ws, generator.w_dim, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("layout", ["ada", "flat"])
def test_nvidia_pickles_come_back_bit_for_bit(layout: str, protocol: int, tmp_path: Path) -> None:
    generator = lively(TINY.model_copy(update={"conv_clamp": 100.0}))
    found = only(write_nvidia(tmp_path / "g.pkl", nvidia_generator(generator, layout=layout), protocol=protocol))
    assert isinstance(found.module, StyleGAN2)
    assert_same_tensors(found.module, generator)
    assert found.role == "generator" and found.config == generator.config
    assert found.extra["options"]["mapping_kwargs"] == {"num_layers": 2}
    assert not found.module.training and not any(value.requires_grad for value in found.module.parameters())


def test_a_made_nvidia_pickle_names_what_official_ones_name(tmp_path: Path) -> None:
    path = write_nvidia(tmp_path / "g.pkl", nvidia_generator(lively(TINY)))
    texts = {value for _, value, _ in pickletools.genops(path.read_bytes()) if isinstance(value, str)}
    listed = {"_reconstruct_persistent_obj", "_load_from_bytes", "_rebuild_parameter", "_rebuild_tensor_v2"}
    assert listed | {"OrderedDict", "EasyDict"} <= texts


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_modules_tuned_and_saved_whole_come_back(zipped: bool, tmp_path: Path) -> None:
    generator = lively(TINY)
    path = write_module(tmp_path / "model_multi_id.pt", nvidia_generator(generator), zipped=zipped)
    assert_same_tensors(network(path), generator)


def test_options_are_read_where_modules_do_not_have_them(tmp_path: Path) -> None:
    clamps = {}
    for layout in ("ada", "flat"):
        made = nvidia_generator(lively(TINY), layout=layout)
        state = made.meta["state"]
        for block in state["_modules"]["synthesis"].meta["state"]["_modules"].values():
            for layer in block.meta["state"]["_modules"].values():
                del layer.meta["state"]["conv_clamp"]
        options = state["_init_kwargs"]
        del options.get("synthesis_kwargs", options)["conv_clamp"]
        found = only(write_nvidia(tmp_path / f"{layout}.pkl", made))
        assert isinstance(found.config, StyleGAN2Config)
        clamps[layout] = found.config.conv_clamp
    assert clamps == {"ada": None, "flat": 256.0}  # the defaults of the two codes


def test_an_imported_generator_is_saved_and_loaded_as_ours(tmp_path: Path) -> None:
    generator = lively(TINY)
    found = only(write_nvidia(tmp_path / "g.pkl", nvidia_generator(generator)))
    save_model(tmp_path / "ours", found.module, found.config, half=False, made_by="a test", extra=found.extra)
    loaded = load_model(tmp_path / "ours", device="cpu").module
    assert isinstance(loaded, StyleGAN2)
    assert_same_tensors(loaded, generator)


UNLIKE = {
    "architecture": ("resnet", r"architecture expected 'skip', got 'resnet'"),
    "activation": ("relu", r"activation expected 'lrelu', got 'relu'"),
    "use_noise": (False, r"use_noise expected True, got False"),
    "conv_clamp": ("tight", r"conv_clamp expected a positive number or None, got 'tight'"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_an_nvidia_network_that_ours_is_not_is_refused(name: str, tmp_path: Path) -> None:
    value, told = UNLIKE[name]
    path = write_nvidia(tmp_path / "g.pkl", nvidia_generator(lively(TINY), **{name: value}))
    with pytest.raises(InvalidCheckpoint, match=told):
        read_foreign(path)


def test_an_nvidia_network_with_labels_is_refused(tmp_path: Path) -> None:
    made = nvidia_generator(lively(TINY))
    mapping = made.meta["state"]["_modules"]["mapping"].meta["state"]
    embed = Persistent("FullyConnectedLayer", module_state({"weight": torch.ones(7, 10)}, {}))
    mapping["_modules"]["embed"] = embed
    with pytest.raises(InvalidCheckpoint, match="c_dim expected 0"):
        read_foreign(write_nvidia(tmp_path / "g.pkl", made))


def test_another_filter_is_refused(tmp_path: Path) -> None:
    generator = lively(TINY)
    generator.synthesis.b8.conv0.resample_filter.fill_(1 / 16)  # type: ignore[union-attr, operator]
    with pytest.raises(InvalidCheckpoint, match=r"synthesis\.b8\.conv0\.resample_filter expected the taps"):
        read_foreign(write_nvidia(tmp_path / "g.pkl", nvidia_generator(generator)))


def test_another_version_of_persistence_is_refused(tmp_path: Path) -> None:
    made = nvidia_generator(lively(TINY))
    made.meta["version"] = 5
    with pytest.raises(InvalidCheckpoint, match="version 5, and 6"):
        read_foreign(write_nvidia(tmp_path / "g.pkl", made))


def test_a_mismatch_names_key_expected_and_got(tmp_path: Path) -> None:
    made = nvidia_generator(lively(TINY))
    block = made.meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["b8"].meta["state"]
    block["_modules"]["conv0"].meta["state"]["_parameters"]["weight"] = torch.nn.Parameter(torch.ones(3, 4, 1, 1))
    told = r"synthesis\.b8\.conv0\.weight: expected \[3, 4, 3, 3\], got \[3, 4, 1, 1\]"
    with pytest.raises(InvalidCheckpoint, match=told):
        read_foreign(write_nvidia(tmp_path / "g.pkl", made))


def test_the_parts_of_a_stylegan3_are_told(tmp_path: Path) -> None:
    layer = Persistent(
        "SynthesisLayer",
        module_state(
            {"weight": torch.ones(2, 3, 1, 1), "magnitude_ema": torch.tensor(1.5)},
            {},
            in_size=np.broadcast_to(np.asarray(36), [2]),
            in_cutoff=np.float64(2.0),
        ),
    )
    inputs = Persistent("SynthesisInput", module_state({"freqs": torch.ones(4, 2)}, {}))
    synthesis = Persistent("SynthesisNetwork", module_state({}, {"input": inputs, "L0_36_3": layer}))
    options = {"img_resolution": 16, "mapping_kwargs": EasyDict(num_layers=2), "conv_kernel": np.int64(1)}
    made = Persistent("Generator", module_state({}, {"synthesis": synthesis}, _init_kwargs=EasyDict(options)))
    tree = read_torch_file(write_nvidia(tmp_path / "g.pkl", made))
    kind, got, tensors = nvidia_state(tree, source="g.pkl")
    assert kind == "stylegan3"
    assert got == {"img_resolution": 16, "mapping_kwargs": {"num_layers": 2}, "conv_kernel": 1}
    assert {name: list(value.shape) for name, value in tensors.items()} == {
        "synthesis.input.freqs": [4, 2],
        "synthesis.L0_36_3.weight": [2, 3, 1, 1],
        "synthesis.L0_36_3.magnitude_ema": [],
    }


def test_a_tensorflow_pickle_is_told_how_to_be_converted(tmp_path: Path) -> None:
    class Network:
        def __init__(self) -> None:
            self.variables = [("G/w", np.ones((2, 2), dtype=np.float32))]

    path = tmp_path / "stylegan2.pkl"
    with named_as({"dnnlib.tflib.network.Network": Network}):
        path.write_bytes(pickle.dumps((Network(), Network(), Network()), protocol=3))
    with pytest.raises(InvalidCheckpoint, match=r"TensorFlow.*legacy\.py"):
        read_foreign(path)


def rosinality_file(path: Path, **changes: Any) -> dict[str, Tensor]:
    weights = rosinality_oracle.made_weights([5, 4, 3], style_dim=6, n_mlp=2)
    tree = {"g_ema": weights, "latent_avg": torch.linspace(-1, 1, 6)} | changes
    path.write_bytes(saved({name: value for name, value in tree.items() if value is not None}))
    return weights


def test_rosinality_files_draw_what_a_slow_reading_of_the_paper_draws(tmp_path: Path) -> None:
    weights = rosinality_file(tmp_path / "g.pt")
    generator = network(tmp_path / "g.pt")
    ws = codes(generator, 3)
    slow = torch.stack([rosinality_oracle.draw(weights, row) for row in ws])
    assert (generator.synthesize(ws) - slow).abs().max() <= 1e-4 * slow.abs().max()
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    slow_codes = torch.stack([rosinality_oracle.map_seed(weights, row) for row in z])
    torch.testing.assert_close(generator.map(z)[:, 0], slow_codes)
    torch.testing.assert_close(generator.w_avg, torch.linspace(-1, 1, 6), rtol=0, atol=0)


def test_files_of_a_rosinality_training_are_read(tmp_path: Path) -> None:
    optimiser = {
        "state": {0: {"step": 3, "exp_avg": torch.ones(2)}},
        "param_groups": [{"lr": 0.002, "betas": (0, 0.99)}],
    }
    others = {"g": {}, "d": {}, "g_optim": optimiser, "args": argparse.Namespace(size=16, n_mlp=2), "ada_aug_p": 0.0}
    weights = rosinality_file(tmp_path / "g.pt", latent_avg=None, **others)
    found = only(tmp_path / "g.pt")
    assert isinstance(found.module, StyleGAN2)
    assert found.extra["w_avg"] == "mean of 10000 codes of seed 0"
    z = torch.randn(4000, 6, generator=torch.Generator().manual_seed(5))
    mean = torch.stack([rosinality_oracle.map_seed(weights, row) for row in z]).mean(dim=0)
    spread = found.module.map(z)[:, 0].std(dim=0)
    assert ((found.module.w_avg - mean).abs() < 5 * spread / 4000**0.5).all()


ROUND = (
    (EXPRESSIBLE, 1),
    (EXPRESSIBLE.model_copy(update={"channel_base": 32768, "resolution": 8, "conv_clamp": None}), 2),
)


@pytest.mark.parametrize(("config", "channel_multiplier"), ROUND, ids=["clamped-64", "8"])
def test_from_nvidia_through_ours_to_rosinality_and_back(
    config: StyleGAN2Config, channel_multiplier: int, tmp_path: Path
) -> None:
    generator = lively(config)
    first = network(write_nvidia(tmp_path / "g.pkl", nvidia_generator(generator, layout="flat")))
    write_rosinality(first, tmp_path / "g.pt")
    found = only(tmp_path / "g.pt")
    assert isinstance(found.module, StyleGAN2)
    assert_same_tensors(found.module, generator)
    assert found.extra["channel_multiplier"] == channel_multiplier
    ws = codes(generator, 1)
    with torch.no_grad():
        assert (found.module.synthesize(ws) - generator.synthesize(ws)).abs().max() <= 1e-4
        weights = torch.load(tmp_path / "g.pt", weights_only=True)["g_ema"]
        assert (rosinality_oracle.draw(weights, ws[0]) - generator.synthesize(ws)[0]).abs().max() <= 1e-4


def test_what_is_written_has_the_names_and_shapes_that_their_code_loads_strictly(tmp_path: Path) -> None:
    write_rosinality(lively(EXPRESSIBLE), tmp_path / "g.pt")
    written = torch.load(tmp_path / "g.pt", weights_only=True)
    wanted = rosinality_oracle.made_weights([512, 512, 512, 512, 256], style_dim=6, n_mlp=3)
    assert {name: value.shape for name, value in written["g_ema"].items()} == {
        name: value.shape for name, value in wanted.items()
    }
    filters = [name for name in wanted if name.endswith("kernel")]
    assert all(torch.allclose(written["g_ema"][name], rosinality_oracle.blur_kernel()) for name in filters)
    assert written["latent_avg"].shape == (6,)


INEXPRESSIBLE = {
    "channels": ({"channels": (4, 3, 2, 2, 2)}, "no channel_multiplier"),
    "z_dim": ({"z_dim": 5}, "z_dim 5 other than w_dim 6"),
    "learning rate": ({"mapping_lr_multiplier": 0.1}, "mapping_lr_multiplier 0.1 other than 0.01"),
    "clamp": ({"conv_clamp": 1.5, "resolution": 8}, "conv_clamp 1.5 changes"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_rosinality_cannot_hold_is_not_written(name: str, tmp_path: Path) -> None:
    changes, told = INEXPRESSIBLE[name]
    generator = lively(EXPRESSIBLE.model_copy(update=changes))
    with pytest.raises(InvalidCheckpoint, match=told):
        write_rosinality(generator, tmp_path / "g.pt")
    assert list(tmp_path.iterdir()) == []


MISFITS: dict[str, tuple[str, Any, str]] = {
    "missing": ("convs.0.noise.weight", None, r"convs\.0\.noise\.weight' expected a tensor, got nothing"),
    "too many": ("convs.9.noise.weight", torch.ones(1), r"convs\.9\.noise\.weight' expected nothing, got one"),
    "no axis": ("noises.noise_1", torch.ones(8, 8), r"noises\.noise_1 expected \[1, 1, \.\.\.\], got \[8, 8\]"),
    "shape": ("conv1.conv.weight", torch.ones(1, 5, 5, 1, 1), r"b4\.conv1\.weight: expected \[5, 5, 3, 3\]"),
    "filter": ("to_rgbs.1.upsample.kernel", torch.ones(4, 4), r"to_rgbs\.1\.upsample\.kernel expected the filter"),
    "NaN": ("style.1.bias", torch.full((6,), float("nan")), r"mapping\.fc0\.bias expected finite"),
    "integers": ("style.1.bias", torch.ones(6, dtype=torch.int64), r"mapping\.fc0\.bias expected torch\.float32"),
    "text": ("style.1.bias", "ones", r"style\.1\.bias expected \[\.\.\.\], got str"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_rosinality_file_that_does_not_fit_names_key_expected_and_got(name: str, tmp_path: Path) -> None:
    key, value, told = MISFITS[name]
    weights: dict[str, Any] = rosinality_oracle.made_weights([5, 4, 3], style_dim=6, n_mlp=2)
    weights[key] = value
    (tmp_path / "g.pt").write_bytes(saved({"g_ema": {k: v for k, v in weights.items() if v is not None}}))
    with pytest.raises(InvalidCheckpoint, match=told):
        read_foreign(tmp_path / "g.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = rosinality_oracle.made_weights([5, 4], style_dim=6, n_mlp=2)
    (tmp_path / "g.pt").write_bytes(saved({"g_ema": {name: value.to(dtype) for name, value in weights.items()}}))
    got = network(tmp_path / "g.pt").synthesis.state_dict()["b4.const"]
    assert torch.equal(got, weights["input.input"][0].to(dtype).float())


def test_a_kind_that_is_given_is_believed(tmp_path: Path) -> None:
    rosinality_file(tmp_path / "g.pt")
    with pytest.raises(InvalidCheckpoint, match="no generator in it"):
        read_foreign(tmp_path / "g.pt", kind="nvidia")
    with pytest.raises(InvalidCheckpoint, match="the kind 'stylegan' is none of nvidia"):
        read_foreign(tmp_path / "g.pt", kind="stylegan")
