"""Edits by sound alone: which scenes are edited with which sounds, and what the manipulator made of them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.config import EditSettings
from soundguide.errors import InvalidEdit, InvalidProgram
from soundguide.manipulator import Manipulator
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.recordings import Recording
from soundguide.miniature.report.held_out import BATCH, FIRST_SOURCE_SEED, SEEDS_PER_REPORT, as_bytes
from soundguide.miniature.report.judge import Judge
from soundguide.miniature.report.progress import Advance
from soundguide.miniature.report.recognition import guiding_sound
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress
from soundguide.slots import OnProgress
from soundguide.world import World, seeded_z

logger = logging.getLogger(__name__)

FAINT = 0.2  # a source may show other events up to this intensity
SCAN = 256  # seeds looked at together
MAX_SCANNED = 50_000
TELL_EVERY = 10  # steps


@dataclass(frozen=True, slots=True)
class Trial:
    """One edit to try: a source that lacks ``label``, and a sound of it."""

    label: str
    seed: int
    sound: bytes
    origin: str

    def prepared(self, settings: EditSettings) -> PreparedEdit:
        """Return the trial as the manipulator takes it."""
        name = f"{self.label}/{self.seed}/{self.origin}"
        return PreparedEdit(
            name, settings, sound=self.sound, sound_sha256=hashlib.sha256(self.sound).hexdigest(), seed=self.seed
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial: pictures ``[R, R, 3]`` uint8 and measures, those of `ManipulatedEdit`.

    Where it failed the edit is the source, and ``error`` says why.
    """

    trial: Trial
    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    latent_distance: float = 0.0
    similarity_before: float = float("nan")
    similarity_after: float = float("nan")
    seconds: float = 0.0
    identity_similarity: float = float("nan")
    identity_note: str = ""
    error: str = ""


def choose_sources(
    world: World,
    judge: Judge,
    *,
    num: int,
    seed: int,
    truncation_psi: float,
    labels: Sequence[str] = (),
    faint: float = FAINT,
) -> dict[str, list[int]]:
    """Return ``num`` seeds for each label, each for one label only, whose scenes lack it and at most hint at others.

    ``labels``: all of the judge's world unless given; ``faint``: how strong a hint may be, 0..1. The reader must agree
    that the label is absent. Raises `InvalidProgram` where no such scenes can be found.
    """
    labels = labels or judge.domain.labels
    sources: dict[str, list[int]] = {label: [] for label in labels}
    for first in range(0, MAX_SCANNED, SCAN):
        start = FIRST_SOURCE_SEED + seed * SEEDS_PER_REPORT + first
        for source, absent in _calm_scenes(world, judge, start, truncation_psi, faint):
            # the label with the fewest sources takes the scene
            lacked = {label for label, lacks in zip(judge.domain.labels, absent, strict=True) if lacks}
            open_labels = [label for label in labels if label in lacked and len(sources[label]) < num]
            if open_labels:
                sources[min(open_labels, key=lambda label: len(sources[label]))].append(source)
        if all(len(found) == num for found in sources.values()):
            return sources
    lacking = [label for label, found in sources.items() if len(found) < num]
    raise InvalidProgram(
        f"report: among {MAX_SCANNED} seeds the reader finds fewer than {num} scenes without {', '.join(lacking)}. "
        "Ask for fewer sources, or train the reader and the generator longer."
    )


def _calm_scenes(
    world: World, judge: Judge, first: int, truncation_psi: float, faint: float
) -> Iterator[tuple[int, list[bool]]]:
    """Yield the seeds from ``first`` on whose scenes are calm, and which labels are absent there, to the reader too."""
    z = torch.cat([seeded_z(first + i, world.generator.z_dim) for i in range(SCAN)])
    events = judge.domain.latents.factors(z)[:, len(judge.domain.continuous) :]
    calm = torch.nonzero(events.amax(1) <= faint).flatten()
    if not len(calm):
        return
    with torch.no_grad():
        codes = world.generator.map(z[calm].to(world.device), truncation_psi=truncation_psi)
    absent = ~judge.present(judge.read(draw(world, codes)).logits) & (events[calm] <= 0)
    yield from zip((first + calm).tolist(), absent.tolist(), strict=True)


def synthesised_trials(
    sources: dict[str, list[int]], *, seconds: float, seed: int, domain: Domain = LANDSCAPE
) -> list[Trial]:
    """Return one trial for each source, each with a sound of its own."""
    return [
        Trial(label, source, guiding_sound(label, number, seconds=seconds, seed=seed, domain=domain), "synthesised")
        for label, seeds in sources.items()
        for number, source in enumerate(seeds)
    ]


def recorded_trials(sources: dict[str, list[int]], recordings: Sequence[Recording]) -> list[Trial]:
    """Return one trial for each source of a label that was recorded; its recordings take turns."""
    trials = []
    for label, seeds in sources.items():
        own = [item for item in recordings if item.label == label]
        trials += [
            Trial(label, seed, item.sound, item.name) for seed, item in zip(seeds, itertools.cycle(own), strict=False)
        ]
    return trials


def run_trials(
    manipulator: Manipulator, trials: Sequence[Trial], settings: EditSettings, advance: Advance
) -> list[Outcome]:
    """Make all edits side by side through the manipulator, order kept; one that fails is an outcome without change."""

    async def gathered() -> list[Outcome]:
        return await asyncio.gather(*(_run(manipulator, trial, settings, advance) for trial in trials))

    return asyncio.run(gathered())


async def _run(manipulator: Manipulator, trial: Trial, settings: EditSettings, advance: Advance) -> Outcome:
    told = 0

    def tell(progress: Progress) -> None:
        nonlocal told
        advance(progress.step - told)
        told = progress.step

    try:
        edit = await manipulator.edit(trial.prepared(settings), on_progress=OnProgress(TELL_EVERY, tell, preview=False))
    except InvalidEdit as error:
        logger.warning("%s: %s", trial.label, error)
        source = _source_of(manipulator.world, trial.seed, settings)
        return Outcome(trial, source, source, error=str(error))
    finally:
        advance(settings.num_steps - told)
    return _outcome(trial, edit)


def _outcome(trial: Trial, edit: ManipulatedEdit) -> Outcome:
    return Outcome(
        trial,
        edit.source,
        edit.image,
        latent_distance=edit.latent_distance,
        similarity_before=edit.similarity_before,
        similarity_after=edit.similarity_after,
        seconds=edit.seconds,
        identity_similarity=edit.identity_similarity,
        identity_note=edit.identity_note,
    )


def _source_of(world: World, seed: int, settings: EditSettings) -> NDArray[np.uint8]:
    image, _ = world.look(world.code(seed, None, settings.truncation_psi))
    pixels: NDArray[np.uint8] = as_bytes(image).permute(1, 2, 0).numpy()
    return pixels


@torch.no_grad()
def random_moves(world: World, outcomes: Sequence[Outcome], settings: EditSettings, *, seed: int) -> Tensor:
    """Return the codes of the outcomes' sources after one random move each, ``[S, L, D]``.

    Each move is as long as the edit's, and the same in all layers. Directions are normal in units of each code's
    standard deviation, as the optimiser's steps are: moves that stay among scenes.
    """
    chance = torch.Generator().manual_seed(seed)
    codes = []
    for outcome in outcomes:
        ws = world.code(outcome.trial.seed, None, settings.truncation_psi)
        direction = torch.randn(ws.shape[1], generator=chance).to(ws.device) * world.step_scale
        # the length counts every layer
        move = direction * (outcome.latent_distance / (ws.shape[0] ** 0.5 * direction.norm()))
        codes.append(ws + move)
    return torch.stack(codes)


@torch.no_grad()
def draw(world: World, codes: Tensor) -> Tensor:
    """Return the pictures ``[S, 3, R, R]``, uint8, of codes ``[S, L, D]``."""
    return torch.cat([as_bytes(world.generator.synthesize(part)) for part in torch.split(codes, BATCH)])
