"""What the parts of the report share: a world of the miniature, its models, and how much of it is sampled."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soundguide.config import EditSettings
from soundguide.listen import Listener
from soundguide.manipulator import Manipulator
from soundguide.miniature.domain import Domain
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.report.edits import FAINT, Trial, choose_sources, synthesised_trials
from soundguide.miniature.report.figures import Findings
from soundguide.miniature.report.held_out import Scenes, held_out_scenes
from soundguide.miniature.report.judge import Judge, load_reader
from soundguide.miniature.report.progress import Advance, steps_shown
from soundguide.miniature.report.recognition import CLIPS_PER_LABEL, listener_of, measure_synthesised
from soundguide.models.manifest import resolve_model

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is sampled: held-out scenes, how many of them inverted, clips of each label, the labels edited.

    ``labels``: of landscapes; ``expressions``: of faces.
    """

    num_scenes: int = 2048
    num_inverted: int = 32
    clips_per_label: int = CLIPS_PER_LABEL
    labels: tuple[str, ...] = LANDSCAPE.labels
    expressions: tuple[str, ...] = FACES.labels


@dataclass(frozen=True, slots=True)
class Study:
    """One world to be measured: models that edit, a reader that judges, ``sources`` pictures edited for each label."""

    domain: Domain
    manipulator: Manipulator
    reader: SceneReader
    settings: EditSettings
    amount: Amount
    sources: int
    seed: int
    console: Console | None = None

    @classmethod
    def of(
        cls,
        domain: Domain,
        manipulator: Manipulator,
        reader: SceneReader | None,
        *,
        settings: EditSettings,
        amount: Amount,
        sources: int,
        seed: int,
        console: Console | None,
    ) -> Study:
        """Return the study of a world with a reader, or else the packaged one; raise `InvalidCheckpoint`.

        Without an identity encoder the settings' ``lambda_id`` is 0.
        """
        world = manipulator.world
        reader = (reader or load_reader(resolve_model(domain.name, "reader"))).to(world.device)
        if settings.lambda_id > 0 and world.identity is None:
            settings = settings.override({"lambda_id": 0.0})
        return cls(domain, manipulator, reader, settings, amount, sources, seed, console)

    def scenes(self, *, num: int, rendered: bool) -> Scenes:
        """Return held-out scenes, rendered too if asked."""
        world = self.manipulator.world
        return held_out_scenes(
            world.generator, num=num, seed=self.seed, device=world.device, rendered=rendered, domain=self.domain
        )

    @property
    def listener(self) -> Listener:
        """One that tells all labels of this world apart."""
        return listener_of(self.manipulator.world, self.domain)

    def synthesised_sounds(self, listener: Listener) -> Findings:
        """Name held-out sounds of this world."""
        clips = self.amount.clips_per_label
        return measure_synthesised(listener, seed=self.seed, clips_per_label=clips, domain=self.domain)

    def sources_of(self, judge: Judge, labels: tuple[str, ...], *, faint: float = FAINT) -> dict[str, list[int]]:
        """Return the seeds to edit for each label; see `choose_sources`."""
        psi, world = self.settings.truncation_psi, self.manipulator.world
        return choose_sources(
            world, judge, num=self.sources, seed=self.seed, truncation_psi=psi, labels=labels, faint=faint
        )

    def trials(self, sources: dict[str, list[int]]) -> list[Trial]:
        """Return a trial for each source, by a sound of the encoder's length."""
        audio = self.manipulator.world.audio
        seconds = audio.num_samples / audio.sample_rate
        return synthesised_trials(sources, seconds=seconds, seed=self.seed, domain=self.domain)

    def steps_shown(self, doing: str, total: int) -> AbstractContextManager[Advance]:
        """Show ``total`` steps on the console, if there is one."""
        return steps_shown(self.console, doing, total)
