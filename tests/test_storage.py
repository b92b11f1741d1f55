"""Reading and writing by URI, locally and on a real S3 server on loopback; ids as file names."""

import errno
import os
import pickle
import re
from pathlib import Path

import pyarrow.fs
import pytest
from pydantic import ValidationError

from soundguide.errors import InvalidConfig, OutputConflict, SourceNotFound
from soundguide.storage import Storage, StorageConfig, escape_id, join_uri, resolve_uri

STORAGE = Storage()


@pytest.mark.parametrize("as_uri", [str, Path.as_uri])
def test_local_files_round_trip(tmp_path: Path, as_uri: object) -> None:
    assert callable(as_uri)
    uri = as_uri(tmp_path / "new folder" / "a#b?c %2e.bin")
    STORAGE.write_bytes(uri, b"one")
    STORAGE.write_bytes(uri, b"other")
    assert (tmp_path / "new folder" / "a#b?c %2e.bin").read_bytes() == b"other"
    assert STORAGE.read_bytes(uri) == b"other" and STORAGE.size(uri) == 5 and STORAGE.exists(uri)
    with STORAGE.open(uri) as file:
        file.seek(2)
        assert file.read() == b"her"


@pytest.mark.parametrize("uri", ["http://host/a.wav", "https://host/a.wav", "ftp://host/a", "gs://b/k", "memory://x"])
def test_other_schemes_are_refused_with_the_allowed_ones(uri: str) -> None:
    for touch in (STORAGE.read_bytes, STORAGE.open, STORAGE.exists, STORAGE.size, STORAGE.list):
        with pytest.raises(SourceNotFound, match=r"allowed: file:// .* and s3://"):
            touch(uri)
    with pytest.raises(SourceNotFound, match="allowed"):
        STORAGE.write_bytes(uri, b"")


def test_the_config_can_restrict_schemes() -> None:
    with pytest.raises(SourceNotFound, match=r"allowed: file:// \(and plain paths\)\."):
        Storage(StorageConfig(schemes=("file",))).read_bytes("s3://bucket/key")
    with pytest.raises(SourceNotFound, match="allowed: s3://"):
        Storage(StorageConfig(schemes=("s3",))).read_bytes("/etc/hostname")
    with pytest.raises(ValidationError):
        StorageConfig.model_validate({"schemes": ["http"]})


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    missing = str(tmp_path / "nothing.wav")
    for uri in (missing, str(tmp_path / "file" / "below")):
        for touch in (STORAGE.read_bytes, STORAGE.open, STORAGE.size):
            with pytest.raises(SourceNotFound, match=f"{uri} does not exist"):
                touch(uri)
    assert not STORAGE.exists(missing)
    with pytest.raises(SourceNotFound, match="is a folder"):
        STORAGE.read_bytes(str(tmp_path))
    with pytest.raises(OutputConflict, match="a folder"):
        STORAGE.write_bytes(str(tmp_path), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("uri", ["", "\0", "file://", "file://otherhost/a", "s3://", "s3:///key", "s3://a bucket!/key"])
def test_uris_that_name_nothing_are_refused(uri: str) -> None:
    with pytest.raises(SourceNotFound):
        STORAGE.read_bytes(uri)


def test_devices_are_refused_before_they_are_read() -> None:
    with pytest.raises(SourceNotFound, match="regular file"):
        STORAGE.read_bytes("/dev/zero")


def test_a_name_too_long_for_the_disk_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputConflict, match="File name too long"):
        STORAGE.write_bytes(str(tmp_path / ("x" * 300)), b"")
    assert not list(tmp_path.iterdir())


def test_denied_access_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # as the system does; the tests may run as root

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(SourceNotFound, match="may not be accessed"):
        STORAGE.size(str(tmp_path / "secret"))


def test_too_many_bytes_are_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)  # a tebibyte that cannot be read
    with pytest.raises(SourceNotFound, match=f"{2**40} bytes; at most 1000"):
        STORAGE.read_bytes(str(path), max_bytes=1_000)


@pytest.mark.parametrize("existing", [None, b"old"])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bytes | None
) -> None:
    path = tmp_path / "out.png"
    if existing is not None:
        path.write_bytes(existing)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        STORAGE.write_bytes(str(path), b"new and long")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == (
        [("out.png", existing)] if existing else []
    )


def test_a_full_disk_is_not_blamed_on_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputConflict, match="No space left"):
        STORAGE.write_bytes(str(tmp_path / "x"), b"x")
    assert not list(tmp_path.iterdir())


def test_written_files_follow_the_umask_as_others_do(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    STORAGE.write_bytes(str(tmp_path / "ours"), b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_listing_is_deep_sorted_and_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/c.txt", "a.txt", "b/a.txt", ".hidden", "b/.half.tmp"):
        STORAGE.write_bytes(join_uri(str(tmp_path), name), b"")
    expected = tuple(f"{tmp_path}/{name}" for name in ("a.txt", "b/a.txt", "b/c.txt"))
    assert STORAGE.list(str(tmp_path)) == STORAGE.list(f"{tmp_path}/") == expected
    assert STORAGE.list(str(tmp_path / "nothing")) == ()


def test_listing_what_is_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceNotFound):
        STORAGE.list(str(tmp_path / "file"))


def test_listing_a_file_uri_gives_uris_that_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    STORAGE.write_bytes(str(folder / "50% #1.txt"), b"x")
    (found,) = STORAGE.list(folder.as_uri())
    assert found == (folder / "50% #1.txt").as_uri() and STORAGE.read_bytes(found) == b"x"


def test_arrow_reads_what_was_written(tmp_path: Path) -> None:
    STORAGE.write_bytes(str(tmp_path / "x"), b"abc")
    filesystem, path = STORAGE.arrow_filesystem((tmp_path / "x").as_uri())
    assert isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"abc"


@pytest.mark.s3
def test_s3_objects_round_trip(s3: Storage) -> None:
    uri = "s3://bucket/runs/1/a b#?%2e.bin"
    assert not s3.exists(uri)
    s3.write_bytes(uri, b"one")
    s3.write_bytes(uri, b"other")
    assert s3.exists(uri) and s3.size(uri) == 5 and s3.read_bytes(uri, max_bytes=5) == b"other"
    assert s3.list("s3://bucket/runs") == (uri,)
    with s3.open(uri) as file:
        file.seek(2)
        assert file.read() == b"her"


@pytest.mark.s3
@pytest.mark.parametrize("root", ["s3://bucket/more", "{tmp_path}/more"])
def test_a_file_is_written_whole_and_a_folder_removed_with_all_in_it(s3: Storage, tmp_path: Path, root: str) -> None:
    root, data = root.format(tmp_path=tmp_path), bytes(range(256)) * 4096
    (tmp_path / "film").write_bytes(data)
    s3.write_file(f"{root}/films/a", tmp_path / "film")
    s3.write_file(f"{root}/films/deep/b", tmp_path / "film")
    s3.write_bytes(f"{root}/films-too", b"c")
    assert s3.read_bytes(f"{root}/films/a") == data
    s3.remove_folder(f"{root}/films")
    s3.remove_folder(f"{root}/films")  # there is none any more
    assert s3.list(root) == (f"{root}/films-too",)


@pytest.mark.s3
def test_s3_errors_name_the_uri(s3: Storage) -> None:
    for uri in ("s3://bucket/missing", "s3://no-such-bucket/key"):
        with pytest.raises(SourceNotFound, match=f"{uri} does not exist"):
            s3.read_bytes(uri)
    with pytest.raises(SourceNotFound, match="no-such-bucket"):
        s3.write_bytes("s3://no-such-bucket/key", b"x")
    s3.write_bytes("s3://bucket/folder/key", b"x" * 100)
    with pytest.raises(SourceNotFound, match="is a folder"):
        s3.read_bytes("s3://bucket/folder")
    with pytest.raises(SourceNotFound, match="100 bytes; at most 10"):
        s3.read_bytes("s3://bucket/folder/key", max_bytes=10)


@pytest.mark.s3
def test_s3_with_an_unknown_profile_is_an_error_of_the_program_not_the_row(s3: Storage) -> None:
    lost = Storage(s3.config.model_copy(update={"profile": "no-such-profile"}))
    with pytest.raises(InvalidConfig, match="no-such-profile"):
        lost.read_bytes("s3://bucket/key")


@pytest.mark.s3
def test_bucket_listing_starts_at_its_root(s3: Storage) -> None:
    s3.write_bytes("s3://bucket/top.txt", b"x")
    assert "s3://bucket/top.txt" in s3.list("s3://bucket/") and s3.list("s3://bucket/") == s3.list("s3://bucket")


@pytest.mark.s3
def test_s3_sees_at_once_what_others_write(s3: Storage) -> None:
    other = Storage(s3.config.model_copy(update={"region": None}))  # a client of its own
    for count in (1, 2, 3):
        other.write_bytes(f"s3://bucket/live/{count}", b"")
        assert len(s3.list("s3://bucket/live")) == count and s3.exists(f"s3://bucket/live/{count}")


@pytest.mark.s3
def test_storage_travels_to_workers(s3: Storage) -> None:
    s3.write_bytes("s3://bucket/travel", b"x")
    assert pickle.loads(pickle.dumps(s3)).read_bytes("s3://bucket/travel") == b"x"


@pytest.mark.s3
def test_arrow_reads_s3(s3: Storage) -> None:
    s3.write_bytes("s3://bucket/table/x", b"abc")
    filesystem, path = s3.arrow_filesystem("s3://bucket/table/x")
    with pickle.loads(pickle.dumps(filesystem)).open_input_stream(path) as stream:
        assert stream.read() == b"abc"


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("a.wav", "/data", "/data/a.wav"),
        ("x/a.wav", "file:///data/my%20set", "/data/my set/x/a.wav"),
        ("/abs/a.wav", "/data", "/abs/a.wav"),
        ("s3://b/k", "/data", "s3://b/k"),
        ("file:///abs/a.wav", "s3://b/dir", "file:///abs/a.wav"),
        ("a.wav", "s3://b/dir", "s3://b/dir/a.wav"),
        ("../a.wav", "s3://b/dir/", "s3://b/a.wav"),
        ("../../../../a.wav", "s3://b/dir", "s3://b/a.wav"),
        ("a.wav", "s3://b", "s3://b/a.wav"),
    ],
)
def test_relative_sources_are_resolved_against_the_base(uri: str, base: str, expected: str) -> None:
    assert resolve_uri(uri, base=base) == expected


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(SourceNotFound, match="empty"):
        resolve_uri("", base="/data")


def test_joined_parts_cannot_leave_the_root() -> None:
    assert join_uri("s3://b/run/", "images", "x.png") == "s3://b/run/images/x.png"
    assert join_uri("/", "x") == "/x"
    for part in ("", "/etc/passwd", "..", "a/../../b"):
        with pytest.raises(SourceNotFound, match="cannot be joined"):
            join_uri("/out", part)


NASTY_IDS = [
    *("", ".", "..", "../../x", "a/b", "a\\b", "a-b", "A", "a", "AB", "Ab", "aB", "con", "CON", "con.txt", "nul"),
    *("%2e", "%2E", ".hidden", "a.", "a", "a ", " a", "-rf", "--", "x" * 300, "x" * 301, "X" * 300, "ü", "u\u0308"),
    *(
        "日本",
        "\0",
        "\n",
        "a\n",
        "a=b",
        "\ud800",
        "id",
        "~",
        "*",
        "file:///x",
        "s3://x",
        "x" * 100,
        "x" * 101,
        "İ",
        "ß",
    ),
]


def test_escaped_ids_are_safe_file_names(tmp_path: Path) -> None:
    for id in NASTY_IDS:
        name = escape_id(id)
        assert re.fullmatch(r"[a-z0-9_.=-]{1,100}", name), id
        assert not name.startswith((".", "-")) and not name.endswith("."), id
        assert name.split(".")[0] not in {"con", "prn", "aux", "nul", "com1", "lpt1"}, id
        path = tmp_path / f"{name}.png"
        path.write_bytes(b"")
        assert path.parent.resolve() == tmp_path.resolve()


def test_distinct_ids_never_share_a_file_name_even_where_case_is_ignored() -> None:
    ids = set(NASTY_IDS)
    ids |= {escape_id(id) for id in NASTY_IDS}  # the escaped form of one id may be the plain form of another
    assert len({escape_id(id).casefold() for id in ids}) == len(ids)


def test_simple_ids_stay_readable() -> None:
    for id in ("a", "clip_0001", "2024-05-01.take-3", "x" * 100, "_x"):
        assert escape_id(id) == id
    assert escape_id("Thunder & Rain").startswith("thunder-rain=")


def test_a_place_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "x.png", tmp_path / "file" / "sub" / "x.png"):
        with pytest.raises(OutputConflict, match="a file stands where a folder is needed"):
            Storage().write_bytes(str(place), b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub", Path("/proc/nowhere")):
        with pytest.raises(OutputConflict, match="Name another place"):
            Storage().require_folder(str(folder))
    Storage().require_folder(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
