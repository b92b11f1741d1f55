"""Videos of a miniature world, to prepare and train on as one would on a data set's: pictures with their sounds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from soundguide.audio.decode import decode_audio
from soundguide.clips.splits import TRAIN
from soundguide.miniature.clips import Clip
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.recordings import read_recordings
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, Ranges
from soundguide.storage import Storage

MANIFEST = "clips.csv"
_COLUMNS = ("id", "video", "audio", "label", "text", "split", "source_id", "start_seconds", "end_seconds")
FPS = 4
_AT_ONCE = 8  # videos that a process makes before it tells


@dataclass(frozen=True, slots=True)
class VideoSet:
    """What `write_videos` is to make: ``num`` clips of ``seconds``; the rest as `clips.make_clip`.

    ``edge_share`` of them, the last ones, have every parameter of their sound near an end of its range. ``recordings``
    names a folder of real sounds with index.csv; ``num_recorded`` cuts of them join the manifest, labels in turn.
    """

    num: int
    seconds: float = 5.0
    seed: int = 0
    bias: float = 0.0
    edge_share: float = 0.0
    resolution: int = 64
    recordings: Path | None = None
    num_recorded: int = 0
    domain: Domain = LANDSCAPE

    def ranges_of(self, index: int) -> Ranges:
        """Return where clip ``index`` has its parameters from."""
        return "train" if index < (1 - self.edge_share) * self.num else "edge"


def write_videos(folder: Path, wanted: VideoSet) -> Iterator[int]:
    """Write ``videos/*.mkv`` on all cores and, at the end, their manifest ``clips.csv``; yield how many are done."""
    cuts = cuts_of(wanted.recordings, wanted) if wanted.recordings is not None else []
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = ((folder, wanted, index) for index in range(wanted.num))
        for row in pool.map(_write, jobs, chunksize=_AT_ONCE):
            rows.append(row)
            yield len(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows + cuts)
    Storage().write_bytes(str(folder / MANIFEST), text.getvalue().encode())


def cuts_of(folder: Path, wanted: VideoSet) -> list[dict[str, str]]:
    """Return rows for ``wanted.num_recorded`` cuts, from places of chance, of the recordings to train on."""
    recordings = read_recordings(folder, split="train/", labels=wanted.domain.labels)
    seconds = {
        item.name: len(decode_audio(item.sound, sample_rate=SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ for item in recordings
    }
    labels = sorted({item.label for item in recordings})
    rng = np.random.default_rng(wanted.seed)
    generator = torch.Generator().manual_seed(wanted.seed)
    rows = []
    for index in range(wanted.num_recorded):
        label = labels[index % len(labels)]
        names = [item.name for item in recordings if item.label == label]
        name = names[rng.integers(len(names))]
        start = float(rng.uniform(0, max(0.0, seconds[name] - wanted.seconds)))
        rows.append(
            {
                "id": f"{wanted.seed}-r{index:06d}",
                "audio": str((folder / name).absolute()),
                "label": label,
                "text": wanted.domain.vocabulary.phrase((label,), generator),
                "split": TRAIN,
                "source_id": name,
                "start_seconds": f"{start:.3f}",
                "end_seconds": f"{start + min(wanted.seconds, seconds[name]):.3f}",
            }
        )
    return rows


def encode_video(images: NDArray[np.uint8], waveform: NDArray[np.float32]) -> bytes:
    """Encode pictures ``[N, H, W, 3]``, `FPS` a second, and a waveform ``[T]`` at 16 kHz (H.264, FLAC, Matroska)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        picture = container.add_stream("libx264", rate=FPS, options={"crf": "12"})
        picture.height, picture.width, picture.pix_fmt = images.shape[1], images.shape[2], "yuv420p"
        picture.time_base = Fraction(1, FPS)
        sound = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        for number, pixels in enumerate(images):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
        whole = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        whole.sample_rate, whole.pts = SAMPLE_RATE_HZ, 0
        codec = sound.codec_context
        if not codec.is_open:
            codec.open()
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ, frame_size=codec.frame_size or None)
        for part in [*resampler.resample(whole), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return buffer.getvalue()


def _write(job: tuple[Path, VideoSet, int]) -> dict[str, str]:
    """Write one video; return its row of the manifest."""
    folder, wanted, index = job
    torch.set_num_threads(1)
    id = f"{wanted.seed}-{index:06d}"
    name = f"videos/{id}.mkv"
    ranges = wanted.ranges_of(index)
    clip = wanted.domain.make_clip(index, seed=wanted.seed, seconds=wanted.seconds, bias=wanted.bias, ranges=ranges)
    Storage().write_bytes(str(folder / name), encode_video(_pictures(clip, wanted), clip.waveform))
    return {"id": id, "video": name, "label": clip.label, "text": clip.text}


def _pictures(clip: Clip, wanted: VideoSet) -> NDArray[np.uint8]:
    image = wanted.domain.render(clip.factors[None], wanted.resolution).images[0]
    still = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    repeated: NDArray[np.uint8] = np.repeat(still[None], max(1, round(wanted.seconds * FPS)), axis=0)
    return repeated
