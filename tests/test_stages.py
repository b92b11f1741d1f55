"""Preparing and finishing: whatever is wrong with a row becomes its error, and files say where they come from."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tiny_world import NUM_WS, RESOLUTION, SAMPLE_RATE, W_DIM

import soundguide.stages
from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings
from soundguide.latents import decode_latent, encode_latent
from soundguide.model_facts import ModelFacts
from soundguide.records import EditRequest, ManipulatedEdit, PreparedEdit
from soundguide.stages import EditFinisher, EditPreparer, SourceLimits
from soundguide.tables import (
    PREPARED_SCHEMA,
    RESULT_SCHEMA,
    failed_row,
    manipulated_row,
    manipulated_table,
    prepared_row,
)

FACTS = ModelFacts(RESOLUTION, NUM_WS, W_DIM, SAMPLE_RATE)
PREPARER = EditPreparer(FACTS, EditSettings(num_steps=5))


def noise(seconds: float = 0.5) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * SAMPLE_RATE))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad sources."""
    folder = tmp_path_factory.mktemp("files")
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)).save(picture, "PNG")
    nan = io.BytesIO()
    import soundfile

    soundfile.write(nan, np.full(4000, np.nan, np.float32), SAMPLE_RATE, format="WAV", subtype="FLOAT")
    contents = {
        "good.wav": encode_wav(noise(), SAMPLE_RATE),
        "silent.wav": encode_wav(np.zeros(4000), SAMPLE_RATE),
        "nan.wav": nan.getvalue(),
        "empty.wav": b"",
        "text.wav": b"this is no sound, it is a sentence" * 20,
        "good.png": picture.getvalue(),
        "truncated.png": picture.getvalue()[:200],
        "absurd.png": png_header(50_000, 50_000),
        "good.safetensors": encode_latent(np.ones((NUM_WS, W_DIM), np.float32)),
        "other.safetensors": encode_latent(np.ones((NUM_WS + 2, W_DIM), np.float32)),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def row(files: Path, **values: str) -> dict[str, object]:
    """A manifest row as `read_manifest` gives it; values that name files are resolved."""
    blank = {"row": 1, "id": "a", "audio": "good.wav", "image": "", "seed": "", "latent": ""}
    if not {"image", "seed", "latent"} & values.keys():
        blank["seed"] = "7"
    merged = {**blank, **values}
    for name in ("audio", "image", "latent"):
        if merged[name] and "://" not in str(merged[name]):
            merged[name] = str(files / str(merged[name]))
    return merged


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"audio": "none.wav"}, "SourceNotFound", "does not exist"),
        ({"audio": "empty.wav"}, "InvalidAudio", "0 bytes"),
        ({"audio": "silent.wav"}, "InvalidAudio", "silent"),
        ({"audio": "nan.wav"}, "InvalidAudio", "NaN"),
        ({"audio": "text.wav"}, "InvalidAudio", "no sound file"),
        ({"audio": "gopher://host/x.wav"}, "SourceNotFound", "scheme gopher"),
        ({"audio": ""}, "InvalidSettings", "neither audio nor text"),
        ({"image": "truncated.png"}, "InvalidImage", "damaged"),
        ({"image": "absurd.png"}, "InvalidImage", "too large"),
        ({"image": "good.png", "seed": "3"}, "InvalidSettings", "image and seed"),
        ({"latent": "other.safetensors"}, "InvalidLatent", "8, 8"),
        ({"latent": "good.png"}, "InvalidLatent", "safetensors"),
        ({"seed": "-1"}, "InvalidSettings", "seed"),
        ({"seed": "many"}, "InvalidSettings", "seed"),
        ({"num_steps": "many"}, "InvalidSettings", "num_steps"),
        ({"lambda_reg": "nan"}, "InvalidSettings", "lambda_reg"),
        ({"mix": "2"}, "InvalidSettings", "mix"),
        ({"mix_layers": "9-1 sound"}, "InvalidSettings", "mix_layers"),
        ({"id": "../../x"}, "InvalidEdit", "looks like a path"),
        ({"id": "/etc/x"}, "InvalidEdit", "looks like a path"),
        ({"id": "a\\..\\b"}, "InvalidEdit", "looks like a path"),
        ({"id": "a\nb"}, "InvalidEdit", "control characters"),
        ({"id": "x" * 1025}, "InvalidEdit", "longer than 1024"),
    ],
)
def test_a_bad_row_becomes_an_error_row(files: Path, values: dict[str, str], kind: str, says: str) -> None:
    prepared = PREPARER.prepare(row(files, **values))
    assert (prepared["error_kind"], prepared["id"]) == (kind, values.get("id", "a"))
    assert says in prepared["error"]
    assert set(prepared) == set(PREPARED_SCHEMA.names)


@pytest.mark.parametrize("id", ["a", "Ä ö", "rain/001", "a..b", "con", "..a", "x" * 1024])
def test_ids_that_stay_inside_the_folder_are_taken(files: Path, id: str) -> None:
    assert PREPARER.prepare(row(files, id=id))["error"] == ""


def test_overrides_win_over_the_defaults_and_blanks_leave_them(files: Path) -> None:
    edit = PreparedEdit.from_row(PREPARER.prepare(row(files, mix="0.25", text="", learning_rate="")))
    assert edit.settings == EditSettings(num_steps=5, mix=0.25)


def test_each_kind_of_source_is_prepared(files: Path) -> None:
    seed, photo, latent = (
        PreparedEdit.from_row(PREPARER.prepare(row(files, **source)))
        for source in ({"seed": str(2**63 - 1)}, {"image": "good.png"}, {"latent": "good.safetensors"})
    )
    assert seed.seed == 2**63 - 1 and seed.photo is None and seed.source_sha256 == ""
    assert (
        photo.photo is not None and photo.photo.shape == (RESOLUTION, RESOLUTION, 3) and len(photo.source_sha256) == 64
    )
    assert latent.latent is not None and latent.latent.shape == (NUM_WS, W_DIM) and latent.seed is None
    assert seed.sound == (files / "good.wav").read_bytes() and seed.sound_sha256 == photo.sound_sha256


def test_a_text_alone_is_a_target(files: Path) -> None:
    edit = PreparedEdit.from_row(PREPARER.prepare(row(files, audio="", text="snow")))
    assert (edit.sound, edit.settings.text) == (b"", "snow")


def test_limits_are_those_of_the_config(files: Path) -> None:
    tight = EditPreparer(FACTS, limits=SourceLimits(max_sound_seconds=0.2, max_image_pixels=1000))
    assert "longer than the 0.2 s" in tight.prepare(row(files))["error"]
    assert "1000 are allowed" in tight.prepare(row(files, image="good.png", audio="", text="x"))["error"]


def test_one_sound_over_many_rows_is_decoded_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    real = soundguide.stages.iter_audio
    monkeypatch.setattr(soundguide.stages, "iter_audio", lambda data, **kw: decoded.append(1) or real(data, **kw))
    monkeypatch.setattr(soundguide.stages, "_verdicts", type(soundguide.stages._verdicts)())
    for name in ("good.wav", "silent.wav"):
        errors = {PREPARER.prepare(row(files, id=f"{name}-{i}", audio=name))["error"] for i in range(5)}
        assert len(errors) == 1
    assert len(decoded) == 2


def test_a_broken_disk_is_no_row_error(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundguide.stages.Storage, "read_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        PREPARER.prepare(row(files))


def test_prepared_tables_have_one_schema_for_good_and_bad_rows(files: Path) -> None:
    batch = pa.Table.from_pylist([row(files), row(files, id="b", audio="silent.wav")])
    tables = list(PREPARER.prepare_table(batch))
    assert [table.schema for table in tables] == [PREPARED_SCHEMA] * 2
    assert [table["id"][0].as_py() for table in tables] == ["a", "b"]


@pytest.mark.parametrize("shape", [(NUM_WS, W_DIM), (1, NUM_WS, W_DIM), (W_DIM,)])
def test_latents_of_all_shapes_are_read_from_npy(shape: tuple[int, ...]) -> None:
    code = np.random.default_rng(0).normal(size=shape)
    buffer = io.BytesIO()
    np.save(buffer, code)
    read = decode_latent(buffer.getvalue(), num_ws=NUM_WS, w_dim=W_DIM)
    np.testing.assert_array_equal(read, np.broadcast_to(code.reshape(-1, W_DIM), (NUM_WS, W_DIM)).astype(np.float32))


@pytest.mark.parametrize(
    "array",
    [np.array([{}], object), np.full((NUM_WS, W_DIM), 1e300), np.zeros((2, NUM_WS, W_DIM)), np.zeros(W_DIM, int)],
)
def test_other_npy_files_are_refused(array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    with pytest.raises(soundguide.stages.InvalidEdit):
        decode_latent(buffer.getvalue(), num_ws=NUM_WS, w_dim=W_DIM)


def manipulated(id: str) -> ManipulatedEdit:
    image = np.full((RESOLUTION, RESOLUTION, 3), 9, np.uint8)
    ws = np.ones((NUM_WS, W_DIM), np.float32)
    return ManipulatedEdit(id, image, image + 1, ws, 0.1, 0.2, 1.0, (1.0,) * NUM_WS, 5, 0.1, labels=(("rain", 1.0),))


def test_finishing_writes_files_that_say_where_they_come_from(tmp_path: Path) -> None:
    finisher = EditFinisher(str(tmp_path), (("generator", "ab"),))
    request = EditRequest(id="Ä ö", audio="x.wav", seed=3, settings=EditSettings(mix=0.25))
    prepared = prepared_row(PreparedEdit("Ä ö", request.settings, b"", "5a", 3), request=request.model_dump_json())
    result = finisher.finish(manipulated_row(manipulated("Ä ö"), prepared=prepared))
    picture = Image.open(tmp_path / result.edited_image)
    told = json.loads(picture.text["soundguide"])
    assert np.asarray(picture)[0, 0, 0] == 9 and np.asarray(Image.open(tmp_path / result.source_image))[0, 0, 0] == 10
    assert (told["id"], told["seed"], told["settings"]["mix"]) == ("Ä ö", 3, 0.25)
    assert (told["models"], told["sound_sha256"]) == ({"generator": "ab"}, "5a")
    latent = decode_latent((tmp_path / result.edited_latent).read_bytes(), num_ws=NUM_WS, w_dim=W_DIM)
    np.testing.assert_array_equal(latent, 1)
    assert (result.status, result.similarity_after, result.label_names) == ("ok", 0.2, ("rain",))
    assert not list(tmp_path.rglob("*.tmp"))


def test_finishing_an_error_writes_nothing_and_tells_what_was_asked(files: Path, tmp_path: Path) -> None:
    finisher = EditFinisher(str(tmp_path / "out"), ())
    bad = failed_row(PREPARER.prepare(row(files, id="../x", text="snow")))
    late = failed_row(PREPARER.prepare(row(files, audio="silent.wav")))
    table = finisher.finish_table(manipulated_table([bad, late]))
    assert table.schema == RESULT_SCHEMA
    assert table["status"].to_pylist() == ["error", "error"] and table["id"].to_pylist() == ["../x", "a"]
    assert table["audio"].to_pylist() == [str(files / "good.wav"), str(files / "silent.wav")]
    assert table["settings"][0].as_py() == "" and json.loads(table["settings"][1].as_py())["num_steps"] == 5
    assert not (tmp_path / "out").exists()
