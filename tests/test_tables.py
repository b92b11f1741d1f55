"""The tables between the stages keep every field, and bad rows have the same schema as good ones."""

import math

import numpy as np
import pytest

from soundguide.config import EditSettings
from soundguide.errors import InvalidAudio, NonFiniteEdit
from soundguide.records import EditResult, ManipulatedEdit, PreparedEdit
from soundguide.tables import (
    MANIPULATED_SCHEMA,
    PREPARED_SCHEMA,
    RESULT_SCHEMA,
    failed_row,
    manipulated_row,
    manipulated_table,
    prepared_row,
    prepared_table,
    result_from_row,
    result_table,
    unprepared_row,
)

PREPARED = PreparedEdit(id="a", settings=EditSettings(num_steps=3), sound=b"\0wav", sound_sha256="5a", seed=2**62)
MANIPULATED = ManipulatedEdit(
    id="a",
    image=np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    source=np.zeros((4, 4, 3), np.uint8),
    ws=np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    similarity_before=0.1,
    similarity_after=0.3,
    latent_distance=1.5,
    gates=(0.5, 1.5),
    steps=3,
    seconds=0.25,
    labels=(("rain", 0.75), ("wind", 0.25)),
)


def test_the_result_schema_names_exactly_the_fields_of_edit_result() -> None:
    assert RESULT_SCHEMA.names == list(EditResult.model_fields)


def test_a_prepared_edit_survives_its_table() -> None:
    [row] = prepared_table([prepared_row(PREPARED, request="{}")]).to_pylist()
    assert PreparedEdit.from_row(row) == PREPARED


@pytest.mark.parametrize("source", ["photo", "latent"])
def test_arrays_of_a_prepared_edit_survive_its_table(source: str) -> None:
    value = MANIPULATED.image if source == "photo" else MANIPULATED.ws
    edit = PreparedEdit(id="b", settings=EditSettings(), **{source: value})
    [row] = prepared_table([prepared_row(edit, request="{}")]).to_pylist()
    np.testing.assert_array_equal(getattr(PreparedEdit.from_row(row), source), value)


def test_a_manipulated_edit_survives_its_table_and_carries_request_and_digests() -> None:
    row = manipulated_row(MANIPULATED, prepared=prepared_row(PREPARED, request="{1}"))
    [back] = manipulated_table([row]).to_pylist()
    edit = ManipulatedEdit.from_row(back)
    assert (back["request"], back["sound_sha256"], back["error"]) == ("{1}", "5a", "")
    np.testing.assert_array_equal(edit.image, MANIPULATED.image)
    np.testing.assert_array_equal(edit.ws, MANIPULATED.ws)
    assert (edit.labels, edit.gates, edit.steps) == (MANIPULATED.labels, MANIPULATED.gates, 3)
    assert math.isnan(edit.inversion_error)


def test_an_error_of_prepare_reaches_the_last_table_without_a_null() -> None:
    unprepared = unprepared_row("a", request="{}", error=InvalidAudio("silent"))
    table = prepared_table([unprepared])
    manipulated = manipulated_table([failed_row(table.to_pylist()[0])])
    assert table.schema == PREPARED_SCHEMA and manipulated.schema == MANIPULATED_SCHEMA
    assert sum(column.null_count for column in (*table.columns, *manipulated.columns)) == 0
    assert manipulated["error"].to_pylist() == ["silent"] and manipulated["error_kind"].to_pylist() == ["InvalidAudio"]


def test_an_error_of_the_manipulator_keeps_the_digests() -> None:
    row = failed_row(prepared_row(PREPARED, request="{}"), NonFiniteEdit("left the numbers"))
    assert (row["error_kind"], row["sound_sha256"]) == ("NonFiniteEdit", "5a")


def test_results_survive_their_table() -> None:
    full = EditResult(
        id="a",
        status="ok",
        seed=7,
        settings=EditSettings(text="snow"),
        similarity_before=0.1,
        similarity_after=0.2,
        latent_distance=1.0,
        inversion_error=0.01,
        identity_similarity=0.9,
        identity_note="half a face",
        level_db=-20.0,
        gates=(1.0, 1.0),
        label_names=("rain",),
        label_probabilities=(1.0,),
        models={"generator": "ab", "audio": "cd"},
    )
    bare = EditResult(id="b", status="error", error="no", error_kind="InvalidAudio")
    table = result_table([full, bare])
    back = [result_from_row(row) for row in table.to_pylist()]
    assert table.schema == RESULT_SCHEMA
    assert back[0] == full
    assert back[1].model_dump_json() == bare.model_dump_json()  # as JSON: NaN differs from itself
