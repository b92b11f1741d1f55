"""What a generator draws travels with it: its padding is never read, compared, judged or written."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tiny_edits import SHORT, do, noise, with_photo, with_sound
from tiny_world import RESOLUTION

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint
from soundguide.images import decode_image, decode_to_size
from soundguide.manipulator import Manipulator
from soundguide.model_facts import read_model_facts
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.domain import Domain
from soundguide.records import PreparedEdit
from soundguide.run_folder import identify
from soundguide.stages import EditFinisher, EditPreparer, SourceLimits
from soundguide.tables import manipulated_row, prepared_row

CROP = (2, 14, 0, 16)  # 4:3 in a square, as the cars of LSUN lie in theirs
HEIGHT, WIDTH = 12, 16


def with_domain(models: ManipulatorConfig, folder: Path, domain: dict[str, Any]) -> ManipulatorConfig:
    """Return the models with a generator of the same weights that says this of itself."""
    loaded = load_model(Path(models.generator), device="cpu")
    save_model(folder, loaded.module, loaded.config, half=False, made_by="a test", extra={"domain": domain, "note": 1})
    return models.model_copy(update={"generator": str(folder)})


@pytest.fixture(scope="module")
def cars(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    return with_domain(tiny_models, tmp_path_factory.mktemp("cars") / "generator", {"name": "cars", "crop": CROP})


@pytest.fixture(scope="module")
def driver(cars: ManipulatorConfig) -> Manipulator:
    return Manipulator(cars.model_copy(update={"num_slots": 1}))


def visible(manipulator: Manipulator, ws: NDArray[np.float32]) -> torch.Tensor:
    """Return the visible part of a code's picture, from the generator in its folder."""
    top, bottom, left, right = CROP
    generator = load_model(Path(manipulator.config.generator), device="cpu").module
    with torch.no_grad():
        return generator.synthesize(torch.from_numpy(ws)[None])[0, :, top:bottom, left:right].clamp(-1, 1)


def as_bytes(image: torch.Tensor) -> NDArray[np.float64]:
    return ((image.double() + 1) * 127.5).permute(1, 2, 0).numpy()


# files


def test_a_domain_comes_back_beside_the_config_and_the_extras(cars: ManipulatorConfig) -> None:
    loaded = load_model(Path(cars.generator), device="cpu")
    assert loaded.domain == Domain(name="cars", alignment="none", crop=CROP)
    written = json.loads((Path(cars.generator) / "config.json").read_text())
    assert written["domain"]["crop"] == list(CROP) and written["extra"] == {"note": 1}


def test_a_model_without_a_domain_shows_all_of_its_square(tiny_models: ManipulatorConfig) -> None:
    assert load_model(Path(tiny_models.generator), device="cpu").domain == Domain()
    facts = read_model_facts(tiny_models)
    assert (facts.height, facts.width) == (RESOLUTION, RESOLUTION)


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        ({"crop": [0, 12]}, "crop"),
        ({"crop": [12, 2, 0, 16]}, "top < bottom"),
        ({"crop": [0, 17, 0, 16]}, "16 x 16 pixels"),
        ({"alignment": "left"}, "alignment"),
        ({"colour": "red"}, "colour"),
        ("cars", "domain"),
    ],
)
def test_a_domain_that_makes_no_sense_is_told_before_any_work(
    tiny_models: ManipulatorConfig, tmp_path: Path, domain: object, says: str
) -> None:
    config = with_domain(tiny_models, tmp_path / "generator", {})
    path = tmp_path / "generator" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"domain": domain}))
    with pytest.raises(InvalidCheckpoint, match=says):
        read_model_facts(config)


def test_no_folder_is_written_with_such_a_domain(tiny_models: ManipulatorConfig, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        with_domain(tiny_models, tmp_path / "generator", {"crop": [12, 2, 0, 16]})
    assert not (tmp_path / "generator").exists()


def test_a_run_belongs_to_the_crop_that_it_was_made_with(
    tiny_models: ManipulatorConfig, cars: ManipulatorConfig
) -> None:
    whole, cropped = (identify(SHORT, SourceLimits(), each, read_model_facts(each)) for each in (tiny_models, cars))
    assert {**whole, "crop": list(CROP)} == cropped
    assert json.loads(json.dumps(cropped)) == cropped  # as a resumed run reads it


# photos


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose red counts rows and whose green counts columns."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.zeros_like(rows)], 2).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("height", "width"), [(200, 120), (60, 240), (90, 120)])
def test_a_photo_is_cut_to_the_shape_of_the_visible_part(height: int, width: int) -> None:
    decoded = decode_to_size(png(gradient(height, width)), height=30, width=40)
    assert decoded.shape == (30, 40, 3)
    down, across = (3 * width // 4, width) if 4 * height > 3 * width else (height, 4 * height // 3)
    rows, columns = decoded[:, 20, 0].astype(float), decoded[15, :, 1].astype(float)
    for counted, length, part in ((rows, height, down), (columns, width, across)):
        assert counted[0] == pytest.approx((length - part) / 2, abs=0.05 * part + 1)
        assert counted[-1] == pytest.approx((length + part) / 2, abs=0.05 * part + 1)


def test_a_square_is_what_it_was() -> None:
    data = png(gradient(50, 80))
    np.testing.assert_array_equal(decode_image(data, resolution=20), decode_to_size(data, height=20, width=20))


# edits


def test_pictures_are_the_visible_part(driver: Manipulator) -> None:
    result = do(driver, with_sound("a", noise(0)))
    assert result.image.shape == result.source.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(result.image, as_bytes(visible(driver, result.ws)), atol=0.51)


def test_the_padding_does_not_count_in_any_measure(driver: Manipulator) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    result = do(driver, with_photo("a", photo, SHORT.override({"num_steps": 0})))
    image = visible(driver, result.ws)
    with torch.no_grad():
        embedding = driver.world.image_text.encode_image(image[None])[0]
    similarity = float(embedding @ driver.world.listener.embed(noise(0)))
    assert result.similarity_before == pytest.approx(similarity, abs=1e-5)
    error = np.abs(as_bytes(image) - photo).mean() / 255
    assert result.inversion_error == pytest.approx(error, abs=1e-5)


def test_an_edit_by_sound_still_comes_closer(driver: Manipulator) -> None:
    result = do(driver, with_sound("a", noise(0), SHORT.override({"num_steps": 20})))
    assert result.similarity_after > result.similarity_before


def test_rows_carry_pictures_that_are_not_square(cars: ManipulatorConfig, driver: Manipulator, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(gradient(100, 60)))
    (tmp_path / "sound.wav").write_bytes(noise(0))
    preparer = EditPreparer(read_model_facts(cars), SHORT)
    row = {"id": "a", "audio": str(tmp_path / "sound.wav"), "image": str(tmp_path / "photo.png")}
    prepared = preparer.prepare(row)
    assert prepared["error"] == ""
    edit = PreparedEdit.from_row(prepared)
    assert edit.photo is not None and edit.photo.shape == (HEIGHT, WIDTH, 3)
    done = do(driver, edit)
    finisher = EditFinisher(str(tmp_path / "out"), tuple(driver.model_digests.items()))
    result = finisher.finish(manipulated_row(done, prepared=prepared_row(edit, request=prepared["request"])))
    for name, pixels in ((result.edited_image, done.image), (result.source_image, done.source)):
        written = np.asarray(Image.open(tmp_path / "out" / name))
        assert written.shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(written, pixels)


def test_a_whole_square_is_no_photo_for_it(driver: Manipulator) -> None:
    from soundguide.errors import InvalidImage

    square = replace(with_photo("a", np.zeros((RESOLUTION, RESOLUTION, 3), np.uint8)))
    with pytest.raises(InvalidImage, match="expected 16 x 12"):
        do(driver, square)


def test_the_strip_keeps_the_shape_of_wide_pictures() -> None:
    from soundguide.cli.strip import before_after

    wide = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    page = before_after([wide, wide])
    gap = 256 // 21
    assert page.shape == (256 + 2 * gap, 2 * round(256 * WIDTH / HEIGHT) + 3 * gap, 3)


def test_a_model_of_another_kind_or_a_plain_file_is_named_with_its_role(
    tiny_models: ManipulatorConfig, tmp_path: Path
) -> None:
    swapped = tiny_models.model_copy(update={"generator": tiny_models.audio})
    with pytest.raises(InvalidCheckpoint, match=rf"{tiny_models.audio}: a generator was expected"):
        read_model_facts(swapped)
    (tmp_path / "g.pkl").write_bytes(b"x")
    with pytest.raises(InvalidCheckpoint, match=r"g.pkl is a file.*soundguide models import"):
        read_model_facts(tiny_models.model_copy(update={"generator": str(tmp_path / "g.pkl")}))
