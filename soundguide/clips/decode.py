"""From a file to a clip: the sound of a span as FLAC at one rate, and the frame in the middle of that span.

Bytes, pixels and seconds are bounded before memory is spent. What is wrong with a file becomes an `InvalidEdit`, and in
`ClipDecoder` the error of its row.
"""

import contextlib
import io
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from soundguide.audio.decode import (
    CONTAINERS,
    SILENCE_PEAK,
    AudioLimits,
    Samples,
    decoder_reason,
    encode_flac,
    iter_audio,
)
from soundguide.clips.tables import blank_media, decoded_table, split_labels
from soundguide.config import Frozen
from soundguide.errors import InvalidAudio, InvalidEdit, InvalidImage, InvalidSettings
from soundguide.images import ImageLimits, Pixels, decode_image, encode_png
from soundguide.records import Row
from soundguide.storage import Storage
from soundguide.tables import status_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MIB = 2**20
_MICROSECONDS = 1_000_000  # the unit in which FFmpeg seeks and gives a file's times
_MAX_DECODED_FRAMES = 20_000  # on the way from a key frame to the one that is wanted; minutes of film
_SLACK_SECONDS = 2.0  # by which a trimmed file may be longer than its clip: cuts fall on key frames
_JPEG_QUALITY = 95


class ClipSettings(Frozen):
    """What a clip is."""

    clip_seconds: Annotated[float, Field(gt=0, le=600, description="Longest sound; shorter ones stay short.")] = 10.0
    frame_format: Annotated[
        Literal["jpeg", "png"], Field(description="How frames are kept: small, or without any loss.")
    ] = "jpeg"


class ClipLimits(Frozen):
    """What one clip's files may cost."""

    max_file_mib: Annotated[int, Field(ge=1, description="Size of a video, sound or picture file, MiB.")] = 256
    max_file_seconds: Annotated[float, Field(gt=0, description="Length of a video or sound, seconds.")] = 4 * 3600.0
    max_frame_pixels: Annotated[int, Field(ge=1, description="Pixels of a frame, width times height.")] = 36_000_000
    min_clip_seconds: Annotated[float, Field(ge=0.1, description="Shortest sound of a clip, seconds.")] = 0.1


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a file that is the clip: from `start` to `end`, in seconds."""

    start: float
    end: float


def cut_sound(data: bytes, *, sample_rate: int, span: Span, limits: ClipLimits) -> Samples:
    """Decode the sound of a span to mono ``[T]`` at `sample_rate`; shorter than the span where the file ends before.

    Raises:
        InvalidAudio: there is no sound track, it is damaged, or the span is silent, too short or behind its end.
    """
    first, last = round(span.start * sample_rate), round(span.end * sample_rate)
    sound_limits = AudioLimits(limits.max_file_mib * _MIB, limits.max_file_seconds, limits.min_clip_seconds)
    kept: list[Samples] = []
    position = 0
    with contextlib.closing(
        _iterate(iter_audio(data, sample_rate=sample_rate, block_seconds=1.0, limits=sound_limits))
    ) as blocks:
        for block in blocks:
            kept.append(block[max(0, first - position) : max(0, last - position)])
            position += block.size
            if position >= last:  # the rest of a long recording is not the clip's
                break
    waveform: Samples = np.concatenate(kept)
    if waveform.size < limits.min_clip_seconds * sample_rate:
        raise InvalidAudio(
            f"the clip has {waveform.size / sample_rate:.3f} s of sound: it starts at {span.start:g} s, and the sound "
            f"ends at {position / sample_rate:.3f} s. At least {limits.min_clip_seconds:g} s are expected; correct the "
            "start, or give the whole file"
        )
    peak = float(np.abs(waveform).max())
    if peak < 2 * SILENCE_PEAK:  # what is left of it in 16 bits must not be silent either
        raise InvalidAudio(
            f"the clip is silent from {span.start:g} s to {span.start + waveform.size / sample_rate:g} s: the peak is "
            f"{peak:.1e}, below -84 dBFS. Leave it out, or choose another span"
        )
    return waveform


def cut_frame(data: bytes, *, seconds: float, side: int, limits: ClipLimits) -> Pixels:
    """Decode the frame that a video shows at `seconds` (its last one after its end), upright, the centre square.

    Returns ``[S, S, 3]`` uint8, where S is `side`, or the frame's shorter side if that is less.

    Raises:
        InvalidImage: there is no picture track, its frames are too large, or they are damaged.
    """
    import av

    try:
        with _open_container(data) as container:
            stream = _picture_track(container, limits)
            frame = _frame_at(container, stream, seconds)
            if frame is None:  # nothing from that point on: the pictures end before the sound does
                frame = _frame_at(container, stream, -math.inf)
            if frame is None:
                raise InvalidImage("the video's picture track holds no frame; export it again")
            return _square(frame, side, limits)
    except (av.FFmpegError, ValueError, MemoryError) as exc:
        if isinstance(exc, InvalidEdit):
            raise
        raise InvalidImage(
            f"the video's picture track is damaged ({decoder_reason(exc)}); download or export it again"
        ) from exc


def file_seconds(data: bytes) -> float:
    """Return how long a video or sound file says it is; 0 where it does not. Raises `InvalidAudio` for other bytes."""
    with _open_container(data) as container:
        return (container.duration or 0) / _MICROSECONDS


def encode_frame(frame: Pixels, kind: Literal["jpeg", "png"]) -> bytes:
    """Encode a frame ``[S, S, 3]`` uint8 as JPEG or PNG."""
    if kind == "png":
        return encode_png(frame)
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ClipDecoder:
    """Turns requests into decoded clips; small, sent to workers.

    ``sample_rate``: of the sounds, Hz. ``frame_side``: of the frames at most, pixels. ``on_read`` hears of the bytes of
    each file that was read.
    """

    sample_rate: int
    frame_side: int
    settings: ClipSettings = ClipSettings()
    limits: ClipLimits = ClipLimits()
    storage: Storage = Storage()
    on_read: Callable[[int], None] | None = None

    def decode(self, row: Row) -> Row:
        """Return the row of `tables.DECODED_SCHEMA` of a request; what is wrong with it becomes its error."""
        carried = _carried(row)
        try:
            return {**carried, **blank_media(), **self._media(row)}
        except InvalidEdit as exc:
            return {**carried, **_failure(exc)}

    def decode_table(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Decode a table of requests, yielding one clip at a time: their bytes never pile up here."""
        for row in batch.to_pylist():
            yield decoded_table([self.decode(row)])

    def refuse(self, batch: pa.Table, error: InvalidEdit) -> pa.Table:
        """Return requests that were not decoded, because of ``error``."""
        return decoded_table([{**_carried(row), **_failure(error)} for row in batch.to_pylist()])

    def _media(self, row: Row) -> Row:
        _check_request(row)
        data = self._read(row["video"] or row["audio"])
        span = self._span(row)
        if row["file_seconds"] or row["video"]:
            self._check_length(data, row["file_seconds"])
        waveform = cut_sound(data, sample_rate=self.sample_rate, span=span, limits=self.limits)
        frame = self._frame(row, data, middle=span.start + waveform.size / self.sample_rate / 2)
        return {
            "sound": encode_flac(waveform, self.sample_rate),
            "sample_rate": self.sample_rate,
            "frame": b"" if frame is None else encode_frame(frame, self.settings.frame_format),
            "has_frame": frame is not None,
        }

    def _span(self, row: Row) -> Span:
        start, longest = row["start_seconds"], row["start_seconds"] + self.settings.clip_seconds
        end = min(row["end_seconds"], longest) if row["end_seconds"] else longest
        if not 0 <= start < end < math.inf:
            raise InvalidSettings(
                f"the clip runs from {start:g} s to {row['end_seconds']:g} s; its start must be at least 0, and before "
                "its end. Correct start_seconds and end_seconds"
            )
        return Span(start, end)

    def _check_length(self, data: bytes, expected: float) -> None:
        seconds = file_seconds(data)
        if seconds > self.limits.max_file_seconds:
            raise InvalidAudio(
                f"the file is {seconds:.0f} s long; at most {self.limits.max_file_seconds:g} s are allowed. Cut it"
            )
        if expected and seconds > expected + _SLACK_SECONDS:
            raise InvalidAudio(
                f"the file is {seconds:.1f} s long, and was expected to hold its clip of {expected:g} s alone. If the "
                "files are whole recordings, say so: --files recordings"
            )

    def _frame(self, row: Row, data: bytes, *, middle: float) -> Pixels | None:
        if row["video"]:
            return cut_frame(data, seconds=middle, side=self.frame_side, limits=self.limits)
        if not row["image"]:
            return None
        limits = ImageLimits(max_bytes=self.limits.max_file_mib * _MIB, max_pixels=self.limits.max_frame_pixels)
        return decode_image(self._read(row["image"]), resolution=self.frame_side, limits=limits)

    def _read(self, uri: str) -> bytes:
        data = self.storage.read_bytes(uri, max_bytes=self.limits.max_file_mib * _MIB)
        if self.on_read is not None:
            self.on_read(len(data))
        return data


def _carried(row: Row) -> Row:
    return {**{name: row[name] for name in ("id", "source_id", "split", "text")}, "labels": split_labels(row["labels"])}


def _failure(error: InvalidEdit) -> Row:
    kind = type(error).__name__
    return {**blank_media(), "status": status_of(kind), "error": str(error), "error_kind": kind}


def _check_request(row: Row) -> None:
    sources = [name for name in ("video", "audio") if row[name]]
    if len(sources) != 1:
        raise InvalidSettings(
            f"exactly one of video and audio is the sound of a clip, got {' and '.join(sources) or 'none'}. Give one"
        )
    if row["video"] and row["image"]:
        raise InvalidSettings("both video and image are given, and the video has a frame of its own. Leave one out")
    if not row["text"]:
        raise InvalidSettings("neither label nor text is given, so nothing says what sounds here. Give one of them")


def _iterate(blocks: Iterator[Samples]) -> Generator[Samples, None, None]:
    """Pass blocks on as a generator, which can be closed before its end."""
    yield from blocks


def _open_container(data: bytes) -> "InputContainer":
    import av

    try:
        return av.open(io.BytesIO(data), mode="r", options={"format_whitelist": CONTAINERS})
    except (av.FFmpegError, ValueError) as exc:
        raise InvalidAudio(
            f"the {len(data)} bytes are no video or sound that can be read ({decoder_reason(exc)}); use MP4, WebM "
            "or MKV, and see that the download is complete"
        ) from exc


def _picture_track(container: "InputContainer", limits: ClipLimits) -> "VideoStream":
    from av.stream import Disposition

    # A cover of an album is a picture track to FFmpeg, but shows nothing that sounds.
    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    if not tracks:
        raise InvalidImage(
            "the video holds no picture track; name the file in the column audio, and its picture, if any, in image"
        )
    codec = tracks[0].codec_context
    if codec is None:
        raise InvalidImage("the picture track's codec is unknown, or its header damaged; export it as H.264 or VP9")
    _check_pixels(codec.width, codec.height, limits)
    codec.options = {"max_pixels": str(limits.max_frame_pixels)}  # a stream may say one size and hold another
    codec.thread_count = 1  # threads of many clips side by side would only get in each other's way
    return tracks[0]


def _check_pixels(width: int, height: int, limits: ClipLimits) -> None:
    if width * height > limits.max_frame_pixels:
        raise InvalidImage(
            f"the video's frames have {width} x {height} pixels; at most {limits.max_frame_pixels} are allowed. "
            "Scale it down"
        )


def _frame_at(container: "InputContainer", stream: "VideoStream", seconds: float) -> "VideoFrame | None":
    """Return the last frame that starts at or before `seconds`, or the first one after it; -inf for the file's last."""
    begin = (container.start_time or 0) / _MICROSECONDS
    wanted = seconds + begin if math.isfinite(seconds) else math.inf
    container.seek(round(_MICROSECONDS * wanted) if math.isfinite(wanted) else (container.start_time or 0))
    found = None
    for number, frame in enumerate(container.decode(stream), start=1):
        if found is not None and frame.time is not None and frame.time > wanted:
            break
        found = frame
        if number >= _MAX_DECODED_FRAMES:
            raise InvalidImage(
                f"the frame at {seconds:g} s lies more than {_MAX_DECODED_FRAMES} frames behind a key frame. Encode "
                "the video again, with key frames"
            )
    return found


def _square(frame: "VideoFrame", side: int, limits: ClipLimits) -> Pixels:
    _check_pixels(frame.width, frame.height, limits)
    quarter_turns = round(frame.rotation / 90) % 4  # a telephone's film, held upright
    pixels = np.rot90(frame.to_ndarray(format="rgb24"), k=quarter_turns)
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = np.array(pixels[top : top + shorter, left : left + shorter], dtype=np.uint8)
    if shorter <= side:
        return square
    return np.array(Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)
