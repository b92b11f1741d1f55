"""The edits of the miniature's report: their judge, their sources, their controls, and how they are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from soundguide.config import EditSettings
from soundguide.errors import InvalidConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.recordings import read_recordings
from soundguide.miniature.report import appearance, edits, recognition
from soundguide.miniature.report.held_out import as_bytes, held_out_scenes
from soundguide.miniature.report.judge import Judge
from soundguide.miniature.scenes import CONTINUOUS, factors_from_z, spoken_of
from soundguide.world import seeded_z

FEW_STEPS = EditSettings(num_steps=3, num_views=1)


def a_judge(reader: SceneReader, *, threshold: float = 0.0, spreads: Tensor | None = None) -> Judge:
    return Judge(reader, torch.full((len(LABELS),), threshold), torch.ones(len(LABELS)) if spreads is None else spreads)


def test_a_calibrated_judge_sees_each_label_in_a_twentieth_of_the_scenes_without_it(
    manipulator: Manipulator, reader: SceneReader
) -> None:
    world = manipulator.world
    scenes = held_out_scenes(world.generator, num=400, seed=0, device=world.device, rendered=False)
    judge = Judge.calibrated(reader, scenes)
    present = judge.present(judge.read(scenes.generated).logits)
    for index in range(len(LABELS)):
        without = scenes.factors[:, len(CONTINUOUS) + index] <= 0
        assert float(present[without, index].float().mean()) == pytest.approx(0.05, abs=1 / int(without.sum()))


def test_the_largest_rise_is_counted_in_each_labels_own_spread(reader: SceneReader) -> None:
    spreads = torch.ones(len(LABELS))
    spreads[0], spreads[1] = 10.0, 0.5
    before, after = torch.zeros(1, len(LABELS)), torch.zeros(1, len(LABELS))
    after[0, 0], after[0, 1], after[0, 2] = 5.0, 1.0, 1.5  # 0.5, 2 and 1.5 spreads
    assert int(a_judge(reader, spreads=spreads).rises(before, after).argmax()) == 1


def verdicts_of(
    own: list[int], new: list[set[int]], seen_before: list[set[int]], won: list[bool]
) -> appearance.Verdicts:
    absent = torch.tensor([[i not in seen for i in range(len(LABELS))] for seen in seen_before])
    appeared = torch.tensor([[i in seen for i in range(len(LABELS))] for seen in new])
    largest = torch.tensor(
        [label if right else (label + 1) % len(LABELS) for label, right in zip(own, won, strict=True)]
    )
    return appearance.Verdicts(torch.tensor(own), appeared, absent, largest, torch.full((len(own),), 0.02))


def outcomes_of(own: list[int]) -> list[edits.Outcome]:
    blank = np.zeros((16, 16, 3), np.uint8)
    return [edits.Outcome(edits.Trial(LABELS[i], 0, b"", "x"), blank, blank) for i in own]


def test_edit_figures_follow_their_definitions() -> None:
    own = [0, 0, 1, 1]
    verdicts = verdicts_of(own, [{0}, {0, 1}, {1}, {2}], [set(), set(), {2}, set()], [True, True, True, False])
    random = [torch.tensor([True, False, False, False]), torch.zeros(4, dtype=torch.bool)]
    found = appearance.measure_edits(verdicts, outcomes_of(own), moved=random)
    pairs = 4 * (len(LABELS) - 1) - 1  # one source shows label 2 already
    assert found.measured == pytest.approx(
        {
            "edit_appeared": 3 / 4,
            "edit_appeared_worst": 1 / 2,
            "edit_largest_rise": 3 / 4,
            "edit_drift": 0.02,
            "edit_other_events": 2 / pairs,
            "control_random_move": 1 / 8,
            # label 1 in one of two edits by 0; label 2 in one of the three whose source lacked it
            "control_other_sound": (1 / 2 + 1 / 3) / len(LABELS),
        }
    )
    assert found.details["any_other_event_per_edit"] == 1 / 2


def test_edits_by_recordings_count_each_label_the_same() -> None:
    own = [0, 0, 0, 1]
    verdicts = verdicts_of(own, [{0}, {0}, {0}, set()], [set()] * 4, [True] * 4)
    found = appearance.measure_recorded_edits(verdicts, outcomes_of(own))
    assert found.measured == {"edit_appeared_recordings": 0.5}


class FactorReader(torch.nn.Module):
    """Reads the mean of the picture as every factor and, through the red of the picture, as label 0."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.full((len(images), len(LABELS)), -1.0)
        logits[:, 0] = images[:, 0].mean((1, 2))
        return ((images.mean((1, 2, 3)) + 1) / 2)[:, None].expand(-1, len(CONTINUOUS)), logits


def test_only_sources_that_lack_the_label_count_and_spoken_factors_do_not_drift() -> None:
    judge = a_judge(FactorReader())  # type: ignore[arg-type]
    dark, bright = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    trial = edits.Trial(LABELS[0], 0, b"", "x")
    verdicts, kept = appearance.judge_edits(
        judge, [edits.Outcome(trial, dark, bright), edits.Outcome(trial, bright, bright)]
    )
    assert len(kept) == 1 and kept[0].source is dark
    assert verdicts.appeared.tolist() == [True]
    assert verdicts.won.tolist() == [True]
    assert float(verdicts.drift[0]) == pytest.approx(1.0)  # every unspoken factor went from 0 to 1
    assert spoken_of(LABELS[0])  # so that the mean is over fewer factors than there are


def test_sources_are_calm_and_belong_to_one_label_only(manipulator: Manipulator, reader: SceneReader) -> None:
    world = manipulator.world
    labels = LABELS[:3]
    sources = edits.choose_sources(
        world, a_judge(reader, threshold=1e9), num=2, seed=0, truncation_psi=1.0, labels=labels
    )
    assert len({seed for seeds in sources.values() for seed in seeds}) == 6
    for label, seeds in sources.items():
        for seed in seeds:
            intensities = factors_from_z(seeded_z(seed, Z_DIM))[0, len(CONTINUOUS) :]
            assert float(intensities[LABELS.index(label)]) == 0
            assert float(intensities.max()) <= edits.FAINT


def test_a_random_move_is_as_long_as_the_edit_and_zero_where_the_edit_is(manipulator: Manipulator) -> None:
    world = manipulator.world
    ws = world.code(5, None, 1.0)
    source = as_bytes(world.look(ws)[0]).permute(1, 2, 0).numpy()
    trial = edits.Trial(LABELS[0], 5, b"", "x")
    outcomes = [edits.Outcome(trial, source, source, latent_distance=distance) for distance in (0.0, 3.0)]
    codes = edits.random_moves(world, outcomes, FEW_STEPS, seed=0)
    torch.testing.assert_close(codes[0], ws)
    move = codes[1] - ws
    assert float(move.norm()) == pytest.approx(3.0, rel=1e-4)
    torch.testing.assert_close(move, move[:1].expand_as(move), rtol=0, atol=1e-5)


def test_recorded_trials_take_turns_over_a_labels_recordings(recordings: Path) -> None:
    real = read_recordings(recordings)
    assert [item.name for item in real] == ["val/bells-1.wav", "val/bells-2.wav", "val/rain.wav"]
    trials = edits.recorded_trials({"church bells": [1, 2, 3], "raining": [4], "wind noise": [5]}, real)
    assert [(trial.seed, trial.origin) for trial in trials] == [
        (1, "val/bells-1.wav"), (2, "val/bells-2.wav"), (3, "val/bells-1.wav"), (4, "val/rain.wav"),
    ]  # fmt: skip


def test_recordings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"index\.csv"):
        read_recordings(tmp_path)
    (tmp_path / "index.csv").write_text("file,label\nval/a.wav,raining\n")
    with pytest.raises(InvalidConfig, match="a.wav"):
        read_recordings(tmp_path)
    (tmp_path / "index.csv").write_text("file,label\ntrain/a.wav,raining\n")
    with pytest.raises(InvalidConfig, match="0 rows"):
        read_recordings(tmp_path)


def test_an_edit_that_fails_counts_as_one_that_changed_nothing(manipulator: Manipulator) -> None:
    trial = edits.Trial("raining", 3, b"no sound", "broken")
    (outcome,) = edits.run_trials(manipulator, [trial], FEW_STEPS, lambda steps: None)
    assert outcome.error
    assert np.array_equal(outcome.source, outcome.edited)


def test_progress_adds_up_to_all_steps(manipulator: Manipulator) -> None:
    sound = recognition.guiding_sound("raining", 0, seconds=0.5, seed=0)
    trials = [edits.Trial("raining", seed, sound, "x") for seed in (1, 2)]
    told: list[int] = []
    edits.run_trials(manipulator, trials, EditSettings(num_steps=25, num_views=1), told.append)
    assert sum(told) == 50
    assert min(told) >= 0
