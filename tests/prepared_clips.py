"""A small set of prepared clips, as jobs/prepare_clips.py leaves it: tones of four pitches, in four colours."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from clip_videos import plain, tone
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import encode_flac
from soundguide.clips.decode import encode_frame
from soundguide.clips.embed import ClipEmbedder
from soundguide.clips.facts import EmbedderConfig
from soundguide.clips.shards import open_shards, weak_partners_uri
from soundguide.clips.tables import blank_media, decoded_table
from soundguide.clips.weak_partners import write_tables
from soundguide.config import ManipulatorConfig
from soundguide.models.manifest import read_config
from soundguide.run_folder import RunFolder, describe_run
from soundguide.storage import Storage

PITCHES = {"rain": 400.0, "wind": 800.0, "bells": 1600.0, "birds": 3000.0}
LONELY = "thunder"  # a label of one clip
SECONDS = 0.7


def write_prepared(folder: Path, models: ManipulatorConfig, *, per_label: int = 12, validation: int = 4) -> RunFolder:
    """Write `per_label` training and `validation` clips of each pitch, one lonely clip and one without a frame."""
    rng = np.random.default_rng(0)
    rows = []
    for number, (label, pitch) in enumerate(PITCHES.items()):
        for index in range(per_label + validation):
            sound = tone(pitch * float(rng.uniform(0.9, 1.1)), SECONDS, rate=SAMPLE_RATE) * float(rng.uniform(0.2, 0.9))
            colour = (60 * number, 200 - 40 * number, int(rng.integers(255)))
            rows.append(_row(f"{label}-{index}", label, sound, colour, "validation" if index >= per_label else "train"))
    rows.append(_row("lonely", LONELY, tone(200.0, SECONDS, rate=SAMPLE_RATE), (9, 9, 9), "train"))
    rows.append({**_row("unseen", "rain", tone(420.0, SECONDS, rate=SAMPLE_RATE), None, "train")})
    bad = {"status": "error", "error": "silent", "error_kind": "InvalidAudio", "sound": b""}
    rows.append({**_row("bad", "rain", tone(400.0, SECONDS, rate=SAMPLE_RATE), None, "train"), **bad})
    embedder = ClipEmbedder(EmbedderConfig(image_text=models.image_text, num_augmented_texts=2, device="cpu"))
    table = embedder(decoded_table(rows))
    prepared = RunFolder(str(folder))
    (folder / "results").mkdir(parents=True)
    half = table.num_rows // 2
    for part, rows_of_part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(rows_of_part, folder / "results" / f"{part}.parquet")
    tables = write_tables(open_shards(prepared, embed_dim=embedder.embed_dim), weak_partners_uri(prepared), Storage())
    digest = str(read_config(Path(models.image_text))["weights_sha256"])
    record = describe_run({"sample_rate": SAMPLE_RATE}, {}, [("image_text", digest)])
    prepared.write_record({**record, "status": "complete", "weak_partners": {split: {} for split in tables}})
    return prepared


def _row(id: str, label: str, sound: np.ndarray, colour: tuple[int, int, int] | None, split: str) -> dict[str, object]:
    frame = b"" if colour is None else encode_frame(plain(colour, 1)[0], "png")
    return {
        **blank_media(),
        "id": id,
        "source_id": id,
        "split": split,
        "labels": [label],
        "text": f"the sound of {label}",
        "sound": encode_flac(sound, SAMPLE_RATE),
        "sample_rate": SAMPLE_RATE,
        "frame": frame,
        "has_frame": bool(frame),
    }
