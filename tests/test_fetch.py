"""Models in an object store: fetched once by a machine, checked by their hash, refused where they are damaged."""

import multiprocessing
import os
from pathlib import Path

import pytest
from faulty_s3 import faulty
from tiny_faces import write_detector, write_identity

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.face_detector import add_detector
from soundguide.model_facts import absolute_models, read_model_facts
from soundguide.models.fetch import CACHE_VARIABLE, fetch_model
from soundguide.models.manifest import CONFIG_FILE, DETECTOR_FILE, WEIGHTS_FILE
from soundguide.storage import Storage
from soundguide.world import World

pytestmark = pytest.mark.s3
URI = "s3://bucket/models/audio"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stored(s3: Storage, tiny_models: ManipulatorConfig) -> ManipulatorConfig:
    """The tiny world in the bucket."""
    roles = ("generator", "image_text", "audio")
    for role in roles:
        for path in Path(getattr(tiny_models, role)).iterdir():
            s3.write_bytes(f"s3://bucket/models/{role}/{path.name}", path.read_bytes())
    return tiny_models.model_copy(update={role: f"s3://bucket/models/{role}" for role in roles})


def test_a_world_in_a_bucket_is_the_world_on_the_disk(
    s3: Storage, stored: ManipulatorConfig, tiny_models: ManipulatorConfig
) -> None:
    assert absolute_models(stored) == stored
    assert read_model_facts(stored, s3) == read_model_facts(tiny_models)
    assert World(stored, s3).digests == World(tiny_models).digests


def test_a_face_encoder_comes_with_its_detector(s3: Storage, tmp_path: Path) -> None:
    folder = write_identity(tmp_path / "identity")
    add_detector(folder, write_detector(tmp_path / "det.onnx", None))
    for path in folder.iterdir():
        s3.write_bytes(f"s3://bucket/faces/{path.name}", path.read_bytes())
    fetched = fetch_model("s3://bucket/faces", s3)
    detector = (folder / DETECTOR_FILE).read_bytes()
    assert (fetched / DETECTOR_FILE).read_bytes() == detector
    (fetched / DETECTOR_FILE).write_bytes(b"another")
    assert (fetch_model("s3://bucket/faces", s3) / DETECTOR_FILE).read_bytes() == detector


def fetch(storage: Storage, cache: str) -> str:
    os.environ[CACHE_VARIABLE] = cache
    return str(fetch_model(URI, storage))


def test_of_many_processes_one_fetches(s3: Storage, stored: ManipulatorConfig, cache: Path) -> None:
    with faulty(s3) as (faults, storage):
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            folders = pool.starmap(fetch, [(storage, str(cache))] * 6)
        assert len(set(folders)) == 1
        assert [path for path in faults.read if path.endswith(WEIGHTS_FILE)] == [f"/bucket/models/audio/{WEIGHTS_FILE}"]


def test_weights_that_changed_on_the_disk_are_fetched_again(s3: Storage, stored: ManipulatorConfig) -> None:
    weights = fetch_model(URI, s3) / WEIGHTS_FILE
    right = weights.read_bytes()
    for wrong in (right[:-1], b"", right[:-1] + b"?"):
        weights.write_bytes(wrong)
        assert (fetch_model(URI, s3) / WEIGHTS_FILE).read_bytes() == right


def test_damaged_weights_are_refused_and_not_kept(s3: Storage, stored: ManipulatorConfig, cache: Path) -> None:
    right = s3.read_bytes(f"{URI}/{WEIGHTS_FILE}")
    s3.write_bytes(f"{URI}/{WEIGHTS_FILE}", right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(InvalidCheckpoint, match="damaged or exchanged"):
        fetch_model(URI, s3)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_what_is_missing_is_named(s3: Storage, stored: ManipulatorConfig, missing: str) -> None:
    s3.remove(f"{URI}/{missing}")
    with pytest.raises(InvalidCheckpoint, match=missing):
        fetch_model(URI, s3)


def test_a_cache_that_cannot_be_written_is_said_so(s3: Storage, stored: ManipulatorConfig, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(InvalidConfig, match=f"set {CACHE_VARIABLE}"):
        fetch_model(URI, s3)
