"""What can be said of a world's pictures: facts, the words for them, and captions known to be true or false.

A fact is a label (it is there) or a plain statement about a continuous factor. Because the world is known, a caption
is known to be true, false or undecided of every picture: contrastive training need not take a picture for a negative
that the caption fits as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FAINT = 0.15
"""Captions speak of a label from this intensity on: guidance must feel it before it is plain to see."""

_SLACK = 0.12  # so near its range a statement is neither true nor false

Statement = tuple[str, str, float, float]
"""Words, and the factor and range of which they are true."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of one world. ``phrases``: other words for a label; ``nothing``: what is always true."""

    labels: tuple[str, ...]
    phrases: Mapping[str, tuple[str, ...]]
    statements: tuple[Statement, ...]
    templates: tuple[str, ...]
    nothing: str

    @property
    def facts(self) -> tuple[str, ...]:
        """All facts, labels first."""
        return (*self.labels, *(name for name, *_ in self.statements))

    def truth(self, value: Mapping[str, Tensor]) -> Tensor:
        """Return whether each fact holds, ``[B, num_facts]``: 1 true, 0 false, -1 undecided.

        ``value``: each factor as the pictures show it, ``[B]``.
        """
        columns = [torch.where(value[n] >= FAINT, 1, torch.where(value[n] <= 0, 0, -1)) for n in self.labels]
        for _, factor, low, high in self.statements:
            x = value[factor]
            inside = (x >= low) & (x <= high)
            near = (x >= low - _SLACK) & (x <= high + _SLACK)
            columns.append(torch.where(inside, 1, torch.where(near, -1, 0)))
        return torch.stack(columns, 1)

    def draw_captions(self, facts: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
        """Write a true caption for each picture; return texts and the stated facts ``[B, num_facts]`` bool.

        Five of six captions speak of one label where there is one, the others of one or two facts of any kind: the
        more an embedding says about what is around a label, the more of it changes when a sound guides an edit.
        """
        texts, stated = [], torch.zeros(facts.shape, dtype=torch.bool)
        for row, fact_row in enumerate(facts):
            true = torch.nonzero(fact_row == 1).flatten()
            sounding = true[true < len(self.labels)]
            pool = sounding if len(sounding) and _draw(6, generator) else true
            if not len(pool):
                texts.append(self.nothing)
                continue
            num = 2 if len(pool) > 1 and pool is true and _draw(2, generator) else 1
            chosen = pool[torch.randperm(len(pool), generator=generator)[:num]]
            stated[row, chosen] = True
            texts.append(self.phrase(tuple(self.facts[i] for i in chosen.tolist()), generator))
        return texts, stated

    def phrase(self, facts: tuple[str, ...], generator: torch.Generator) -> str:
        """Write one caption that states ``facts``; every second word is the class name itself."""
        words = []
        for fact in facts:
            others = self.phrases.get(fact, ())
            words.append(others[_draw(len(others), generator)] if others and _draw(2, generator) else fact)
        return self.templates[_draw(len(self.templates), generator)].format(" and ".join(words))


def false_of(facts: Tensor, captions: Tensor) -> Tensor:
    """Return ``[B, C]`` bool: caption c is false of picture b.

    ``facts``: ``[B, num_facts]`` from `Vocabulary.truth`; ``captions``: ``[C, num_facts]`` bool, the facts that each
    caption states.
    """
    return (facts == 0).float() @ captions.float().T > 0


def undecided_or_true_of(facts: Tensor, captions: Tensor) -> Tensor:
    """Return ``[B, C]`` bool: caption c may be said of picture b, so that the two are no negatives."""
    return ~false_of(facts, captions)


def _draw(num: int, generator: torch.Generator) -> int:
    return int(torch.randint(num, (1,), generator=generator))
