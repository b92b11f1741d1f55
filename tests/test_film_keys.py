"""The key codes of a film: each from the one before, all held to the source, each kept as soon as it is found."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from film_songs import CALM, SHORT, film, swelling
from tiny_edits import do, noise, with_photo, with_sound
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidAudio, OutputConflict
from soundguide.film.keys import Key, find_keys
from soundguide.film.make import Unwatched
from soundguide.film.segments import Segment, hear_segments
from soundguide.film.work import KeyOrigin, WorkFolder
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit, Progress

SEVEN_SECONDS = swelling(7.0)


def keys_of(
    manipulator: Manipulator, source: np.ndarray, segments: list[Segment], settings: EditSettings = SHORT
) -> list[Key]:
    async def gathered() -> list[Key]:
        return [key async for key in find_keys(manipulator, source, segments, settings)]

    return asyncio.run(gathered())


def segments_of(manipulator: Manipulator, song: bytes) -> list[Segment]:
    return list(hear_segments(song, manipulator.world.listener, seconds=1))


def source_of(manipulator: Manipulator, seed: int = 7) -> np.ndarray:
    return manipulator.world.code(seed, None, 1.0).cpu().numpy()


class Counter(Unwatched):
    """Counts the steps of searches, and keeps the phases and what was found."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.phases: list[str] = []
        self.keys: list[Key] = []

    def start(self, phase: str, total: int) -> None:
        self.phases.append(phase)

    def searching(self, progress: Progress) -> None:
        self.steps[progress.phase] = self.steps.get(progress.phase, 0) + 1

    def found(self, key: Key) -> None:
        self.keys.append(key)


class Stopped(Exception):
    """Stands for whatever ends a process."""


class StopAfter(Unwatched):
    """Stops a film when so many key codes are there."""

    def __init__(self, num: int) -> None:
        self.num = num

    def found(self, key: Key) -> None:
        if key.segment.index + 1 == self.num:
            raise Stopped


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_first_key_is_the_edit_of_its_segment(single: Manipulator) -> None:
    sound = noise(3)
    edit = do(single, with_sound("a", sound, SHORT, seed=7))
    heard = single.world.listener.hear(sound)
    (key,) = keys_of(single, source_of(single), [Segment(0, 0, 1, heard)])
    np.testing.assert_array_equal(key.code, edit.ws)
    assert key.similarity == edit.similarity_after


def test_a_search_sets_out_from_the_key_before(single: Manipulator) -> None:
    source, other = source_of(single), source_of(single, seed=8)
    heard = single.world.listener.hear(noise(3))
    no_steps = SHORT.override({"num_steps": 0})
    world_source, start = torch.from_numpy(source), torch.from_numpy(other)
    edited = asyncio.run(single.follow("a", world_source, heard, no_steps, start=start))
    np.testing.assert_array_equal(edited.ws, other)
    assert edited.latent_distance == pytest.approx(float(np.linalg.norm(other - source)), rel=1e-5)


def test_the_regulariser_pulls_towards_the_source_and_not_the_start(single: Manipulator) -> None:
    source, start = torch.from_numpy(source_of(single)), torch.from_numpy(source_of(single, seed=8))
    heard = single.world.listener.hear(noise(3))
    # nothing but Eq. 16, and no noise on the way
    alone = SHORT.override({"num_steps": 60, "lambda_reg": 100, "exploration": 0, "margin": 0, "lambda_spread": 0})
    edited = asyncio.run(single.follow("a", source, heard, alone, start=start))
    assert np.linalg.norm(edited.ws - source.numpy()) < 0.3 * float((start - source).norm())


def test_similarity_before_is_the_source_s(single: Manipulator) -> None:
    sound = noise(3)
    source, start = torch.from_numpy(source_of(single)), torch.from_numpy(source_of(single, seed=8))
    followed = asyncio.run(single.follow("a", source, single.world.listener.hear(sound), SHORT, start=start))
    assert followed.similarity_before == do(single, with_sound("a", sound, SHORT, seed=7)).similarity_before


def test_a_text_beside_the_song_guides_too(single: Manipulator) -> None:
    source, segments = source_of(single), segments_of(single, swelling(2.0))
    without, beside = (
        keys_of(single, source, segments, SHORT.override({"text": text, "mix": 0.5})) for text in ("", "rain")
    )
    assert np.abs(without[1].code - beside[1].code).max() > 1e-3


def test_silence_shows_the_source(single: Manipulator) -> None:
    source = source_of(single)
    heard = single.world.listener.hear(noise(3))
    keys = keys_of(single, source, [Segment(0, 0, 1, heard), Segment(1, 1, 1, None), Segment(2, 2, 1, heard)])
    np.testing.assert_array_equal(keys[1].code, source)
    assert keys[1].similarity is None
    np.testing.assert_array_equal(keys[2].code, keys[0].code)  # which started from the source, too


def test_a_film_that_was_stopped_goes_on_to_the_same_key_codes(single: Manipulator, tmp_path: Path) -> None:
    film(single, tmp_path / "whole.mp4", SEVEN_SECONDS, keep=True)
    with pytest.raises(Stopped):
        film(single, tmp_path / "stopped.mp4", SEVEN_SECONDS, watcher=StopAfter(3))
    left = files_of(tmp_path / "stopped.mp4.film")
    assert sorted(left) == ["film.json", *(f"key-0000{i}.safetensors" for i in range(3)), "source.safetensors"]
    counter = Counter()
    film(single, tmp_path / "stopped.mp4", SEVEN_SECONDS, keep=True, watcher=counter)
    assert counter.steps["edit"] == 4 * SHORT.num_steps
    assert [key.kept for key in counter.keys] == [True] * 3 + [False] * 4
    assert files_of(tmp_path / "stopped.mp4.film") == files_of(tmp_path / "whole.mp4.film")
    assert (tmp_path / "stopped.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_process_that_is_killed_leaves_no_film_and_whole_key_codes(
    tiny_models: ManipulatorConfig, tmp_path: Path
) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from film_songs import film, swelling
from soundguide.config import ManipulatorConfig
from soundguide.film.make import Unwatched
from soundguide.manipulator import Manipulator
class Kill(Unwatched):
    def found(self, key):
        if key.segment.index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
config = ManipulatorConfig.model_validate_json({tiny_models.model_dump_json()!r})
film(Manipulator(config.model_copy(update={{"num_slots": 1}})), __import__("pathlib").Path("a.mp4"), swelling(7.0),
     watcher=Kill())
"""
    root = Path(__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)})
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4.film"]
    single = Manipulator(tiny_models.model_copy(update={"num_slots": 1}))
    counter = Counter()
    film(single, tmp_path / "a.mp4", SEVEN_SECONDS, keep=True, watcher=counter)
    assert [key.kept for key in counter.keys] == [True] * 3 + [False] * 4
    film(single, tmp_path / "whole.mp4", SEVEN_SECONDS, keep=True)
    assert files_of(tmp_path / "a.mp4.film") == files_of(tmp_path / "whole.mp4.film")


def test_the_work_folder_goes_when_the_film_is_done(single: Manipulator, tmp_path: Path) -> None:
    film(single, tmp_path / "a.mp4", SEVEN_SECONDS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_song_that_cannot_be_heard_leaves_nothing_in_the_way(single: Manipulator, tmp_path: Path) -> None:
    with pytest.raises(InvalidAudio):
        film(single, tmp_path / "a.mp4", encode_wav(np.zeros(SAMPLE_RATE), SAMPLE_RATE))
    assert not list(tmp_path.iterdir())
    film(single, tmp_path / "a.mp4", swelling(2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_kept_key_codes_serve_another_reaction(single: Manipulator, tmp_path: Path) -> None:
    film(single, tmp_path / "a.mp4", SEVEN_SECONDS, keep=True)
    counter = Counter()
    film(single, tmp_path / "a.mp4", SEVEN_SECONDS, CALM.model_copy(update={"fps": 12}), watcher=counter)
    assert counter.steps == {}


def test_other_options_are_refused_with_their_names(single: Manipulator, tmp_path: Path) -> None:
    film(single, tmp_path / "a.mp4", SEVEN_SECONDS, keep=True)
    other = PreparedEdit("film", SHORT.override({"lambda_reg": 0.1}), seed=8)
    with pytest.raises(OutputConflict, match=r"source, lambda_reg.*a\.mp4\.film|a\.mp4\.film.*source, lambda_reg"):
        film(single, tmp_path / "a.mp4", SEVEN_SECONDS, edit=other)
    with pytest.raises(OutputConflict, match="song_sha256"):
        film(single, tmp_path / "a.mp4", swelling(7.0, seed=1))
    with pytest.raises(OutputConflict, match="segment_seconds.*delete the folder"):
        film(single, tmp_path / "a.mp4", SEVEN_SECONDS, CALM.model_copy(update={"segment_seconds": 2}))


def test_a_folder_that_is_no_film_s_is_refused(single: Manipulator, tmp_path: Path) -> None:
    (tmp_path / "a.mp4.film").mkdir()
    (tmp_path / "a.mp4.film" / "film.json").write_text("{}")
    with pytest.raises(OutputConflict, match="no record"):
        film(single, tmp_path / "a.mp4", SEVEN_SECONDS)


def work_folder(tmp_path: Path) -> WorkFolder:
    config = KeyOrigin(song_sha256="a", source="seed 1", segment_seconds=1, settings=SHORT, models={}, version="0")
    return WorkFolder(str(tmp_path / "a.mp4.film"), config)


def test_a_damaged_or_foreign_key_counts_as_missing(tmp_path: Path) -> None:
    before, code = (np.full((2, 3), value, np.float32) for value in (1, 2))
    work_folder(tmp_path).write_key(0, code, before)
    work = work_folder(tmp_path)
    np.testing.assert_array_equal(work.read_key(0, before), code)
    assert work.read_key(0, code) is None  # it did not start from there
    assert work.read_key(1, before) is None
    path = tmp_path / "a.mp4.film" / "key-00000.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert work.read_key(0, before) is None
    path.write_bytes(data[:40])
    assert work.read_key(0, before) is None


def test_the_photo_s_code_is_found_once(single: Manipulator, photo: np.ndarray, tmp_path: Path) -> None:
    edit = replace(with_photo("film", photo, SHORT), sound=b"", sound_sha256="")
    counter = Counter()
    with pytest.raises(Stopped):
        film(single, tmp_path / "a.mp4", SEVEN_SECONDS, edit=edit, watcher=StopAfter(1))
    film(single, tmp_path / "a.mp4", SEVEN_SECONDS, edit=edit, watcher=counter)
    assert "finding the photo" not in counter.phases and "key codes" in counter.phases
