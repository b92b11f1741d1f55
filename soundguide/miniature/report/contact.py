"""A contact sheet for the eye: a row for each label, sources beside what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from soundguide.miniature.report.edits import Outcome
from soundguide.miniature.report.faces import FaceEdit

SIDE = 128  # pixels of one picture
MARGIN, GAP, CAPTION = 12, 2, 190
PAPER, INK = (24, 26, 30), (232, 232, 226)
FACES_HEAD = "faces: source, edit without the identity term, edit with it"

Group = tuple[NDArray[np.uint8], ...]
"""Pictures ``[R, R, 3]`` that stand close together."""


def write_contact_sheet(outcomes: Sequence[Outcome], faces: Sequence[FaceEdit], path: Path) -> None:
    """Write a PNG: rows are labels, written on the left; each group a source and, to its right, its edits.

    Faces have two edits, without and with the identity term, and stand below all landscapes, under a line that says so.
    """
    landscape_rows = _by_label([(outcome.trial.label, (outcome.source, outcome.edited)) for outcome in outcomes])
    face_rows = _by_label(
        [(face.kept.trial.label, (face.kept.source, face.free.edited, face.kept.edited)) for face in faces]
    )
    rows = [*landscape_rows.items(), *face_rows.items()]
    head = 2 * MARGIN if face_rows else 0
    width = CAPTION + max(sum(map(_width, groups)) for _, groups in rows) + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * (SIDE + MARGIN) + head), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, (label, groups) in enumerate(rows):
        top = MARGIN + line * (SIDE + MARGIN) + (head if line >= len(landscape_rows) else 0)
        if line == len(landscape_rows):
            draw.text((MARGIN, top - MARGIN), FACES_HEAD, fill=INK, font=font, anchor="lm")
        words = label.replace(" ", "\n", 1) if len(label) > 20 else label
        draw.multiline_text((MARGIN, top + SIDE // 2), words, fill=INK, font=font, anchor="lm")
        left = CAPTION
        for group in groups:
            for place, pixels in enumerate(group):
                sheet.paste(_picture(pixels), (left + place * (SIDE + GAP), top))
            left += _width(group)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _by_label(labelled: Sequence[tuple[str, Group]]) -> dict[str, list[Group]]:
    rows: dict[str, list[Group]] = {}
    for label, group in labelled:
        rows.setdefault(label, []).append(group)
    return rows


def _width(group: Group) -> int:
    return len(group) * (SIDE + GAP) - GAP + MARGIN


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    # nearest up, so that the generator's own pixels are judged; smooth down
    way = Image.Resampling.NEAREST if pixels.shape[0] <= SIDE else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((SIDE, SIDE), way)
