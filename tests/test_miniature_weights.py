"""The packaged models: they load, fit together, and a sound changes a picture as it should."""

import asyncio
import json

import numpy as np
import pytest
import torch

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS
from soundguide.miniature.report.judge import load_reader
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS, render
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, mix, synthesise
from soundguide.models.manifest import resolve_model
from soundguide.records import ManipulatedEdit, PreparedEdit
from soundguide.world import picture

WEIGHTS = resolve_model("miniature", "generator").parent


@pytest.fixture(scope="module")
def manipulator() -> Manipulator:
    return Manipulator(ManipulatorConfig(device="cpu"))


def test_the_weights_are_small_and_say_how_to_remake_them() -> None:
    roles = ("generator", "image_text", "audio", "reader")
    assert sum(path.stat().st_size for role in roles for path in (WEIGHTS / role).iterdir()) < 20e6
    for role in roles:
        made_by = json.loads((WEIGHTS / role / "config.json").read_text())["made_by"]
        assert made_by.startswith(("soundguide miniature train", "jobs/pretrain_encoder.py --config jobs/configs/"))


@pytest.mark.parametrize("label", LABELS)
def test_the_reader_tells_a_scene_with_an_event_from_the_same_scene_without(label: str) -> None:
    reader = load_reader(resolve_model("miniature", "reader"))
    factors = torch.zeros(16, NUM_FACTORS)
    factors[:, : len(CONTINUOUS)] = torch.rand(16, len(CONTINUOUS), generator=torch.Generator().manual_seed(0))
    without = reader(render(factors, 64).images)[1][:, LABELS.index(label)]
    factors[:, len(CONTINUOUS) + LABELS.index(label)] = 0.9
    with_it = reader(render(factors, 64).images)[1][:, LABELS.index(label)]
    assert (with_it > without + 1).float().mean() > 0.9


def edit(manipulator: Manipulator, **target: object) -> ManipulatedEdit:
    prepared = PreparedEdit("edit", EditSettings().override({"text": target.get("text", "")}), seed=28)
    if "sound" in target:
        waveform = synthesise(str(target["sound"]), seconds=4, intensity=0.9, rng=np.random.default_rng(0))
        sound = encode_wav(mix((waveform,), (float(str(target.get("gain_db", 0))),)), SAMPLE_RATE_HZ)
        prepared = PreparedEdit("edit", EditSettings(), sound=sound, seed=28)
    return asyncio.run(manipulator.edit(prepared))


@pytest.mark.parametrize("target", [{"sound": "thunderstorm"}, {"text": "fireworks exploding"}])
def test_what_is_heard_or_read_appears_in_the_picture(manipulator: Manipulator, target: dict[str, object]) -> None:
    result = edit(manipulator, **target)
    label = LABELS.index(str(next(iter(target.values()))))
    reader = load_reader(resolve_model("miniature", "reader"))
    cpu = torch.device("cpu")
    before, after = (float(reader(picture(pixels, cpu)[None])[1][0, label]) for pixels in (result.source, result.image))
    assert result.similarity_after > result.similarity_before + 0.3
    assert after > before + 2


def test_the_louder_the_rain_the_heavier(manipulator: Manipulator) -> None:
    reader, cpu = load_reader(resolve_model("miniature", "reader")), torch.device("cpu")
    edits = [edit(manipulator, sound="raining", gain_db=gain) for gain in (-20, -10, 0)]
    logits = [reader(picture(each.image, cpu)[None])[1][0] for each in edits]
    seen = [float(each[LABELS.index("raining")]) for each in logits]
    assert seen[0] < seen[1] < seen[2]
    assert [round(each.level_db - edits[0].level_db) for each in edits] == [0, 10, 20]


def test_the_sound_encoder_hears_what_the_synthesiser_plays(manipulator: Manipulator) -> None:
    heard = []
    for index, label in enumerate(LABELS):
        waveform = synthesise(label, seconds=4, intensity=0.9, rng=np.random.default_rng((1, index)))
        embedding = manipulator.world.listener.embed(encode_wav(waveform, SAMPLE_RATE_HZ))
        heard.append(manipulator.world.listener.top(embedding)[0][0] == label)
    assert np.mean(heard) > 0.7
