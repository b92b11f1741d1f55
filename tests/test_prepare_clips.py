"""The clip preparation on a private Ray: videos in, shards out, errors told, nothing computed twice."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clip_videos import plain, tone, write_video
from killed_runs import kill_in_the_middle
from numpy.typing import NDArray
from PIL import Image
from tiny_world import SAMPLE_RATE

import prepare_clips
from prepare_clips import ClipsConfig
from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.clips.decode import encode_frame
from soundguide.clips.embed import ClipEmbedder
from soundguide.clips.facts import EmbedderConfig
from soundguide.clips.tables import blank_media, clip_schema, decoded_table
from soundguide.clips.weak_partners import WeakPartners
from soundguide.command_config import load_config
from soundguide.config import ManipulatorConfig
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS, render
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise

LABELS = {"rain": "raining", "rain-2": "raining", "waves": "sea waves", "bells": "church bells", "two": "raining"}
GOOD = {
    "rain": {"video": "rain.mp4", "label": "raining", "split": "train"},
    "rain-2": {"video": "rain-2.webm", "label": "raining", "split": "train"},
    "waves": {"video": "waves.mkv", "label": "sea waves", "text": "waves at the shore", "split": "train"},
    "bells": {"video": "bells.mp4", "label": "church bells", "split": "validation"},
    "two": {"video": "two.mkv", "label": "raining|wind noise", "split": "train"},
    "heard": {"audio": "heard.wav", "label": "wind noise", "split": "train"},
}
ERRORS = {
    "broken": ({"video": "broken.mp4", "label": "raining"}, "InvalidAudio"),
    "silent": ({"video": "silent.mkv", "label": "raining"}, "InvalidAudio"),
    "soundless": ({"video": "soundless.webm", "label": "raining"}, "InvalidAudio"),
    "pictureless": ({"video": "pictureless.mkv", "label": "raining"}, "InvalidImage"),
    "missing": ({"video": "none.mp4", "label": "raining"}, "SourceNotFound"),
}
ROWS = GOOD | {id: values for id, (values, _) in ERRORS.items()}


def scene(label: str, num: int, seed: int) -> NDArray[np.uint8]:
    """A still of the miniature in which a label sounds, ``[num, 64, 64, 3]``."""
    from soundguide.miniature.labels import LABELS as ALL

    factors = torch.rand(1, NUM_FACTORS, generator=torch.Generator().manual_seed(seed))
    factors[:, len(CONTINUOUS) :] = 0
    factors[:, len(CONTINUOUS) + ALL.index(label)] = 1
    pixels = ((render(factors, 64).images[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.repeat(pixels[None], num, axis=0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of short films of the miniature, good and bad."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (id, label) in enumerate(LABELS.items()):
        rng = np.random.default_rng(seed)
        sound = synthesise(label, seconds=1.5, intensity=0.8, rng=rng)
        write_video(folder / GOOD[id]["video"], sound=sound, frames=scene(label, 15, seed), rate=SAMPLE_RATE_HZ)
    (folder / "broken.mp4").write_bytes((folder / "rain.mp4").read_bytes()[:1500])
    (folder / "heard.wav").write_bytes(encode_wav(tone(440, 1.0), 44_100))
    still = plain((90, 120, 90), 10)
    write_video(folder / "silent.mkv", sound=np.zeros(44_100, np.float32), frames=still)
    write_video(folder / "soundless.webm", sound=None, frames=still)
    write_video(folder / "pictureless.mkv", sound=tone(440, 1.0), frames=None)
    return folder


def write_manifest(path: Path, rows: dict[str, dict[str, str]]) -> str:
    path.write_text("".join(json.dumps({"id": id, **values}) + "\n" for id, values in rows.items()))
    return str(path)


def flags(models: ManipulatorConfig, output: Path | str, *sources: str) -> list[str]:
    chosen = {
        "output": str(output),
        "audio": models.audio,
        "embedder.image_text": models.image_text,
        "embedder.num_augmented_texts": 2,
        "pool.num_actors": 1,
        "pool.rows_per_block": 16,
        "pool.stall_seconds": 120,
    }
    return [*sources, *(part for name, value in chosen.items() for part in (f"--{name}", str(value)))]


def clips(output: Path) -> dict[str, dict[str, object]]:
    rows = pq.read_table(output / "results").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def done(
    local_ray: None, tiny_models: ManipulatorConfig, videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """One whole run over good and bad rows: its output, its manifest and its exit code under --strict."""
    output = tmp_path_factory.mktemp("clips") / "run"
    manifest = write_manifest(videos / "m.jsonl", ROWS)
    arguments = flags(tiny_models, output, "--manifest", manifest, "--strict")
    return output, manifest, prepare_clips.main(arguments)


def test_every_request_has_one_row_and_bad_ones_their_reason(done: tuple[Path, str, int]) -> None:
    output, _, code = done
    rows = clips(output)
    assert code == 3 and rows.keys() == ROWS.keys()
    assert {id for id, row in rows.items() if row["status"] == "ok"} == GOOD.keys()
    assert {id: rows[id]["error_kind"] for id in ERRORS} == {id: kind for id, (_, kind) in ERRORS.items()}
    assert all(rows[id]["error"] and not rows[id]["sound"] and not rows[id]["frame"] for id in ERRORS)


def test_shards_have_the_schema_of_clip_pairs(done: tuple[Path, str, int]) -> None:
    for path in (done[0] / "results").iterdir():
        assert pq.read_schema(path).equals(clip_schema(16))


def test_clips_have_their_own_sound_at_the_encoders_rate(done: tuple[Path, str, int], videos: Path) -> None:
    rows = clips(done[0])
    for id, label in (("rain-2", "raining"), ("waves", "sea waves")):
        seed = list(LABELS).index(id)
        made = synthesise(label, seconds=1.5, intensity=0.8, rng=np.random.default_rng(seed))
        sound = decode_audio(bytes(rows[id]["sound"]), sample_rate=SAMPLE_RATE)  # type: ignore[call-overload]
        assert rows[id]["sample_rate"] == SAMPLE_RATE and len(sound) == pytest.approx(1.5 * SAMPLE_RATE, abs=600)
        # The envelope in tenths of a second, below the new rate's Nyquist, is the same sound's.
        low = decode_audio(encode_wav(made, SAMPLE_RATE_HZ), sample_rate=SAMPLE_RATE)
        envelopes = [np.square(x[:11_200]).reshape(14, 800).mean(1) ** 0.5 for x in (sound, low)]
        assert np.corrcoef(envelopes)[0, 1] > 0.9
        assert envelopes[0].mean() == pytest.approx(envelopes[1].mean(), rel=0.2)


def test_frames_are_the_scenes_at_twice_the_encoders_size(done: tuple[Path, str, int]) -> None:
    rows = clips(done[0])
    for id in ("rain", "waves", "bells"):
        frame = Image.open(io.BytesIO(rows[id]["frame"]))  # type: ignore[arg-type]
        painted = Image.fromarray(scene(LABELS[id], 1, list(LABELS).index(id))[0])
        assert frame.size == (32, 32)
        difference = np.asarray(frame, float) - np.asarray(painted.resize((32, 32), Image.Resampling.LANCZOS), float)
        assert np.abs(difference).mean() < 10
    assert not rows["heard"]["has_frame"] and rows["heard"]["frame"] == b""


def test_embeddings_are_the_encoders_of_what_is_stored(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig
) -> None:
    from soundguide.models.checkpoint import load_model

    model = load_model(Path(tiny_models.image_text), device="cpu").module
    for row in (row for row in clips(done[0]).values() if row["status"] == "ok"):
        texts = [str(row["text"]), *row["augmented_texts"]]  # type: ignore[misc]
        embedded = [row["text_embedding"], *row["augmented_text_embeddings"]]  # type: ignore[misc]
        assert len(texts) == 3
        np.testing.assert_allclose(embedded, model.encode_text(texts).numpy(), atol=1e-5)
        if row["has_frame"]:
            pixels = np.array(Image.open(io.BytesIO(row["frame"])))  # type: ignore[arg-type]
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
            np.testing.assert_allclose(row["image_embedding"], model.encode_image(image)[0].numpy(), atol=1e-5)
        else:
            assert not np.any(row["image_embedding"])


def test_labels_texts_and_splits_are_the_manifests(done: tuple[Path, str, int]) -> None:
    rows = clips(done[0])
    assert rows["two"]["labels"] == ["raining", "wind noise"] and rows["two"]["text"] == "raining, wind noise"
    assert rows["waves"]["labels"] == ["sea waves"] and rows["waves"]["text"] == "waves at the shore"
    assert {id: rows[id]["split"] for id in GOOD} == {id: values["split"] for id, values in GOOD.items()}


def test_weak_partners_are_the_embeddings_of_the_good_clips_with_a_frame(done: tuple[Path, str, int]) -> None:
    rows, train = clips(done[0]), WeakPartners(done[0] / "weak_partners" / "train")
    assert train.labels() == {"raining": 3, "sea waves": 1, "wind noise": 1}
    own = np.array([rows["heard"]["image_embedding"], rows["waves"]["image_embedding"]], np.float32)
    drawn = train.draw(["heard", "waves"], [["wind noise"], ["sea waves"]], own, seed=0, epoch=0)
    np.testing.assert_array_equal(drawn.embeddings[0], np.float32(rows["two"]["image_embedding"]))
    assert (drawn.num_fallbacks, drawn.num_without) == (1, 0)
    assert WeakPartners(done[0] / "weak_partners" / "validation").labels() == {"church bells": 1}


def test_the_run_is_described_and_its_errors_are_counted(done: tuple[Path, str, int]) -> None:
    record = json.loads((done[0] / "run.json").read_text())
    assert (record["status"], record["rows"], record["ok"], record["error"]) == ("complete", 11, len(GOOD), len(ERRORS))
    assert record["errors"] == {"InvalidAudio": 3, "InvalidImage": 1, "SourceNotFound": 1}
    assert record["splits"] == {"train": 5, "validation": 1, "test": 0} and record["without_frame"] == 1
    assert re.fullmatch("[0-9a-f]{64}", record["models"]["image_text"])
    assert record["identity"]["sample_rate"] == SAMPLE_RATE and record["config"]["clip"]["clip_seconds"] == 10
    assert record["weak_partners"]["train"] == {"num_rows": 4, "num_labels": 3, "num_lonely_labels": 2}


def test_a_second_run_computes_nothing(
    done: tuple[Path, str, int],
    tiny_models: ManipulatorConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, manifest, _ = done
    before = files(output / "results")
    monkeypatch.setattr(prepare_clips, "stream_rows", lambda *_, **__: pytest.fail("clips were prepared again"))
    assert prepare_clips.main(flags(tiny_models, output, "--manifest", manifest)) == 0
    assert files(output / "results") == before
    told = " ".join(capsys.readouterr().out.split())
    assert "11: 6 ok, 5 with errors" in told and "3 x InvalidAudio" in told and "all were done before" in told


@pytest.mark.chaos
def test_a_killed_preparation_goes_on_and_makes_no_clip_twice(
    request: pytest.FixtureRequest, tiny_models: ManipulatorConfig, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    rows = {f"clip-{index}": GOOD["rain"] for index in range(80)}
    manifest = write_manifest(videos / "kill.jsonl", rows)
    arguments = [*flags(tiny_models, output, "--manifest", manifest), "--pool.rows_per_block", "2"]
    finished = kill_in_the_middle("prepare_clips", arguments, output, log=tmp_path / "log")
    assert 0 < 2 * len(finished) < len(rows)
    before = {name: data for name, data in files(output / "results").items() if name.startswith(tuple(finished))}
    request.getfixturevalue("local_ray")  # not before: two Rays at once are slow
    assert prepare_clips.main(arguments) == 0
    assert clips(output).keys() == rows.keys()
    assert before and before.items() <= files(output / "results").items()
    assert json.loads((output / "run.json").read_text())["computed"] == len(rows) - 2 * len(finished)


def test_clips_that_join_are_computed_alone(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "more"
    shutil.copytree(done[0], output)
    before = files(output / "results")
    new = {"new": {"video": "rain.mp4", "label": "sea waves", "start_seconds": "0.5", "split": "train"}}
    manifest = write_manifest(videos / "more.jsonl", new | ROWS)
    assert prepare_clips.main(flags(tiny_models, output, "--manifest", manifest)) == 0
    assert clips(output).keys() == ROWS.keys() | {"new"} and before.items() <= files(output / "results").items()
    assert json.loads((output / "run.json").read_text())["computed"] == 1
    assert WeakPartners(output / "weak_partners" / "train").labels()["sea waves"] == 2


def test_another_configuration_is_refused_with_the_difference(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(tiny_models, done[0], "--manifest", done[1], "--clip.clip_seconds", "5")
    assert prepare_clips.main(arguments) == 2
    assert "clip.clip_seconds was 10.0, is 5.0. Give another output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give one of manifest, vggsound and audioset, got none"),
        (["--manifest", "m.csv", "--vggsound", "v.csv"], "got manifest and vggsound"),
        (["--audioset", "a.csv,b.csv"], "audioset needs media and class_names too. Add --media and --class_names"),
        (["--manifest", "{folder}/bad.csv"], "InvalidManifest: .* lacks the column video or audio"),
        (["--vggsound", "{folder}/v.csv", "--media", "{folder}"], "InvalidManifest: none of the 1 clips"),
        (["--manifest", "{folder}/good.csv", "--embedder.image_text", "{folder}"], "InvalidCheckpoint"),
    ],
)
def test_bad_arguments_and_lists_stop_before_the_output_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "bad.csv").write_text("id,label\na,rain\n")
    (tmp_path / "good.csv").write_text("id,video,label\na,x.mp4,rain\n")
    (tmp_path / "v.csv").write_text("ID,30,rain,train\n")
    given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    assert prepare_clips.main([*given, "--output", str(tmp_path / "out")]) == 2
    assert re.search(says, capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare_clips.main(["--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    for line in ("--manifest clips.csv --output prepared", "--vggsound vggsound.csv --media videos", "--audioset "):
        assert line in told
    assert "rain-1,videos/a.mp4,raining\n" in told  # as it must be typed, not flowed into a paragraph


def test_the_examples_of_the_help_are_valid(tmp_path: Path) -> None:
    assert prepare_clips.__doc__ is not None
    lines = prepare_clips.__doc__.replace("\\\n", " ").splitlines()
    commands = [line.split()[2:] for line in lines if line.strip().startswith("python jobs/")]
    configs = [load_config(ClipsConfig, command) for command in commands]
    assert [bool(c.manifest) + 2 * bool(c.vggsound) + 4 * len(c.audioset) for c in configs] == [1, 2, 8]
    assert configs[2].output == "s3://bucket/prepared"


def test_a_clip_in_a_batch_gets_what_it_gets_alone(tiny_models: ManipulatorConfig) -> None:
    rows = []
    for number, (id, text) in enumerate({"a": "heavy rain", "b": "rain", "c": "heavy rain", "d": "bells"}.items()):
        frame = encode_frame(scene("raining", 1, number)[0, : 20 + 7 * number, : 20 + 7 * number], "png")
        named = {"id": id, "source_id": id, "split": "train", "labels": ["rain"], "text": text}
        media = {"frame": frame, "has_frame": True} if id != "b" else {"status": "error", "error": "e"}
        rows.append({**blank_media(), **named, **media})
    embedder = ClipEmbedder(EmbedderConfig(image_text=tiny_models.image_text, device="cpu", batch_size=2))
    together = embedder(decoded_table(rows)).to_pylist()
    alone = [embedder(decoded_table([row])).to_pylist()[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        assert one["augmented_texts"] == other["augmented_texts"]
        assert len(one["augmented_texts"]) == (0 if one["id"] == "b" else 4)
        for name in ("image_embedding", "text_embedding", "augmented_text_embeddings"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert together[0]["augmented_texts"] != together[2]["augmented_texts"]  # one text, two clips
    norms = [np.linalg.norm([row["image_embedding"], row["text_embedding"]], axis=1) for row in together]
    np.testing.assert_allclose(norms, [[1, 1], [0, 0], [1, 1], [1, 1]], atol=1e-5)
