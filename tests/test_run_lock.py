"""One run at a time in a folder, and no lock that outlives its run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from soundguide.errors import OutputConflict
from soundguide.run_lock import STALE_SECONDS, only_run
from soundguide.storage import Storage


def hold(path: Path, **changes: object) -> None:
    """Write a lock as another run would."""
    other = {"token": "theirs", "host": os.uname().nodename, "pid": os.getppid(), "time": time.time()}
    path.write_text(json.dumps(other | changes))


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock.json"


def test_a_second_run_is_refused_and_told_who_is_at_work(lock: Path) -> None:
    with only_run(str(lock), Storage()):
        script = "import sys; from soundguide.run_lock import only_run; from soundguide.storage import Storage\n"
        script += "with only_run(sys.argv[1], Storage()): pass"
        other = subprocess.run([sys.executable, "-c", script, str(lock)], capture_output=True, text=True, check=False)
        assert other.returncode and f"process {os.getpid()} on" in other.stderr and "OutputConflict" in other.stderr
    assert not lock.exists()


def test_of_two_that_begin_at_once_one_goes_on(lock: Path) -> None:
    went_on, refused, together = [], [], threading.Barrier(2)

    def begin() -> None:
        together.wait()
        try:
            with only_run(str(lock), Storage()):
                went_on.append(1)
                time.sleep(1)
        except OutputConflict:
            refused.append(1)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(went_on), len(refused)) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"time": time.time() - STALE_SECONDS - 1, "host": "elsewhere"},  # not heard of for long
        {"pid": 2**22 - 1},  # killed on this machine
        {"time": "never"},  # written by nobody of ours
    ],
)
def test_the_lock_of_a_run_that_is_gone_is_taken_over(lock: Path, changes: dict[str, object]) -> None:
    hold(lock, **changes)
    with only_run(str(lock), Storage()):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_a_run_on_another_machine_counts_while_it_is_heard_of(lock: Path) -> None:
    hold(lock, host="elsewhere", pid=2**22 - 1)
    with pytest.raises(OutputConflict, match="on elsewhere"), only_run(str(lock), Storage()):
        pass
    assert json.loads(lock.read_text())["token"] == "theirs"


@pytest.mark.s3
def test_it_holds_on_s3_too(s3: Storage) -> None:
    uri = "s3://bucket/run/lock.json"
    with only_run(uri, s3):
        assert s3.exists(uri)
        hold_there = json.loads(s3.read_bytes(uri)) | {"token": "theirs", "host": "elsewhere"}
        s3.write_bytes("s3://bucket/other/lock.json", json.dumps(hold_there).encode())
        with pytest.raises(OutputConflict), only_run("s3://bucket/other/lock.json", s3):
            pass
    assert not s3.exists(uri)
