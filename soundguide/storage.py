"""The one door to files: local paths, ``file://`` and ``s3://`` URIs."""

import hashlib
import os
import posixpath
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from soundguide.errors import SourceNotFound
from soundguide.storage_errors import translated, writing

if TYPE_CHECKING:
    import pyarrow.fs
    import s3fs

Scheme = Literal["file", "s3"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]+(?:/|$)")
_SIMPLE_ID = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,98}[a-z0-9_-])?")
_WINDOWS_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


class StorageConfig(BaseModel):
    """Which URIs may be read and written, and how S3 is reached; keys come from the profile or the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schemes: tuple[Scheme, ...] = Field(
        default=("file", "s3"), description="allowed schemes; plain paths count as file"
    )
    endpoint_url: str | None = Field(default=None, description="address of an S3-compatible store; empty means AWS")
    region: str | None = Field(default=None, description="region of the buckets; empty takes the environment's")
    anonymous: bool = Field(default=False, description="read public buckets without credentials")
    profile: str | None = Field(default=None, description="profile of the AWS credentials file")
    max_attempts: int = Field(
        default=6,
        ge=1,
        le=100,
        description="times that a request to S3 is tried, with ever longer pauses between",
    )
    timeout_seconds: float = Field(default=30.0, gt=0, description="longest wait for an answer of S3")

    @field_validator("endpoint_url")
    @classmethod
    def _hold_no_password(cls, url: str | None) -> str | None:
        if url and "@" in urlsplit(url).netloc:
            raise ValueError(
                "endpoint_url holds a name or a password, which the record of a run would show. Take it out; keys come "
                "from a profile or the environment"
            )
        return url


class Storage:
    """Reads and writes local files and S3 objects by URI. Holds only its config, so that workers can receive it.

    Every method raises SourceNotFound when the URI has another scheme, names nothing, or may not be accessed,
    InvalidConfig when S3 has no credentials, and StoreUnavailable when it gives no answer, or none but errors of its
    own, in `max_attempts` attempts. A full disk that is read from stays the OSError that it is.
    """

    def __init__(self, config: StorageConfig = StorageConfig()) -> None:  # noqa: B008 - frozen
        """Open no connection yet; S3 is reached at first use."""
        self.config = config

    def read_bytes(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        """Return the whole content of `uri`. More than `max_bytes` are refused (SourceNotFound) before reading."""
        num_bytes = self.size(uri)
        if max_bytes is not None and num_bytes > max_bytes:
            raise SourceNotFound(f"{uri} has {num_bytes} bytes; at most {max_bytes} may be read. Give a smaller file")
        scheme, path = self._locate(uri)
        with translated(uri):
            return Path(path).read_bytes() if scheme == "file" else cast(bytes, self._s3().cat_file(path))

    def open(self, uri: str) -> BinaryIO:
        """Open `uri` for reading, seekable. The caller closes it."""
        scheme, path = self._locate(uri)
        self.size(uri)  # refuses folders, devices and missing files
        with translated(uri):
            return Path(path).open("rb") if scheme == "file" else cast(BinaryIO, self._s3().open(path, "rb"))

    def write_bytes(self, uri: str, data: bytes) -> None:
        """Write `data` to `uri` atomically: readers see the old content or the new, never a part. Folders are made.

        Raises OutputConflict where that cannot be.
        """
        scheme, path = self._locate(uri)
        with self.writing(uri):
            if scheme == "s3":
                self._s3().pipe_file(path, data)  # one put, or a multipart upload that appears when complete
            else:
                _replace_file(Path(path), data)

    def write_file(self, uri: str, file: Path) -> None:
        """Write what the local `file` holds to `uri`, as `write_bytes` does, without ever holding it."""
        scheme, path = self._locate(uri)
        with self.writing(uri):
            if scheme == "s3":
                self._s3().put_file(os.fspath(file), path)
            else:
                _replace_file(Path(path), file)

    @contextmanager
    def writing(self, uri: str) -> Iterator[None]:
        """Translate what others, who write at `uri` without us, are told by the system and by S3.

        Raises OutputConflict and StoreUnavailable, as `write_bytes` does; all else stays as it is.
        """
        scheme, _ = self._locate(uri)
        with translated(uri) if scheme == "s3" else writing(uri):
            yield

    def require_folder(self, uri: str) -> None:
        """Make the local folder `uri`, and raise OutputConflict where nothing can be written in it.

        On S3 the first write tells.
        """
        scheme, path = self._locate(uri)
        if scheme == "file":
            with writing(uri):
                probe = Path(path) / f".{uuid.uuid4().hex}.tmp"
                _replace_file(probe, b"")
                probe.unlink()

    def remove(self, uri: str) -> None:
        """Remove the file `uri`, if there is one."""
        scheme, path = self._locate(uri)
        with translated(uri):
            if scheme == "file":
                Path(path).unlink(missing_ok=True)
            elif self._s3().exists(path):
                self._s3().rm_file(path)

    def remove_folder(self, uri: str) -> None:
        """Remove the folder `uri` with all in it, if there is one."""
        scheme, path = self._locate(uri)
        with translated(uri):
            if not self.exists(uri):
                return
            if scheme == "file":
                shutil.rmtree(path)
            else:
                self._s3().rm(path, recursive=True)

    def exists(self, uri: str) -> bool:
        """Say whether `uri` names a file or a folder (on S3: an object, or a prefix that holds some)."""
        scheme, path = self._locate(uri)
        with translated(uri):
            return os.path.exists(path) if scheme == "file" else bool(self._s3().exists(path))

    def list(self, uri_prefix: str) -> tuple[str, ...]:
        """Return the URIs of all visible files under a folder, at any depth, sorted; none if it is missing."""
        scheme, path = self._locate(uri_prefix)
        root = path.rstrip("/")
        with translated(uri_prefix):
            found = _walk(path) if scheme == "file" else self._s3().find(root)
        names = sorted(name[len(root) + 1 :] for name in found if name.startswith(f"{root}/"))
        return tuple(join_uri(uri_prefix, name) for name in names if "/." not in f"/{name}")

    def size(self, uri: str) -> int:
        """Return the bytes of the file `uri`."""
        scheme, path = self._locate(uri)
        with translated(uri):
            if scheme == "file":
                status = os.stat(path)
                kind, num_bytes = stat.S_IFMT(status.st_mode), status.st_size
            else:
                info = self._s3().info(path)
                kind, num_bytes = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG, int(info["size"] or 0)
        if kind == stat.S_IFDIR:
            raise SourceNotFound(f"{uri} is a folder; name one file inside it")
        if kind != stat.S_IFREG:
            raise SourceNotFound(f"{uri} is a device, pipe or socket; name a regular file")
        return num_bytes

    def arrow_filesystem(self, uri: str) -> tuple["pyarrow.fs.FileSystem", str]:
        """Return the pyarrow filesystem for `uri` and the path in it, as pyarrow and Ray Data take them."""
        import pyarrow.fs

        scheme, path = self._locate(uri)
        if scheme == "file":
            return pyarrow.fs.LocalFileSystem(), path
        # Through s3fs, not Arrow's own client, so that profile and endpoint mean the same at every door.
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self._s3())), path

    def _locate(self, uri: str) -> tuple[Scheme, str]:
        """Return the allowed scheme of `uri`, and the local path or ``bucket/key``."""
        match = _SCHEME.match(uri)
        scheme = match[1].lower() if match else "file"
        if scheme not in self.config.schemes:
            allowed = " and ".join({"file": "file:// (and plain paths)", "s3": "s3://"}[s] for s in self.config.schemes)
            raise SourceNotFound(f"{uri!r} has the scheme {scheme}; allowed: {allowed}. Copy the file to one of these")
        path = uri[5:].removesuffix("/") if scheme == "s3" else _local_path(uri)
        if not path or "\0" in path or (scheme == "s3" and not _BUCKET.match(path)):
            raise SourceNotFound(f"{uri!r} names nothing; write a path, file:///path or s3://bucket/key")
        return cast(Scheme, scheme), path

    def _s3(self) -> "s3fs.S3FileSystem":
        import s3fs

        # s3fs itself keeps one instance for equal arguments. No listing cache: other nodes write while we look.
        return s3fs.S3FileSystem(
            anon=self.config.anonymous,
            profile=self.config.profile,
            endpoint_url=self.config.endpoint_url,
            client_kwargs={"region_name": self.config.region} if self.config.region else {},
            config_kwargs={
                "retries": {"mode": "standard", "total_max_attempts": self.config.max_attempts},
                "connect_timeout": self.config.timeout_seconds,
                "read_timeout": self.config.timeout_seconds,
            },
            use_listings_cache=False,
        )


def resolve_uri(uri: str, *, base: str) -> str:
    """Return `uri` made absolute against the folder `base` (path or URI); absolute paths and URIs stay as they are.

    On S3 ``..`` is worked out and cannot leave the bucket. Raises SourceNotFound if `uri` is empty.
    """
    if not uri:
        raise SourceNotFound("the source is empty; write a path or a URI")
    if _SCHEME.match(uri) or os.path.isabs(uri):
        return uri
    if base.lower().startswith("s3://"):
        bucket, _, folder = base[5:].partition("/")
        return f"s3://{bucket}{posixpath.normpath(posixpath.join('/', folder, uri))}"
    return os.path.join(os.path.abspath(_local_path(base)), uri)


def join_uri(root: str, *parts: str) -> str:
    """Append `parts` (plain relative names, ``/`` between folders) to the folder `root`, which they cannot leave.

    Under a ``file://`` root they are percent-encoded.

    Raises:
        SourceNotFound: a part is empty, absolute or contains ``..``.
    """
    for part in parts:
        if not part or part.startswith("/") or ".." in part.split("/"):
            raise SourceNotFound(f"{part!r} cannot be joined to {root}; give a relative path without '..'")
    names = [quote(part) for part in parts] if root.lower().startswith("file://") else parts
    return "/".join([root.rstrip("/"), *names])


def escape_id(id: str) -> str:
    """Return a file name for `id`: distinct ids give distinct names, also where case does not count.

    Ids of up to 100 characters from ``a-z 0-9 _ - .`` stay as they are, unless the name would be hidden, end in a dot,
    start with a dash or be a Windows device. All others become a readable stem, ``=`` and 128 bits of their SHA-256: at
    most 73 characters. ``=`` is in no simple id, so that the two kinds cannot meet.
    """
    if _SIMPLE_ID.fullmatch(id) and not _WINDOWS_DEVICES.fullmatch(id):
        return id
    stem = re.sub(r"[^a-z0-9_]+", "-", id.lower()).strip("-")[:40] or "id"
    return f"{stem}={hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _local_path(uri: str) -> str:
    if not _SCHEME.match(uri):
        return uri
    split = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))  # both are ordinary in file names
    if split.netloc not in ("", "localhost"):
        raise SourceNotFound(f"{uri!r} names the host {split.netloc!r}; write file:///path with three slashes")
    return unquote(split.path)


def _walk(folder: str) -> list[str]:
    def refuse(exc: OSError) -> None:
        if not isinstance(exc, FileNotFoundError):  # or a folder without permission would look empty
            raise exc

    return [os.path.join(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names]


def _replace_file(path: Path, data: bytes | Path) -> None:
    """Put bytes, or what another file holds, under a name, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"  # same folder: a rename is atomic only inside one file system
    try:
        with temporary.open("xb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                with data.open("rb") as given:
                    shutil.copyfileobj(given, file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file under the final name
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
