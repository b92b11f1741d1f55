"""Train the miniature's sound encoder into its CLIP: audio-text and audio-image contrast.

A plain loop in one process, on synthesised sounds and on real recordings. The full training of the paper (all four
losses, data-parallel, any data) is the job of `jobs/`.
"""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from soundguide.audio.decode import decode_audio
from soundguide.audio.frontend import LogMelConfig, spec_augment
from soundguide.audio.surroundings import other_surroundings
from soundguide.contrastive import INITIAL_LOG_SCALE, clamp_logit_scale, info_nce
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.recordings import read_recordings
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, Ranges
from soundguide.miniature.training import Training, compiled
from soundguide.miniature.vocabulary import Vocabulary
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.image_text import OpenClipEncoder
from soundguide.pretraining.pretrainer import hidden_matrices

AUDIO = SwinAudioConfig(
    log_mel=LogMelConfig(
        sample_rate=16_000, n_fft=1024, hop_samples=500, num_mels=64, min_hz=40, max_hz=8000, mean_db=-56, std_db=15
    ),
    window_seconds=4.0,
    embed_dim=128,
    patch_size=8,
    embed_channels=96,
    depths=(2, 4),
    num_heads=(4, 8),
    window_size=8,
    drop_path=0.1,
)

BATCH = 96
NUM_CLIPS = 22_800  # synthesised once per training, 1200 of each label; cuts, colours and masks differ at every step
EDGE_SHARE = 1 / 3  # of them has all parameters near the ends of their ranges
CLIP_SECONDS = 6.0
SCENES_PER_LABEL = 48
REAL_SHARE = 0.35

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sounds:
    """Waveforms as int16 ``[N, T]`` or ragged, with the index of each one's label."""

    waveforms: list[Tensor]
    labels: Tensor

    def draw(self, num: int, num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut ``num`` windows: a label in turn of chance, then one of its sounds, then a place; short sounds repeat."""
        present = self.labels.unique()
        labels = present[torch.randint(len(present), (num,), generator=generator)]
        windows = []
        for label in labels:
            rows = torch.nonzero(self.labels == label).flatten()
            sound = self.waveforms[int(rows[int(torch.randint(len(rows), (1,), generator=generator))])]
            if len(sound) < num_samples:
                sound = sound.repeat(-(-num_samples // len(sound)))
            start = int(torch.randint(len(sound) - num_samples + 1, (1,), generator=generator))
            windows.append(sound[start : start + num_samples].float() / 32768)
        return torch.stack(windows), labels


@dataclass(frozen=True, slots=True)
class SynthesisedSet:
    """The ``num_clips`` sounds of a world that are synthesised to train on; some have extreme parameters alone."""

    domain: Domain
    num_clips: int

    def clip(self, index: int) -> NDArray[np.int16]:
        """Return the waveform of one clip, ``[T]``."""
        ranges: Ranges = "train" if index < (1 - EDGE_SHARE) * self.num_clips else "edge"
        clip = self.domain.make_clip(index, seed=0, seconds=CLIP_SECONDS, ranges=ranges)
        return np.round(clip.waveform * 32767).astype(np.int16)


def synthesised(folder: Path, wanted: SynthesisedSet) -> Sounds:
    """Synthesise the training clips on all cores, or take them from ``folder`` where an earlier run left them."""
    path = folder / "clips.npy"
    if not path.exists():
        logger.info("synthesising %d clips of %g s", wanted.num_clips, CLIP_SECONDS)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "clips.tmp.npy"
        shape = (wanted.num_clips, round(CLIP_SECONDS * SAMPLE_RATE_HZ))
        clips = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=shape)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            for row, clip in enumerate(pool.map(wanted.clip, range(wanted.num_clips), chunksize=19)):
                clips[row] = clip
        clips.flush()
        temporary.replace(path)
    waveforms = torch.from_numpy(np.load(path, mmap_mode="r+"))
    return Sounds(list(waveforms), torch.arange(len(waveforms)) % len(wanted.domain.labels))


def recorded(folder: Path, labels: tuple[str, ...]) -> Sounds:
    """Read the recordings to train on of a folder with index.csv."""
    recordings = read_recordings(folder, split="train/", labels=labels)
    waveforms = [decode_audio(item.sound, sample_rate=SAMPLE_RATE_HZ) for item in recordings]
    tensors = [torch.from_numpy(np.round(np.clip(w, -1, 1) * 32767).astype(np.int16)) for w in waveforms]
    return Sounds(tensors, torch.tensor([labels.index(item.label) for item in recordings]))


@torch.no_grad()
def text_bank(image_text: OpenClipEncoder, vocabulary: Vocabulary) -> Tensor:
    """Return embeddings of captions, ``[num_labels, captions, E]``; every second one is the plain class name."""
    rows = []
    for label in vocabulary.labels:
        phrases = vocabulary.phrases[label]
        texts = [template.format(words) for words in phrases for template in vocabulary.templates[1:4]]
        rows.append(image_text.encode_text(texts + [label] * len(texts)))
    return torch.stack(rows)


@torch.no_grad()
def image_bank(image_text: OpenClipEncoder, generator: torch.Generator, domain: Domain) -> Tensor:
    """Return embeddings of rendered pictures in which each label sounds, ``[num_labels, SCENES_PER_LABEL, E]``."""
    rows = []
    for label in domain.labels:
        strengths = [0.5 + 0.5 * k / SCENES_PER_LABEL for k in range(SCENES_PER_LABEL)]
        factors = torch.stack([domain.picture_of(label, strength, generator) for strength in strengths])
        rows.append(image_text.encode_image(domain.render(factors, image_text.resolution).images))
    return torch.stack(rows)


def train_audio(
    folder: Path,
    image_text: OpenClipEncoder,
    *,
    domain: Domain = LANDSCAPE,
    config: SwinAudioConfig = AUDIO,
    num_clips: int = NUM_CLIPS,
    recordings: Path | None = None,
    num_steps: int = 5800,
) -> SwinAudioEncoder:
    """Train (or go on training) the sound encoder of a world in ``folder``; return the averaged one.

    ``recordings``: a folder with index.csv whose 'train' rows join the synthesised sounds; without it the encoder
    knows synthesis only.
    """
    model = SwinAudioEncoder(config)
    scales = nn.Parameter(torch.full((2,), INITIAL_LOG_SCALE))
    module = nn.ModuleDict({"encoder": model, "scales": nn.ParameterList([scales])})
    training = Training(
        module,
        folder,
        num_steps=num_steps,
        learning_rate=1e-3,
        matrices=hidden_matrices(model),
        matrix_rate=3e-3,
        weight_decay=0.02,
        betas=(0.9, 0.98),
        average_over=300,
    )
    sources = [synthesised(folder, SynthesisedSet(domain, num_clips))]
    real = recorded(recordings, domain.labels) if recordings is not None else None
    if real is None:
        logger.warning(
            "no recordings: the encoder learns from synthesised sounds alone and will know real ones less well"
        )
    else:
        sources.append(real)
    texts = text_bank(image_text, domain.vocabulary)
    images = image_bank(image_text, training.generator, domain)
    num_real = round(BATCH * REAL_SHARE) if real is not None else 0
    module.train()
    encode = compiled(model.encode_log_mel, num_steps=num_steps)
    for _ in training.steps():
        waveforms, labels = sources[0].draw(BATCH - num_real, model.num_samples, training.generator)
        if num_real and real is not None:
            real_waveforms, real_labels = real.draw(num_real, model.num_samples, training.generator)
            waveforms, labels = torch.cat([waveforms, real_waveforms]), torch.cat([labels, real_labels])
        log_mel = model.log_mel(waveforms)
        log_mel = other_surroundings(log_mel, config.log_mel, training.generator)
        log_mel = spec_augment(log_mel, generator=training.generator, fill=config.silence)
        audio = encode(log_mel)
        text = texts[labels, torch.randint(texts.shape[1], (BATCH,), generator=training.generator)]
        image = images[labels, torch.randint(images.shape[1], (BATCH,), generator=training.generator)]
        same = labels[:, None] == labels[None]
        text_loss = info_nce(audio, text, logit_scale=scales[0], same=same)
        image_loss = info_nce(audio, image, logit_scale=scales[1], same=same)
        training.update(text_loss + image_loss, text=text_loss.detach(), image=image_loss.detach())
        clamp_logit_scale(scales)
    averaged = training.averaged.get_submodule("encoder")
    assert isinstance(averaged, SwinAudioEncoder)
    return averaged.eval().requires_grad_(False)
