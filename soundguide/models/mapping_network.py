"""z -> w -> W+: the part that StyleGAN2 and StyleGAN3 have in common."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.errors import InvalidLatent
from soundguide.models.stylegan2_layers import LEAKY_GAIN, LEAKY_SLOPE, EqualizedLinear


class MappingNetwork(nn.Module):
    """z -> w, a stack of fully connected layers (Karras et al. 2019, figure 1b)."""

    w_avg: Tensor

    def __init__(
        self, z_dim: int, w_dim: int, *, num_layers: int, lr_multiplier: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.w_dim = w_dim
        widths = [z_dim] + [w_dim] * num_layers
        self.layers = [f"fc{index}" for index in range(num_layers)]
        for name, in_features, out_features in zip(self.layers, widths, widths[1:], strict=False):
            layer = EqualizedLinear(in_features, out_features, lr_multiplier=lr_multiplier, generator=generator)
            self.add_module(name, layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Map ``z`` ``[B, z_dim]`` to ``[B, D]``; the length of z has no influence."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for name in self.layers:
            x = F.leaky_relu(self.get_submodule(name)(x), LEAKY_SLOPE) * LEAKY_GAIN
        return x

    def codes(self, z: Tensor, *, num_ws: int, truncation_psi: float | Tensor) -> Tensor:
        """Map ``z`` ``[B, z_dim]`` to W+ codes ``[B, L, D]``, the same code in every layer.

        ``truncation_psi``: one number or ``[B]``; 1 keeps the code, 0 gives ``w_avg``. Raises `InvalidLatent` for
        another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise InvalidLatent(f"z must be [B, {self.z_dim}], got {list(z.shape)}. Draw z at this generator's width.")
        w = self(z)  # [B, D]
        psi = torch.as_tensor(truncation_psi, dtype=w.dtype, device=w.device)
        w = torch.lerp(self.w_avg.to(w.dtype).expand_as(w), w, psi.reshape(-1, 1))
        return w[:, None].repeat(1, num_ws, 1)  # [B, L, D]


def require_codes(ws: Tensor, *, num_ws: int, w_dim: int) -> None:
    """Raise `InvalidLatent` for codes that are not ``[B, num_ws, w_dim]``."""
    if ws.ndim != 3 or ws.shape[1:] != (num_ws, w_dim):
        raise InvalidLatent(
            f"ws must be [B, {num_ws}, {w_dim}], got {list(ws.shape)}. "
            "Use a latent code of this generator, or the generator of this code."
        )
