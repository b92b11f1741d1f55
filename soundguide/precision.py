"""In which number format the networks compute a step: float32, or bfloat16 where a device multiplies it faster."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from soundguide.errors import InvalidConfig

Precision = Literal["fp32", "bf16"]

logger = logging.getLogger(__name__)


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the format of the steps' matrix products and convolutions on a device, ``torch.float32`` for ``fp32``.

    ``bf16`` gives ``torch.bfloat16`` on a GPU and on a processor with AMX. Any other processor would compute it, only
    more slowly than float32: it stays in float32, and a warning says so. Raises `InvalidConfig` for a GPU without it.
    """
    if precision == "fp32":
        return torch.float32
    if device.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise InvalidConfig(
                f"precision is 'bf16', but {torch.cuda.get_device_name(device)} has no bfloat16. Use 'fp32', or a GPU "
                "of compute capability 8.0 or more."
            )
        return torch.bfloat16
    if has_bfloat16_tiles():
        return torch.bfloat16
    logger.warning(
        "precision is 'bf16', but this processor has no AMX, and without it bfloat16 is slower than float32: "
        "the steps are computed in float32"
    )
    return torch.float32


def has_bfloat16_tiles() -> bool:
    """Return whether this processor multiplies tiles of bfloat16 (AMX).

    Its older instructions for bfloat16, avx512_bf16, take as long as float32 or longer: half its speed was measured on
    a Xeon whose AMX was hidden from the virtual machine.
    """
    return bool(torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return a context in which networks compute in ``dtype``; float32 changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
