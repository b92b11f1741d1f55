"""Hearing: windows pooled by loudness, labels by likeness, and no autograd."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import SAMPLE_RATE, write_tiny_world
from torch import Tensor

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.errors import InvalidAudio
from soundguide.listen import LABEL_SCALE, Listener
from soundguide.world import World

WINDOW = SAMPLE_RATE // 2  # of the tiny sound encoder, samples


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(write_tiny_world(tmp_path_factory.mktemp("world")))


def noise(num_samples: int, *, level: float = 0.3, seed: int = 0) -> bytes:
    samples = np.random.default_rng(seed).uniform(-level, level, num_samples)
    return encode_wav(samples.astype(np.float32), SAMPLE_RATE)


def encode(world: World, samples: np.ndarray) -> Tensor:
    with torch.no_grad():
        return world.audio.encode_audio(torch.from_numpy(np.stack([samples])))[0]


def test_sound_of_one_window_is_what_the_encoder_says(world: World) -> None:
    sound = noise(WINDOW)
    expected = encode(world, decode_audio(sound, sample_rate=SAMPLE_RATE))
    torch.testing.assert_close(world.listener.embed(sound), expected, rtol=1e-5, atol=1e-6)


def test_long_sound_is_the_mean_of_half_overlapping_windows_by_loudness(world: World) -> None:
    sound = noise(3 * WINDOW)
    samples = decode_audio(sound, sample_rate=SAMPLE_RATE)
    total = torch.zeros(16, dtype=torch.float64)
    for start in range(0, 2 * WINDOW + 1, WINDOW // 2):
        window = samples[start : start + WINDOW]
        total += encode(world, window).double() * float(np.sqrt((window.astype(np.float64) ** 2).mean()))
    torch.testing.assert_close(world.listener.embed(sound), (total / total.norm()).float(), rtol=1e-4, atol=1e-5)


def test_windows_follow_each_other_without_overlap(world: World) -> None:
    sound = noise(3 * WINDOW)
    samples = decode_audio(sound, sample_rate=SAMPLE_RATE)
    expected = torch.stack([encode(world, samples[i * WINDOW : (i + 1) * WINDOW]) for i in range(3)])
    torch.testing.assert_close(world.listener.embed_windows(sound), expected, rtol=1e-4, atol=1e-5)


def test_hearing_builds_no_graph(world: World) -> None:
    with torch.enable_grad():
        assert not world.listener.embed(noise(WINDOW)).requires_grad
        assert not world.listener.embed_windows(noise(WINDOW)).requires_grad
        assert not world.listener.label_embeddings.requires_grad


def test_label_whose_text_is_nearest_comes_first(world: World) -> None:
    listener = world.listener
    for index, label in enumerate(listener.labels):
        top = listener.top(listener.label_embeddings[index])
        assert top[0][0] == label
        assert [p for _, p in top] == sorted((p for _, p in top), reverse=True)


def test_probabilities_are_a_softmax_of_cosines(world: World) -> None:
    listener = world.listener
    embedding = listener.embed(noise(WINDOW))
    cosines = [float(embedding @ world.embed_text(label)) for label in listener.labels]
    expected = np.exp(LABEL_SCALE * np.array(cosines))
    np.testing.assert_allclose(listener.probabilities(embedding), expected / expected.sum(), rtol=1e-4)


def test_listener_without_labels_names_nothing(world: World) -> None:
    listener = Listener(world.audio, world.image_text, (), device=world.device)
    assert listener.top(listener.embed(noise(WINDOW))) == ()


@pytest.mark.parametrize("sound", [b"", b"not a sound", noise(WINDOW, level=0.0)], ids=["empty", "text", "silent"])
def test_what_cannot_be_heard_is_an_invalid_sound(world: World, sound: bytes) -> None:
    with pytest.raises(InvalidAudio):
        world.listener.embed(sound)


def test_files_are_heard_as_their_bytes_are(world: World, tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(noise(WINDOW))
    with path.open("rb") as file:
        assert torch.equal(world.listener.embed(file), world.listener.embed(path.read_bytes()))
