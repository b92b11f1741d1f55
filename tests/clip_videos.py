"""What the tests of clip preparation share: videos made with PyAV, and the rows of requests for them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CODECS = {".mp4": ("libx264", "aac"), ".webm": ("libvpx", "libopus"), ".mkv": ("ffv1", "flac")}
FPS = 10
RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def tone(hz: float, seconds: float, *, rate: int = 44_100, level: float = 0.4) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def plain(color: tuple[int, int, int], num: int, *, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A still of one colour, ``[num, H, W, 3]``."""
    return np.broadcast_to(np.array(color, np.uint8), (num, *size, 3)).copy()


def loudest_hz(waveform: NDArray[np.floating], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * rate / len(waveform))


def write_video(
    path: Path,
    *,
    sound: NDArray[np.float32] | None,
    frames: NDArray[np.uint8] | None,
    rate: int = 44_100,
) -> Path:
    """Write ``sound`` ``[T]`` and ``frames`` ``[N, H, W, 3]`` at 10 a second, in the codecs of the path's ending."""
    picture_codec, sound_codec = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        picture_stream = sound_stream = None
        if frames is not None:
            options = {"crf": "10"} if picture_codec == "libx264" else {}
            picture_stream = container.add_stream(picture_codec, rate=FPS, options=options)
            picture_stream.height, picture_stream.width = frames.shape[1:3]
            picture_stream.pix_fmt, picture_stream.bit_rate = "yuv420p", 2_000_000
            picture_stream.time_base = Fraction(1, FPS)
        if sound is not None:
            # Opus knows 48 kHz only.
            sound_stream = container.add_stream(sound_codec, rate=48_000 if sound_codec == "libopus" else rate)
            sound_stream.layout = "mono"
        if picture_stream is not None and frames is not None:
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(picture_stream.encode(frame))
            container.mux(picture_stream.encode(None))
        if sound_stream is not None and sound is not None:
            codec = sound_stream.codec_context
            if not codec.is_open:
                codec.open()
            resampler = av.AudioResampler(codec.format, "mono", codec.rate, frame_size=codec.frame_size or None)
            whole = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            whole.sample_rate, whole.pts = rate, 0
            for part in [*resampler.resample(whole), *resampler.resample(None)]:
                container.mux(sound_stream.encode(part))
            container.mux(sound_stream.encode(None))
    return path


def request(**values: object) -> dict[str, object]:
    """A row of `tables.REQUEST_SCHEMA`."""
    blank = dict.fromkeys(("video", "audio", "image", "split"), "")
    times = dict.fromkeys(("start_seconds", "end_seconds", "file_seconds"), 0.0)
    named = {"row": 1, "id": "a", "source_id": "a", "labels": "raining", "text": "raining"}
    return {**named, **blank, **times, **values}
