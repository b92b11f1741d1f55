"""Photos of faces on their way to a generator of aligned faces: prepared, inverted, told of, and made again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from cli_runs import run, unwrapped
from dotted_faces import IN_FFHQ, apply, dotted_photo, png, similarity, write_dot_detector
from PIL import Image
from service import SOUND, post, start, tiny_engine
from test_domain import with_domain
from tiny_edits import SHORT, do, noise
from tiny_faces import write_identity

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidCheckpoint
from soundguide.face_alignment import align_face
from soundguide.face_detector import add_detector, kept_detector
from soundguide.images import Pixels, decode_to_size
from soundguide.manipulator import Manipulator
from soundguide.model_facts import ModelFacts, read_model_facts
from soundguide.models.domain import Domain
from soundguide.photos import NO_DETECTOR, NO_FACE_TO_ALIGN
from soundguide.records import EditResult, PreparedEdit
from soundguide.replay import replay
from soundguide.run_folder import RunFolder, describe_run, identify
from soundguide.stages import EditFinisher, EditPreparer, SourceLimits
from soundguide.storage import Storage
from soundguide.tables import manipulated_row, prepared_row, result_table

QUICK = SHORT.override({"num_steps": 2, "inversion_steps": 2, "num_views": 1})
FACE = dotted_photo(
    apply(similarity(degrees=25, side=150, middle=(230, 120)), IN_FFHQ), width=360, height=240, radius=8
)
NOBODY = Image.new("RGB", (90, 60), "grey")


@pytest.fixture(scope="module")
def faces(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    """The tiny world as one of aligned faces, with a face encoder whose detector sees faces of dots."""
    folder = tmp_path_factory.mktemp("faces")
    write_identity(folder / "identity")
    add_detector(folder / "identity", write_dot_detector(folder / "dots.onnx"))
    models = with_domain(tiny_models, folder / "generator", {"name": "faces", "alignment": "ffhq"})
    return models.model_copy(update={"identity": str(folder / "identity"), "device": "cpu", "num_slots": 1})


@pytest.fixture(scope="module")
def facts(faces: ManipulatorConfig) -> ModelFacts:
    return read_model_facts(faces)


@pytest.fixture(scope="module")
def manipulator(faces: ManipulatorConfig) -> Manipulator:
    return Manipulator(faces)


def prepared(facts: ModelFacts, photo: bytes, **settings: object) -> PreparedEdit:
    return EditPreparer(facts).check("a", QUICK.override(settings), sound=noise(0), photo=photo)


def middle(photo: bytes, facts: ModelFacts) -> Pixels:
    return decode_to_size(photo, height=facts.height, width=facts.width)


def aligned(facts: ModelFacts) -> Pixels:
    """Return the aligned face as the detector in the encoder's folder says."""
    detector = kept_detector(facts.face_detector, dict(facts.digests)["detector"], Storage())
    square = align_face(FACE, detector, side=facts.resolution)
    assert square is not None
    return square


def test_a_face_is_aligned_for_a_generator_of_aligned_faces(facts: ModelFacts) -> None:
    edit = prepared(facts, png(FACE))
    np.testing.assert_array_equal(edit.photo, aligned(facts))
    assert edit.photo is not None and np.abs(edit.photo.astype(int) - middle(png(FACE), facts)).mean() > 5
    assert edit.alignment_note == ""


def test_a_photo_that_was_turned_by_its_camera_is_aligned_upright(facts: ModelFacts) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = png(FACE.transpose(Image.Transpose.ROTATE_90), exif=exif)
    np.testing.assert_array_equal(prepared(facts, turned).photo, prepared(facts, png(FACE)).photo)


def test_where_nothing_is_aligned_the_middle_is_taken_and_the_edit_says_why(facts: ModelFacts) -> None:
    blind = replace(facts, digests=(), face_detector="")
    other = replace(facts, domain=Domain())
    for known, photo, settings, note in (
        (facts, png(NOBODY), {}, NO_FACE_TO_ALIGN),
        (blind, png(FACE), {}, NO_DETECTOR),
        (facts, png(FACE), {"align": "never"}, ""),
        (blind, png(FACE), {"align": "never"}, ""),
        (other, png(FACE), {}, ""),
    ):
        edit = prepared(known, photo, **settings)
        np.testing.assert_array_equal(edit.photo, middle(photo, facts))
        assert edit.alignment_note == note
    assert EditPreparer(blind).check("a", QUICK, sound=noise(0), seed=1).alignment_note == ""


def test_a_crop_is_cut_out_of_the_aligned_square(facts: ModelFacts) -> None:
    cropped = replace(facts, domain=Domain(alignment="ffhq", crop=(1, 13, 2, 14)))
    np.testing.assert_array_equal(prepared(cropped, png(FACE)).photo, aligned(facts)[1:13, 2:14])


def test_a_lost_detector_is_told(facts: ModelFacts, tmp_path: Path) -> None:
    write_identity(tmp_path / "identity")
    with pytest.raises(InvalidCheckpoint, match="got no file"):
        prepared(replace(facts, face_detector=str(tmp_path / "identity")), png(FACE))


def test_the_note_reaches_the_result(manipulator: Manipulator, facts: ModelFacts, tmp_path: Path) -> None:
    edit = prepared(facts, png(NOBODY))
    row = prepared_row(edit, request='{"id": "a", "audio": "a.wav", "image": "a.png"}')
    assert PreparedEdit.from_row(row).alignment_note == NO_FACE_TO_ALIGN
    done = manipulated_row(do(manipulator, PreparedEdit.from_row(row)), prepared=row)
    assert EditFinisher(str(tmp_path), facts.digests).finish(done).alignment_note == NO_FACE_TO_ALIGN


def test_a_photo_has_a_code_for_each_way_in_which_it_lies(manipulator: Manipulator, facts: ModelFacts) -> None:
    before = manipulator.num_inverted
    codes = [do(manipulator, prepared(facts, png(FACE), align=align)).ws for align in ("auto", "never", "auto")]
    assert manipulator.num_inverted == before + 2
    assert np.abs(codes[0] - codes[1]).max() > 0
    np.testing.assert_array_equal(codes[0], codes[2])


def test_only_runs_that_align_are_others_than_before(facts: ModelFacts, faces: ManipulatorConfig) -> None:
    def identity(known: ModelFacts, edit: EditSettings = QUICK) -> dict[str, object]:
        return identify(edit, SourceLimits(), faces, known)

    plain = identity(replace(facts, domain=Domain()))
    assert identity(facts) == {**plain, "alignment": "ffhq"}
    assert identity(replace(facts, face_detector="")) == plain
    assert "align" not in plain["edit"] and "align" not in EditSettings(align="auto").model_dump_json()  # type: ignore[operator]
    never = identity(facts, QUICK.override({"align": "never"}))
    assert never["edit"] == {**plain["edit"], "align": "never"}  # type: ignore[dict-item]
    assert EditSettings(align="never").digest() != EditSettings().digest() == EditSettings(align="auto").digest()
    assert EditSettings(align="never").override({"align": "auto"}).align == "auto"


def test_results_without_the_column_are_read(tmp_path: Path) -> None:
    results = [EditResult(id=id, status="ok", seed=1, alignment_note="turned") for id in ("a", "b")]
    (tmp_path / "results").mkdir()
    pq.write_table(result_table(results[:1]).drop_columns(["alignment_note"]), tmp_path / "results" / "old.parquet")
    pq.write_table(result_table(results[1:]), tmp_path / "results" / "new.parquet")
    folder = RunFolder(str(tmp_path))
    read = {row["id"]: row for row in folder.read_results().to_pylist()}
    assert (read["a"]["alignment_note"], read["b"]["alignment_note"]) == ("", "turned")
    assert read["a"]["seed"] == 1
    assert folder.read_results(["id", "alignment_note"], ids=["a"]).to_pylist() == [{"id": "a", "alignment_note": ""}]


def test_replay_aligns_as_the_run_did(
    manipulator: Manipulator, faces: ManipulatorConfig, facts: ModelFacts, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(noise(0))
    (tmp_path / "a.png").write_bytes(png(FACE))
    folder = RunFolder(str(tmp_path / "out"))
    config = {"manipulator": faces.model_dump(mode="json"), "storage": {}, "limits": {}}
    row = {"id": "a", "audio": str(tmp_path / "a.wav"), "image": str(tmp_path / "a.png")}

    def do_run(known: ModelFacts) -> Pixels:
        folder.write_record(describe_run(identify(QUICK, SourceLimits(), faces, known), config, known.digests))
        ready = EditPreparer(known, QUICK).prepare(row)
        edit = do(Manipulator(faces), PreparedEdit.from_row(ready))
        result = EditFinisher(folder.uri, known.digests).finish(manipulated_row(edit, prepared=ready))
        (tmp_path / "out" / "results").mkdir(exist_ok=True)
        pq.write_table(result_table([result]), tmp_path / "out" / "results" / "a.parquet")
        return edit.image

    seen = [do_run(facts), replay(folder.uri, "a").image]
    np.testing.assert_array_equal(*seen)
    before = do_run(replace(facts, domain=Domain()))  # its config.json did not speak of alignment then
    np.testing.assert_array_equal(before, replay(folder.uri, "a").image)
    assert np.abs(before.astype(int) - seen[0]).max() > 0


def test_the_service_and_the_command_line_tell_what_became_of_a_photo(faces: ManipulatorConfig, tmp_path: Path) -> None:
    service = start(tiny_engine(faces))
    for photo, note in ((FACE, ""), (NOBODY, NO_FACE_TO_ALIGN)):
        form = {"settings": json.dumps({"num_steps": 1, "inversion_steps": 1})}
        reply = post(service, data=form, files={"audio": SOUND, "image": ("me.png", png(photo), "image/png")})
        assert reply.status_code == 200, reply.text
        assert reply.json()["alignment_note"] == note
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(faces.model_dump(mode="json")))
    for photo, said in ((FACE, False), (NOBODY, True)):
        (tmp_path / "me.png").write_bytes(png(photo))
        source = ["--image", tmp_path / "me.png", "-o", tmp_path / "out.png", "--models", tmp_path / "models.yaml"]
        result = run("edit", "--text", "rain", *source, "--steps", "1", "--inversion-steps", "1")
        assert result.exit_code == 0, result.output
        assert (NO_FACE_TO_ALIGN in unwrapped(result.stderr)) == said
