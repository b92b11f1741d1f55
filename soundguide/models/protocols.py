"""What the edit asks of its networks: four protocols, met by the miniature and by adapters of real checkpoints.

Every method is differentiable with respect to its tensor argument, works row by row (no row of the answer depends on
another row), and follows the device and dtype of its input. Every encoder returns rows of length one, so that a dot
product is a cosine.
"""

from typing import Protocol

from torch import Tensor


class Generator(Protocol):
    """A style-based generator: z -> W+ codes -> images."""

    @property
    def num_ws(self) -> int:
        """Number L of layers of a W+ code."""
        ...

    @property
    def z_dim(self) -> int:
        """Width of z."""
        ...

    @property
    def w_dim(self) -> int:
        """Width D of one layer's code."""
        ...

    @property
    def resolution(self) -> int:
        """Height and width of the images in pixels."""
        ...

    @property
    def w_avg(self) -> Tensor:
        """The mean code, ``[D]``, towards which truncation pulls."""
        ...

    def map(self, z: Tensor, *, truncation_psi: float | Tensor = 1.0) -> Tensor:
        """Map seeds to W+ codes.

        ``z``: ``[B, z_dim]``, drawn from N(0, 1). ``truncation_psi``: one number or ``[B]``; 1 keeps the code, 0 gives
        `w_avg`. Returns ``[B, L, D]``, the same code in every layer.
        """
        ...

    def synthesize(self, ws: Tensor) -> Tensor:
        """Draw the images of W+ codes ``[B, L, D]``.

        Returns ``[B, 3, H, W]``, sRGB, nominally in [-1, 1] and not clamped.
        """
        ...


class ImageTextEncoder(Protocol):
    """Images and texts into one embedding space (CLIP)."""

    @property
    def embed_dim(self) -> int:
        """Width E of the embedding space."""
        ...

    @property
    def resolution(self) -> int:
        """Height and width in pixels at which the network reads images."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed ``images`` ``[B, 3, H, W]``, sRGB in [-1, 1], as ``[B, E]``; resizing and normalising are inside."""
        ...

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed B texts as ``[B, E]``."""
        ...


class AudioEncoder(Protocol):
    """Sounds into the embedding space of an `ImageTextEncoder`."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz of the waveforms that it reads."""
        ...

    @property
    def num_samples(self) -> int:
        """Number T of samples of the waveforms that it reads."""
        ...

    @property
    def embed_dim(self) -> int:
        """Width E of the embedding space."""
        ...

    def encode_audio(self, waveforms: Tensor) -> Tensor:
        """Embed ``waveforms`` ``[B, T]``, mono in [-1, 1] at `sample_rate`, as ``[B, E]``, the spectrogram inside."""
        ...


class IdentityEncoder(Protocol):
    """Faces into a space where one person's pictures lie together (ArcFace)."""

    @property
    def embed_dim(self) -> int:
        """Width E of the embedding space; it has nothing to do with that of the other encoders."""
        ...

    @property
    def resolution(self) -> int:
        """Height and width in pixels at which the network reads faces."""
        ...

    def encode_identity(self, images: Tensor) -> Tensor:
        """Embed aligned faces ``[B, 3, H, W]``, sRGB in [-1, 1], as ``[B, E]``; resizing is inside."""
        ...
