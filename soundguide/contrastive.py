"""The losses that teach the sound encoder CLIP's space (Lee et al., Eq. 1-13)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

INITIAL_LOG_SCALE = math.log(1 / 0.07)  # temperature 0.07, as in CLIP (Radford et al. 2021, Sec. 2.5)
MAX_LOG_SCALE = math.log(100)  # same place: a larger scale makes training unstable


def info_nce(a: Tensor, b: Tensor, *, logit_scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the symmetric contrastive loss of N pairs, both directions summed (Eq. 1-8), a scalar.

    ``a``, ``b``: ``[N, E]``, unit rows; row i of one belongs to row i of the other. ``logit_scale``: the logarithm of
    the scale, a scalar. ``same``: ``[N, N]`` bool, True where ``a[i]`` and ``b[j]`` mean the same and are therefore no
    negatives of each other; the diagonal is always a pair. Each direction is a mean over rows, in float32 at least.
    """
    with torch.autocast(a.device.type, enabled=False):
        logits = _scaled_cosines(a, b, logit_scale)  # [N, N]
        diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        if same is not None:
            logits = logits.masked_fill(same & ~diagonal, -math.inf)
        targets = torch.arange(len(logits), device=logits.device)
        return F.cross_entropy(logits, targets) + F.cross_entropy(logits.mT, targets)


def weak_pair_kl(
    audio: Tensor,
    images: Tensor,
    text: Tensor,
    *,
    audio_logit_scale: Tensor,
    teacher_logit_scale: Tensor,
    form: Literal["full", "diagonal"] = "full",
) -> Tensor:
    """Return how far sound sees other clips' pictures of its label from how text sees them (Eq. 9-12), a scalar.

    ``audio``, ``images``, ``text``: ``[N, E]``, unit rows; ``images[i]`` has the label of ``text[i]`` and is of another
    clip than ``audio[i]``. The scales are logarithms; the teacher's is CLIP's own. The teacher, softmax of text against
    images over each row, is a constant: no gradient reaches ``text`` or its scale, nor ``images`` through it.

    ``"full"`` is the mean over i of -sum_j T_ij log A_ij, least where A = T: what the text and Fig. 7 describe, whereas
    Eq. 11 keeps only j = i. ``"diagonal"`` is Eq. 11 to the letter. Both leave out the teacher's entropy, a constant.
    """
    with torch.autocast(audio.device.type, enabled=False):
        student = _scaled_cosines(audio, images, audio_logit_scale).log_softmax(1)  # log A, [N, N]
        with torch.no_grad():
            teacher = _scaled_cosines(text, images, teacher_logit_scale).softmax(1)  # T, [N, N]
        products = teacher * student
        rows = products.sum(1) if form == "full" else products.diagonal()
        return -rows.mean()


@torch.no_grad()
def clamp_logit_scale(logit_scale: Tensor) -> None:
    """Bound the logarithm of the scale by `MAX_LOG_SCALE`, in place; call it after every step of the optimiser.

    A bound inside the loss would hold the parameter above it for ever, without gradient.
    """
    logit_scale.clamp_(max=MAX_LOG_SCALE)


def _scaled_cosines(a: Tensor, b: Tensor, logit_scale: Tensor) -> Tensor:
    precise = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return logit_scale.to(precise).exp() * (a.to(precise) @ b.to(precise).mT)
