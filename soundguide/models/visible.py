"""A generator of which a part of each picture is shown: the rest of its square is padding that it learnt with it."""

from torch import Tensor

from soundguide.models.domain import Crop
from soundguide.models.protocols import Generator


class VisibleGenerator:
    """Draws the part ``crop`` of another generator's pictures; meets `soundguide.models.protocols.Generator`.

    Whatever is compared, judged or written is the visible part then. ``resolution`` stays that of the whole square.
    """

    def __init__(self, generator: Generator, crop: Crop) -> None:
        self._generator, self._crop = generator, crop
        self.num_ws, self.z_dim, self.w_dim = generator.num_ws, generator.z_dim, generator.w_dim
        self.resolution, self.w_avg = generator.resolution, generator.w_avg

    def map(self, z: Tensor, *, truncation_psi: float | Tensor = 1.0) -> Tensor:
        """Map seeds ``[B, z_dim]`` to codes ``[B, L, D]``, as the generator does."""
        return self._generator.map(z, truncation_psi=truncation_psi)

    def synthesize(self, ws: Tensor) -> Tensor:
        """Draw the visible part of the images of codes ``[B, L, D]``: ``[B, 3, bottom - top, right - left]``."""
        top, bottom, left, right = self._crop
        return self._generator.synthesize(ws)[:, :, top:bottom, left:right]
