"""Adam, and Muon (Jordan et al. 2024) for the matrices inside a network."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def adam_and_muon(
    parameters: Iterable[nn.Parameter],
    matrices: Sequence[nn.Parameter],
    *,
    learning_rate: float,
    matrix_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return Adam for ``parameters`` and, where there are any, Muon for ``matrices``, each with its highest rate.

    Weights decay apart from the gradient; what has one dimension does not decay.
    """
    trained = list(parameters)
    decayed, plain = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
    found: list[tuple[torch.optim.Optimizer, float]] = [(adam, learning_rate)]
    if matrices:
        muon = torch.optim.Muon(
            list(matrices), lr=matrix_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        found.append((muon, matrix_rate))
    return found
