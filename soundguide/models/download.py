"""Published files, downloaded once: resumed where the line broke, checked by their hash, kept in the cache."""

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from filelock import FileLock

from soundguide.errors import InvalidCheckpoint, InvalidConfig, StoreUnavailable
from soundguide.models.fetch import CACHE_VARIABLE, cache_folder, file_sha256
from soundguide.models.sources import Source, import_command

MAX_MEMBER_BYTES = 4 * 2**30  # of a model inside of a zip, whatever its header promises


def download_folder(name: str) -> Path:
    """Return where the file that becomes the model ``name`` is kept."""
    return cache_folder() / "downloads" / name


def fetch_file(name: str, source: Source) -> Path:
    """Return the file of a source with an address, downloaded unless it lies in `download_folder` already.

    A file of unknown hash is checked against the one that it had when it first came. Of a zip it is the model in it;
    the detector that the options name lies beside it.

    Raises:
        StoreUnavailable: the address cannot be reached; the message says what to do without a network.
        InvalidCheckpoint: what came has another hash, and was deleted; or the zip lacks the model.
        InvalidConfig: the cache cannot be written.
    """
    folder = download_folder(name)
    with _telling_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            path = folder / source.file
            if source.repo:
                with _telling_network_errors(name, source):
                    path = _from_hub(source)
            elif not path.is_file():
                with _telling_network_errors(name, source):
                    _from_address(source, path)
            _check_hash(path, source, folder / f"{source.file}.sha256")
            if not source.member:
                return path
            if source.options.detector:
                _taken_out(path, source.options.detector)
            return _taken_out(path, source.member)


def _from_hub(source: Source) -> Path:
    """Return the file in the hub's own cache, which other programs share."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.repo, source.file))


def _from_address(source: Source, path: Path) -> None:
    from huggingface_hub.file_download import http_get

    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file:
        http_get(source.url, file, resume_size=file.tell(), displayed_filename=source.file)
    os.replace(part, path)


def _check_hash(path: Path, source: Source, record: Path) -> None:
    """Compare a file with its known hash, or the one it had before; keep that of a file that came now."""
    found = file_sha256(path)
    expected = source.sha256 or (record.read_text("utf-8").strip() if record.is_file() else found)
    if found != expected:
        os.unlink(path)
        raise InvalidCheckpoint(
            f"{path}: damaged or exchanged, expected SHA-256 {expected}, got {found}. It is deleted: give the same "
            f"command again; if that ends so too, {source.publisher} may have changed the file."
        )
    record.write_text(f"{found}\n", "utf-8")


def _taken_out(path: Path, member: str) -> Path:
    """Return one file of a zip, written beside it."""
    target = path.with_name(member)
    try:
        with zipfile.ZipFile(path) as archive:
            info = next((each for each in archive.infolist() if Path(each.filename).name == member), None)
            if info is None or info.file_size > MAX_MEMBER_BYTES:
                got = "no such file" if info is None else f"{info.file_size} bytes"
                raise InvalidCheckpoint(
                    f"{path}: expected {member} of at most {MAX_MEMBER_BYTES} bytes in it, got {got}. Fetch it again."
                )
            with archive.open(info) as inside, target.open("wb") as file:
                shutil.copyfileobj(inside, file, 2**20)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, unknown method, encrypted
        raise InvalidCheckpoint(f"{path}: no zip that can be read ({error}). Delete it and fetch it again.") from error
    return target


@contextmanager
def _telling_network_errors(name: str, source: Source) -> Iterator[None]:
    import httpx2

    try:
        yield
    except httpx2.HTTPError as error:
        _refuse(name, source, error)
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the line
            raise
        _refuse(name, source, error)


def _refuse(name: str, source: Source, error: Exception) -> NoReturn:
    where = source.url or f"{source.file} of {source.repo} on the Hugging Face hub"
    told = " ".join(str(error).split()) or type(error).__name__
    place = download_folder(name) / source.file
    by_hand = f"put it at {place} and give the same command again" if source.url else import_command(name, source)
    raise StoreUnavailable(
        f"{where} cannot be fetched ({told:.300}). What came so far is kept: give the same command again. Without a "
        f"network, fetch {source.file} of {source.publisher} elsewhere ({source.page}), then {by_hand}"
    ) from error


@contextmanager
def _telling_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidConfig(
            f"{folder}: a download cannot be kept there ({error.strerror or error}). Make room, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
