"""Checkpoints of e4e and pSp, made in their layout with random weights: read to the bit, or refused by name."""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_edits import SHORT, do, noise
from torch import Tensor

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.inversion_files import read_inversion, read_inversion_generator
from soundguide.foreign.torch_file import read_torch_file
from soundguide.manipulator import Manipulator
from soundguide.model_facts import read_model_facts
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.inversion_encoder import InversionEncoder, InversionEncoderConfig
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan2_layers import resample_filter
from soundguide.stages import EditPreparer

W_DIM, NUM_WS = 8, 6
TYPES = {"e4e": "Encoder4Editing", "psp": "GradualStyleEncoder"}
Change = Callable[[dict[str, Any]], object]


def encoder_of(variant: str, num_ws: int = NUM_WS) -> InversionEncoder:
    config = InversionEncoderConfig(
        variant=variant, num_ws=num_ws, w_dim=W_DIM, input_size=32, widths=(4, 5, 6, 8), units=(1, 2, 2, 1)
    )
    return InversionEncoder(config, seed=3).eval()


def generator() -> StyleGAN2:
    config = StyleGAN2Config(resolution=16, z_dim=W_DIM, w_dim=W_DIM, mapping_layers=2, channels=(6, 5, 4))
    network = StyleGAN2(config, seed=4)
    network.w_avg.copy_(average())
    return network


def average() -> Tensor:
    return torch.randn(W_DIM, generator=torch.Generator().manual_seed(6))


def decoder_of(network: StyleGAN2) -> dict[str, Tensor]:
    """Return a generator's tensors under rosinality's names and in its shapes."""
    ours, theirs = network.state_dict(), {}
    layers = [("conv1", "b4.conv1")]
    outputs = [("to_rgb1", "b4.torgb")]
    for index, size in enumerate((8, 16)):
        layers += [(f"convs.{2 * index}", f"b{size}.conv0"), (f"convs.{2 * index + 1}", f"b{size}.conv1")]
        outputs += [(f"to_rgbs.{index}", f"b{size}.torgb")]
        theirs[f"convs.{2 * index}.conv.blur.kernel"] = 4 * resample_filter()
        theirs[f"to_rgbs.{index}.upsample.kernel"] = 4 * resample_filter()
    for index in range(2):
        for part in ("weight", "bias"):
            theirs[f"style.{index + 1}.{part}"] = ours[f"mapping.fc{index}.{part}"]
    theirs["input.input"] = ours["synthesis.b4.const"][None]
    for index, (name, our) in enumerate(layers):
        theirs[f"{name}.noise.weight"] = ours[f"synthesis.{our}.noise_strength"][None]
        theirs[f"{name}.activate.bias"] = ours[f"synthesis.{our}.bias"]
        theirs[f"noises.noise_{index}"] = ours[f"synthesis.{our}.noise_const"][None, None]
    for name, our in outputs:
        theirs[f"{name}.bias"] = ours[f"synthesis.{our}.bias"].reshape(1, 3, 1, 1)
    for name, our in layers + outputs:
        theirs[f"{name}.conv.weight"] = ours[f"synthesis.{our}.weight"][None]
        for part in ("weight", "bias"):
            theirs[f"{name}.conv.modulation.{part}"] = ours[f"synthesis.{our}.affine.{part}"]
    return theirs


def checkpoint(variant: str = "e4e", *, heads: int = NUM_WS, dataset: str = "ffhq_encode") -> dict[str, Any]:
    """Return what such a file holds when it is for editing alone."""
    encoder = {name: value for name, value in encoder_of(variant, heads).state_dict().items() if name != "latent_avg"}
    decoder = {f"decoder.{name}": value for name, value in decoder_of(generator()).items()}
    size = {"e4e": {"stylegan_size": 16}, "psp": {"output_size": 16}}[variant]
    opts = {"encoder_type": TYPES[variant], "start_from_latent_avg": True, "dataset_type": dataset, **size}
    return {"state_dict": encoder | decoder, "opts": opts, "latent_avg": average().repeat(heads, 1)}


def written(content: object, folder: Path, *, zipped: bool = True) -> object:
    """Save as torch does, and read what was saved."""
    path = folder / "model.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return read_torch_file(path)


def photos() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(7)) * 2 - 1


def assert_reads_as(tree: object, variant: str) -> None:
    found = read_inversion(tree, "model.pt")
    assert found.role == "inverter" and found.extra["layout"] == variant
    assert isinstance(found.module, InversionEncoder) and not found.module.training
    original = encoder_of(variant)
    assert found.config == original.config
    original.latent_avg.copy_(average().expand(NUM_WS, -1))
    expected, got = original.state_dict(), found.module.state_dict()
    assert expected.keys() == got.keys() and all(torch.equal(expected[name], got[name]) for name in expected)
    with torch.no_grad():
        torch.testing.assert_close(found.module.invert(photos()), original.invert(photos()))


@pytest.mark.parametrize("variant", ["e4e", "psp"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_an_encoder_is_read_to_the_bit(tmp_path: Path, variant: str, zipped: bool) -> None:
    assert_reads_as(written(checkpoint(variant), tmp_path, zipped=zipped), variant)


def test_options_may_be_the_namespace_of_a_command_line(tmp_path: Path) -> None:
    content = checkpoint("psp")
    content["opts"] = argparse.Namespace(**content["opts"], exp_dir="/home/somebody", learn_in_w=False)
    assert_reads_as(written(content, tmp_path), "psp")


def test_what_training_goes_on_with_is_ignored(tmp_path: Path) -> None:
    content = checkpoint()
    moments = torch.optim.Adam(encoder_of("e4e").parameters()).state_dict()
    content |= {"optimizer": moments, "global_step": 7, "best_val_loss": torch.tensor(0.5)}
    content |= {"discriminator_state_dict": {"conv.weight": torch.zeros(2)}, "prog_start": [1, 2]}
    assert_reads_as(written(content, tmp_path), "e4e")


def test_counters_that_old_files_lack_are_not_missed() -> None:
    content = checkpoint()
    for name in [name for name in content["state_dict"] if name.endswith("num_batches_tracked")]:
        del content["state_dict"][name]
    assert_reads_as(content, "e4e")


@pytest.mark.parametrize(
    "give",
    [lambda one: one, lambda one: one[None], lambda one: one.repeat(NUM_WS + 2, 1)],
    ids=["one", "a row", "more layers"],
)
def test_the_mean_code_may_be_given_once_or_for_each_layer(give: Callable[[Tensor], Tensor]) -> None:
    assert_reads_as(checkpoint() | {"latent_avg": give(average())}, "e4e")


def test_codes_may_count_from_zero() -> None:
    content = checkpoint()
    content["opts"]["start_from_latent_avg"] = False
    found = read_inversion(content, "model.pt")
    assert isinstance(found.module, InversionEncoder) and not found.module.latent_avg.any()


@pytest.mark.parametrize("variant", ["e4e", "psp"])
def test_heads_beyond_the_generators_layers_are_left_out(variant: str) -> None:
    found = read_inversion(checkpoint(variant, heads=8), "model.pt")
    assert isinstance(found.module, InversionEncoder) and found.module.num_ws == NUM_WS
    assert found.extra["heads_in_file"] == 8
    whole = encoder_of(variant, 8)
    whole.latent_avg.copy_(average().expand(8, -1))
    with torch.no_grad():
        torch.testing.assert_close(found.module.invert(photos()), whole.invert(photos())[:, :NUM_WS])


@pytest.mark.parametrize(("dataset", "num_ws"), [("cars_encode", 16), ("ffhq_encode", 18)])
def test_without_a_generator_cars_have_sixteen_codes(dataset: str, num_ws: int) -> None:
    content = checkpoint(heads=18, dataset=dataset)
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if k.startswith("encoder.")}
    found = read_inversion(content, "model.pt")
    assert isinstance(found.module, InversionEncoder) and found.module.num_ws == num_ws


def in_state(name: str, value: object) -> Change:
    return lambda content: content["state_dict"].__setitem__(name, value)


def without(part: str, name: str) -> Change:
    return lambda content: content[part].pop(name) if part else content.pop(name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("state_dict", "encoder.latlayer1.bias"), r"encoder\.latlayer1\.bias: expected \[8\], got nothing"),
        (in_state("encoder.latlayer3.bias", torch.zeros(8)), r"latlayer3\.bias: expected nothing, got \[8\]"),
        (
            in_state("encoder.body.2.res_layer.4.running_var", torch.zeros(7)),
            r"encoder\.body\.2\.res_layer\.4\.running_var: expected \[5\], got \[7\]",
        ),
        (
            in_state("encoder.input_layer.0.weight", torch.zeros(4, 19, 3, 3)),  # pSp from segmentations
            r"encoder\.input_layer\.0\.weight: expected \[4, 3, 3, 3\], got \[4, 19, 3, 3\]",
        ),
        (
            in_state("encoder.styles.0.linear.weight", torch.zeros(2000, 1)),  # a small file that asks for gigabytes
            r"encoder\.styles\.\d\.convs\.\d\.\w+: expected \[2000",
        ),
        (in_state("encoder.styles.0.linear.weight", torch.zeros(5000, 1)), "w_dim: .*2048"),
        (in_state("encoder.styles.0.linear.weight", torch.zeros(())), r"expected a layer's weights, got \[\]"),
        (in_state("encoder.styles.0.linear.weight", "text"), "linear.weight: expected a tensor, got str"),
        (in_state("encoder.body.0.shortcut_layer.0.weight", torch.zeros(1)), "widens at three blocks"),
        (without("state_dict", "encoder.body.0.res_layer.1.weight"), "expected a layer's weights, got nothing"),
        (lambda content: content.update(latent_avg=torch.zeros(NUM_WS, 9)), r"latent_avg: expected \[6, 8\], got"),
        (lambda content: content.update(latent_avg=torch.zeros(3, W_DIM)), r"latent_avg: expected .* got \[3, 8\]"),
        (lambda content: content.update(latent_avg=torch.zeros(())), r"latent_avg: expected \[6, 8\], got"),
        (lambda content: content.update(latent_avg=torch.zeros(1, 1, 8)), r"latent_avg: expected \[6, 8\], got \[1, 1"),
        (lambda content: content.update(latent_avg=torch.zeros(0, 8)), r"latent_avg: expected \[6, 8\], got \[0, 8"),
        (lambda content: content.update(latent_avg=[0.0]), "latent_avg: expected a tensor, got list"),
        (without("", "latent_avg"), "latent_avg: expected a tensor, got nothing"),
        (without("", "opts"), r"expected state_dict, opts and latent_avg, got the keys \['state_dict'"),
        (lambda content: content.update(state_dict=[]), "expected state_dict"),
        (without("opts", "encoder_type"), r"opts lack \['encoder_type'\]"),
        (lambda content: content["opts"].update(encoder_type="BackboneEncoder"), "encoder_type is 'BackboneEncoder'"),
        (lambda content: content["opts"].update(encoder_type=[1]), r"encoder_type is '<list>'"),
        (
            lambda content: content["opts"].update(start_from_latent_avg=torch.ones(2)),
            "start_from_latent_avg expected True or False, got Tensor",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: Change, says: str) -> None:
    content = checkpoint()
    change(content)
    with pytest.raises(InvalidCheckpoint, match=rf"^model\.pt: .*{says}"):
        read_inversion(content, "model.pt")


@pytest.mark.parametrize("tree", [None, [], {"state_dict": {}, "opts": {}}, torch.zeros(2)])
def test_other_trees_are_refused(tree: object) -> None:
    with pytest.raises(InvalidCheckpoint, match="Name an e4e or pSp file"):
        read_inversion(tree, "model.pt")


def test_options_that_would_fill_the_memory_as_text_are_not_shown() -> None:
    nested: list[object] = []
    for _ in range(60):
        nested = [nested, nested]
    content = checkpoint()
    content["opts"]["encoder_type"] = nested
    with pytest.raises(InvalidCheckpoint, match="encoder_type is '<list>'"):
        read_inversion(content, "model.pt")


# the generator inside


@pytest.mark.parametrize("variant", ["e4e", "psp"])
def test_the_generator_draws_the_same_pictures(variant: str) -> None:
    found = read_inversion_generator(checkpoint(variant), "model.pt")
    original = generator()
    assert found.role == "generator" and isinstance(found.module, StyleGAN2)
    z = torch.randn(2, W_DIM, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        expected = original.synthesize(original.map(z, truncation_psi=0.5))
        torch.testing.assert_close(found.module.synthesize(found.module.map(z, truncation_psi=0.5)), expected)


@pytest.mark.parametrize(
    ("dataset", "domain"),
    [
        ("ffhq_encode", {"name": "faces", "alignment": "ffhq", "crop": None}),
        ("cars_encode", {"name": "cars", "alignment": "none", "crop": [2, 14, 0, 16]}),  # as 64 to 448 of 512
        ("church_encode", None),
    ],
)
def test_the_domain_is_that_of_its_data_set(dataset: str, domain: dict[str, object] | None) -> None:
    found = read_inversion_generator(checkpoint(dataset=dataset), "model.pt")
    assert found.extra.get("domain") == domain


@pytest.mark.parametrize("wrong", [torch.zeros(()), torch.zeros(0, 8), torch.zeros(NUM_WS, 9), torch.zeros(1, 1, 8)])
def test_a_mean_code_of_another_shape_is_refused(wrong: Tensor) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"^model\.pt: "):
        read_inversion_generator(checkpoint() | {"latent_avg": wrong}, "model.pt")


def test_a_file_without_a_generator_says_so() -> None:
    content = checkpoint()
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if k.startswith("encoder.")}
    with pytest.raises(InvalidCheckpoint, match=r"no decoder\.\* tensors"):
        read_inversion_generator(content, "model.pt")


def test_both_parts_of_a_car_file_edit_a_photo(tmp_path: Path, tiny_models: ManipulatorConfig) -> None:
    tree = written(checkpoint("psp", heads=8, dataset="cars_encode"), tmp_path)
    for found in (read_inversion(tree, "model.pt"), read_inversion_generator(tree, "model.pt")):
        save_model(tmp_path / found.role, found.module, found.config, half=False, made_by="a test", extra=found.extra)
    models = tiny_models.model_copy(
        update={role: str(tmp_path / role) for role in ("generator", "inverter")} | {"num_slots": 1}
    )
    photo = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(photo, "PNG")
    settings = SHORT.override({"inversion_steps": 0, "num_steps": 0})
    edit = EditPreparer(read_model_facts(models)).check("a", settings, sound=noise(0), photo=photo.getvalue())
    result = do(Manipulator(models), edit)
    assert edit.photo is not None and edit.photo.shape == result.image.shape == (12, 16, 3)
    encoder = load_model(tmp_path / "inverter", device="cpu").module
    assert isinstance(encoder, InversionEncoder)
    image = torch.from_numpy(edit.photo / 127.5 - 1).float().permute(2, 0, 1)[None]
    np.testing.assert_allclose(result.ws, encoder.invert(image)[0].numpy(), rtol=1e-4, atol=1e-5)
