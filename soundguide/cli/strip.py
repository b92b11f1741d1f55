"""The strip beside an edit: before and after, and under them the sound that did it."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from soundguide.audio.decode import iter_audio
from soundguide.images import Pixels
from soundguide.sheet_media import RATE_HZ, mel_levels

MIN_SIDE = 256
_SHOWN_SECONDS = 10.0
_PAPER, _INK = "#faf8f3", "#0f1218"
_OVERSAMPLING = 4  # of the rounded corners


def before_after(pictures: Sequence[Pixels], *, sound: bytes = b"", text: str = "") -> Pixels:
    """Return pictures ``[H, W, 3]`` side by side, at least 256 px high, over the sound's spectrogram and the text.

    ``sound``: a file's bytes, of which the first 10 s are shown; empty for none.
    """
    rows = max(MIN_SIDE, *(len(picture) for picture in pictures))
    gap = rows // 21
    panels = [_enlarged(picture, rows) for picture in pictures]
    width = sum(panel.width for panel in panels) + (len(panels) - 1) * gap
    below = [_spectrogram(sound, (width, rows // 5))] if sound else []
    below += [_caption(text, width, rows // 12)] if text else []
    height = rows + sum(gap + panel.height for panel in below)
    page = Image.new("RGB", (width + 2 * gap, height + 2 * gap), _PAPER)
    left = gap
    for panel in panels:
        _paste(page, panel, (left, gap))
        left += panel.width + gap
    top = gap + rows + gap
    for panel in below:
        _paste(page, panel, (gap, top))
        top += panel.height + gap
    return np.asarray(page)


def contact(pictures: Sequence[Pixels]) -> Pixels:
    """Return pictures ``[R, R, 3]`` of one size on a grid as square as can be; one picture is returned as it is."""
    if len(pictures) == 1:
        return pictures[0]
    side = len(pictures[0])
    gap = max(2, side // 32)
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + gap) + gap), _PAPER)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        page.paste(Image.fromarray(picture), (gap + column * (side + gap), gap + row * (side + gap)))
    return np.asarray(page)


def _enlarged(picture: Pixels, height: int) -> Image.Image:
    image = Image.fromarray(picture)
    width = round(image.width * height / image.height)
    # bicubic: Lanczos would draw rings around the few pixels of a small picture
    return image if image.height == height else image.resize((width, height), Image.Resampling.BICUBIC)


def _spectrogram(sound: bytes, size: tuple[int, int]) -> Image.Image:
    waveform = next(iter_audio(io.BytesIO(sound), sample_rate=RATE_HZ, block_seconds=_SHOWN_SECONDS))
    levels: NDArray[np.uint8] = mel_levels(waveform) * 4  # 0..63 to 0..252
    coloured = ImageOps.colorize(Image.fromarray(levels), black=_INK, mid="#2c8c86", white="#fff6de")
    return coloured.resize(size, Image.Resampling.BICUBIC)


def _caption(text: str, width: int, height: int) -> Image.Image:
    panel = Image.new("RGB", (width, height), _PAPER)
    font = ImageFont.load_default(0.7 * height)
    line = f"“{' '.join(text.split())}”"
    while font.getlength(line) > width and len(line) > 3:
        line = f"{line[:-3].rstrip()}…”"
    ImageDraw.Draw(panel).text((width / 2, height / 2), line, fill=_INK, font=font, anchor="mm")
    return panel


def _paste(page: Image.Image, panel: Image.Image, at: tuple[int, int]) -> None:
    """Paste with rounded corners."""
    width, height = (length * _OVERSAMPLING for length in panel.size)
    mask = Image.new("L", (width, height), 0)
    radius = min(10, panel.height // 6) * _OVERSAMPLING
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius, fill=255)
    page.paste(panel, at, mask.resize(panel.size, Image.Resampling.BOX))
