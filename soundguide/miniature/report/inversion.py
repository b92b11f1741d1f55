"""How near the code that inversion finds for a rendered scene comes to the rendering."""

from __future__ import annotations

import asyncio

from soundguide.config import EditSettings
from soundguide.manipulator import Manipulator
from soundguide.miniature.report.figures import Findings
from soundguide.miniature.report.held_out import Scenes
from soundguide.miniature.report.measures import mean
from soundguide.miniature.report.progress import Advance
from soundguide.records import PreparedEdit


def measure_inversion(
    manipulator: Manipulator, scenes: Scenes, settings: EditSettings, *, num: int, advance: Advance
) -> Findings:
    """Invert the first ``num`` held-out renderings as an edit of a photo would, and compare."""
    # an edit without steps is its inversion alone; it needs a target all the same
    settings = settings.override({"num_steps": 0, "text": scenes.domain.labels[0]})
    photos = scenes.rendered[:num].permute(0, 2, 3, 1).numpy()

    async def inverted(index: int) -> float:
        edit = await manipulator.edit(PreparedEdit(f"inversion/{index}", settings, photo=photos[index]))
        advance(settings.inversion_steps)
        return edit.inversion_error

    async def all_inverted() -> list[float]:
        return await asyncio.gather(*(inverted(index) for index in range(len(photos))))

    errors = asyncio.run(all_inverted())
    return Findings({"inversion_error": mean(errors)}, {"inversion_error_worst": max(errors)})
