"""A folder of prepared clips as training sees it: its clips and labels, counted and checked before any work."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from soundguide.clips.splits import TRAIN
from soundguide.errors import InvalidConfig, InvalidManifest
from soundguide.pretraining.batches import COLUMNS
from soundguide.pretraining.shard_stream import Shard, ShardStream
from soundguide.run_folder import RunFolder

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class PreparedSet:
    """What a finished preparation left in ``folder``.

    ``labels``: all of them, sorted. ``shards``: by split, those that have good clips of it. ``sample_rate``: of the
    sounds, Hz. ``has_partners``: whether training clips have frames, and so weak partners. ``image_text_sha256``: of
    the weights that made the embeddings, of width ``embed_dim``. ``config_hash`` names the preparation.
    """

    folder: RunFolder
    labels: tuple[str, ...]
    shards: dict[str, tuple[Shard, ...]]
    embed_dim: int
    sample_rate: int
    has_partners: bool
    image_text_sha256: str
    config_hash: str

    @property
    def counts(self) -> dict[str, int]:
        """Good clips by split."""
        return {split: sum(shard.num_clips for shard in shards) for split, shards in self.shards.items()}

    @property
    def num_train(self) -> int:
        """Clips to train on."""
        return self.counts.get(TRAIN, 0)

    @property
    def digest(self) -> str:
        """A hash that other shards do not have, wherever they lie: their names hold the run that wrote them."""
        names = sorted(
            f"{split}/{posixpath.basename(shard.path)}/{shard.num_clips}"
            for split, shards in self.shards.items()
            for shard in shards
        )
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    def stream(self, split: str, *, seed: int) -> ShardStream:
        """Return the good clips of a split."""
        folder = self.folder
        return ShardStream(folder.storage, folder.results_uri, split, self.shards.get(split, ()), seed)


def read_prepared_set(folder: RunFolder) -> PreparedSet:
    """Read what a preparation left; labels are streamed, sounds are not touched.

    Raises:
        InvalidConfig: there is no finished preparation.
        InvalidManifest: its shards lack a column, or it has no clip to train on.
    """
    record = folder.read_record() or {}
    if record.get("status") != "complete" or "weak_partners" not in record:
        raise InvalidConfig(
            f"{folder.uri} holds no finished preparation of clips. Run jobs/prepare_clips.py with this output folder, "
            "to its end"
        )
    filesystem, path = folder.storage.arrow_filesystem(folder.results_uri)
    shards = ds.dataset(path, format="parquet", filesystem=filesystem)
    missing = sorted({*COLUMNS, "split", "status"} - set(shards.schema.names))
    if missing:
        raise InvalidManifest(
            f"the shards in {folder.results_uri} lack the columns {', '.join(missing)}. Prepare the clips again"
        )
    found: dict[str, list[Shard]] = {}
    labels: set[str] = set()
    for fragment in sorted(shards.get_fragments(), key=lambda fragment: fragment.path):
        counts: Counter[str] = Counter()
        good = fragment.scanner(
            columns=["split", "labels"], filter=pc.field("status") == "ok", batch_size=_ROWS_AT_ONCE
        ).to_batches()
        for batch in good:
            counts.update(batch["split"].to_pylist())
            labels.update(pc.unique(pc.list_flatten(batch["labels"])).to_pylist())
        for split, num in counts.items():
            found.setdefault(split, []).append(Shard(fragment.path, num))
    if TRAIN not in found:
        raise InvalidManifest(f"{folder.uri} has no good clips in its train split. Prepare some")
    embedding = shards.schema.field("text_embedding").type
    if not pa.types.is_fixed_size_list(embedding):
        raise InvalidManifest(f"text_embedding in {folder.results_uri} has no fixed width. Prepare the clips again")
    return PreparedSet(
        folder=folder,
        labels=tuple(sorted(labels)),
        shards={split: tuple(of_split) for split, of_split in found.items()},
        embed_dim=int(embedding.list_size),
        sample_rate=int(record["identity"]["sample_rate"]),
        has_partners=TRAIN in record["weak_partners"],
        image_text_sha256=str(record["models"]["image_text"]),
        config_hash=str(record["config_hash"]),
    )
