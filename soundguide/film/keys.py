"""The key codes of a film: one for each segment, each found from the one before, all held to the source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from soundguide.config import EditSettings
from soundguide.film.segments import Segment
from soundguide.film.work import WorkFolder
from soundguide.manipulator import Manipulator
from soundguide.slots import OnProgress

Code = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Key:
    """The key code ``[L, D]`` of a segment, and the cosine of its picture and what was heard.

    ``similarity`` is None for silence and where an earlier run had found the code (``kept``).
    """

    segment: Segment
    code: Code
    similarity: float | None = None
    kept: bool = False


async def find_keys(
    manipulator: Manipulator,
    source: Code,
    segments: Sequence[Segment],
    settings: EditSettings,
    *,
    work: WorkFolder | None = None,
    on_progress: OnProgress | None = None,
) -> AsyncIterator[Key]:
    """Yield the key code of each segment, in order.

    Each search starts from the code before, so that neighbours lie close, while the regulariser of Eq. 16 holds on to
    the ``source`` ``[L, D]``, so that the scene stays itself. A silent segment's is the source. With ``work`` finished
    ones are read from there, and new ones kept. Raises a child of `InvalidEdit`.
    """
    held_to = torch.tensor(source, device=manipulator.world.device)
    before = source
    for segment in segments:
        code = None if work is None else work.read_key(segment.index, before)
        kept = code is not None
        similarity: float | None = None
        if code is None and segment.heard is None:
            code = source
        elif code is None:
            assert segment.heard is not None
            start = torch.tensor(before, device=held_to.device)  # a copy: codes that were read cannot be written to
            name = f"segment {segment.index + 1}"
            edited = await manipulator.follow(
                name, held_to, segment.heard, settings, start=start, on_progress=on_progress
            )
            code, similarity = edited.ws, edited.similarity_after
        if work is not None and not kept:
            work.write_key(segment.index, code, before)
        yield Key(segment, code, similarity, kept)
        before = code
