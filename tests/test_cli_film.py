"""``soundguide film`` as users call it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import assert_refused, picture_of, plain, run
from film_songs import swelling

FAST = ("--steps", "2", "--set", "num_views=1", "--fps", "4", "--segment-seconds", "1", "--size", "32", "--react", "0")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "song.wav"
    path.parent.mkdir()
    path.write_bytes(swelling(3.0))
    return path


def test_a_film_is_made_and_told(models_file: Path, song: Path, tmp_path: Path) -> None:
    result = run("film", song, "--seed", "7", "-o", tmp_path / "a.mp4", "--models", models_file, *FAST)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-strip.png", "a.mp4", "in"]
    assert picture_of(tmp_path / "a-strip.png").width > 3 * 96
    assert "12 frames" in result.stdout and "32 x 32 px" in result.stdout
    told = plain(result.stderr)
    # a line for each segment: its time, what was heard, how near the picture came
    for clock in ("0:00", "0:01", "0:02"):
        assert clock in told
    assert told.count("similarity") == 3


def test_a_film_goes_on_from_kept_key_codes(models_file: Path, song: Path, tmp_path: Path) -> None:
    command = ("film", song, "--seed", "7", "-o", tmp_path / "a.webm", "--models", models_file, "--no-strip", *FAST)
    assert run(*command, "--keep").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.webm", "a.webm.film", "in"]
    again = run(*command)
    assert again.exit_code == 0 and plain(again.stderr).count("(kept)") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.webm", "in"]


def test_an_interrupt_tells_how_to_go_on(
    models_file: Path, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("soundguide.film.make.render", interrupt)
    result = run("film", song, "--seed", "7", "-o", tmp_path / "a.mp4", "--models", models_file, *FAST)
    assert result.exit_code == 130
    assert "3 key codes are kept" in plain(result.stderr) and "the same command goes on" in plain(result.stderr)
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.wav", "--seed", "1", "-o", "a.mp4"], ["missing.wav"]),
        (["SONG", "-o", "a.mp4"], ["got none", "--seed N"]),
        (["SONG", "--seed", "1", "--image", "b.png", "-o", "a.mp4"], ["--seed and --image"]),
        (["SONG", "--seed", "1", "-o", "a.gif"], ["a.gif", ".mp4", ".webm"]),
        (["SONG", "--seed", "1", "-o", "in/folder.mp4"], ["'in/folder.mp4' is a folder", "folder.mp4/film.mp4"]),
        (["SONG", "--seed", "1", "-o", "s3://bucket/a.mp4"], ["local file"]),
        (["SONG", "--seed", "1", "-o", "a.mp4", "--fps", "0"], ["fps", "0"]),
        (["SONG", "--seed", "1", "-o", "a.mp4", "--react", "0", "--semantic", "0"], ["nothing would move"]),
        (["SONG", "--seed", "1", "-o", "a.mp4", "--set", "num_step=3"], ["num_step", "num_steps"]),
        (["NOTES", "--seed", "1", "-o", "a.mp4"], ["notes.wav: the bytes"]),
        (["SONG", "--image", "NOTES", "-o", "a.mp4"], ["notes.wav: the 16 bytes are no picture"]),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    arguments: list[str],
    words: list[str],
    models_file: Path,
    song: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("soundguide.manipulator.Manipulator", load)
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "in" / "notes.wav"
    notes.write_text("this is no sound")
    (tmp_path / "in" / "folder.mp4").mkdir()
    names = {"SONG": str(song), "NOTES": str(notes)}
    assert_refused(run("film", *(names.get(word, word) for word in arguments), "--models", models_file), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_piece_of_the_example_changes_its_style_in_the_middle(tmp_path: Path) -> None:
    import numpy as np

    from soundguide.miniature.song import change_of_style

    one, other = (
        change_of_style(first, second, seconds=8, rng=np.random.default_rng(0))
        for first, second in (("techno music", "dark ambient music"), ("techno music", "orchestral music"))
    )
    assert len(one) == 8 * 16_000 and np.abs(one).max() <= 1
    np.testing.assert_array_equal(one[: 3 * 16_000], other[: 3 * 16_000])  # up to the cross-fade
    assert np.abs(one[5 * 16_000 :] - other[5 * 16_000 :]).max() > 0.02
