"""Weak partners (Sec. 3.1.3): for a clip, the image embedding of another clip that shares a label, drawn at random.

The embeddings of a split lie in a table of four files that are memory-mapped, so that a set of any size can be drawn
from. ``index.json`` names the others, which carry a token of their own: a reader never meets files of two writings.
Rows are in the order of the clips' hashes: the same clips give the same table, however their shards are cut.
"""

import json
import os
import shutil
import tempfile
import uuid
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from soundguide.clips.tables import fixed_rows, stable_hash
from soundguide.errors import InvalidCheckpoint, SourceNotFound
from soundguide.storage import Storage, join_uri

_INDEX = "index.json"
_ROWS_AT_ONCE = 1024
_COPY_BYTES = 1 << 20
_FILES = ("image_embeddings", "clips", "rows_by_label")


@dataclass(frozen=True, slots=True)
class Partners:
    """What `WeakPartners.draw` drew for B clips.

    ``embeddings``: ``[B, E]``. ``rows``: ``[B]`` int64, rows of the table; -1 where a clip got its own frame back,
    since no other shares a label, and -2 where it has none itself (its embedding is zeros; leave it out of the loss).
    """

    embeddings: NDArray[np.float32]
    rows: NDArray[np.int64]

    @property
    def num_fallbacks(self) -> int:
        """Clips that got their own frame."""
        return int((self.rows == -1).sum())

    @property
    def num_without(self) -> int:
        """Clips that got nothing."""
        return int((self.rows == -2).sum())


class WeakPartners:
    """The table of one split, memory-mapped from the local folder `folder`; see `fetch_table` for tables on S3.

    Raises:
        InvalidCheckpoint: there is no table, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder)
        try:
            index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
            arrays = {name: np.load(path / index["files"][name], mmap_mode="r") for name in _FILES}
            self._spans = {str(label): (int(start), int(stop)) for label, (start, stop) in index["labels"].items()}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InvalidCheckpoint(
                f"{path} holds no table of weak partners ({exc}); prepare the clips again, or name a split's folder"
            ) from exc
        self._embeddings, self._clips, self._rows = (arrays[name] for name in _FILES)
        if len(self._embeddings) != len(self._clips) or self._embeddings.ndim != 2:
            raise InvalidCheckpoint(f"{path} holds a damaged table of weak partners. Prepare the clips again")

    @property
    def embed_dim(self) -> int:
        """Width E of the embeddings."""
        return int(self._embeddings.shape[1])

    @property
    def num_rows(self) -> int:
        """Number of clips that have a frame."""
        return int(self._embeddings.shape[0])

    def labels(self) -> dict[str, int]:
        """Return each label and the number of clips that have it."""
        return {label: stop - start for label, (start, stop) in self._spans.items()}

    def draw(
        self,
        ids: Sequence[str],
        labels: Sequence[Sequence[str]],
        own: NDArray[np.float32],
        *,
        seed: int,
        epoch: int,
    ) -> Partners:
        """Draw a partner for each of B clips, uniformly among all other clips whose label sets meet its own.

        ``own``: ``[B, E]``, the clips' own image embeddings, zeros where a clip has none. A clip's partner depends on
        seed, epoch and its id alone: not on its neighbours, nor on how many workers there are.
        """
        rows = np.array(
            [
                self._draw(stable_hash(id), names, np.random.default_rng((seed, epoch, stable_hash(id))))
                for id, names in zip(ids, labels, strict=True)
            ],
            np.int64,
        ).reshape(-1)
        embeddings = np.array(own, np.float32)
        drawn = rows >= 0
        embeddings[drawn] = self._embeddings[rows[drawn]]
        rows[~drawn & ~embeddings.any(axis=1)] = -2
        return Partners(embeddings, rows)

    def _draw(self, clip: int, labels: Sequence[str], rng: np.random.Generator) -> int:
        """Return the row of a partner, or -1."""
        lists = [rows for rows in map(self._rows_of, dict.fromkeys(labels)) if len(rows)]
        own = self._row_of(clip)
        others = [len(rows) - _holds(rows, own) for rows in lists]
        bounds = np.cumsum([*others, 0])
        total = int(bounds[-1])
        if not total:
            return -1
        while True:
            # A label by its share of the clips, a clip of it, kept by one over the labels in common: uniform over the
            # union of the lists, which is never made.
            place = int(rng.integers(total))
            chosen = int(np.searchsorted(bounds, place, side="right"))
            rows, place = lists[chosen], place - int(bounds[chosen]) + others[chosen]
            row = int(rows[place])
            if own >= 0 and row >= own and _holds(rows, own):
                row = int(rows[place + 1])  # the list without the clip itself
            shared = sum(_holds(rows, row) for rows in lists)
            if shared == 1 or rng.random() * shared < 1:
                return row

    def _rows_of(self, label: str) -> NDArray[np.int64]:
        start, stop = self._spans.get(label, (0, 0))
        rows: NDArray[np.int64] = self._rows[start:stop]
        return rows

    def _row_of(self, clip: int) -> int:
        place = int(np.searchsorted(self._clips, np.uint64(clip)))
        return place if place < len(self._clips) and int(self._clips[place]) == clip else -1


@dataclass(frozen=True, slots=True)
class TableFacts:
    """Of one table: its clips, its labels, and how many of these have one clip alone and so no partner."""

    num_rows: int
    num_labels: int
    num_lonely_labels: int


def write_tables(shards: ds.Dataset, folder: str, storage: Storage) -> dict[str, TableFacts]:
    """Write a table for each split of prepared clips into the folders ``folder/SPLIT``; return what is in them.

    The shards are streamed, twice: once for ids, once for embeddings. What is held is 8 bytes for each clip and label.
    """
    hashes = _hashes(shards)
    facts: dict[str, TableFacts] = {}
    for split, clips in hashes.items():
        if len(np.unique(clips)) < len(clips):
            raise InvalidCheckpoint(f"the shards hold clips of the split {split!r} twice. Prepare the clips again")
        with tempfile.TemporaryDirectory(prefix="soundguide-") as name:
            temporary = Path(name)
            token = uuid.uuid4().hex[:12]
            files = {part: f"{part}-{token}.npy" for part in _FILES}
            labels = _fill(shards, split, np.sort(clips), {part: temporary / file for part, file in files.items()})
            where = join_uri(folder, split)
            earlier = storage.list(where)
            for file in files.values():
                _publish(temporary / file, join_uri(where, file), storage)
            index = {"files": files, "num_rows": len(clips), "labels": labels}
            storage.write_bytes(join_uri(where, _INDEX), json.dumps(index, ensure_ascii=False).encode())
            _remove([uri for uri in earlier if uri.endswith(".npy")], storage)
        lonely = sum(stop - start == 1 for start, stop in labels.values())
        facts[split] = TableFacts(len(clips), len(labels), lonely)
    return facts


def fetch_table(uri: str, storage: Storage, *, cache: Path) -> Path:
    """Return a local folder with the table in the folder `uri`: itself, or a copy of it from S3 under `cache`.

    Raises:
        InvalidCheckpoint: there is no table.
    """
    if "://" not in uri:
        return Path(uri)
    try:
        data = storage.read_bytes(join_uri(uri, _INDEX))
        names = [str(name) for name in json.loads(data)["files"].values()]
    except (SourceNotFound, ValueError, KeyError, AttributeError) as exc:
        raise InvalidCheckpoint(f"{uri} holds no table of weak partners ({exc}). Prepare the clips again") from exc
    local = cache / f"{stable_hash(uri):016x}"
    local.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (local / name).is_file():
            part = local / f".{uuid.uuid4().hex}"
            with storage.open(join_uri(uri, name)) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
            os.replace(part, local / name)  # workers of one machine fetch at once: each file appears whole
    Storage().write_bytes(str(local / _INDEX), data)
    return local


def _hashes(shards: ds.Dataset) -> dict[str, NDArray[np.uint64]]:
    """Return the hash of each clip with a frame, by split."""
    found: dict[str, array[int]] = {}
    for batch in _batches(shards, ["id", "split"], pc.field("has_frame")):
        for id, split in zip(batch["id"].to_pylist(), batch["split"].to_pylist(), strict=True):
            found.setdefault(split, array("Q")).append(stable_hash(id))
    return {split: np.array(clips, np.uint64) for split, clips in sorted(found.items())}


def _fill(
    shards: ds.Dataset, split: str, clips: NDArray[np.uint64], files: dict[str, Path]
) -> dict[str, tuple[int, int]]:
    """Write the three arrays of a split, whose clips' sorted hashes are `clips`; return each label's part of the last.

    The embeddings go straight to their rows in the mapped file.
    """
    embeddings = None
    rows: dict[str, array[int]] = {}
    chosen = pc.field("has_frame") & (pc.field("split") == split)
    for batch in _batches(shards, ["id", "labels", "image_embedding"], chosen):
        values = fixed_rows(batch["image_embedding"])
        if embeddings is None:
            shape = (len(clips), values.shape[1])
            embeddings = np.lib.format.open_memmap(files["image_embeddings"], "w+", np.float32, shape)
        hashes = np.array([stable_hash(id) for id in batch["id"].to_pylist()], np.uint64)
        places = np.searchsorted(clips, hashes)
        embeddings[places] = values
        for place, labels in zip(places.tolist(), batch["labels"].to_pylist(), strict=True):
            for label in dict.fromkeys(labels):
                rows.setdefault(label, array("q")).append(place)
    assert embeddings is not None, "a split without clips has no table"
    embeddings.flush()
    np.save(files["clips"], clips)
    ordered = {label: np.sort(np.array(found, np.int64)) for label, found in sorted(rows.items())}
    np.save(files["rows_by_label"], np.concatenate(list(ordered.values())))
    stops = np.cumsum([len(found) for found in ordered.values()]).tolist()
    return {label: (stop - len(ordered[label]), stop) for label, stop in zip(ordered, stops, strict=True)}


def _batches(shards: ds.Dataset, columns: list[str], chosen: pc.Expression) -> Iterator[pa.RecordBatch]:
    rows = shards.scanner(
        columns=columns,
        filter=chosen & (pc.field("status") == "ok"),
        batch_size=_ROWS_AT_ONCE,
        batch_readahead=2,
        fragment_readahead=1,
    )
    yield from rows.to_batches()


def _publish(path: Path, uri: str, storage: Storage) -> None:
    """Copy a file to `uri` in pieces; it is read by nobody before the index names it."""
    filesystem, target = storage.arrow_filesystem(uri)
    filesystem.create_dir(os.path.dirname(target), recursive=True)
    with path.open("rb") as source, filesystem.open_output_stream(target) as sink:
        shutil.copyfileobj(source, sink, _COPY_BYTES)


def _remove(uris: Sequence[str], storage: Storage) -> None:
    for uri in uris:
        filesystem, path = storage.arrow_filesystem(uri)
        filesystem.delete_file(path)


def _holds(rows: NDArray[np.int64], row: int) -> bool:
    place = int(np.searchsorted(rows, row))
    return row >= 0 and place < len(rows) and int(rows[place]) == row
