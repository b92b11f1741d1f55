"""The manipulator with many edits at once: company, caches, streams, tables and failures."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from tiny_edits import SHORT, do, do_all, noise, with_photo, with_sound
from tiny_world import RESOLUTION
from torch import Tensor

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidAudio, InvalidEdit
from soundguide.manipulator import Manipulator
from soundguide.objective import margin_of
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress
from soundguide.tables import prepared_row, prepared_table


@pytest.fixture
def batching(tiny_models: ManipulatorConfig) -> Manipulator:
    """Three slots, with caches of its own."""
    return Manipulator(tiny_models.model_copy(update={"num_slots": 3}))


# company


def test_edit_in_other_company_is_the_same_picture(single: Manipulator, batching: Manipulator) -> None:
    settings = [
        SHORT.override({"num_steps": 20}),
        SHORT.override({"num_steps": 12, "num_views": 1, "latent_space": "w+", "lambda_reg": 0.01}),
        SHORT.override({"num_steps": 15, "layer_gates": "adaptive", "num_views": 3}),
        SHORT.override({"num_steps": 9, "regulariser": "paper"}),
        SHORT.override({"num_steps": 18, "latent_space": "w+", "lambda_spread": 0.05}),
    ]
    edits = [with_sound(str(i), noise(i), s, seed=i) for i, s in enumerate(settings)]
    for edit, crowded in zip(edits, do_all(batching, edits), strict=True):
        alone = do(single, edit)
        np.testing.assert_array_equal(alone.ws, crowded.ws)
        assert crowded.steps == alone.steps


def test_the_miniature_gives_the_same_picture_in_any_company() -> None:
    # a world of random weights is too smooth to show how rounding grows
    settings = EditSettings(num_steps=16)
    edits = [with_sound(str(i), noise(i), settings, seed=i) for i in range(3)]
    alone, crowded = (Manipulator(ManipulatorConfig(num_slots=number)) for number in (1, 3))
    np.testing.assert_array_equal(do(alone, edits[1]).image, do_all(crowded, edits)[1].image)


def test_one_slot_gives_the_same_bits_twice(tiny_models: ManipulatorConfig, photo: NDArray[np.uint8]) -> None:
    edit = with_photo("a", photo)
    results = [do(Manipulator(tiny_models.model_copy(update={"num_slots": 1})), edit) for _ in range(2)]
    np.testing.assert_array_equal(results[0].ws, results[1].ws)
    np.testing.assert_array_equal(results[0].image, results[1].image)


def test_one_song_over_ten_edits_is_encoded_once(batching: Manipulator) -> None:
    do_all(batching, [with_sound(str(i), noise(0), SHORT.override({"num_steps": 1}), seed=i) for i in range(10)])
    assert batching.num_encoded == 1
    do(batching, with_sound("later", noise(0), SHORT.override({"num_steps": 1})))
    assert batching.num_encoded == 1
    do(batching, with_sound("other", noise(1), SHORT.override({"num_steps": 1})))
    assert batching.num_encoded == 2


def test_one_photo_under_many_sounds_is_inverted_once(batching: Manipulator, photo: NDArray[np.uint8]) -> None:
    edits = [replace(with_photo(str(i), photo), sound=noise(i), sound_sha256=str(i)) for i in range(4)]
    results = do_all(batching, edits)
    assert batching.num_inverted == 1
    assert len({result.inversion_error for result in results}) == 1
    do(batching, replace(edits[0], settings=SHORT.override({"inversion_steps": 3})))
    assert batching.num_inverted == 2


def test_sound_is_encoded_once_per_edit_and_without_autograd(
    batching: Manipulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[bool] = []
    audio = batching.world.audio
    encode = audio.encode_audio

    def watched(waveforms: Tensor) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return encode(waveforms)

    monkeypatch.setattr(audio, "encode_audio", watched)
    do(batching, with_sound("a", noise(0, 4000)))
    assert graphs == [False]


def test_manipulator_serves_one_event_loop_after_another(batching: Manipulator) -> None:
    first = do(batching, with_sound("a", noise(0)))
    second = do(batching, with_sound("a", noise(0)))
    np.testing.assert_array_equal(first.ws, second.ws)


# streams


def test_stream_tells_progress_with_previews_and_then_the_result(single: Manipulator) -> None:
    async def main() -> list[Progress | ManipulatedEdit]:
        return [news async for news in single.stream(with_sound("a", noise(0)), preview_every=3)]

    *progress, result = asyncio.run(main())
    assert [p.step for p in progress if isinstance(p, Progress)] == [3, 6]
    for news in progress:
        assert isinstance(news, Progress)
        assert news.preview is not None
        assert news.preview.shape == (RESOLUTION, RESOLUTION, 3)
    assert isinstance(result, ManipulatedEdit)
    goal = margin_of(SHORT, result.level_db)
    assert 0 < goal < SHORT.margin and {news.margin for news in progress if isinstance(news, Progress)} == {goal}
    np.testing.assert_array_equal(result.ws, do(single, with_sound("a", noise(0))).ws)


def test_stream_of_a_photo_shows_its_inversion_first(batching: Manipulator, photo: NDArray[np.uint8]) -> None:
    async def main() -> list[str]:
        stream = batching.stream(with_photo("a", photo), preview_every=3)
        return [news.phase async for news in stream if isinstance(news, Progress)]

    assert asyncio.run(main()) == ["invert", "invert", "edit", "edit"]


def test_stream_of_sound_and_text_tells_each_step_once(single: Manipulator) -> None:
    async def main() -> list[int]:
        stream = single.stream(with_sound("a", noise(0), SHORT.override({"text": "rain"})), preview_every=3)
        return [news.step async for news in stream if isinstance(news, Progress)]

    assert asyncio.run(main()) == [3, 6]


@pytest.mark.parametrize("phase", ["edit", "invert"])
def test_closing_a_stream_frees_its_slot(single: Manipulator, photo: NDArray[np.uint8], phase: str) -> None:
    long = SHORT.override({"num_steps": 10_000, "inversion_steps": 9_999})
    edit = with_photo("long", photo, long) if phase == "invert" else with_sound("long", noise(0), long)

    async def main() -> int:
        async with aclosing(single.stream(edit, preview_every=1)) as stream:
            async for news in stream:
                assert isinstance(news, Progress)
                assert news.phase == phase
                if news.step >= 2:
                    break
        return (await single.edit(with_sound("next", noise(0)))).steps

    assert asyncio.run(asyncio.wait_for(main(), 120)) == 8


def test_stream_raises_what_is_wrong_with_its_edit(single: Manipulator) -> None:
    async def main() -> None:
        async for _ in single.stream(with_sound("a", b"no sound")):
            pass

    with pytest.raises(InvalidAudio):
        asyncio.run(main())


# tables and failures


def row_of(edit: PreparedEdit, error: str = "") -> dict[str, object]:
    row = prepared_row(edit, request="{}")
    return {**row, "error": error, "error_kind": "InvalidImage" if error else ""}


def call(manipulator: Manipulator, table: pa.Table) -> pa.Table:
    return asyncio.run(manipulator(table))


def test_table_keeps_its_order_and_errors_stay_in_their_rows(batching: Manipulator) -> None:
    lengths = (6, 1, 4, 2, 5, 3)
    good = [with_sound(f"row-{i}", noise(i), SHORT.override({"num_steps": n}), seed=i) for i, n in enumerate(lengths)]
    rows = [row_of(edit) for edit in good]
    rows.insert(2, row_of(with_sound("bad sound", b"no sound")))
    rows.insert(4, row_of(with_sound("bad before", noise(0)), error="the picture was damaged"))
    result = call(batching, prepared_table(rows)).to_pylist()
    assert [row["id"] for row in result] == [row["id"] for row in rows]
    errors = {row["id"]: (row["error_kind"], row["error"]) for row in result if row["error"]}
    assert set(errors) == {"bad sound", "bad before"}
    assert errors["bad before"] == ("InvalidImage", "the picture was damaged")
    assert errors["bad sound"][0] == "InvalidAudio"
    done = [row for row in result if not row["error"]]
    assert [row["steps"] for row in done] == list(lengths)
    alone = do(batching, good[1])
    np.testing.assert_allclose(ManipulatedEdit.from_row(done[1]).ws, alone.ws, rtol=1e-4, atol=1e-5)


def test_failing_sound_is_every_row_of_that_sound_and_no_other(batching: Manipulator) -> None:
    async def main() -> list[ManipulatedEdit | BaseException]:
        sounds = [noise(0), b"no sound", noise(1), b"no sound"]
        edits = (batching.edit(with_sound(str(i), sound)) for i, sound in enumerate(sounds))
        return await asyncio.gather(*edits, return_exceptions=True)

    results = asyncio.run(main())
    assert [isinstance(result, InvalidEdit) for result in results] == [False, True, False, True]
    assert [isinstance(result, ManipulatedEdit) for result in results] == [True, False, True, False]


def test_bug_in_a_model_stops_the_table_instead_of_hanging(
    batching: Manipulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: Tensor) -> Tensor:
        raise RuntimeError("the device is gone")

    table = prepared_table([row_of(with_sound(str(i), noise(0))) for i in range(5)])
    monkeypatch.setattr(batching.world.image_text, "encode_image", fail)
    with pytest.raises(RuntimeError, match="the device is gone"):
        call(batching, table)
