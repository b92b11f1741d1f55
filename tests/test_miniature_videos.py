"""Videos of the miniature hold the scene and the sound of their clip, and their manifest is one to prepare."""

from pathlib import Path

import numpy as np
from cli_runs import run

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.clips.decode import ClipDecoder, ClipLimits, ClipSettings
from soundguide.clips.sources import read_plain
from soundguide.images import ImageLimits, decode_image
from soundguide.miniature.clips import make_clip
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.scenes import render
from soundguide.storage import Storage
from soundguide.world import to_bytes


def test_videos_are_their_clips_and_their_manifest_can_be_prepared(tmp_path: Path) -> None:
    result = run("miniature", "videos", tmp_path / "set", "-n", "3", "--seconds", "1", "--seed", "4")
    assert result.exit_code == 0, result.output
    clips = [make_clip(index, seed=4, seconds=1.0) for index in range(3)]
    requests = read_plain(str(tmp_path / "set" / "clips.csv"), Storage(), validation_share=0.0).table
    assert requests["labels"].to_pylist() == [clip.label for clip in clips]
    assert requests["text"].to_pylist() == [clip.text for clip in clips]
    decoder = ClipDecoder(16_000, 64, ClipSettings(), ClipLimits(), Storage())
    rows = [row for table in decoder.decode_table(requests) for row in table.to_pylist()]
    for row, clip in zip(rows, clips, strict=True):
        assert row["status"] == "ok", row["error"]
        heard = decode_audio(row["sound"], sample_rate=16_000)
        np.testing.assert_allclose(heard[:16_000], clip.waveform, atol=1e-4)
        seen = decode_image(row["frame"], resolution=64, limits=ImageLimits(min_side=1)).astype(float)
        truth = to_bytes(render(clip.factors[None], 64).images[0]).astype(float)
        assert np.abs(seen - truth).mean() < 6  # H.264


def test_videos_of_faces_show_who_is_heard(tmp_path: Path) -> None:
    chosen = ("--world", "faces", "--bias", "1")
    result = run("miniature", "videos", tmp_path / "set", "-n", "1", "--seconds", "1", "--seed", "4", *chosen)
    assert result.exit_code == 0, result.output
    clip = FACES.make_clip(0, seed=4, seconds=1.0, bias=1.0)
    requests = read_plain(str(tmp_path / "set" / "clips.csv"), Storage(), validation_share=0.0).table
    assert requests["labels"].to_pylist() == [clip.label] == ["giggling"]
    [row] = next(ClipDecoder(16_000, 64, ClipSettings(), ClipLimits(), Storage()).decode_table(requests)).to_pylist()
    np.testing.assert_allclose(decode_audio(row["sound"], sample_rate=16_000)[:16_000], clip.waveform, atol=1e-4)
    seen = decode_image(row["frame"], resolution=64, limits=ImageLimits(min_side=1)).astype(float)
    assert np.abs(seen - to_bytes(FACES.render(clip.factors[None], 64).images[0])).mean() < 6  # H.264


def test_cuts_of_recordings_join_the_videos(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    Storage().write_bytes(str(sounds / "train" / "long.wav"), encode_wav(np.linspace(-0.5, 0.5, 32_000), 16_000))
    Storage().write_bytes(str(sounds / "train" / "short.wav"), encode_wav(np.full(4_000, 0.25), 16_000))
    Storage().write_bytes(str(sounds / "val" / "unheard.wav"), encode_wav(np.zeros(4_000), 16_000))
    index = "file,label\ntrain/long.wav,raining\ntrain/short.wav,sea waves\nval/unheard.wav,raining\n"
    Storage().write_bytes(str(sounds / "index.csv"), index.encode())
    chosen = ("--recordings", sounds, "--recorded", "4", "--edge-share", "0.5")
    result = run("miniature", "videos", tmp_path / "set", "-n", "2", "--seconds", "1", *chosen)
    assert result.exit_code == 0, result.output
    requests = read_plain(str(tmp_path / "set" / "clips.csv"), Storage(), validation_share=0.0).table
    assert requests["labels"].to_pylist()[2:] == ["raining", "sea waves"] * 2
    assert set(requests["source_id"].to_pylist()[2:]) == {"train/long.wav", "train/short.wav"}
    decoder = ClipDecoder(16_000, 64, ClipSettings(), ClipLimits(), Storage())
    rows = [row for table in decoder.decode_table(requests) for row in table.to_pylist()]
    assert [row["status"] for row in rows] == ["ok"] * 6, [row["error"] for row in rows]
    starts = np.array(requests["start_seconds"])
    heard = [decode_audio(row["sound"], sample_rate=16_000) for row in rows]
    for row in (2, 4):  # a ramp tells where it was cut
        np.testing.assert_allclose(heard[row][0], starts[row] / 2 - 0.5, atol=2e-3)
    np.testing.assert_allclose(heard[1][:16_000], make_clip(1, seed=0, seconds=1.0, ranges="edge").waveform, atol=1e-4)
