"""The terms of an edit's objective (Eq. 14-18) and of inversion, each per sample: ``[B]``.

Nothing here reduces over the batch: an edit's path must not depend on its neighbours. Terms are unweighted; whoever
sums them weights them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def guidance_hinge(similarity: Tensor, source_similarity: Tensor, margin: Tensor) -> Tensor:
    """Return Eq. 15, ``relu(s(source) - s(edit) + margin)``, ``[B]``.

    ``similarity``, ``source_similarity``: cosines ``[B]`` of edit and source with the target; ``margin`` ``[B]``.
    Differs from the paper, which calls d_cos a distance: as printed, the hinge only pulls towards the target when it is
    a similarity.
    """
    return torch.relu(source_similarity - similarity + margin)


def gated_distance(ws: Tensor, source: Tensor, gates: Tensor) -> Tensor:
    """Return the sum over layers of gates times squared distances, ``[B]`` (Eq. 16-17 as StyleCLIP reads them).

    ``ws``, ``source``: ``[B, L, D]`` in raw w units; ``gates``: ``[B, L]``, summing to L, so that equal gates give the
    plain squared distance.
    """
    return (gates * (ws - source).square().sum(2)).sum(1)


def gated_distance_of_paper(ws: Tensor, source: Tensor, gates: Tensor) -> Tensor:
    """Return Eq. 17 to the letter: the mean over layers of softmax gates times unsquared norms, ``[B]``.

    ``gates`` are scaled as in `gated_distance`; softmax weights are gates / L.
    """
    norms: Tensor = torch.linalg.vector_norm(
        ws - source, dim=2
    )  # its gradient at 0 is 0, where sqrt(sum of squares) gives NaN
    return (gates / gates.shape[1] * norms).mean(1)


def layer_spread(ws: Tensor, source: Tensor) -> Tensor:
    """Return the sum over layers of squared differences between a layer's move and the mean move, ``[B]``.

    Zero for a ``w`` edit; a weight on it ties the layers of a ``w+`` edit softly.
    """
    move = ws - source
    return (move - move.mean(1, keepdim=True)).square().sum((1, 2))


def identity_distance(*, source: Tensor, edited: Tensor) -> Tensor:
    """Return Eq. 18, one minus the cosine of unit-norm identity embeddings ``[B, E]``, ``[B]``.

    The source is constant: the gradient goes to ``edited`` alone.
    """
    return 1 - (source.detach() * edited).sum(1)


def pixel_distance(images: Tensor, photos: Tensor) -> Tensor:
    """Return the mean absolute difference of pictures ``[B, 3, H, W]`` and of their steps to the next pixel, ``[B]``.

    Pictures are in [-1, 1]. The second part keeps edges: without it inversion settles for a blur.
    """
    error = images - photos
    edges = error.diff(dim=2).abs().mean((1, 2, 3)) + error.diff(dim=3).abs().mean((1, 2, 3))
    return error.abs().mean((1, 2, 3)) + 0.5 * edges


def feature_distance(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Return one minus the cosine of unit-norm embeddings ``[B, E]``, ``[B]``."""
    return 1 - (embeddings * targets).sum(1)


def layer_gates(theta: Tensor, entropy_floor: Tensor) -> Tensor:
    """Return gates ``L * softmax(theta)`` ``[B, L]``, mixed with equal gates where their entropy is below the floor.

    ``theta``: ``[B, L]``, L >= 2; ``entropy_floor``: ``[B]`` in [0, 1], a share of ln L. Trained freely, gates move
    onto layers that do not move and cancel the regulariser; the floor keeps every layer counted. Entropy is concave: a
    mixture's is at least the mixture of the two, so that this share of equal gates is enough.
    """
    layers = theta.shape[1]
    weights = torch.softmax(theta, 1)
    entropy = -(weights * torch.log(weights.clamp_min(1e-12))).sum(1) / math.log(layers)
    lacking = ((entropy_floor - entropy) / (1 - entropy).clamp_min(1e-6)).clamp(0, 1)[:, None]  # [B, 1]
    return layers * torch.lerp(weights, torch.full_like(weights, 1 / layers), lacking)
