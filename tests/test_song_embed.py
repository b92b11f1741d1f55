"""Songs are heard once each, wherever they lie; what cannot be heard says why."""

import asyncio
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import AudioLimits, encode_flac, encode_wav
from soundguide.config import ManipulatorConfig
from soundguide.errors import Quarantined
from soundguide.songs.embed import SongEmbedder, SongFiles, refuse_songs, songs_as_given
from soundguide.songs.folders import list_songs
from soundguide.storage import Storage


def noise(seed: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * SAMPLE_RATE))


def embedder(models: ManipulatorConfig, uri: str, storage: Storage, limits: AudioLimits | None = None) -> SongEmbedder:
    files = SongFiles(uri, "0" * 64, 2.0, storage)
    return SongEmbedder(files, limits or AudioLimits(), None, models, storage)


def test_songs_of_a_bucket_are_heard_once_for_each_content(tiny_models: ManipulatorConfig, s3: Storage) -> None:
    song, other = encode_flac(noise(1, 5), SAMPLE_RATE), encode_wav(noise(2, 3), SAMPLE_RATE)
    for name, data in {"a.flac": song, "deep/copy.flac": song, "deep/b.wav": other, "c.mp3": b"none"}.items():
        s3.write_bytes(f"s3://bucket/songs/{name}", data)
    songs = list_songs("s3://bucket/songs", s3)
    assert songs["id"].to_pylist() == ["a", "c", "deep/b", "deep/copy"]
    heard = embedder(tiny_models, "s3://bucket/run/embeddings", s3)
    given = pa.concat_tables(songs_as_given(pa.table({"id": songs["audio"]})))
    rows = asyncio.run(heard(given)).to_pylist()
    assert [(row["status"], row["num_segments"], row["length_seconds"]) for row in rows] == [
        ("ok", 3, 5.0),
        ("error", 0, 0.0),
        ("ok", 2, 3.0),
        ("ok", 3, 5.0),
    ]
    assert rows[1]["error_kind"] == "InvalidAudio" and rows[0]["embeddings"] == rows[3]["embeddings"]
    assert heard.num_embedded == 3  # of which one, that is no song, ended at once
    assert len(s3.list("s3://bucket/run/embeddings")) == 2
    again = embedder(tiny_models, "s3://bucket/run/embeddings", s3)
    assert asyncio.run(again(given.take([0, 2, 3]))).to_pylist() == [rows[index] for index in (0, 2, 3)]
    assert again.num_embedded == 0


@pytest.mark.parametrize(
    ("data", "limits", "kind", "says"),
    [
        (encode_wav(noise(1, 5), SAMPLE_RATE), AudioLimits(max_bytes=1000), "SourceNotFound", "limits.max_sound_mib"),
        (encode_wav(noise(1, 5), SAMPLE_RATE), AudioLimits(max_seconds=3), "InvalidAudio", "longer than the 3 s"),
        (encode_wav(np.zeros(9000), SAMPLE_RATE), AudioLimits(), "InvalidAudio", "silent"),
        (encode_flac(noise(1, 60), SAMPLE_RATE)[:-200_000], AudioLimits(), "InvalidAudio", "damaged|cut"),
        (b"", AudioLimits(), "InvalidAudio", "empty"),
    ],
)
def test_a_song_that_cannot_be_heard_says_why_and_leaves_no_file(
    tiny_models: ManipulatorConfig, tmp_path: Path, data: bytes, limits: AudioLimits, kind: str, says: str
) -> None:
    (tmp_path / "song.wav").write_bytes(data)
    row = embedder(tiny_models, str(tmp_path / "heard"), Storage(), limits).hear(str(tmp_path / "song.wav"))
    assert (row["status"], row["error_kind"], row["embeddings"]) == ("error", kind, "")
    assert any(part in row["error"] for part in says.split("|"))
    assert not (tmp_path / "heard").exists()


def test_a_song_that_killed_its_process_is_passed_on_with_that(tiny_models: ManipulatorConfig, tmp_path: Path) -> None:
    refused = refuse_songs(pa.table({"id": [str(tmp_path / "song.wav")]}), Quarantined("it died"))
    [row] = asyncio.run(embedder(tiny_models, str(tmp_path), Storage())(refused)).to_pylist()
    assert (row["status"], row["error"]) == ("quarantined", "it died")
