"""The demo's inputs: what the quick start promises is in them."""

import json
import subprocess
import sys
from pathlib import Path

from soundguide.audio.decode import decode_audio
from soundguide.manifest import read_manifest
from soundguide.miniature.demo import write_demo
from soundguide.miniature.labels import EVENTS
from soundguide.storage import Storage


def test_the_demo_manifest_is_whole_and_its_sounds_can_be_heard_but_one(tmp_path: Path) -> None:
    manifest = write_demo(tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert read_manifest(str(manifest), Storage()).num_rows == len(rows) >= 28
    assert {event.replace(" ", "-") for event in EVENTS} <= {row["id"] for row in rows}
    sounds = {row["audio"] for row in rows if "audio" in row}
    assert "sounds/broken.wav" in sounds
    for sound in sounds - {"sounds/broken.wav"}:
        assert len(decode_audio((tmp_path / sound).read_bytes(), sample_rate=16_000)) == 96_000


def test_asking_for_help_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "soundguide.miniature.demo", "--help"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "out/demo-inputs" in shown and not list(tmp_path.iterdir())
