"""The learning rate over a training: a short rise, then cosine cycles (Sec. 4.1; Loshchilov & Hutter 2017)."""

import math


def rate_share(step: int, *, num_steps: int, num_cycles: int, warmup_steps: int) -> float:
    """Return the share, 0..1, of the highest rate at ``step`` of ``num_steps``.

    The steps are cut into cycles of equal length; in each the share falls from 1 to 0 as half a cosine. During the
    first ``warmup_steps`` it is held below a line from 0 to 1. Steps beyond the last have its share.
    """
    place = min(step, num_steps - 1) * num_cycles / num_steps % 1.0
    warm = min(1.0, (step + 1) / (warmup_steps + 1))
    return warm * 0.5 * (1 + math.cos(math.pi * place))
