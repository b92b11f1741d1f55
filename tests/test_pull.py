"""Published files over HTTP: resumed, checked, kept; without a network the way by hand is told."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runs import assert_refused, run
from file_host import FileHost, file_host
from ports import free_port

from soundguide.errors import InvalidCheckpoint, InvalidConfig, StoreUnavailable
from soundguide.models.download import download_folder, fetch_file
from soundguide.models.fetch import CACHE_VARIABLE
from soundguide.models.manifest import PACKAGED
from soundguide.models.sources import Source, how_to_get, known_sources
from soundguide.preset import load_preset, preset_names

CONTENT = random.Random(0).randbytes(20_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept when a line breaks
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts
    return tmp_path / "cache"


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as running:
        running.files["/a.pt"] = CONTENT
        yield running


def source(url: str = "", **others: str) -> Source:
    fields = {"role": "generator", "file": "a.pt", "page": "a page", "publisher": "Somebody", "licence": "some terms"}
    return Source.model_validate({**fields, "url": url, **others})


def test_a_file_is_fetched_once(host: FileHost) -> None:
    wanted = source(f"{host.address}/a.pt", sha256=SHA256)
    first = fetch_file("a", wanted)
    assert first.read_bytes() == CONTENT
    assert fetch_file("a", wanted) == first and len(host.asked) == 1
    assert {path.name for path in first.parent.iterdir()} == {"a.pt", "a.pt.sha256", ".lock"}


def test_a_host_that_sends_elsewhere_is_followed(host: FileHost) -> None:
    host.moved["/latest"] = f"{host.address}/a.pt"
    assert fetch_file("a", source(f"{host.address}/latest")).read_bytes() == CONTENT


def test_a_line_that_breaks_is_taken_up_where_it_broke(host: FileHost) -> None:
    host.cuts = [5_500, 3_300]
    assert fetch_file("a", source(f"{host.address}/a.pt", sha256=SHA256)).read_bytes() == CONTENT
    assert [asked for _, asked in host.asked] == ["", "bytes=5000-", "bytes=8000-"]


def test_what_an_earlier_attempt_left_is_gone_on_with(host: FileHost) -> None:
    folder = download_folder("a")
    folder.mkdir(parents=True)
    (folder / "a.pt.part").write_bytes(CONTENT[:12_345])
    assert fetch_file("a", source(f"{host.address}/a.pt", sha256=SHA256)).read_bytes() == CONTENT
    assert [asked for _, asked in host.asked] == ["bytes=12345-"]


def test_another_hash_is_refused_and_the_file_deleted(host: FileHost) -> None:
    wanted = source(f"{host.address}/a.pt", sha256="0" * 64)
    with pytest.raises(
        InvalidCheckpoint, match=f"expected SHA-256 {'0' * 64}, got {SHA256}.*Somebody may have changed"
    ):
        fetch_file("a", wanted)
    assert not (download_folder("a") / "a.pt").exists()


def test_a_file_of_unknown_hash_must_stay_what_it_was(host: FileHost) -> None:
    wanted = source(f"{host.address}/a.pt")
    path = fetch_file("a", wanted)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InvalidCheckpoint, match=f"expected SHA-256 {SHA256}"):
        fetch_file("a", wanted)
    assert fetch_file("a", wanted).read_bytes() == CONTENT


def test_a_model_is_taken_out_of_its_zip(host: FileHost) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil.onnx", b"no")
        archive.writestr("buffalo/model.onnx", CONTENT)
    host.files["/b.zip"] = packed.getvalue()
    wanted = source(f"{host.address}/b.zip", file="b.zip", member="model.onnx")
    path = fetch_file("b", wanted)
    assert (path.name, path.read_bytes()) == ("model.onnx", CONTENT)
    assert {each.name for each in path.parent.iterdir()} == {"b.zip", "b.zip.sha256", "model.onnx", ".lock"}
    with pytest.raises(InvalidCheckpoint, match=r"expected other\.onnx.*no such file"):
        fetch_file("b", wanted.model_copy(update={"member": "other.onnx"}))


def test_what_is_no_zip_is_refused(host: FileHost) -> None:
    with pytest.raises(InvalidCheckpoint, match="no zip that can be read"):
        fetch_file("a", source(f"{host.address}/a.pt", member="model.onnx"))


def test_a_file_of_the_hub_comes_through_the_hub(
    host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = f"{host.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    host.files["/them/repo/resolve/main/a.pt"] = CONTENT
    path = fetch_file("a", source(repo="them/repo", sha256=SHA256))
    assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path / "hub")


@pytest.mark.parametrize("trouble", ["nobody listens", "no such file", "offline"])
def test_without_the_host_the_way_by_hand_is_told(
    trouble: str, host: FileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{host.address}/none.pt"
    if trouble == "nobody listens":
        url = f"http://127.0.0.1:{free_port()}/a.pt"
    elif trouble == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreUnavailable) as caught:
        fetch_file("a", source(url))
    place = download_folder("a") / "a.pt"
    told = str(caught.value)
    assert told.startswith(url) and f"fetch a.pt of Somebody elsewhere (a page), then put it at {place}" in told
    place.write_bytes(CONTENT)
    assert fetch_file("a", source(url)) == place  # and it was put there


def test_a_cache_that_cannot_be_written_is_said_so(host: FileHost, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(InvalidConfig, match=f"set {CACHE_VARIABLE}"):
        fetch_file("a", source(f"{host.address}/a.pt"))


def test_everything_that_presets_need_is_known() -> None:
    for name in preset_names():
        preset = load_preset(name)
        roles = {role: model for role, model in preset.manipulator.model_dump(exclude_unset=True).items()}
        for role, model in roles.items():
            assert name in PACKAGED or known_sources()[model].role == role


def test_every_source_says_how_to_get_it() -> None:
    for name, known in known_sources().items():
        told = how_to_get(name)
        assert known.licence in told and known.page in told
        assert not known.part_of or known_sources()[known.part_of].file == known.file
        assert ("models pull" in told) == known.has_address


def test_pull_alone_lists_what_can_be_pulled() -> None:
    result = run("models", "pull")
    assert result.exit_code == 0 and all(name in result.stdout for name in known_sources())


def test_a_model_that_must_be_fetched_by_hand_says_how() -> None:
    assert_refused(run("models", "pull", "e4e-church-generator"), "e4e_church_encode.pt", "-o e4e-church")
    assert_refused(run("models", "pull", "nothing"), "no model 'nothing' is known here", "stylegan2-ffhq-1024")
