"""Prepared shards as a stream of tables: each worker its share, in another order every epoch, little in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from soundguide.pretraining.batches import COLUMNS
from soundguide.storage import Storage

_ROWS_AT_ONCE = 32  # that are decompressed together


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file: its path on the storage's filesystem, and how many good clips of the split it has."""

    path: str
    num_clips: int


def good_clips(split: str) -> ds.Expression:
    """Return the filter that a row of ``split`` passes if it is a sample."""
    return (ds.field("status") == "ok") & (ds.field("split") == split)


@dataclass(frozen=True, slots=True)
class ShardStream:
    """The good clips of one split. ``uri``: of the folder that its ``shards`` lie in."""

    storage: Storage
    uri: str
    split: str
    shards: tuple[Shard, ...]
    seed: int

    def tables(
        self, size: int, *, epoch: int, rank: int = 0, world: int = 1, shuffle: int | None = None, skip: int = 0
    ) -> Iterator[pa.Table]:
        """Yield tables of ``size`` clips with `COLUMNS`; they depend on seed, epoch, rank and world alone.

        Worker ``rank`` of ``world`` gets one of as many equal shares; what is left over waits for another epoch's
        order. ``shuffle``: clips among which the order is drawn, in memory meanwhile, beside that of the shards; with
        it the rest that fills no table is left out. None: the shards' own order, the rest included. ``skip``: tables
        to leave out at the beginning.
        """
        rng = np.random.default_rng((self.seed, epoch, rank, world))
        share = sum(shard.num_clips for shard in self.shards) // world
        clips = self._clips(epoch, first=rank * share, end=(rank + 1) * share, shuffled=shuffle is not None)
        if shuffle is not None:
            clips = _shuffled(clips, shuffle, rng)
        for table in islice(_tables(clips, size), skip, None):
            if shuffle is None or table.num_rows == size:
                yield table

    def _clips(self, epoch: int, *, first: int, end: int, shuffled: bool) -> Iterator[pa.RecordBatch]:
        """Yield clips ``first`` to ``end`` of all shards in a row, one by one, each with memory of its own."""
        filesystem, _ = self.storage.arrow_filesystem(self.uri)
        order = np.arange(len(self.shards))
        if shuffled:  # the same on all workers: their shares must not overlap
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        place = 0
        for index in order:
            shard = self.shards[index]
            if place < end and place + shard.num_clips > first:
                rows = ds.dataset(shard.path, format="parquet", filesystem=filesystem).scanner(
                    columns=list(COLUMNS),
                    filter=good_clips(self.split),
                    batch_size=_ROWS_AT_ONCE,
                    batch_readahead=1,
                    fragment_readahead=1,
                )
                for number, clip in enumerate(_singles(rows.to_batches()), start=place):
                    if first <= number < end:
                        yield clip
            place += shard.num_clips


def _singles(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for row in range(batch.num_rows):
            yield batch.take(pa.array([row]))  # a slice would keep its whole neighbourhood in memory


def _shuffled(clips: Iterable[pa.RecordBatch], size: int, rng: np.random.Generator) -> Iterator[pa.RecordBatch]:
    """Yield clips in an order of chance, of which up to ``size`` wait at any time."""
    waiting: list[pa.RecordBatch] = []
    for clip in clips:
        waiting.append(clip)
        if len(waiting) > size:
            yield _drawn(waiting, rng)
    while waiting:
        yield _drawn(waiting, rng)


def _drawn(waiting: list[pa.RecordBatch], rng: np.random.Generator) -> pa.RecordBatch:
    place = int(rng.integers(len(waiting)))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()


def _tables(clips: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    clips = iter(clips)
    while rows := list(islice(clips, size)):
        yield pa.Table.from_batches(rows).combine_chunks()
