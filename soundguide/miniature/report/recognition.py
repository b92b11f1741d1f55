"""What the sound encoder hears, zero-shot: held-out synthesised sounds in held-out rooms, and real recordings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.audio.decode import encode_wav
from soundguide.listen import Listener
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.recordings import Recording
from soundguide.miniature.report.figures import Findings, Json, Target
from soundguide.miniature.report.measures import mean, vote
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, Ranges, over, recording_chain, room
from soundguide.world import World

CLIPS_PER_LABEL = 20
FAINTEST_CLIP = 0.4  # intensity
BACKGROUND_DB = (-12.0, -9.0)  # another sound, against the clip's own RMS; training never has it above -12

_CLIP_STREAM, _EDIT_STREAM = 1, 2  # so that no edit is guided by a sound that recognition was measured on


def listener_of(world: World, domain: Domain = LANDSCAPE) -> Listener:
    """Return a listener that tells all labels of a domain apart, whatever the world's own listener names."""
    return Listener(world.audio, world.image_text, domain.labels, device=world.device)


def held_out_clips(
    number: int, *, seconds: float, seed: int, microphones: Ranges = "train", domain: Domain = LANDSCAPE
) -> list[bytes]:
    """Return one WAV of each label: every sound, room and background level outside the training ranges.

    ``number`` tells sets apart. The background of each sound is the sound of another label, or what the domain has
    around its sounds, at a held-out level; with ``microphones`` "held_out" the microphone is one that training never
    has, too.
    """
    rngs = [np.random.default_rng([_CLIP_STREAM, seed, index, number]) for index in range(len(domain.labels))]
    named = zip(domain.labels, rngs, strict=True)
    dry = [_synthesise(label, rng, FAINTEST_CLIP, seconds, domain) for label, rng in named]
    clips = []
    for index, rng in enumerate(rngs):
        placed = room(dry[index], rng=rng, ranges="held_out")
        if domain.around is None:
            other = dry[(index + int(rng.integers(1, len(dry)))) % len(dry)]
        else:
            other = domain.around(seconds=seconds, intensity=1.0, rng=rng, ranges="held_out")
        mixed = over(placed, other, float(rng.uniform(*BACKGROUND_DB)))
        heard = recording_chain(mixed, rng=rng, ranges=microphones)
        clips.append(encode_wav(heard, SAMPLE_RATE_HZ))
    return clips


@lru_cache(maxsize=512)  # settings are tuned on the same sounds again and again
def guiding_sound(label: str, number: int, *, seconds: float, seed: int, domain: Domain = LANDSCAPE) -> bytes:
    """Return a loud, clean WAV of ``label``, its parameters outside the training ranges, to edit with."""
    rng = np.random.default_rng([_EDIT_STREAM, seed, domain.labels.index(label), number])
    return encode_wav(_synthesise(label, rng, 0.8, seconds, domain), SAMPLE_RATE_HZ)


def measure_synthesised(
    listener: Listener, *, seed: int, clips_per_label: int = CLIPS_PER_LABEL, domain: Domain = LANDSCAPE
) -> Findings:
    """Name held-out clips of the encoder's length by the nearest class name."""
    heard = _named(listener, "train", seed=seed, clips_per_label=clips_per_label, domain=domain)
    elsewhere = _named(listener, "held_out", seed=seed, clips_per_label=clips_per_label, domain=domain)
    labels = domain.labels
    truth = torch.arange(len(labels))
    mistaken = {label: heard[index][heard[index] != index] for index, label in enumerate(labels)}
    details: dict[str, Json] = {
        "top1_by_label": dict(zip(labels, (heard == truth[:, None]).float().mean(1).tolist(), strict=True)),
        "most_often_mistaken_for": {
            label: labels[int(wrong.mode().values)] for label, wrong in mistaken.items() if len(wrong)
        },
        "top1_through_other_microphones": float((elsewhere == truth[:, None]).float().mean()),
    }
    return Findings({"sound_top1_synthesised": float((heard == truth[:, None]).float().mean())}, details)


def _named(listener: Listener, microphones: Ranges, *, seed: int, clips_per_label: int, domain: Domain) -> Tensor:
    """Return the labels that are heard in held-out clips of each label, ``[num_labels, clips_per_label]``."""
    seconds = listener.audio.num_samples / listener.audio.sample_rate
    heard = []
    for number in range(clips_per_label):
        clips = held_out_clips(number, seconds=seconds, seed=seed, microphones=microphones, domain=domain)
        embeddings = torch.stack([listener.embed(clip) for clip in clips])
        heard.append(listener.probabilities(embeddings).argmax(1).cpu())
    return torch.stack(heard, 1)


def measure_recordings(listener: Listener, recordings: Sequence[Recording]) -> Findings:
    """Name recordings by the vote of their windows; the figure counts labels: macro accuracy times their number."""
    votes: dict[str, list[float]] = {}
    windows: dict[str, list[float]] = {}
    heard: dict[str, Json] = {}
    for item in recordings:
        probabilities = window_probabilities(listener, item.sound)
        index, chosen = listener.labels.index(item.label), vote(probabilities)
        share = float((probabilities.argmax(1) == index).float().mean())
        votes.setdefault(item.label, []).append(float(chosen == index))
        windows.setdefault(item.label, []).append(share)
        heard[item.name] = {
            "label": item.label,
            "vote": listener.labels[chosen],
            "windows_right": share,
            "windows": len(probabilities),
        }
    right = sum(mean(values) for values in votes.values())
    details: dict[str, Json] = {
        "labels_present": len(votes),
        "vote_accuracy_macro": right / len(votes),
        "window_accuracy_macro": mean([mean(values) for values in windows.values()]),
        "recordings": heard,
    }
    targets: dict[str, Target] = {"sound_labels_right_recordings": 5 * len(votes) / 9}
    return Findings({"sound_labels_right_recordings": right}, details, targets)


def window_probabilities(listener: Listener, sound: bytes) -> Tensor:
    """Return the probabilities of all labels for each window of a sound, ``[N, num_labels]``."""
    return listener.probabilities(listener.embed_windows(sound)).cpu()


def _synthesise(
    label: str, rng: np.random.Generator, faintest: float, seconds: float, domain: Domain
) -> NDArray[np.float32]:
    intensity = float(rng.uniform(faintest, 1.0))
    return domain.synthesise(label, seconds=seconds, intensity=intensity, rng=rng, ranges="held_out")
