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
from soundguide.miniature.captions import PHRASES, TEMPLATES
from soundguide.miniature.clips import make_clip, scene_of
from soundguide.miniature.labels import LABELS
from soundguide.miniature.recordings import read_recordings
from soundguide.miniature.scenes import render
from soundguide.miniature.sounds import Ranges
from soundguide.miniature.training import Training, compiled
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


def synthesised(folder: Path) -> Sounds:
    """Synthesise the training clips on all cores, or take them from ``folder`` where an earlier run left them."""
    path = folder / "clips.npy"
    if not path.exists():
        logger.info("synthesising %d clips of %g s", NUM_CLIPS, CLIP_SECONDS)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "clips.tmp.npy"
        shape = (NUM_CLIPS, round(CLIP_SECONDS * AUDIO.log_mel.sample_rate))
        clips = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=shape)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            for row, clip in enumerate(pool.map(synthesised_clip, range(NUM_CLIPS), chunksize=19)):
                clips[row] = clip
        clips.flush()
        temporary.replace(path)
    waveforms = torch.from_numpy(np.load(path, mmap_mode="r+"))
    return Sounds(list(waveforms), torch.arange(len(waveforms)) % len(LABELS))


def synthesised_clip(index: int) -> NDArray[np.int16]:
    """Return the waveform of one training clip, ``[T]``."""
    ranges: Ranges = "train" if index < (1 - EDGE_SHARE) * NUM_CLIPS else "edge"
    clip = make_clip(index, seed=0, seconds=CLIP_SECONDS, ranges=ranges)
    return np.round(clip.waveform * 32767).astype(np.int16)


def recorded(folder: Path) -> Sounds:
    """Read the recordings to train on of a folder with index.csv."""
    recordings = read_recordings(folder, split="train/")
    waveforms = [decode_audio(item.sound, sample_rate=AUDIO.log_mel.sample_rate) for item in recordings]
    tensors = [torch.from_numpy(np.round(np.clip(w, -1, 1) * 32767).astype(np.int16)) for w in waveforms]
    return Sounds(tensors, torch.tensor([LABELS.index(item.label) for item in recordings]))


@torch.no_grad()
def text_bank(image_text: OpenClipEncoder) -> Tensor:
    """Return embeddings of captions, ``[num_labels, captions, E]``; every second one is the plain class name."""
    rows = []
    for label in LABELS:
        texts = [template.format(words) for words in PHRASES[label] for template in TEMPLATES[1:4]]
        rows.append(image_text.encode_text(texts + [label] * len(texts)))
    return torch.stack(rows)


@torch.no_grad()
def image_bank(image_text: OpenClipEncoder, generator: torch.Generator) -> Tensor:
    """Return embeddings of rendered scenes in which each label sounds, ``[num_labels, SCENES_PER_LABEL, E]``."""
    rows = []
    for label in LABELS:
        factors = torch.stack(
            [scene_of(label, 0.5 + 0.5 * k / SCENES_PER_LABEL, generator) for k in range(SCENES_PER_LABEL)]
        )
        rows.append(image_text.encode_image(render(factors, image_text.resolution).images))
    return torch.stack(rows)


def train_audio(
    folder: Path, image_text: OpenClipEncoder, *, recordings: Path | None = None, num_steps: int = 5800
) -> SwinAudioEncoder:
    """Train (or go on training) the sound encoder in ``folder``; return the averaged one.

    ``recordings``: a folder with index.csv whose 'train' rows join the synthesised sounds; without it the encoder
    knows synthesis only.
    """
    model = SwinAudioEncoder(AUDIO)
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
    sources = [synthesised(folder)]
    real = recorded(recordings) if recordings is not None else None
    if real is None:
        logger.warning(
            "no recordings: the encoder learns from synthesised sounds alone and will know real ones less well"
        )
    else:
        sources.append(real)
    texts, images = text_bank(image_text), image_bank(image_text, training.generator)
    num_real = round(BATCH * REAL_SHARE) if real is not None else 0
    module.train()
    encode = compiled(model.encode_log_mel, num_steps=num_steps)
    for _ in training.steps():
        waveforms, labels = sources[0].draw(BATCH - num_real, model.num_samples, training.generator)
        if num_real and real is not None:
            real_waveforms, real_labels = real.draw(num_real, model.num_samples, training.generator)
            waveforms, labels = torch.cat([waveforms, real_waveforms]), torch.cat([labels, real_labels])
        log_mel = model.log_mel(waveforms)
        log_mel = other_surroundings(log_mel, AUDIO.log_mel, training.generator)
        log_mel = spec_augment(log_mel, generator=training.generator, fill=AUDIO.silence)
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
