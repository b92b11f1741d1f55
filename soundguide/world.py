"""The models of one world, loaded and frozen, and the few things that are asked of them outside the optimisation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidConfig, InvalidLatent, InvalidSettings
from soundguide.listen import Listener
from soundguide.models.checkpoint import load_model, resolve_model
from soundguide.models.protocols import AudioEncoder, Generator, IdentityEncoder, ImageTextEncoder

NUM_SCALE_SEEDS = 2048  # codes whose standard deviation is the unit of the optimiser's steps
NUM_START_SEEDS = 256  # pictures among which an inversion looks for its start


class World:
    """Generator, image and text encoder, sound encoder and, where it is named, identity encoder.

    ``step_scale`` ``[D]``: standard deviation of w in each dimension. ``digests``: SHA-256 of the weights by role. All networks are frozen and no
    method builds a graph. Raises `InvalidCheckpoint` or `InvalidConfig` where the models are missing or do not fit together.
    """

    generator: Generator
    image_text: ImageTextEncoder
    audio: AudioEncoder

    def __init__(self, config: ManipulatorConfig) -> None:
        self.device = torch.device(_device(config.device))
        generator = load_model(resolve_model(config.generator, "generator"), device=self.device)
        image_text = load_model(resolve_model(config.image_text, "image_text"), device=self.device)
        audio = load_model(resolve_model(config.audio, "audio"), device=self.device)
        self.generator, self.image_text, self.audio = generator.module, image_text.module, audio.module
        self.identity: IdentityEncoder | None = None
        if config.identity:
            raise InvalidConfig(f"identity: no identity encoder can be loaded yet, got {config.identity!r}. Leave it empty.")
        if self.image_text.embed_dim != self.audio.embed_dim:
            raise InvalidConfig(
                f"image_text embeds in {self.image_text.embed_dim} dimensions and audio in {self.audio.embed_dim}. "
                "Use encoders that were trained into one space."
            )
        self.digests = {"generator": generator.sha256, "image_text": image_text.sha256, "audio": audio.sha256}
        self.listener = Listener(self.audio, self.image_text, config.labels or audio.labels, device=self.device)
        self.step_scale = self._measure_step_scale()

    @property
    def num_ws(self) -> int:
        """Layers of a code."""
        return self.generator.num_ws

    @property
    def resolution(self) -> int:
        """Side of the generator's pictures, pixels."""
        return self.generator.resolution

    @torch.no_grad()
    def code(self, seed: int | None, latent: NDArray[np.float32] | None, truncation_psi: float) -> Tensor:
        """Return the code ``[L, D]`` of a seed, or a given one."""
        if latent is not None:
            shape = (self.generator.num_ws, self.generator.w_dim)
            if latent.shape != shape:
                raise InvalidLatent(f"latent is {latent.shape}, this generator's codes are {shape}. Use a code of this generator.")
            return torch.from_numpy(latent.copy()).to(self.device)
        if seed is None:
            raise InvalidSettings("no source was given. Give a seed, a photo or a latent code.")
        return self.generator.map(seeded_z(seed, self.generator.z_dim).to(self.device), truncation_psi=truncation_psi)[0]

    @torch.no_grad()
    def look(self, ws: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture ``[3, H, W]`` of a code ``[L, D]``, and its embedding ``[E]``."""
        images = self.generator.synthesize(ws[None])
        return images[0], self.image_text.encode_image(images.clamp(-1, 1))[0]

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """Return the embedding ``[E]`` of a text."""
        return self.image_text.encode_text([text])[0].to(self.device)

    @torch.no_grad()
    def identity_of(self, image: Tensor) -> Tensor:
        """Return the identity embedding of a picture ``[3, H, W]``; raise `InvalidSettings` where no identity model is loaded."""
        if self.identity is None:
            raise InvalidSettings("lambda_id is above 0, but no identity encoder is configured. Set manipulator.identity, or lambda_id to 0.")
        return self.identity.encode_identity(image[None])[0]

    @torch.no_grad()
    def start_inversion(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Return where to start looking for a photo's code, ``[L, D]``, and the photo's embedding ``[E]``.

        The start is the nearest in pixels among the mean picture and the pictures of a few fixed seeds.
        """
        z = torch.cat([seeded_z(seed, self.generator.z_dim) for seed in range(NUM_START_SEEDS)]).to(self.device)
        mean = self.generator.w_avg.expand(1, self.generator.num_ws, -1)
        best, distance = mean[0], torch.inf
        for codes in (mean, *self.generator.map(z).split(8)):
            errors = (self.generator.synthesize(codes) - photo).abs().mean((1, 2, 3))
            if float(errors.min()) < distance:
                best, distance = codes[int(errors.argmin())], float(errors.min())
        return best.clone(), self.image_text.encode_image(photo[None])[0]

    @torch.no_grad()
    def _measure_step_scale(self) -> Tensor:
        z = torch.randn(NUM_SCALE_SEEDS, self.generator.z_dim, generator=torch.Generator().manual_seed(0))
        return self.generator.map(z.to(self.device))[:, 0].std(0)


def seeded_z(seed: int, z_dim: int) -> Tensor:
    """Return the latent ``[1, z_dim]`` of a seed, drawn on the CPU: the same picture on every machine."""
    return torch.randn(1, z_dim, generator=torch.Generator().manual_seed(seed))


def picture(photo: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return bytes ``[R, R, 3]`` as an image ``[3, R, R]`` in [-1, 1]."""
    return torch.from_numpy(photo.copy()).to(device).permute(2, 0, 1).float() / 127.5 - 1


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return an image ``[3, R, R]`` as bytes ``[R, R, 3]``, clamped to [-1, 1] first."""
    pixels: NDArray[np.uint8] = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidConfig(f"device is {name!r}, but torch finds no CUDA device. Use 'cpu' or 'auto'.")
    return name
