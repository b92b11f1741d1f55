"""``soundguide status``: what people and programs are told, its exit codes, and that it only looks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from cli_runs import assert_refused, run, unwrapped
from pydantic import BaseModel
from written_runs import begin, complete, finish_block, finished, lock, ok

from soundguide.errors import InvalidConfig
from soundguide.run_folder import RunFolder
from soundguide.run_lock import STALE_SECONDS
from soundguide.run_status import RunStatus, read_status
from soundguide.storage import join_uri

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


def test_the_command_tells_people_and_exits_with_zero(folder: RunFolder) -> None:
    finished(folder)
    for named in (folder.uri, f"{folder.uri}/", f"{folder.uri}/run.json"):
        result = run("status", named)
        told = unwrapped(result.stdout)
        assert result.exit_code == 0, result.output
        assert "complete" in told and "100 %, 6 of 6 rows" in told and "2 ok, 3 with errors, 1 quarantined" in told
        assert re.search(r"2 x InvalidAudio +'row-2': silent", told)


@pytest.mark.parametrize(
    "changes",
    [
        {},  # no such process on this machine
        {"host": "elsewhere", "time": time.time() - STALE_SECONDS - 1},
        {"time": "never"},
        {"pid": 10**30},
        None,  # no lock
    ],
)
def test_a_run_that_nobody_works_on_is_broken_and_told_how_to_go_on(
    folder: RunFolder, changes: dict[str, object] | None
) -> None:
    record = begin(folder, 5)
    finish_block(folder, record, ok("row-0", "row-1"), "0_000000")
    if changes is not None:
        lock(folder, **changes)
    result = run("status", folder.uri)
    assert result.exit_code == 3
    told = unwrapped(result.stdout)
    assert "broken" in told and "Give the same command again; it computes the 3 rows that are left" in told
    assert read_status(folder).remaining_seconds is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        "{}",
        '{"identity": {"edit": {}}}',
        '{"identity": {"edit": {}}, "status": 3, "version": "1", "config_hash": "x"}',
        '{"identity": {"other": {}}, "status": "running", "version": "1", "config_hash": "x"}',
        '{"identity": {"training": {}}, "status": "running", "version": "1", "config_hash": "x"}',
        '{"identity": 3}',
    ],
)
def test_a_damaged_record_is_named(folder: RunFolder, text: str) -> None:
    folder.storage.write_bytes(join_uri(folder.uri, "run.json"), text.encode())
    assert_refused(run("status", folder.uri), "run.json")


@pytest.mark.parametrize("name", ["results/0_000000-0.parquet", "_run/manifest.parquet"])
def test_a_damaged_table_is_named(folder: RunFolder, name: str) -> None:
    finished(folder)
    folder.storage.write_bytes(join_uri(folder.uri, name), b"no table")
    assert_refused(run("status", folder.uri), name, "Put it back")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(run("status", tmp_path / "none"), "there is no such folder", "Name the output folder of a job")
    assert_refused(run("status", tmp_path), "it has no run.json")
    assert_refused(run("status", tmp_path / "file"), "it has no run.json")
    assert_refused(run("status", "http://host/run"), "allowed")
    for uri in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(InvalidConfig):
            read_status(RunFolder(uri))


def everything(path: Path) -> dict[str, tuple[int, bytes]]:
    found = [path, *path.rglob("*")]
    return {str(each): (each.stat().st_mtime_ns, each.read_bytes() if each.is_file() else b"") for each in found}


def test_looking_writes_nothing(folder: RunFolder) -> None:
    record = finished(folder)
    folder.write_record({**record, "status": "running"})
    lock(folder)
    before = everything(Path(folder.uri))
    assert run("status", folder.uri).exit_code == 3
    assert everything(Path(folder.uri)) == before


def names_of(kind: type[BaseModel]) -> set[str]:
    inner = {
        name for field in kind.model_fields.values() for part in parts_of(field.annotation) for name in names_of(part)
    }
    return set(kind.model_fields) | inner


def parts_of(annotation: object) -> list[type[BaseModel]]:
    options = getattr(annotation, "__args__", ()) or (annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def test_json_is_one_object_whose_fields_are_documented(folder: RunFolder) -> None:
    finished(folder)
    answer = json.loads(run("status", folder.uri, "--json").stdout)
    assert answer.keys() == RunStatus.model_fields.keys()
    assert (answer["state"], answer["rows"]["done"], answer["errors"][0]["count"]) == ("complete", 6, 2)
    assert datetime.fromisoformat(answer["ended"]).tzinfo is not None
    section = (ROOT / "docs" / "bulk.md").read_text().partition("## How far is it?")[2].partition("\n## ")[0]
    assert names_of(RunStatus) <= set(re.findall(r"`([a-z_]+)`", section))


def test_watching_ends_when_the_run_does(folder: RunFolder) -> None:
    record, at_work = begin(folder, 2), threading.Event()

    def work() -> None:
        with folder.held():
            at_work.set()
            time.sleep(1)
            finish_block(folder, record, ok("row-0", "row-1"), "0_000000")
            complete(folder, record, rows=2, computed=2, seconds=1.0)

    thread = threading.Thread(target=work)
    thread.start()
    assert at_work.wait(10)
    result = run("status", folder.uri, "--watch", "--json")
    thread.join()
    states = [json.loads(line)["state"] for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and states[0] == "running" and states[-1] == "complete"
    assert "100 %, 2 of 2 rows" in unwrapped(run("status", folder.uri, "--watch").stdout)


def test_ctrl_c_leaves_quietly_and_nothing_heavy_was_loaded(folder: RunFolder) -> None:
    begin(folder, 2)
    code = """
import sys
from soundguide.cli.main import app
try:
    app(["status", sys.argv[1], "--watch", "--json"])
finally:
    print(*{name.partition(".")[0] for name in sys.modules})
"""
    with folder.held():
        process = subprocess.Popen(
            [sys.executable, "-c", code, folder.uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "running"
        process.send_signal(signal.SIGINT)
        loaded, told = process.communicate(timeout=30)
    assert (process.returncode, told.strip()) == (130, "Stopped.")
    assert "pyarrow" in loaded.split() and not set(loaded.split()) & {"torch", "ray", "scipy", "av"}
