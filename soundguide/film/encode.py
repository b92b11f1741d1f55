"""A film file as it is written: pictures and the song's sound, encoded as they come and interleaved."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from soundguide.audio.decode import CONTAINERS, decoder_reason
from soundguide.errors import InvalidAudio, InvalidConfig

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

SOUND_HZ = 48_000  # where a codec does not take the song's own rate, or that is higher
_CHANNEL_BITS = 96_000
_BT709, _LIMITED = 1, 1  # as FFmpeg numbers them

# container, codec of the pictures and its options, codec of the sound
# the encoder must keep up with a generator of small pictures; other presets only make files smaller, at this quality
_X264 = {"preset": "ultrafast", "crf": "18", "x264-params": "no-deblock=0"}
_VP9 = {"deadline": "good", "cpu-used": "5", "row-mt": "1", "crf": "30"}
_FORMATS = {
    ".mp4": ("mp4", "libx264", _X264, "aac"),
    ".mov": ("mov", "libx264", _X264, "aac"),
    ".mkv": ("matroska", "libx264", _X264, "aac"),
    ".webm": ("webm", "libvpx-vp9", _VP9, "libopus"),
}


def require_format(name: str) -> str:
    """Return the suffix of a film's name; raise `InvalidConfig` where no such film can be written."""
    import av

    suffix = Path(name).suffix.lower()
    if suffix not in _FORMATS:
        raise InvalidConfig(f"a film is written as {', '.join(_FORMATS)}, got {name!r}. Name a file that ends so.")
    _, pictures, _, sound = _FORMATS[suffix]
    missing = [codec for codec in (pictures, sound) if codec not in av.codecs_available]
    if missing:
        others = " or ".join(other for other in _FORMATS if other != suffix)
        raise InvalidConfig(f"{name}: this build of PyAV has no {' and no '.join(missing)}. Write {others}.")
    return suffix


def enlargement(height: int, width: int, *, size: int) -> int:
    """Return by what whole number pictures are enlarged so that no side is below ``size``, nor odd (4:2:0 needs that).

    Sides stay in proportion.
    """
    factor = -(-size // min(height, width))
    return factor if height * factor % 2 == 0 and width * factor % 2 == 0 else factor + 1


class FilmWriter:
    """Writes one film to ``path``, in the format of its suffix; a context manager.

    ``height``, ``width``: of the pictures that come, which are enlarged by ``factor``, bicubically. ``song``: a
    seekable sound file whose sound the film gets, in two channels at most, at its own rate where the codec has that; it
    is read as the pictures go on, so that memory does not grow. ``comment`` is written into the file. Leaving the
    context by an error leaves a file that is no film.
    """

    def __init__(
        self, path: Path, *, height: int, width: int, factor: int, fps: int, song: BinaryIO, comment: str = ""
    ) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        container, pictures, options, sound = _FORMATS[require_format(str(path))]
        # the index at the start: a browser plays before all is loaded
        faststart = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
        self._file = av.open(str(path), "w", format=container, container_options=faststart)
        self._file.metadata["comment"] = comment
        self._fps, self._num_frames = fps, 0
        self._pictures = cast("VideoStream", self._file.add_stream(pictures, rate=fps, options=options))
        self._pictures.height, self._pictures.width = height * factor, width * factor
        self._pictures.pix_fmt = "yuv420p"
        self._pictures.time_base = Fraction(1, fps)
        codec = self._pictures.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED
        self._reformatter = VideoReformatter()  # one for all: a frame's own would plan the enlargement anew
        self._song = _open_song(song)
        # FFmpeg makes one channel softer when it spreads it over two
        heard = self._song.streams.audio[0].codec_context
        layout = "mono" if heard.channels == 1 else "stereo"
        rates = [rate for rate in av.Codec(sound, "w").audio_rates or () if rate <= SOUND_HZ]
        rate = heard.rate if heard.rate in rates else SOUND_HZ
        self._sound = cast("AudioStream", self._file.add_stream(sound, rate=rate, layout=layout))
        self._sound.bit_rate = _CHANNEL_BITS * self._sound.codec_context.channels
        if self._sound.codec_context.name == "aac":
            # FFmpeg's other coder takes as long as the pictures
            self._sound.codec_context.options = {"aac_coder": "fast"}
        self._packets = _sound_packets(self._song, self._sound, layout)
        self._heard_until = 0.0

    def write(self, pictures: NDArray[np.uint8]) -> None:
        """Add pictures ``[B, H, W, 3]``, and the sound up to them. Raises `InvalidAudio` where the song is damaged."""
        from av import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        for pixels in pictures:
            frame = self._reformatter.reformat(
                VideoFrame.from_ndarray(pixels, format="rgb24"),
                width=self._pictures.width,
                height=self._pictures.height,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                # bicubic: Lanczos would draw rings around the few pixels of a small picture
                interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            )
            frame.pts, frame.time_base = self._num_frames, Fraction(1, self._fps)
            self._file.mux(self._pictures.encode(frame))
            self._num_frames += 1
        self._add_sound(until=self._num_frames / self._fps)

    def _add_sound(self, until: float) -> None:
        while self._heard_until < until:
            packet = next(self._packets, None)
            if packet is None:
                return
            if packet.pts is not None:
                self._heard_until = float(packet.pts * packet.time_base)
            self._file.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.mux(self._pictures.encode(None))
                self._add_sound(until=float("inf"))
        finally:
            self._packets.close()
            self._song.close()
            self._file.close()


def _open_song(song: BinaryIO) -> InputContainer:
    import av

    song.seek(0)
    try:
        return av.open(song, mode="r", options={"format_whitelist": CONTAINERS})
    except (av.FFmpegError, ValueError) as exc:
        raise _unreadable(exc) from exc


def _sound_packets(song: InputContainer, stream: AudioStream, layout: str) -> Generator[Packet[AudioStream]]:
    """Yield the encoded sound of a song, from 0 s on."""
    import av

    codec = stream.codec_context
    if not codec.is_open:
        codec.open()
    resampler = av.AudioResampler("fltp" if codec.name == "aac" else "flt", layout, codec.rate, codec.frame_size or 960)
    num_samples = 0
    try:
        for frame in chain(song.decode(audio=0), [None]):  # None: what the resampler still holds
            for part in resampler.resample(frame):
                part.pts, part.time_base = num_samples, Fraction(1, codec.rate)
                num_samples += part.samples
                yield from stream.encode(part)
    except (av.FFmpegError, ValueError) as exc:
        raise _unreadable(exc) from exc
    yield from stream.encode(None)


def _unreadable(exc: Exception) -> InvalidAudio:
    return InvalidAudio(
        f"the sound cannot be read again for the film ({decoder_reason(exc)}). Export the song as FLAC or WAV."
    )
