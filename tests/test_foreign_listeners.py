"""Worlds that hear with the encoders of others: facts, labels, edits, and sounds that are short, long or silent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_edits import SHORT, do, with_sound

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.clips.facts import read_encoder_facts
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidAudio, InvalidConfig
from soundguide.manipulator import Manipulator
from soundguide.model_facts import read_model_facts
from soundguide.models.audioclip import AudioClipConfig, AudioClipEncoder
from soundguide.models.checkpoint import save_model
from soundguide.models.kinds import AudioConfig, AudioModel
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder
from soundguide.models.wav2clip import Wav2ClipConfig, Wav2ClipEncoder
from soundguide.world import World

RATES = {"lee_resnet18": 44_100, "wav2clip": 16_000, "audioclip": 44_100}


def encoder(kind: str) -> tuple[AudioModel, AudioConfig]:
    match kind:
        case "lee_resnet18":
            lee = LeeAudioConfig(embed_dim=16, channels=(4, 4, 4, 4))
            return LeeAudioEncoder(lee), lee
        case "wav2clip":
            wav2clip = Wav2ClipConfig(window_seconds=0.4, embed_dim=16, channels=(4, 4, 4, 4))
            return Wav2ClipEncoder(wav2clip), wav2clip
        case _:
            sizes = {"depths": (1, 1, 1, 1), "channels": (16, 16, 16, 16)}
            audioclip = AudioClipConfig.model_validate({"window_seconds": 0.4, "embed_dim": 16} | sizes)
            return AudioClipEncoder(audioclip), audioclip


@pytest.fixture(scope="module", params=list(RATES))
def models(
    request: pytest.FixtureRequest, tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory
) -> ManipulatorConfig:
    folder = tmp_path_factory.mktemp("audio") / request.param
    module, config = encoder(request.param)
    save_model(folder, module, config, half=False, made_by="a test")
    return tiny_models.model_copy(update={"audio": str(folder), "num_slots": 1})


@pytest.fixture(scope="module")
def world(models: ManipulatorConfig) -> World:
    return World(models)


def sound(seconds: float, *, level: float = 0.3) -> bytes:
    samples = np.random.default_rng(3).uniform(-level, level, round(seconds * 22_050)).astype(np.float32)
    return encode_wav(samples, 22_050)


def test_the_rate_can_be_read_without_the_model(models: ManipulatorConfig) -> None:
    rate = RATES[Path(models.audio).name]
    assert read_model_facts(models).sample_rate == rate
    assert read_encoder_facts(image_text=models.image_text, audio=models.audio).sample_rate == rate


@pytest.mark.parametrize("seconds", [0.12, 1.0])
def test_short_and_long_sounds_are_windows_of_the_encoder(world: World, seconds: float) -> None:
    heard = world.listener.hear(sound(seconds))
    assert heard.embedding.norm().item() == pytest.approx(1, abs=1e-5) and heard.level_db < 0
    samples = decode_audio(sound(seconds), sample_rate=world.audio.sample_rate)
    if len(samples) < world.audio.num_samples:  # repeated until it fills one window
        window = torch.from_numpy(np.resize(samples, world.audio.num_samples))[None]
        with torch.no_grad():
            expected = world.audio.encode_audio(window)[0]
        torch.testing.assert_close(heard.embedding, expected, rtol=1e-4, atol=1e-5)


def test_silence_is_an_error_of_its_row(world: World) -> None:
    with pytest.raises(InvalidAudio, match="silent"):
        world.listener.hear(sound(1.0, level=0.0))


def test_labels_are_those_of_the_config(models: ManipulatorConfig, world: World) -> None:
    assert world.listener.labels == ()  # encoders of others name none
    named = World(models.model_copy(update={"labels": ("rain", "wind")}))
    assert {label for label, _ in named.listener.top(named.listener.embed(sound(0.5)))} == {"rain", "wind"}


def test_an_edit_is_guided(models: ManipulatorConfig) -> None:
    result = do(Manipulator(models), with_sound("a", sound(0.5), SHORT.override({"learning_rate": 0.5})))
    assert result.similarity_after > result.similarity_before and result.labels == ()


def test_encoders_of_two_spaces_are_refused(tiny_models: ManipulatorConfig, tmp_path: Path) -> None:
    config = Wav2ClipConfig(embed_dim=12, channels=(4, 4, 4, 4))
    save_model(tmp_path / "audio", Wav2ClipEncoder(config), config, half=False, made_by="a test")
    with pytest.raises(InvalidConfig, match="in 16 dimensions and audio in 12"):
        World(tiny_models.model_copy(update={"audio": str(tmp_path / "audio")}))


def test_another_role_is_refused(tiny_models: ManipulatorConfig) -> None:
    with pytest.raises(InvalidConfig, match="kind 'open_clip', which has another role"):
        World(tiny_models.model_copy(update={"audio": tiny_models.image_text}))
