"""A contact sheet for the eye: a row for each label, pairs of source and edit side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from soundguide.miniature.report.edits import Outcome

SIDE = 128  # pixels of one picture
MARGIN, GAP, CAPTION = 12, 2, 190
PAPER, INK = (24, 26, 30), (232, 232, 226)


def write_contact_sheet(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG: rows are labels, written on the left; each pair is a source and, to its right, the edit."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.trial.label, []).append(outcome)
    pair = 2 * SIDE + GAP + MARGIN
    width = CAPTION + max(len(row) for row in rows.values()) * pair + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * (SIDE + MARGIN)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, (label, row) in enumerate(rows.items()):
        top = MARGIN + line * (SIDE + MARGIN)
        words = label.replace(" ", "\n", 1) if len(label) > 20 else label
        draw.multiline_text((MARGIN, top + SIDE // 2), words, fill=INK, font=font, anchor="lm")
        for column, outcome in enumerate(row):
            left = CAPTION + column * pair
            sheet.paste(_picture(outcome.source), (left, top))
            sheet.paste(_picture(outcome.edited), (left + SIDE + GAP, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    # nearest up, so that the generator's own pixels are judged; smooth down
    way = Image.Resampling.NEAREST if pixels.shape[0] <= SIDE else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((SIDE, SIDE), way)
