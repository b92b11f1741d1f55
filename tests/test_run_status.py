"""How a run stands, from its folder alone: finished, at work, cut off, large, and changing meanwhile."""

from __future__ import annotations

import os
import re
import threading
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_runs import assert_refused, run, unwrapped
from written_runs import aged, begin, failed, finish_block, finished, lock, ok, parquet

from soundguide.errors import OutputConflict, SourceNotFound
from soundguide.result_counts import ResultCounter
from soundguide.run_folder import RunFolder, describe_run
from soundguide.run_lock import only_run
from soundguide.run_status import read_status
from soundguide.storage import Storage, join_uri
from soundguide.tables import result_table


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


def test_a_finished_run_is_complete_and_every_outcome_is_counted(folder: RunFolder) -> None:
    record = finished(folder)
    found = read_status(folder)
    assert (found.state, found.job, found.config_hash) == ("complete", "bulk_manipulate", record["config_hash"])
    assert found.rows is not None and found.rows.model_dump() == {
        "total": 6,
        "done": folder.count_done(record["config_hash"]),
        "ok": 2,
        "error": 3,
        "quarantined": 1,
    }
    assert [(kind.kind, kind.count) for kind in found.errors] == [
        ("InvalidAudio", 2),
        ("InvalidImage", 1),
        ("Quarantined", 1),
    ]
    assert (found.errors[0].example_id, found.errors[0].example) == ("row-2", "silent")
    assert found.started and found.ended and (found.ended - found.started).total_seconds() == pytest.approx(30)
    assert found.rows_per_minute == 12 and found.remaining_seconds is None and found.holder is None


def test_a_run_that_is_at_work_says_who_and_how_long_it_will_take(folder: RunFolder) -> None:
    record = begin(folder, 120)
    for number, age in enumerate((200, 100)):
        finish_block(folder, record, ok(*(f"row-{30 * number + i}" for i in range(30))), f"0_00000{number}")
        aged(Path(folder.results_uri, f"0_00000{number}-0.parquet"), age)
    aged(Path(folder.uri, "run.json"), 300)
    with folder.held():
        found = read_status(folder)
        shown = run("status", folder.uri)
    assert found.state == "running" and found.rows and (found.rows.done, found.rows.total) == (60, 120)
    assert found.holder and (found.holder.host, found.holder.pid) == (os.uname().nodename, os.getpid())
    assert abs((datetime.now(UTC) - found.holder.last_heard).total_seconds()) < 10
    assert found.rows_per_minute == pytest.approx(12, rel=0.05)  # 60 rows in 300 s
    assert found.remaining_seconds == pytest.approx(300, rel=0.05)
    told = unwrapped(shown.stdout)
    assert shown.exit_code == 0 and f"process {os.getpid()} on" in told
    assert "50 %, 60 of 120 rows" in told and re.search(r"about (4|5) min \d\d s left", told)


@pytest.mark.parametrize(
    ("ages", "rows_per_minute"),
    [
        ([*range(7000, 6800, -10), *range(575, 0, -50)], 60 * 120 / 600),  # twelve blocks in the last ten minutes
        ([*range(9900, 9700, -10), *range(8500, 0, -1000)], 60 * 80 / 8500),  # or the last eight, since the ninth
        ([*range(290, 0, -20)], 60 * 150 / 300),  # or all since the start
    ],
)
def test_speed_is_that_of_late(folder: RunFolder, ages: list[int], rows_per_minute: float) -> None:
    record = begin(folder, 1000)
    for number, age in enumerate(ages):
        name = f"0_{number:06}"
        finish_block(folder, record, ok(*(f"row-{10 * number + i}" for i in range(10))), name)
        aged(Path(folder.results_uri, f"{name}-0.parquet"), age)
    aged(Path(folder.uri, "run.json"), 300 if ages[0] < 300 else 10_000)
    lock(folder, pid=os.getpid())
    assert read_status(folder).rows_per_minute == pytest.approx(rows_per_minute, rel=0.05)


def test_a_run_that_has_only_begun_is_at_work(folder: RunFolder) -> None:
    with folder.held():
        found = read_status(folder)
        assert run("status", folder.uri).exit_code == 0
    assert found.state == "running" and found.rows is None and found.job is None


def test_a_run_that_looks_for_what_is_left_is_at_work(folder: RunFolder) -> None:
    finished(folder)
    with folder.held():
        found = read_status(folder)
    assert found.state == "running" and found.rows and found.rows.done == 6 and found.ended is None


def test_another_machine_is_at_work_while_it_is_heard_of(folder: RunFolder) -> None:
    begin(folder, 3)
    lock(folder, host="elsewhere")
    found = read_status(folder)
    assert found.state == "running" and found.holder and found.holder.host == "elsewhere"


def test_a_new_run_would_be_let_in_wherever_a_run_is_called_broken(folder: RunFolder) -> None:
    begin(folder, 5)
    lock(folder)
    assert read_status(folder).state == "broken"
    with only_run(join_uri(folder.uri, "_run", "lock.json"), Storage()):
        assert read_status(folder).state == "running"


def test_rows_of_a_block_that_was_cut_are_not_done(folder: RunFolder) -> None:
    record = begin(folder, 6)
    finish_block(folder, record, ok("row-0", "row-1"), "0_000000")
    finish_block(folder, record, ok("row-2", "row-3"), "0_000001", pending=True)
    found = read_status(folder)
    assert found.rows and found.rows.done == found.rows.ok == folder.count_done(record["config_hash"]) == 2


def test_a_complete_run_that_rows_joined_before_it_was_killed_is_broken(folder: RunFolder) -> None:
    record = finished(folder)
    folder.claim(record["identity"], pa.table({"id": [f"row-{number}" for number in range(8)]}))
    found = read_status(folder)
    assert found.state == "broken" and found.rows and (found.rows.done, found.rows.total) == (6, 8)


def test_a_complete_run_does_without_what_resuming_needs(folder: RunFolder, tmp_path: Path) -> None:
    finished(folder)
    Path(folder.uri, "_run").rename(tmp_path / "elsewhere")
    found = read_status(folder)
    assert found.state == "complete" and found.rows and (found.rows.done, found.rows.total) == (6, 6)


@pytest.mark.s3
def test_a_run_on_s3_is_told_alike(s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder("s3://bucket/run", s3)
    record = finished(folder)
    found = read_status(folder)
    assert found.state == "complete" and found.rows and (found.rows.done, found.rows.ok) == (6, 2)
    assert found.ended and abs((datetime.now(UTC) - found.ended).total_seconds()) < 60
    folder.write_record({**record, "status": "running"})
    time.sleep(1.1)  # an object's time is in whole seconds
    finish_block(folder, record, ok("row-6"), "0_000002")
    finish_block(folder, record, ok("row-7"), "0_000003", pending=True)
    with folder.held():
        found = read_status(folder)
    assert found.state == "running" and found.rows and found.rows.done == 7 and found.rows_per_minute
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(s3.config.endpoint_url))  # as the command line reaches another store
    assert run("status", "s3://bucket/run", "--json").exit_code == 3
    assert_refused(run("status", "s3://bucket/none"), "there is no such folder")


def test_files_may_appear_and_vanish_while_it_looks(folder: RunFolder) -> None:
    record = begin(folder, 80)
    for number in range(40):
        finish_block(folder, record, ok(f"row-{2 * number}", f"row-{2 * number + 1}"), f"0_{number:06}")
    Path(folder.results_uri, "0_000000-0.parquet").unlink()
    Path(folder.results_uri, "0_000000-0.parquet").symlink_to("gone")  # listed, but not there when it is looked at
    stop, tables = threading.Event(), [pq.read_table(path) for path in Path(folder.results_uri).glob("*1-0.parquet")]

    def stir() -> None:
        while not stop.is_set():
            for number, table in enumerate(tables):
                uri = join_uri(folder.results_uri, f"0_{10 * number + 1:06}-0.parquet")
                folder.storage.remove(uri)
                folder.storage.write_bytes(uri, parquet(table))
            folder.storage.remove(folder.manifest_uri)
            begin(folder, 80)

    thread = threading.Thread(target=stir)
    thread.start()
    try:
        counter = ResultCounter(folder)
        looks = [read_status(folder, kept) for kept in (counter, None) * 10]
    finally:
        stop.set()
        thread.join()
    assert all(look.rows and 70 <= look.rows.done <= 78 for look in looks)


def test_files_that_were_read_are_read_again_only_when_they_change(folder: RunFolder) -> None:
    finished(folder)
    counter, path = ResultCounter(folder), Path(folder.results_uri, "0_000001-0.parquet")
    before = read_status(folder, counter)
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read_status(folder, counter) == before
    with pytest.raises(OutputConflict, match="0_000001-0.parquet is damaged"):
        read_status(folder)
    path.write_bytes(
        parquet(result_table([failed("row-3", "InvalidAudio")]))
    )  # the others were given up, to be retried
    after = read_status(folder, counter)
    assert after.rows and (after.state, after.rows.done, after.rows.quarantined) == ("broken", 4, 0)


def test_a_large_run_takes_bounded_time_and_memory(folder: RunFolder) -> None:
    num_files, per_file = 16, 12_500
    record = begin(folder, num_files * per_file)
    blank = result_table(ok("x"))
    for number in range(num_files):
        ids = [f"row-{number * per_file + i}" for i in range(per_file)]
        table = pa.table(
            {
                **{name: pa.concat_arrays([blank[name].chunk(0)] * per_file) for name in ("settings", "audio")},
                "id": ids,
                "status": ["error" if i % 2 else "ok" for i in range(per_file)],
                "error": [f"{id}: {'what was wrong ' * 60}" if i % 2 else "" for i, id in enumerate(ids)],
                "error_kind": [f"Kind{i % 10}" if i % 2 else "" for i in range(per_file)],
            }
        )
        finish_block(folder, record, table, f"0_{number:06}")
    pool, before = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    started = time.monotonic()
    try:
        found = read_status(folder)
        seconds, (_, peak) = time.monotonic() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert found.rows and (found.rows.done, found.rows.ok, found.rows.error) == (200_000, 100_000, 100_000)
    assert [(kind.count, len(kind.example)) for kind in found.errors] == [(20_000, 500)] * 5
    assert seconds < 20
    assert pool.max_memory() + peak < 56 * 2**20  # its errors alone are 90 MiB


def test_clips_count_as_rows(folder: RunFolder) -> None:
    identity = {"clip": {}, "sample_rate": 8000, "version": "0.1.0"}
    record = describe_run(identity, {}, ())
    folder.claim(identity, pa.table({"id": ["a", "b"]}))
    folder.write_record({**record, "status": "running"})
    rows = {"id": ["a", "b"], "sound": [b"x", b""], "status": ["ok", "error"], "error": ["", "silent"]}
    finish_block(folder, record, pa.table({**rows, "error_kind": ["", "InvalidAudio"]}), "0_000000")
    found = read_status(folder)
    assert found.job == "prepare_clips" and found.rows and (found.rows.done, found.rows.error) == (2, 1)
    assert "only its summary is missing" in unwrapped(run("status", folder.uri).stdout)


def test_a_folder_that_may_not_be_read_is_told(folder: RunFolder) -> None:
    finished(folder)
    results = Path(folder.results_uri)
    results.chmod(0)
    try:
        if os.access(results, os.R_OK):
            pytest.skip("root may read everything: runs as any other user")
        with pytest.raises(SourceNotFound, match="may not be accessed"):
            read_status(folder)
    finally:
        results.chmod(0o700)
