"""Evaluation of a sound encoder: known layouts, published intervals, and the job from folder to pictures."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clip_videos import tone
from PIL import Image
from tiny_world import SAMPLE_RATE

import evaluate
from soundguide.audio.decode import encode_wav
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidManifest
from soundguide.evaluation.measures import (
    EvaluationSettings,
    embed_classes,
    embed_sounds,
    figures,
    linear_probe,
    wilson_interval,
    zero_shot,
)
from soundguide.evaluation.plots import confusion_png, map_png
from soundguide.evaluation.sound_sets import LabelledSound, read_esc50, read_plain_sounds, read_urbansound8k
from soundguide.models.audio_encoder import SwinAudioEncoder
from soundguide.models.checkpoint import load_model
from soundguide.storage import Storage

PITCHES = {"dog": 300.0, "hand_saw": 1200.0, "rain": 3500.0}


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def esc50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in ESC-50's layout: two folds, four tones of each class in each, and one file that is no sound."""
    root, rows = tmp_path_factory.mktemp("esc"), []
    (root / "audio").mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        label = list(PITCHES)[number % 3]
        name = f"{number}.wav"
        sound = tone(PITCHES[label] * float(rng.uniform(0.95, 1.05)), 0.8, rate=SAMPLE_RATE)
        (root / "audio" / name).write_bytes(encode_wav(sound, SAMPLE_RATE))
        rows.append({"filename": name, "fold": 1 + number // 12, "target": number % 3, "category": label, "take": "A"})
    (root / "audio" / "bad.wav").write_bytes(b"nothing")
    rows.append({"filename": "bad.wav", "fold": 1, "target": 0, "category": "dog", "take": "A"})
    write_csv(root / "meta" / "esc50.csv", rows)
    return root


def test_known_sets_are_read_from_their_own_folders(esc50: Path, tmp_path: Path) -> None:
    sounds = read_esc50(str(esc50), Storage())
    assert sounds[1] == LabelledSound(f"{esc50}/audio/1.wav", "hand_saw", "1")
    assert len(sounds) == 25
    write_csv(
        tmp_path / "metadata" / "UrbanSound8K.csv",
        [{"slice_file_name": "a-1.wav", "fsID": 7, "fold": 10, "classID": 3, "class": "dog_bark"}],
    )
    found = read_urbansound8k(str(tmp_path), Storage())
    assert found == [LabelledSound(f"{tmp_path}/audio/fold10/a-1.wav", "dog_bark", "10")]
    (tmp_path / "m.jsonl").write_text('{"audio": "x.wav", "label": "dog"}\n')
    assert read_plain_sounds(str(tmp_path / "m.jsonl"), Storage()) == [LabelledSound(f"{tmp_path}/x.wav", "dog", "")]


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "meta" / "esc50.csv", [{"file": "a.wav", "category": "dog"}])
    with pytest.raises(InvalidManifest, match=r"lacks filename, fold"):
        read_esc50(str(tmp_path), Storage())
    with pytest.raises(InvalidManifest, match="cannot be read"):
        read_esc50(str(tmp_path / "none"), Storage())


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (1, 1, 0.2065, 1.0), (425, 500, 0.8160, 0.8787)],
)
def test_the_interval_is_wilsons(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=2e-4)


def test_figures_count_what_was_taken_for_what() -> None:
    found = figures(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, -1]), ["a", "b"])
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["accuracy_by_class"] == {"a": 0.5, "b": pytest.approx(2 / 3)}
    assert found["confusion"] == [[1, 1], [0, 2]]  # what had no answer is in no cell


def test_zero_shot_takes_the_nearest_class_and_prompts_are_averaged(tiny_models: ManipulatorConfig) -> None:
    text = load_model(Path(tiny_models.image_text), device="cpu").module
    settings = EvaluationSettings(templates=("{}", "a {} outside"))
    classes = embed_classes(["hand_saw", "rain"], text, settings)  # type: ignore[arg-type]
    by_hand = text.encode_text(["hand saw", "a hand saw outside"]).double().mean(0)  # type: ignore[operator]
    np.testing.assert_allclose(classes[0], (by_hand / by_hand.norm()).numpy(), atol=1e-6)
    assert zero_shot(np.stack([classes[1], classes[0], classes[1]]), classes).tolist() == [1, 0, 1]


@pytest.mark.parametrize("template", ["a sound", "{name} sound", "{} and {}"])
def test_a_template_without_one_place_for_the_name_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="must hold {} once"):
        EvaluationSettings(templates=("{}", template))


def test_the_probe_judges_a_fold_by_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    apart = np.eye(3)[labels] + 0.1 * rng.standard_normal((60, 3))
    folds = [str(index // 20) for index in range(60)]
    assert (linear_probe(apart, labels, folds, EvaluationSettings()) == labels).all()
    # in the last fold the classes have changed places: only one who peeks could be right there
    swapped = np.where(np.arange(60) < 40, labels, (labels + 1) % 3)
    found = linear_probe(apart, swapped, folds, EvaluationSettings())
    assert (found[40:] == labels[40:]).all()


def test_sounds_without_folds_get_stratified_ones_and_a_lonely_class_is_refused() -> None:
    labels = np.arange(30) % 3
    apart = np.eye(3)[labels] * 1.0
    assert (linear_probe(apart, labels, [""] * 30, EvaluationSettings()) == labels).all()
    with pytest.raises(InvalidManifest, match="one sound alone"):
        linear_probe(np.eye(3)[[0, 0, 1]], np.array([0, 0, 1]), [""] * 3, EvaluationSettings())


def test_short_sounds_are_repeated_or_padded_with_zeros(tiny_models: ManipulatorConfig, tmp_path: Path) -> None:
    encoder = load_model(Path(tiny_models.audio), device="cpu").module
    assert isinstance(encoder, SwinAudioEncoder)
    waveform = tone(500.0, 0.2, rate=SAMPLE_RATE)
    (tmp_path / "a.wav").write_bytes(encode_wav(waveform, SAMPLE_RATE))
    for padding, filled in (
        ("repeat", np.resize(waveform, encoder.num_samples)),
        ("zeros", np.pad(waveform, (0, encoder.num_samples - len(waveform)))),
    ):
        settings = EvaluationSettings(padding=padding)  # type: ignore[arg-type]
        [(_, found)] = embed_sounds([LabelledSound(str(tmp_path / "a.wav"), "a", "")], encoder, settings, Storage())
        import torch

        expected = encoder.encode_audio(torch.from_numpy(filled.astype(np.float32))[None])[0]
        np.testing.assert_allclose(np.asarray(found), expected.numpy(), atol=1e-3)


def test_the_job_writes_figures_and_pictures_and_names_what_it_left_out(
    esc50: Path, tiny_models: ManipulatorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--audio", tiny_models.audio, "--image_text", tiny_models.image_text]
    assert evaluate.main(["--esc50", str(esc50), *models, "--output", str(tmp_path / "out"), "--strict"]) == 3
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["classes"] == sorted(PITCHES) and report["zero_shot"]["sounds"] == 24
    assert report["probe"]["accuracy"] > 0.8  # tones are easy, even for random weights
    assert set(report["probe_by_fold"]) == {"1", "2"}
    assert [Path(uri).name for uri in report["unreadable"]] == ["bad.wav"]
    told = capsys.readouterr().out
    assert "zero-shot" in told and "1 sounds left out" in told and "95 % interval" in told
    for name in ("confusion_zero_shot.png", "confusion_probe.png", "map.png"):
        with Image.open(io.BytesIO((tmp_path / "out" / name).read_bytes())) as picture:
            assert min(picture.size) >= 400


def test_a_set_too_small_for_a_probe_says_why_it_has_none(
    tiny_models: ManipulatorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, pitch in (("a", 500.0), ("b", 900.0)):
        (tmp_path / f"{name}.wav").write_bytes(encode_wav(tone(pitch, 0.6, rate=SAMPLE_RATE), SAMPLE_RATE))
    (tmp_path / "sounds.csv").write_text("audio,label\na.wav,low\nb.wav,high\n")
    sources = ["--manifest", str(tmp_path / "sounds.csv"), "--output", str(tmp_path / "here" / ".." / "out")]
    models = ["--audio", tiny_models.audio, "--image_text", tiny_models.image_text]
    assert evaluate.main([*sources, *models]) == 0
    assert "one sound alone" in json.loads((tmp_path / "out" / "evaluation.json").read_text())["no_probe"]
    assert not (tmp_path / "out" / "confusion_probe.png").exists()
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if "no linear probe, and so no confusion_probe.png: some class has one" in line]
    assert told[-1].endswith(f"look at {tmp_path / 'out'}")


def test_pictures_of_many_classes_are_drawn_too() -> None:
    classes = [f"class {index}" for index in range(50)]
    labels = np.repeat(np.arange(50), 3)
    picture = confusion_png(3 * np.eye(50, dtype=np.int64), classes, "all right")
    assert Image.open(io.BytesIO(picture)).size[0] > 1000
    vectors = np.random.default_rng(0).standard_normal((150, 8))
    assert map_png(vectors, labels, classes, seed=0).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], r"give one of esc50, urbansound8k, manifest, got none"),
        (["--esc50", "a", "--manifest", "b"], r"got esc50 and manifest"),
        (["--esc50", "/nowhere"], r"cannot be read"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert re.search(says, capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_encoders_of_different_spaces_are_refused(
    esc50: Path, tiny_models: ManipulatorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--esc50", str(esc50), "--audio", tiny_models.audio, "--output", str(tmp_path / "o")]) == 2
    assert re.search(r"audio embeds 16 wide and image_text 128", capsys.readouterr().err)
