"""Videos of the miniature hold the scene and the sound of their clip, and their manifest is one to prepare."""

from pathlib import Path

import numpy as np
from cli_runs import run

from soundguide.audio.decode import decode_audio
from soundguide.clips.decode import ClipDecoder, ClipLimits, ClipSettings
from soundguide.clips.sources import read_plain
from soundguide.images import ImageLimits, decode_image
from soundguide.miniature.clips import make_clip
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
