"""Hearing songs in bulk: from a table of songs to one file of embeddings for each, and a row that says how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from soundguide.audio.decode import AudioLimits
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidEdit, SourceNotFound
from soundguide.records import Row
from soundguide.songs.hashing import hash_file
from soundguide.songs.heard import Segments
from soundguide.storage import Storage, join_uri
from soundguide.tables import status_of

SONG_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("error_kind", pa.string()),
        ("sound_sha256", pa.string()),
        ("embeddings", pa.string()),
        ("num_segments", pa.int64()),
        ("length_seconds", pa.float64()),
    ]
)
"""A row for each song, its URI as the id; ``embeddings``: the name of its file, "" where it could not be heard."""


@dataclass(frozen=True, slots=True)
class SongFiles:
    """Where the embeddings of songs lie, and how they are made: by the encoder of SHA-256 ``encoder``.

    A file is named for the content of its song and for the encoder, so that one file serves equal songs.
    """

    uri: str
    encoder: str
    segment_seconds: float
    storage: Storage = Storage()

    def name(self, sound_sha256: str) -> str:
        """Return the name of the file of a song with this content."""
        return f"{sound_sha256[:32]}-{self.encoder[:12]}.safetensors"

    def read(self, name: str) -> Segments:
        """Return the segments of a song. Raises `InvalidEdit` where its file is gone or damaged."""
        uri = join_uri(self.uri, name)
        return Segments.decode(self.storage.read_bytes(uri), uri)

    def write(self, name: str, segments: Segments, sound_sha256: str) -> None:
        """Write the segments of a song, atomically."""
        facts = {"sound_sha256": sound_sha256, "encoder": self.encoder, "segment_seconds": f"{self.segment_seconds:g}"}
        self.storage.write_bytes(join_uri(self.uri, name), segments.encode(facts))


class SongEmbedder:
    """Hears songs segment by segment, each once; memory does not grow with their length but for the embeddings.

    Several songs may be heard side by side: one is decoded while another is in the encoder.
    """

    def __init__(
        self,
        files: SongFiles,
        limits: AudioLimits,
        on_read: Callable[[int], None] | None,
        config: ManipulatorConfig,
        storage: Storage,
    ) -> None:
        import torch

        from soundguide.world import load_listening

        self.files, self.limits, self.storage, self._on_read = files, limits, storage, on_read
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        self.audio, self.device = load_listening(config, storage)
        self.num_embedded = 0

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Hear the songs of a table of `SONG_SCHEMA`; return their rows, order kept. One with an error is passed on."""
        given = batch.to_pylist()
        found = [row if row["error"] else await asyncio.to_thread(self.hear, row["id"]) for row in given]
        return pa.Table.from_pylist(found, schema=SONG_SCHEMA)

    def hear(self, uri: str) -> Row:
        """Return the row of a song, and write its file unless it is there; what is wrong with it is its error."""
        try:
            with self._opened(uri) as file:
                sha256 = hash_file(file)
                name = self.files.name(sha256)
                try:
                    segments = self.files.read(name)
                except SourceNotFound:
                    segments = self._embed(file)
                    self.files.write(name, segments, sha256)
        except InvalidEdit as error:
            return failed_song(uri, error)
        counts = {"num_segments": len(segments), "length_seconds": float(segments.seconds.sum())}
        return {**failed_song(uri), "sound_sha256": sha256, "embeddings": name, **counts}

    @contextmanager
    def _opened(self, uri: str) -> Iterator[BinaryIO]:
        num_bytes = self.storage.size(uri)
        if num_bytes > self.limits.max_bytes:
            raise SourceNotFound(
                f"{uri} has {num_bytes} bytes; at most {self.limits.max_bytes} may be read (limits.max_sound_mib)"
            )
        with self.storage.open(uri) as file:
            yield file
        if self._on_read is not None:
            self._on_read(num_bytes)

    def _embed(self, file: BinaryIO) -> Segments:
        import torch

        from soundguide.songs.segments import embed_song

        def encode(waveforms: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.audio.encode_audio(waveforms.to(self.device)).float().cpu()

        self.num_embedded += 1
        return embed_song(file, encode, self.audio, seconds=self.files.segment_seconds, limits=self.limits)


def songs_as_given(batch: pa.Table) -> Iterator[pa.Table]:
    """Yield songs one at a time as rows of `SONG_SCHEMA`: nothing to prepare, for songs are decoded where heard."""
    for uri in batch["id"].to_pylist():
        yield pa.Table.from_pylist([failed_song(uri)], schema=SONG_SCHEMA)


def refuse_songs(batch: pa.Table, error: Exception) -> pa.Table:
    """Return the rows of songs that are not heard, because of ``error``."""
    return pa.Table.from_pylist([failed_song(uri, error) for uri in batch["id"].to_pylist()], schema=SONG_SCHEMA)


def failed_song(uri: str, error: Exception | None = None) -> Row:
    """Return the row of a song that was not heard, because of an error or not yet."""
    kind = "" if error is None else type(error).__name__
    blank = {"sound_sha256": "", "embeddings": "", "num_segments": 0, "length_seconds": 0.0}
    return {"id": uri, "status": status_of(kind), "error": str(error or ""), "error_kind": kind, **blank}
