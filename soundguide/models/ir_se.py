"""The body of IR-SE networks: pre-activated residual blocks with channel attention, as ArcFace and pSp use them.

Deng et al. 2019, "ArcFace" (the blocks); Hu et al. 2018, "Squeeze-and-excitation networks" (the attention).
Parameters and buffers have the names of the published IR-SE50 files. A whole network is `ir_se_input`, `ir_se_body` and
a head of its own.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

IR_SE50_WIDTHS = (64, 128, 256, 512)
IR_SE50_UNITS = (3, 4, 14, 3)
_SQUEEZE = 16  # the attention's bottleneck has this share of the channels


class ChannelAttention(nn.Module):
    """Weigh each channel by what all of them show on average over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(1, channels // _SQUEEZE)
        self.fc1 = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` ``[B, C, h, w]`` with its channels weighed by 0 to 1."""
        squeezed = torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(squeezed))


class IRSEBlock(nn.Module):
    """One residual block; a ``stride`` of 2 halves the picture."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Sequential | None = None
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            ChannelAttention(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_channels, h, w]`` to ``[B, out_channels, h / stride, w / stride]``, rounded up."""
        strided = x[:, :, :: self.stride, :: self.stride]
        shortcut: Tensor = strided if self.shortcut_layer is None else self.shortcut_layer(x)
        residual: Tensor = self.res_layer(x)
        return shortcut + residual


def ir_se_input(width: int) -> nn.Sequential:
    """Return what leads from pictures ``[B, 3, H, W]`` to features ``[B, width, H, W]``."""
    return nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))


def ir_se_body(widths: Sequence[int] = IR_SE50_WIDTHS, units: Sequence[int] = IR_SE50_UNITS) -> nn.Sequential:
    """Return the blocks of all stages in one row; IR-SE50's by default.

    ``widths``, ``units``: channels and number of blocks of each stage. Every stage halves the picture with its first
    block; the first takes ``widths[0]`` channels.
    """
    blocks = []
    for (before, width), num in zip(pairwise((widths[0], *widths)), units, strict=True):
        blocks.append(IRSEBlock(before, width, stride=2))
        blocks += [IRSEBlock(width, width, stride=1) for _ in range(num - 1)]
    return nn.Sequential(*blocks)
