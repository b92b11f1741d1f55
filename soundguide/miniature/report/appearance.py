"""Did it work? What the judge sees in edits: the event itself, other events, what drifted, and what controls show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.report.edits import Outcome
from soundguide.miniature.report.figures import Findings, Json
from soundguide.miniature.report.judge import Judge
from soundguide.miniature.report.measures import mean


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The judge's view of edits whose source lacks their label; S edits in order.

    ``own`` ``[S]``: index of the label; ``new`` ``[S, num_labels]`` bool: seen after, not before; ``absent``
    ``[S, num_labels]`` bool: not seen before; ``largest`` ``[S]``: index of the largest rise; ``drift`` ``[S]``: mean
    absolute change of the factors that the sound does not speak of. ``labels``: the names of the columns.
    """

    own: Tensor
    new: Tensor
    absent: Tensor
    largest: Tensor
    drift: Tensor
    labels: tuple[str, ...] = LANDSCAPE.labels

    @property
    def appeared(self) -> Tensor:
        """Whether each edit's own label appeared, ``[S]`` bool."""
        return self.new.gather(1, self.own[:, None])[:, 0]

    @property
    def won(self) -> Tensor:
        """Whether each edit's own label rose most, ``[S]`` bool."""
        return self.largest == self.own

    @property
    def others(self) -> Tensor:
        """Pairs of an edit and another label that its source lacks, ``[S, num_labels]`` bool."""
        return self.absent.scatter(1, self.own[:, None], False)


def judge_edits(judge: Judge, outcomes: Sequence[Outcome]) -> tuple[Verdicts, list[Outcome]]:
    """Return the verdicts on the edits whose source lacks their label as the manipulator drew it, and those edits."""
    domain = judge.domain
    own = torch.tensor([domain.labels.index(outcome.trial.label) for outcome in outcomes])
    before = judge.read(stacked([outcome.source for outcome in outcomes]))
    after = judge.read(stacked([outcome.edited for outcome in outcomes]))
    absent = ~judge.present(before.logits)
    unspoken = torch.tensor(
        [[name not in domain.spoken_of(outcome.trial.label) for name in domain.continuous] for outcome in outcomes],
        dtype=torch.float32,
    )
    drift = ((after.factors - before.factors).abs() * unspoken).sum(1) / unspoken.sum(1)
    largest = judge.rises(before.logits, after.logits).argmax(1)
    kept = torch.nonzero(absent.gather(1, own[:, None])[:, 0]).flatten()
    new = absent & judge.present(after.logits)
    verdicts = Verdicts(own[kept], new[kept], absent[kept], largest[kept], drift[kept], domain.labels)
    return verdicts, [outcomes[i] for i in kept.tolist()]


def measure_edits(verdicts: Verdicts, outcomes: Sequence[Outcome], *, moved: Sequence[Tensor]) -> Findings:
    """Return the figures of edits by synthesised sounds.

    ``moved``: for each draw of random moves, whether each edit's label is seen after it, ``[S]`` bool.
    """
    appeared, won = by_label(verdicts, verdicts.appeared), by_label(verdicts, verdicts.won)
    others = verdicts.new & verdicts.others
    # how often label A appears under the sounds of all others, on sources without A: each label counts the same
    cross = {
        label: _share(others[:, index], verdicts.others[:, index])
        for index, label in enumerate(verdicts.labels)
        if verdicts.others[:, index].any()
    }
    random = torch.stack(list(moved)).float().mean(0)  # [S]
    figures = {
        "edit_appeared": _mean(verdicts.appeared),
        "edit_appeared_worst": min(appeared.values(), default=float("nan")),
        "edit_largest_rise": _mean(verdicts.won),
        "edit_drift": _mean(verdicts.drift),
        "edit_other_events": _share(others, verdicts.others),
        "control_random_move": _mean(random),
        "control_other_sound": mean(list(cross.values())),
    }
    details: dict[str, Json] = {
        "any_other_event_per_edit": _mean(others.any(1)),
        "other_events_per_edit": _mean(others.sum(1)),
        "drift_worst_edit": float(verdicts.drift.max()) if len(verdicts.drift) else float("nan"),
        "failed": [f"{outcome.trial.label}: {outcome.error}" for outcome in outcomes if outcome.error],
        "by_label": {
            label: {
                "appeared": share,
                "largest_rise": won[label],
                "appeared_by_random_move": by_label(verdicts, random)[label],
                "appeared_by_other_sounds": cross.get(label, float("nan")),
                **about_label(verdicts, outcomes, label),
            }
            for label, share in appeared.items()
        },
    }
    worst = {"edit_appeared_worst": min(appeared, key=lambda label: appeared[label])} if appeared else {}
    return Findings(figures, details, worst=worst)


def measure_recorded_edits(verdicts: Verdicts, outcomes: Sequence[Outcome]) -> Findings:
    """Return the figure of edits by recordings: each label counts the same."""
    appeared, won = by_label(verdicts, verdicts.appeared), by_label(verdicts, verdicts.won)
    details: dict[str, Json] = {
        label: {"appeared": share, "largest_rise": won[label], **about_label(verdicts, outcomes, label)}
        for label, share in appeared.items()
    }
    return Findings({"edit_appeared_recordings": mean(list(appeared.values()))}, {"by_recordings": details})


def stacked(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return pictures ``[R, R, 3]`` as one tensor ``[S, 3, R, R]``, uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def about_label(verdicts: Verdicts, outcomes: Sequence[Outcome], label: str) -> dict[str, Json]:
    """Return what else happened in a label's edits, for whoever tunes them."""
    rows = torch.nonzero(verdicts.own == verdicts.labels.index(label)).flatten().tolist()
    mine = [outcomes[row] for row in rows]
    risen = Counter(verdicts.labels[int(verdicts.largest[row])] for row in rows if not verdicts.won[row])
    also = Counter(
        verdicts.labels[i]
        for row in rows
        for i in torch.nonzero(verdicts.new[row] & verdicts.others[row]).flatten().tolist()
    )
    return {
        "edits": len(rows),
        "drift": mean([float(verdicts.drift[row]) for row in rows]),
        "similarity_gain": mean([item.similarity_after - item.similarity_before for item in mine]),
        "latent_distance": mean([item.latent_distance for item in mine]),
        "rose_more": dict(risen.most_common(3)),
        "also_appeared": dict(also.most_common(3)),
    }


def by_label(verdicts: Verdicts, values: Tensor) -> dict[str, float]:
    """Return the mean of ``values`` ``[S]`` over the edits of each label that has any."""
    rows = [(label, verdicts.own == index) for index, label in enumerate(verdicts.labels)]
    return {label: _mean(values[own]) for label, own in rows if own.any()}


def _share(hits: Tensor, pairs: Tensor) -> float:
    """Return the share of ``pairs`` that are ``hits``; both bool, hits among pairs."""
    return float(hits.sum()) / max(int(pairs.sum()), 1)


def _mean(values: Tensor) -> float:
    return float(values.float().mean())
