"""The residual networks inside the sound encoders of others: timm's, whose weights have the names that theirs had."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timm.models.resnet import ResNet

FourSizes = tuple[int, int, int, int]


def resnet18(channels: FourSizes, *, in_channels: int, num_classes: int) -> ResNet:
    """Build a ResNet-18 (He et al. 2016), ``[B, in_channels, H, W]`` to ``[B, num_classes]``.

    ``channels``: of the four stages. With ``num_classes`` 0 it returns the last stage's mean. Weights are drawn from
    torch's global generator.
    """
    timm = _timm()
    network: ResNet = timm.ResNet(
        timm.BasicBlock,
        (2, 2, 2, 2),
        in_chans=in_channels,
        num_classes=num_classes,
        channels=channels,
        zero_init_last=False,
    )
    return network


def resnext(channels: FourSizes, depths: FourSizes, *, num_classes: int) -> ResNet:
    """Build a ResNeXt of 32 groups (Xie et al. 2017), ``[B, 3, H, W]`` to ``[B, num_classes]``.

    ``channels``: of the four stages, times 4 at their ends; 64 of them are groups of 4. ``depths``: blocks of each.
    Weights are drawn from torch's global generator.
    """
    timm = _timm()
    network: ResNet = timm.ResNet(
        timm.Bottleneck,
        depths,
        num_classes=num_classes,
        channels=channels,
        cardinality=32,
        base_width=4,
        zero_init_last=False,
    )
    return network


def _timm() -> ModuleType:
    try:
        from timm.models import resnet
    except ImportError as error:
        raise ImportError("this sound encoder needs the package timm. Install it: pip install timm") from error
    module: ModuleType = resnet
    return module
