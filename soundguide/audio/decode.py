"""Turns sound files into mono float32 samples at one rate, as a stream, and back into WAV or FLAC."""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from soundguide.errors import InvalidAudio

Samples = npt.NDArray[np.float32]

SILENCE_PEAK = 10.0 ** (-90.0 / 20.0)  # -90 dBFS: one step of 16-bit PCM stays just below it
_READ_VALUES = 1 << 18  # values read at once over all channels: memory stays flat however long or wide the file is
_MIN_RATE_HZ, _MAX_RATE_HZ, _MAX_CHANNELS = 1_000, 768_000, 64
# Containers that hold sound and nothing else by reference: playlists (HLS, DASH, concat) would let an upload open other
# files and addresses.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,ogg,aac,mp3,wav,w64,flac,caf,aiff,au,amr,asf,avi,flv,mpegts,mpeg,ac3,eac3,wv"
)


@dataclass(frozen=True)
class AudioLimits:
    """What a sound may cost: bytes of the file, seconds at least and at most."""

    max_bytes: int = 512 * 2**20
    max_seconds: float = 4 * 3600.0
    min_seconds: float = 0.1


_DEFAULT_LIMITS = AudioLimits()


def decode_audio(data: bytes, *, sample_rate: int, limits: AudioLimits = _DEFAULT_LIMITS) -> Samples:
    """Decode a whole sound file to mono ``[T]``, float32, nominally in [-1, 1], at `sample_rate` in Hz.

    Channels are averaged. Reads WAV, FLAC, OGG, MP3, M4A, WebM and the first audio track of video files.

    Raises:
        InvalidAudio: as `iter_audio`.
    """
    return np.concatenate(list(iter_audio(data, sample_rate=sample_rate, limits=limits)))


def iter_audio(
    source: bytes | BinaryIO,
    *,
    sample_rate: int,
    block_seconds: float = 30.0,
    limits: AudioLimits = _DEFAULT_LIMITS,
) -> Iterator[Samples]:
    """Decode a sound file (bytes, or a seekable binary file) in constant memory, resampled without seams.

    Yields mono blocks ``[T]`` as `decode_audio`, of `block_seconds` each; the last may be shorter.

    Raises:
        InvalidAudio: at the first block when the bytes are no sound; while iterating when samples are damaged, not
            finite or too many; after the last block when the sound was shorter than ``limits.min_seconds`` or silent.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    _check_size(file, limits)
    rate, blocks = _open(file)
    resampled = _resample(_checked(blocks, rate, limits), rate, sample_rate)
    yield from _rechunk(resampled, round(block_seconds * sample_rate))


def encode_wav(waveform: npt.NDArray[np.floating], sample_rate: int) -> bytes:
    """Encode mono samples ``[T]`` in [-1, 1] as 16-bit PCM WAV; values outside are clipped."""
    return _encode(waveform, sample_rate, "WAV")


def encode_flac(waveform: npt.NDArray[np.floating], sample_rate: int) -> bytes:
    """Encode mono samples ``[T]`` in [-1, 1] as 16-bit FLAC; values outside are clipped."""
    return _encode(waveform, sample_rate, "FLAC")


def decoder_reason(exc: Exception) -> str:
    """Return what a decoder found wrong in its own words, without FFmpeg's error number and its name for a buffer."""
    import av

    return str(exc.strerror) if isinstance(exc, av.FFmpegError) else str(exc)


def _encode(waveform: npt.NDArray[np.floating], sample_rate: int, container: str) -> bytes:
    import soundfile

    if waveform.ndim != 1 or waveform.size == 0 or not np.isfinite(waveform).all():
        raise InvalidAudio(
            f"cannot encode samples of shape {waveform.shape} as {container}; give one row of finite samples [T]"
        )
    pcm = np.clip(np.rint(waveform.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, sample_rate, format=container, subtype="PCM_16")
    return buffer.getvalue()


def _check_size(file: BinaryIO, limits: AudioLimits) -> None:
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    if num_bytes == 0:
        raise InvalidAudio("the sound file is empty (0 bytes); export or upload it again")
    if num_bytes > limits.max_bytes:
        raise InvalidAudio(
            f"the sound file has {num_bytes} bytes; at most {limits.max_bytes} are allowed. Shorten or compress it"
        )


def _open(file: BinaryIO) -> tuple[int, Iterator[Samples]]:
    """Open with libsndfile, or FFmpeg where that cannot read; return the file's rate and its mono blocks."""
    import soundfile

    try:
        sound = soundfile.SoundFile(file)
    except soundfile.SoundFileError:
        file.seek(0)
        return _open_av(file)
    _check_stream(sound.samplerate, sound.channels)
    return sound.samplerate, _soundfile_blocks(sound)


def _soundfile_blocks(sound: "soundfile.SoundFile") -> Iterator[Samples]:  # type: ignore[name-defined]  # noqa: F821
    import soundfile

    # not `SoundFile.blocks`, which takes the header's word for how many frames there are, and fills up what is missing
    # of a file that was cut with whatever lay in memory
    read = np.empty((max(1, _READ_VALUES // sound.channels), sound.channels), np.float32)
    with sound:
        try:
            while num_frames := sound.buffer_read_into(read, dtype="float32"):
                with np.errstate(invalid="ignore", over="ignore"):  # of damaged files, which `_checked` refuses
                    mono = read[:num_frames].mean(axis=1)
                yield mono
        except soundfile.SoundFileError as exc:
            raise _damaged(exc) from exc


def _open_av(file: BinaryIO) -> tuple[int, Iterator[Samples]]:
    import av

    try:
        container = av.open(file, mode="r", options={"format_whitelist": CONTAINERS})
    except (av.FFmpegError, ValueError) as exc:
        raise InvalidAudio(
            f"the bytes are no sound file that can be read ({decoder_reason(exc)}); use WAV, FLAC, OGG, MP3, M4A or "
            "WebM"
        ) from exc
    if not container.streams.audio:
        container.close()
        raise InvalidAudio("the file holds no audio track; give a recording, or a video that has sound")
    codec = container.streams.audio[0].codec_context
    if codec is None:  # PyAV's way to say that FFmpeg knows no decoder
        container.close()
        raise InvalidAudio("the sound track's codec is unknown, or its header damaged; export it as WAV, AAC or Opus")
    try:
        _check_stream(codec.sample_rate, codec.channels)
    except InvalidAudio:
        container.close()
        raise
    return codec.sample_rate, _av_blocks(container, codec.sample_rate)


def _av_blocks(container: "av.container.InputContainer", rate: int) -> Iterator[Samples]:  # type: ignore[name-defined]  # noqa: F821
    import av

    # The layout stays the file's own: FFmpeg's mix to mono adds channels at -3 dB each, which is no mean.
    to_planar_float = av.AudioResampler(format="fltp", rate=rate)
    with container:
        try:
            for frame in container.decode(audio=0):
                for planar in to_planar_float.resample(frame):
                    yield planar.to_ndarray().mean(axis=0)
        except (av.FFmpegError, ValueError) as exc:
            raise _damaged(exc) from exc


def _check_stream(rate: int, channels: int) -> None:
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ or not 1 <= channels <= _MAX_CHANNELS:
        raise InvalidAudio(
            f"the sound says {rate} Hz and {channels} channels; expected {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz and 1 to "
            f"{_MAX_CHANNELS} channels. Export it again, for example as 48000 Hz stereo"
        )


def _damaged(exc: Exception) -> InvalidAudio:
    return InvalidAudio(f"the sound file is damaged ({decoder_reason(exc)}); export or upload it again")


def _checked(blocks: Iterable[Samples], rate: int, limits: AudioLimits) -> Iterator[Samples]:
    """Pass the blocks on and raise InvalidAudio where their samples, their number or their level is wrong."""
    num_samples, peak = 0, 0.0
    for block in blocks:
        if not np.isfinite(block).all():
            raise InvalidAudio(
                f"the sound holds NaN or infinite samples after {num_samples / rate:.3f} s; export it as 16-bit PCM"
            )
        num_samples += block.size
        if num_samples > limits.max_seconds * rate:
            raise InvalidAudio(f"the sound is longer than the {limits.max_seconds:g} s allowed; cut it")
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        yield block
    if num_samples < limits.min_seconds * rate:
        raise InvalidAudio(
            f"the sound has {num_samples} samples ({num_samples / rate:.3f} s at {rate} Hz) after decoding; expected "
            f"at least {math.ceil(limits.min_seconds * rate)} ({limits.min_seconds:g} s). Give a longer recording"
        )
    if peak < SILENCE_PEAK:
        raise InvalidAudio(
            f"the sound is silent: the peak of its channels' mean is {peak:.1e}, below -90 dBFS. Check the recording's "
            "level, and that its channels do not cancel each other"
        )


def _resample(blocks: Iterable[Samples], rate: int, sample_rate: int) -> Iterator[Samples]:
    """Resample a stream of mono blocks; the filter's state runs on between blocks."""
    if rate == sample_rate:
        yield from blocks
        return
    import av

    resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray()[0]
    for resampled in resampler.resample(None):
        yield resampled.to_ndarray()[0]


def _rechunk(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Join and cut blocks to `size` samples each; the last is what is left, and none is empty."""
    pending: list[Samples] = []
    num_pending = 0
    for block in blocks:
        pending.append(block)
        num_pending += block.size
        if num_pending >= size:
            joined = np.concatenate(pending)
            whole = joined.size - joined.size % size
            yield from (joined[start : start + size].copy() for start in range(0, whole, size))
            pending, num_pending = [joined[whole:].copy()], joined.size - whole
    if num_pending:
        yield np.concatenate(pending)
