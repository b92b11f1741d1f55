"""Worlds of random weights whose seeds are scenes or faces, so small that the miniature's report takes seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_faces import write_identity

from soundguide.audio.frontend import LogMelConfig
from soundguide.config import ManipulatorConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.report.recognition import guiding_sound
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.checkpoint import save_model
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config


def random_manipulator(folder: Path) -> Manipulator:
    """Return a manipulator of random 16 px models, saved in `folder`."""
    generator = StyleGAN2Config(resolution=16, z_dim=Z_DIM, w_dim=8, mapping_layers=2, channels=(8, 8, 8))
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    image_text = OpenClipConfig(model_config_json={"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    log_mel = LogMelConfig(sample_rate=8_000, n_fft=256, hop_samples=128, num_mels=16, max_hz=4_000.0)
    audio = SwinAudioConfig(
        log_mel=log_mel, window_seconds=0.5, embed_dim=16, embed_channels=8, depths=(1,), num_heads=(2,), window_size=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {
            "generator": (StyleGAN2(generator), generator),
            "image_text": (OpenClipEncoder(image_text), image_text),
            "audio": (SwinAudioEncoder(audio), audio),
        }
    for role, (module, config) in made.items():
        save_model(folder / role, module, config, half=False, made_by="a test")
    return Manipulator(ManipulatorConfig(**{role: str(folder / role) for role in made}, device="cpu", num_slots=4))


def random_face_manipulator(folder: Path) -> Manipulator:
    """Return a manipulator of random 16 px models with a face encoder that sees whole pictures, saved in `folder`."""
    blind = random_manipulator(folder)
    seen = torch.stack([blind.world.look(blind.world.code(seed, None, 1.0))[0] for seed in range(16)])
    identity = write_identity(folder / "identity", seen=seen, crop="whole")
    return Manipulator(blind.config.model_copy(update={"identity": str(identity)}))


def random_reader(domain: Domain = LANDSCAPE) -> SceneReader:
    """Return a narrow reader that has seen nothing."""
    num_factors, num_labels = len(domain.continuous), len(domain.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        reader = SceneReader((8, 8, 8, 8), num_factors=num_factors, num_labels=num_labels)
    return reader.eval().requires_grad_(False)


def write_recordings(folder: Path) -> Path:
    """Write two recordings of church bells, one of rain, and one that is for training; return their folder."""
    rows = ["file,label,source,licence"]
    for name, label in (
        ("val/bells-1.wav", "church bells"),
        ("val/bells-2.wav", "church bells"),
        ("val/rain.wav", "raining"),
        ("train/rain.wav", "raining"),
    ):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(guiding_sound(label, len(rows), seconds=1.2, seed=0))
        rows.append(f"{name},{label},here,CC0")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder
