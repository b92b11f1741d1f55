"""The models of one world, loaded and frozen, and the few things that are asked of them outside the optimisation."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidConfig, InvalidLatent, InvalidSettings
from soundguide.faces import Face, FaceAligner, crop_faces
from soundguide.listen import Listener
from soundguide.models.checkpoint import LoadedModel, load_model
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.inversion_encoder import InversionEncoder
from soundguide.models.kinds import AUDIO_ENCODERS, FACE_ENCODERS, GENERATORS
from soundguide.models.manifest import resolve_model
from soundguide.models.protocols import AudioEncoder, Generator, IdentityEncoder, ImageTextEncoder, Inverter
from soundguide.models.visible import VisibleGenerator
from soundguide.precision import compute_dtype
from soundguide.storage import Storage
from soundguide.views import area_resize

Kind = TypeVar("Kind")

NUM_SCALE_SEEDS = 2048  # codes whose standard deviation is the unit of the optimiser's steps
NUM_START_SEEDS = 256  # pictures among which an inversion looks for its start
LARGEST_32_BIT_PRIME = 4_294_967_291
FIRST_START_SEED = 3_141_592_653  # far from the seeds that are picked by hand: none of those is its own start
START_SIZE = 16  # pixels, the side at which it compares them

_ROLES = {"generator": "a generator", "identity": "a face encoder", "inverter": "an inversion encoder"}


class World:
    """Generator, image and text encoder, sound encoder and, where they are named, identity and inversion encoder.

    ``generator`` draws the visible part of its pictures, ``picture_size`` ``(H, W)``, where its domain has a crop.
    ``step_scale`` ``[D]``: standard deviation of w in each dimension. ``dtype``: in what the networks compute the steps
    of an edit. ``digests``: SHA-256 of the weights by role. All
    networks are frozen and no method builds a graph. ``storage`` reaches models that are URIs. Raises
    `InvalidCheckpoint` or `InvalidConfig` where the models are missing or do not fit together.
    """

    generator: Generator
    image_text: ImageTextEncoder
    audio: AudioEncoder

    def __init__(self, config: ManipulatorConfig, storage: Storage = Storage()) -> None:  # noqa: B008 - immutable
        self.device = torch.device(device_name(config.device))
        self.dtype = compute_dtype(config.precision, self.device)
        generator = load_model(resolve_model(config.generator, "generator", storage), device=self.device)
        image_text = load_model(resolve_model(config.image_text, "image_text", storage), device=self.device)
        audio = load_model(resolve_model(config.audio, "audio", storage), device=self.device)
        self.generator = _expect(GENERATORS, generator, "generator")
        if self.dtype == torch.bfloat16:
            generator.module.to(memory_format=torch.channels_last)  # what the tiles of bfloat16 are read from
        top, bottom, left, right = crop = generator.domain.visible(self.generator.resolution)
        self.picture_size = (bottom - top, right - left)
        if generator.domain.crop is not None:
            self.generator = VisibleGenerator(self.generator, crop)
        self.image_text = _expect((OpenClipEncoder,), image_text, "image_text")
        self.audio = _expect(AUDIO_ENCODERS, audio, "audio")
        if self.image_text.embed_dim != self.audio.embed_dim:
            raise InvalidConfig(
                f"image_text embeds in {self.image_text.embed_dim} dimensions and audio in {self.audio.embed_dim}. "
                "Use encoders that were trained into one space."
            )
        self.digests = {"generator": generator.sha256, "image_text": image_text.sha256, "audio": audio.sha256}
        self.identity: IdentityEncoder | None = None
        self._aligner: FaceAligner | None = None
        if config.identity:
            self._load_identity(resolve_model(config.identity, "identity", storage))
        self.listener = Listener(self.audio, self.image_text, config.labels or audio.labels, device=self.device)
        self.step_scale = self._measure_step_scale()
        self.inverter: Inverter | None = None
        if config.inverter:
            inverter = load_model(resolve_model(config.inverter, "inverter", storage), device=self.device)
            self.inverter = _expect((InversionEncoder,), inverter, "inverter")
            _require_codes_of(self.generator, self.inverter)
            self.digests["inverter"] = inverter.sha256

    @property
    def num_ws(self) -> int:
        """Layers of a code."""
        return self.generator.num_ws

    @property
    def resolution(self) -> int:
        """Side of the generator's square, pixels."""
        return self.generator.resolution

    @torch.no_grad()
    def code(self, seed: int | None, latent: NDArray[np.float32] | None, truncation_psi: float) -> Tensor:
        """Return the code ``[L, D]`` of a seed, or a given one.

        Raises `InvalidLatent` for a code of another shape or with numbers that are not finite, `InvalidSettings` for
        no source.
        """
        if latent is not None:
            shape = (self.generator.num_ws, self.generator.w_dim)
            if latent.shape != shape or not np.isfinite(latent).all():
                raise InvalidLatent(
                    f"latent is {latent.shape} and must be {shape} and finite. Use a code of this generator."
                )
            return torch.from_numpy(latent.astype(np.float32)).to(self.device)
        if seed is None:
            raise InvalidSettings("no source was given. Give a seed, a photo or a latent code.")
        z = seeded_z(seed, self.generator.z_dim).to(self.device)
        return self.generator.map(z, truncation_psi=truncation_psi)[0]

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
    def find_face(self, image: Tensor, *, needed: bool) -> Face | None:
        """Return who is in a picture ``[3, H, W]``, and where; None where no face is found, or no encoder is there.

        Raises `InvalidSettings` where there is no encoder and one is ``needed``.
        """
        if needed and self.identity is None:
            raise InvalidSettings(
                "lambda_id is above 0, but no identity encoder is configured. "
                "Set manipulator.identity, or lambda_id to 0."
            )
        affine = self._aligner.locate(to_bytes(image)) if self._aligner is not None else None
        if affine is None:
            return None
        affine = affine.to(self.device)
        return Face(self._identify(image, affine), affine)

    @torch.no_grad()
    def identity_similarity(self, image: Tensor, source: Face) -> float:
        """Return the cosine of a picture's identity ``[3, H, W]`` and the source's, cut out at the same place."""
        return float(self._identify(image, source.affine) @ source.identity)

    def _identify(self, image: Tensor, affine: Tensor) -> Tensor:
        assert self.identity is not None, "a face was found without an encoder"
        faces = crop_faces(image[None].clamp(-1, 1), affine[None], size=self.identity.resolution)
        return self.identity.encode_identity(faces)[0]

    def _load_identity(self, folder: Path) -> None:
        loaded = load_model(folder, device=self.device)
        identity = _expect(FACE_ENCODERS, loaded, "identity")
        alignment = identity.config.alignment
        self.identity, self._aligner = identity, FaceAligner(alignment, folder)
        self.digests["identity"] = loaded.sha256
        if alignment.detector_sha256:
            self.digests["detector"] = alignment.detector_sha256

    @torch.no_grad()
    def start_inversion(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Return where to start looking for a photo's code, ``[L, D]``, and the photo's embedding ``[E]``.

        The start is the inversion encoder's code. Without such a model it is the nearest in pixels, seen small, among
        the mean picture and the pictures of a few fixed seeds.
        """
        embedding = self.image_text.encode_image(photo[None])[0]
        if self.inverter is not None:
            return self.inverter.invert(photo[None])[0], embedding
        codes, thumbnails = self._starts
        nearest = (thumbnails - area_resize(photo[None], START_SIZE)).abs().mean((1, 2, 3)).argmin()
        return codes[nearest].clone(), embedding

    @torch.no_grad()
    def reconstruction_error(self, ws: Tensor, photo: Tensor) -> float:
        """Return the mean absolute error, 0..1, of a code's picture as a copy of a photo ``[3, H, W]``."""
        image = self.generator.synthesize(ws[None])[0].clamp(-1, 1)
        return float((image - photo).abs().mean() / 2)

    @cached_property
    def _starts(self) -> tuple[Tensor, Tensor]:
        """Codes ``[N, L, D]`` and small pictures ``[N, 3, START_SIZE, START_SIZE]``; drawn for the first photo."""
        seeds = range(FIRST_START_SEED, FIRST_START_SEED + NUM_START_SEEDS)
        z = torch.cat([seeded_z(seed, self.generator.z_dim) for seed in seeds]).to(self.device)
        mean = self.generator.w_avg.expand(1, self.generator.num_ws, -1)
        codes = torch.cat([mean, self.generator.map(z)])
        pictures = [area_resize(self.generator.synthesize(part), START_SIZE) for part in torch.split(codes, 8)]
        return codes, torch.cat(pictures)

    @torch.no_grad()
    def _measure_step_scale(self) -> Tensor:
        z = torch.randn(NUM_SCALE_SEEDS, self.generator.z_dim, generator=torch.Generator().manual_seed(0))
        return self.generator.map(z.to(self.device))[:, 0].std(0)


def load_listening(config: ManipulatorConfig, storage: Storage = Storage()) -> tuple[AudioEncoder, torch.device]:  # noqa: B008 - immutable
    """Return the sound encoder alone, and its device, as `World` loads them; raises as it does."""
    device = torch.device(device_name(config.device))
    loaded = load_model(resolve_model(config.audio, "audio", storage), device=device)
    return _expect(AUDIO_ENCODERS, loaded, "audio"), device


def seeded_z(seed: int, z_dim: int) -> Tensor:
    """Return the latent ``[1, z_dim]`` of a seed, drawn on the CPU: the same picture on every machine."""
    # torch's generator reads 32 bits of its seed: seeds that agree in those alone must not give one picture
    generator = torch.Generator().manual_seed(seed % LARGEST_32_BIT_PRIME)
    return torch.randn(1, z_dim, generator=generator)


def picture(photo: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return bytes ``[H, W, 3]`` as an image ``[3, H, W]`` in [-1, 1]."""
    return torch.from_numpy(photo.copy()).to(device).permute(2, 0, 1).float() / 127.5 - 1


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return an image ``[3, H, W]`` as bytes ``[H, W, 3]``, clamped to [-1, 1] first."""
    pixels: NDArray[np.uint8] = (
        ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    )
    return pixels


def _expect(kinds: tuple[type[Kind], ...], loaded: LoadedModel, role: str) -> Kind:
    if not isinstance(loaded.module, kinds):
        raise InvalidConfig(
            f"manipulator.{role} names a model of kind {loaded.config.kind!r}, which has another role. "
            f"Name the folder of {_ROLES.get(role, f'an {role} encoder')}."
        )
    return loaded.module


def _require_codes_of(generator: Generator, inverter: Inverter) -> None:
    wanted, got = (generator.num_ws, generator.w_dim), (inverter.num_ws, inverter.w_dim)
    if wanted != got:
        raise InvalidConfig(
            f"manipulator.inverter finds codes {list(got)}, but manipulator.generator takes {list(wanted)} "
            "(layers, width). Name the inversion encoder that was trained with this generator."
        )


def device_name(name: str) -> str:
    """Return the torch name of a configured device: 'auto' is a GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidConfig(f"device is {name!r}, but torch finds no CUDA device. Use 'cpu' or 'auto'.")
    return name
