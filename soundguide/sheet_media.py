"""Pictures and sounds small enough to lie inside one HTML page, as data URIs."""

import base64
import io
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from soundguide.audio.decode import AudioLimits, iter_audio
from soundguide.errors import InvalidAudio, InvalidEdit
from soundguide.images import decode_to_size
from soundguide.storage import Storage

logger = logging.getLogger(__name__)

CLIP_SECONDS = 10.0
RATE_HZ = 16_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 512  # pixels of an embedded picture
MAX_PICTURE_BYTES = 64 * 2**20

_N_FFT, _MELS, _COLUMNS = 1024, 64, 360
_FLOOR_DB, _CEILING_DB = -80.0, -14.0  # one scale for all sounds: a quiet one must look quiet
_LEVELS = 64
# Ink, deep water, teal, moss, sand, paper: evenly rising in lightness, so that it reads in grey as well.
_STOPS = np.array([(15, 18, 24), (20, 44, 60), (24, 92, 100), (92, 150, 116), (230, 186, 104), (255, 246, 222)], float)


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with its pixels as embedded."""

    uri: Markup
    width: int
    height: int


@dataclass(frozen=True)
class Sound:
    """A clip as data URIs of its MP3 and of its mel spectrogram; ``cut`` where the sound goes on after the clip."""

    audio: Markup
    spectrogram: Markup
    seconds: float
    cut: bool


def embed_picture(uri: str, *, storage: Storage, max_bytes: int) -> Picture | None:
    """Read the picture at `uri`: as written where it is a PNG of at most `max_bytes`, else smaller, as WebP.

    None, with a warning in the log, where it cannot be read.
    """
    try:
        data = storage.read_bytes(uri, max_bytes=MAX_PICTURE_BYTES)
        # a PNG tells its size in its IHDR chunk; of other pictures the centre square is shown
        ihdr = data[16:24] if data.startswith(PNG_SIGNATURE) else b""
        width, height = (int.from_bytes(ihdr[at : at + 4], "big") or MAX_SIDE for at in (0, 4))
        if ihdr and max(width, height) <= MAX_SIDE and len(data) <= max_bytes:
            return Picture(data_uri("image/png", data), width, height)
        return _shrunk(data, width, height, max_bytes)
    except InvalidEdit as exc:
        logger.warning("a picture is missing from the contact sheet: %s", exc)
        return None


def embed_sound(
    uri: str,
    *,
    storage: Storage,
    max_seconds: float = CLIP_SECONDS,
    start_seconds: float = 0.0,
    limits: AudioLimits = AudioLimits(),  # noqa: B008 - frozen
) -> Sound | None:
    """Read `max_seconds` of the sound at `uri`, from `start_seconds` on, in constant memory.

    None, with a warning in the log, where it cannot be read.
    """
    try:
        with storage.open(uri) as file:
            blocks = iter_audio(file, sample_rate=RATE_HZ, block_seconds=max_seconds, limits=limits)
            waveform, cut = _excerpt(blocks, round(start_seconds * RATE_HZ), round(max_seconds * RATE_HZ))
    except InvalidEdit as exc:
        logger.warning("a sound is missing from the contact sheet: %s", exc)
        return None
    return Sound(
        audio=data_uri("audio/mpeg", _encode_mp3(waveform)),
        spectrogram=data_uri("image/png", spectrogram_png(waveform)),
        seconds=waveform.size / RATE_HZ,
        cut=cut,
    )


def _excerpt(
    blocks: Iterable[npt.NDArray[np.float32]], start: int, num_samples: int
) -> tuple[npt.NDArray[np.float32], bool]:
    """Return samples ``[T]`` from ``start`` on, ``num_samples`` at most, and whether the sound goes on after them."""
    parts: list[npt.NDArray[np.float32]] = []
    position = 0
    for block in blocks:
        part = block[max(0, start - position) : max(0, start + num_samples - position)]
        if part.size:
            parts.append(part)
        position += block.size
        if position > start + num_samples:
            return np.concatenate(parts), True
    if not parts:
        raise InvalidAudio(f"the sound ends before {start / RATE_HZ:g} s; it was longer when it was heard")
    return np.concatenate(parts), False


def data_uri(media_type: str, data: bytes) -> Markup:
    """Return `data` as a data URI; its characters need no escaping in HTML."""
    return Markup(f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}")  # noqa: S704 - base64 is safe


def spectrogram_png(waveform: npt.NDArray[np.float32]) -> bytes:
    """Return the mel spectrogram of samples ``[T]`` at 16 kHz as a PNG of 360 x 64 pixels: low tones at the bottom."""
    return _encode_levels(mel_levels(waveform))


def mel_levels(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the mel spectrogram of samples ``[T]`` at 16 kHz as levels 0..63, ``[64, 360]``: low tones last.

    The levels are decibels from -80 to -14 against a full-scale sine, the same for every sound.
    """
    # Frame f is centred on its column's middle; with 10 s in 360 columns neighbouring windows still overlap by half.
    padded = np.pad(waveform.astype(np.float64), _N_FFT // 2)
    starts = ((np.arange(_COLUMNS) + 0.5) * waveform.size / _COLUMNS).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[starts]  # [F, n_fft]
    window = np.hanning(_N_FFT + 1)[:-1]
    full_scale = _N_FFT * np.square(window).sum() / 4
    power = np.square(np.abs(np.fft.rfft(frames * window))) / full_scale
    db = 10 * np.log10(np.maximum(power @ _mel_filters(), 1e-12)).T[::-1]  # [M, F]
    levels = (db - _FLOOR_DB) / (_CEILING_DB - _FLOOR_DB) * (_LEVELS - 1)
    clipped: npt.NDArray[np.uint8] = np.clip(np.rint(levels), 0, _LEVELS - 1).astype(np.uint8)
    return clipped


@cache
def _mel_filters() -> npt.NDArray[np.float64]:
    """Return triangles on the HTK mel scale, 30 Hz to 8 kHz, ``[bins, M]``."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (30.0, RATE_HZ / 2))
    edges = 700 * (10 ** (np.linspace(low, high, _MELS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(_N_FFT, 1 / RATE_HZ)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    filters: npt.NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return filters


def _encode_levels(levels: npt.NDArray[np.uint8]) -> bytes:
    position = np.linspace(0, len(_STOPS) - 1, _LEVELS)
    palette = np.stack([np.interp(position, np.arange(len(_STOPS)), channel) for channel in _STOPS.T], 1)
    image = Image.fromarray(levels).convert("P")
    image.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _encode_mp3(waveform: npt.NDArray[np.float32]) -> bytes:
    import soundfile

    # MP3, because every browser plays it; 32 kbit/s is 40 kB for 10 s.
    buffer = io.BytesIO()
    kind = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.85}
    soundfile.write(buffer, np.clip(waveform, -1, 1), RATE_HZ, **kind)
    return buffer.getvalue()


def _shrunk(data: bytes, width: int, height: int, max_bytes: int) -> Picture:
    """Encode as WebP, at the largest size that keeps within `max_bytes`; 64 pixels of the longer side where none does.

    ``width``, ``height``: the shape to show, and the most pixels.
    """
    longer = max(width, height)
    side = min(longer, MAX_SIDE)
    while True:
        buffer = io.BytesIO()
        across, down = (max(1, round(length * side / longer)) for length in (width, height))
        Image.fromarray(decode_to_size(data, height=down, width=across)).save(buffer, format="WEBP", quality=88)
        if buffer.tell() <= max_bytes or side <= 64:
            return Picture(data_uri("image/webp", buffer.getvalue()), across, down)
        side = max(64, side * 3 // 4)
