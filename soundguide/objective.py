"""What a slot is optimised for: guidance by an embedding while it edits, likeness to a photo while it inverts.

Guidance and its regularisers are Eq. 14-18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from soundguide.config import EditSettings
from soundguide.faces import Face, crop_faces
from soundguide.losses import (
    feature_distance,
    gated_distance,
    gated_distance_of_paper,
    guidance_hinge,
    identity_distance,
    layer_gates,
    layer_spread,
    pixel_distance,
)
from soundguide.models.protocols import Generator, IdentityEncoder, ImageTextEncoder
from soundguide.optimize import Objective, Schedule, Terms
from soundguide.precision import autocast
from soundguide.views import hash_normal, random_views

INVERSION_FEATURE = 0.2  # weight beside the pixel term of 1; chosen on held-out renders of the miniature

LOUD_DB, SILENT_DB = -15.0, -50.0  # levels, below full scale, that aim at all and at none of `loudness_margin`
FAINTEST = 0.1  # share of it that every sound aims at

EXPLORING = 0.6  # share of the steps in which the code is seen through noise


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a slot, tensors on the models' device.

    ``start`` ``[L, D]``; ``target`` ``[E]``, unit norm: the guiding embedding, or the photo's when inverting;
    ``source_similarity``: cosine of source and target; ``margin``: how much of it to gain (Eq. 15); ``photo``
    ``[3, H, W]`` in [-1, 1] when inverting; ``face``: who is in the source's picture, and where; without one there is
    no identity to keep. ``source`` ``[L, D]``: the code that the regularisers hold on to (Eq. 16) where the run starts
    elsewhere, as the next key code of a film does; None: the start.
    """

    phase: Literal["invert", "edit"]
    start: Tensor
    target: Tensor
    settings: EditSettings
    source_similarity: float = 0.0
    margin: float = 1.0
    photo: Tensor | None = None
    face: Face | None = None
    source: Tensor | None = None

    @property
    def keeps_identity(self) -> bool:
        """Whether the identity term counts in this run."""
        return self.phase == "edit" and self.settings.lambda_id > 0 and self.face is not None

    @property
    def schedule(self) -> Schedule:
        """The run's schedule; inversion moves every layer for itself and takes all its steps."""
        s = self.settings
        if self.phase == "invert":
            return Schedule(s.inversion_steps, s.learning_rate, s.rampup, s.rampdown)
        return Schedule(
            num_steps=s.num_steps,
            learning_rate=s.learning_rate,
            rampup=s.rampup,
            rampdown=s.rampdown,
            tied=s.latent_space == "w",
            gate_learning_rate=s.gate_learning_rate if s.layer_gates == "adaptive" else 0.0,
            plateau_steps=s.plateau_steps,
            plateau_tolerance=s.plateau_tolerance,
        )


def margin_of(settings: EditSettings, level_db: float) -> float:
    """Return the similarity that a sound of ``level_db`` is to gain (Eq. 15): the louder, the more. NaN: no sound.

    The direction of an embedding says what to show, hardly how much of it; without a nearer goal every edit goes on
    until the regulariser holds it.
    """
    if settings.loudness_margin == 0 or math.isnan(level_db):
        return settings.margin
    share = max(FAINTEST, (level_db - SILENT_DB) / (LOUD_DB - SILENT_DB))
    return min(settings.margin, settings.loudness_margin * share)


class EditObjective:
    """The weighted sum of terms, per slot; meets `soundguide.optimize.Objective`.

    Holds what each slot's run aims at. ``step_scale`` ``[D]``: standard deviation of w in each dimension, the unit of
    exploration; its device is that of all else. ``picture_size``: rows and columns of what the generator draws; None
    for a square of its resolution. ``dtype``: in what the generator and the image tower compute, float32 or bfloat16;
    all else is in float32.
    """

    def __init__(
        self,
        generator: Generator,
        image_text: ImageTextEncoder,
        identity: IdentityEncoder | None,
        *,
        num_slots: int,
        step_scale: Tensor,
        picture_size: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        self.generator, self.image_text, self.identity = generator, image_text, identity
        self.step_scale = step_scale
        height, width = picture_size or (generator.resolution, generator.resolution)
        device = step_scale.device
        self.source = torch.zeros(num_slots, generator.num_ws, generator.w_dim, device=device)
        self.target = torch.zeros(num_slots, image_text.embed_dim, device=device)
        self.photo = torch.zeros(num_slots, 3, height, width, device=device)
        self.source_identity = torch.zeros(num_slots, identity.embed_dim if identity else 0, device=device)
        self.affines = torch.zeros(num_slots, 2, 3, device=device)  # where the source's face is
        self.view_seeds = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.view_steps = torch.zeros(num_slots, dtype=torch.int64, device=device)
        # per slot: editing, source similarity, margin, lambda reg, is paper, lambda spread, lambda id, entropy floor,
        # adaptive, views, exploration, steps of exploration
        self.weights = torch.zeros(num_slots, 12, device=device)
        self._runs: dict[int, Run] = {}
        self._seeing: dict[tuple[int, bool], Objective] = {}

    def admit(self, slot: int, run: Run) -> None:
        """Aim a slot at a run."""
        s, editing = run.settings, run.phase == "edit"
        self._runs[slot] = run
        self.source[slot], self.target[slot] = run.start if run.source is None else run.source, run.target
        self.view_seeds[slot], self.view_steps[slot] = s.view_seed, 0
        if run.photo is not None:
            self.photo[slot] = run.photo
        if run.face is not None:
            self.source_identity[slot], self.affines[slot] = run.face.identity, run.face.affine
        values = (
            run.source_similarity,
            run.margin,
            s.lambda_reg,
            s.regulariser == "paper",
            s.lambda_spread,
            s.lambda_id if run.keeps_identity else 0,
        )
        gates = (s.gate_entropy_floor, s.layer_gates == "adaptive")
        looks = (s.num_views, s.exploration, EXPLORING * s.num_steps)
        row = (1, *values, *gates, *looks) if editing else (0, 0, 0, s.inversion_reg, 0, 0, 0, 0, 0, 1, 0, 1)
        self.weights[slot] = torch.tensor([float(value) for value in row])

    def for_run(self, run: Run) -> Objective:
        """Return the objective for a run's slot: with the views and networks that it takes, so that its like share it.

        Equal runs get one and the same function.
        """
        num_views = run.settings.num_views if run.phase == "edit" else 1
        kind = num_views, run.keeps_identity
        return self._seeing.setdefault(kind, partial(self, num_views=num_views, identify=run.keeps_identity))

    def release(self, slot: int) -> None:
        """Forget a slot's run."""
        self._runs.pop(slot, None)

    def gates(self, theta: Tensor, slots: Tensor) -> Tensor:
        """Return the layer gates ``[B, L]`` of some slots: adaptive ones follow theta, the others are all 1."""
        floor, adaptive = self.weights[slots, 7], self.weights[slots, 8]
        return torch.where(adaptive[:, None] > 0, layer_gates(theta, floor), torch.ones_like(theta))

    def __call__(
        self, ws: Tensor, theta: Tensor, slots: Tensor, num_views: int = 0, identify: bool = True
    ) -> tuple[Tensor, Terms]:
        """Return loss ``[B]`` and unweighted terms of codes ``[B, L, D]`` in ``slots`` ``[B]``.

        ``num_views``: the most that one of these slots takes; 0: the most that any slot takes. ``identify``: whether
        one of these slots keeps an identity.
        """
        runs = list(self._runs.values())
        editing, similarity, margin, reg, paper, spread, identity, _, _, views = self.weights[slots, :10].unbind(1)
        with autocast(ws.device, self.dtype):
            images = self.generator.synthesize(ws + self._noise(slots).to(ws.dtype))
        num_views = num_views or max(r.settings.num_views if r.phase == "edit" else 1 for r in runs)
        embeddings = self._embed_views(images, slots, num_views)
        source, target = self.source[slots], self.target[slots]
        gates = self.gates(theta, slots)
        cosines = torch.einsum("bve,be->bv", embeddings, target)
        # each row averages its own number of views
        counted = torch.arange(num_views, device=ws.device) < views[:, None]
        closeness = torch.where(counted, cosines, 0.0).sum(1) / views
        terms = {"guidance": editing * guidance_hinge(closeness, similarity, margin)}
        terms["reg"] = gated_distance(ws, source, gates)
        loss = terms["guidance"] + (1 - paper) * reg * terms["reg"]
        if any(r.settings.regulariser == "paper" for r in runs):
            terms["reg_paper"] = gated_distance_of_paper(ws, source, gates)
            loss = loss + paper * reg * terms["reg_paper"]
        if any(r.settings.lambda_spread > 0 for r in runs):
            terms["spread"] = layer_spread(ws, source)
            loss = loss + spread * terms["spread"]
        if self.identity is not None and any(r.keeps_identity for r in runs):
            terms["identity"] = torch.zeros_like(loss)  # all slots have the same terms
            if identify:
                faces = crop_faces(images, self.affines[slots], size=self.identity.resolution)
                edited = self.identity.encode_identity(faces)
                terms["identity"] = identity_distance(source=self.source_identity[slots], edited=edited)
                loss = loss + identity * terms["identity"]
        if any(r.phase == "invert" for r in runs):
            terms["pixel"] = pixel_distance(images, self.photo[slots])
            terms["feature"] = feature_distance(embeddings[:, 0], target)
            loss = loss + (1 - editing) * (terms["pixel"] + INVERSION_FEATURE * terms["feature"])
        return loss, terms

    def _noise(self, slots: Tensor) -> Tensor:
        """Return the noise ``[B, 1, D]`` through which the codes are seen, fading out (Karras et al. 2020, appendix D).

        An event that is not there yet has next to no gradient; noise lets guidance feel what lies further off. All
        layers move alike, as between two scenes.
        """
        sigma, until = self.weights[slots, 10:].unbind(1)
        steps = self.view_steps[slots]
        sigma = sigma * (1 - steps / until.clamp_min(1)).clamp_min(0).square()
        stream = torch.arange(len(self.step_scale), device=slots.device)
        noise = hash_normal(self.view_seeds[slots, None], steps[:, None], stream)
        return (sigma[:, None] * noise * self.step_scale)[:, None]

    def _embed_views(self, images: Tensor, slots: Tensor, num_views: int) -> Tensor:
        """Return the embeddings of every picture's views, ``[B, V, E]``; view 0 is the whole picture."""
        seeds, steps = self.view_seeds[slots], self.view_steps[slots]
        self.view_steps[slots] = steps + 1
        views = random_views(images, num_views=num_views, seeds=seeds, steps=steps, size=self.image_text.resolution)
        with autocast(images.device, self.dtype):
            embeddings = self.image_text.encode_image(views)
        return embeddings.reshape(len(images), num_views, -1)  # [B, V, E]
