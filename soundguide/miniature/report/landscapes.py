"""The parts of the report that measure the first world, landscapes: its generator, its encoders, its edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from soundguide.miniature.recordings import Recording
from soundguide.miniature.report import appearance, edits, generation, recognition
from soundguide.miniature.report.figures import Findings, Json, Part
from soundguide.miniature.report.held_out import Scenes
from soundguide.miniature.report.inversion import measure_inversion
from soundguide.miniature.report.judge import Judge
from soundguide.miniature.report.progress import timed
from soundguide.miniature.report.study import Study

RANDOM_MOVES = 4  # draws of the control for each edit


@dataclass(frozen=True, slots=True)
class Landscapes:
    """The study of landscapes, with recordings where there are any."""

    study: Study
    recordings: list[Recording] | None

    def measure(
        self, parts: Sequence[Part], seconds: dict[str, Json]
    ) -> tuple[dict[Part, Findings], tuple[edits.Outcome, ...]]:
        """Return what each part found, and the edits by synthesised sounds; ``seconds`` takes how long each took."""
        findings: dict[Part, Findings] = {}
        outcomes: tuple[edits.Outcome, ...] = ()
        study, world = self.study, self.study.manipulator.world
        scenes = self._scenes(parts)
        for part in parts:
            with timed(part, seconds):
                match part:
                    case "generator":
                        drawn = generation.measure_generator(scenes, study.reader)
                        findings[part] = drawn | self._inversion(scenes)
                    case "clip":
                        findings[part] = generation.measure_clip(scenes, world.image_text, device=world.device)
                    case "sound":
                        findings[part] = self._sound()
                    case "edits":
                        findings[part], outcomes = self._edits(Judge.calibrated(study.reader, scenes))
                    case "faces":
                        raise AssertionError("faces are no landscapes")
        return findings, outcomes

    def _scenes(self, parts: Sequence[Part]) -> Scenes:
        needed = {"generator", "clip", "edits"} & set(parts)
        rendered = bool({"generator", "clip"} & needed)
        return self.study.scenes(num=self.study.amount.num_scenes if needed else 1, rendered=rendered)

    def _inversion(self, scenes: Scenes) -> Findings:
        settings = self.study.settings
        num = min(self.study.amount.num_inverted, len(scenes.rendered))
        with self.study.steps_shown("inverting", num * settings.inversion_steps) as advance:
            return measure_inversion(self.study.manipulator, scenes, settings, num=num, advance=advance)

    def _sound(self) -> Findings:
        listener = self.study.listener
        found = self.study.synthesised_sounds(listener)
        if self.recordings is None:
            return found
        return found | recognition.measure_recordings(listener, self.recordings)

    def _edits(self, judge: Judge) -> tuple[Findings, tuple[edits.Outcome, ...]]:
        study, settings = self.study, self.study.settings
        chosen = study.sources_of(judge, study.amount.labels)
        trials = study.trials(chosen)
        recorded = edits.recorded_trials(chosen, self.recordings or [])
        with study.steps_shown("editing", (len(trials) + len(recorded)) * settings.num_steps) as advance:
            outcomes = edits.run_trials(study.manipulator, [*trials, *recorded], settings, advance)
        verdicts, judged = appearance.judge_edits(judge, outcomes[: len(trials)])
        moved = [self._seen_after_random_move(judge, verdicts, judged, draw=draw) for draw in range(RANDOM_MOVES)]
        found = appearance.measure_edits(verdicts, judged, moved=moved)
        if recorded:
            by_recordings = appearance.judge_edits(judge, outcomes[len(trials) :])
            found |= appearance.measure_recorded_edits(*by_recordings)
        return found, tuple(outcomes[: len(trials)])

    def _seen_after_random_move(
        self, judge: Judge, verdicts: appearance.Verdicts, outcomes: Sequence[edits.Outcome], *, draw: int
    ) -> Tensor:
        """Return whether each edit's own label is seen after a random move of its length, ``[S]`` bool."""
        world = self.study.manipulator.world
        codes = edits.random_moves(world, outcomes, self.study.settings, seed=draw)
        present = judge.present(judge.read(edits.draw(world, codes)).logits)
        return present.gather(1, verdicts.own[:, None])[:, 0]
