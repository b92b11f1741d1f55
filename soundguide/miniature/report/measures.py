"""The few statistics of the report: ranking, thresholds, votes."""

from __future__ import annotations

from scipy.stats import rankdata
from torch import Tensor

from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.scenes import PRESENT


def auc(scores: Tensor, positive: Tensor) -> float:
    """Return how often a positive outscores a negative, ties counting half; NaN where there is none of either.

    ``scores``: ``[S]``; ``positive``: ``[S]`` bool.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    ranks = rankdata(scores.double().numpy())  # ties share their mean rank
    above = float(ranks[positive.numpy()].sum()) - num_positive * (num_positive + 1) / 2
    return above / (num_positive * num_negative)


def label_aucs(scores: Tensor, factors: Tensor, domain: Domain = LANDSCAPE) -> dict[str, float]:
    """Return the AUC of each label's scores ``[S, num_labels]`` over scenes of known ``factors`` ``[S, num_factors]``.

    Scenes that show a label clearly (from `PRESENT` on) against those that lack it; faint ones are left out.
    """
    result = {}
    for index, label in enumerate(domain.labels):
        intensity = factors[:, len(domain.continuous) + index]
        decided = (intensity >= PRESENT) | (intensity <= 0)
        result[label] = auc(scores[decided, index], intensity[decided] >= PRESENT)
    return result


def threshold_at(scores: Tensor, false_positive_rate: float) -> float:
    """Return the lowest of the negatives' ``scores`` ``[N]`` above which at most the given share of them lies."""
    ordered = scores.sort(descending=True).values
    return float(ordered[min(int(false_positive_rate * len(ordered)), len(ordered) - 1)])


def vote(probabilities: Tensor) -> int:
    """Return the label that most windows name, of ``[N, num_labels]``; ties go to the higher mean probability."""
    counts = probabilities.argmax(1).bincount(minlength=probabilities.shape[1])
    tied = counts == counts.max()
    return int(probabilities.mean(0).masked_fill(~tied, -1.0).argmax())


def mean(values: list[float]) -> float:
    """Return the mean, NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")
