"""What a job tells while it runs: metrics that Ray exports, a line of log for each row, and the driver's own."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path

import pyarrow as pa
import pytest
from bulk_runs import ERRORS, GOOD, ROOT, flags, write_manifest
from watched_runs import EXPORT_SECONDS, NUM_SLOTS, Line, WatchedRun, scrape

import bulk_manipulate
from job_metrics import ROW_LOGGER, FinishedRows
from soundguide.config import ManipulatorConfig
from soundguide.model_facts import read_model_facts
from soundguide.slot_gauges import SLOT_GAUGES
from soundguide.stages import EditPreparer

# What Ray itself puts on every series.
OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
ROWS = pa.table(
    {
        "id": ["good", "bad", "deadly"],
        "status": ["ok", "error", "quarantined"],
        "error": ["", "nothing is there", "the process died 2 times"],
        "error_kind": ["", "SourceNotFound", "Quarantined"],
    }
)


def json_of(text: str) -> list[Line]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_rows_are_counted_by_outcome(watched: WatchedRun) -> None:
    assert watched.counted("ray_soundguide_rows_total", outcome="ok", program="bulk_manipulate") == len(GOOD)
    assert watched.counted("ray_soundguide_rows_total", outcome="error", program="bulk_manipulate") == len(ERRORS)


def test_a_quarantined_row_is_counted_and_logged_as_a_warning_like_one_with_an_error(
    local_ray: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, ROW_LOGGER):
        assert FinishedRows("a_test", None)(ROWS).equals(ROWS)
    levels = [logging.INFO, logging.WARNING, logging.WARNING]
    assert [(record.levelno, vars(record)["id"]) for record in caplog.records] == list(
        zip(levels, ROWS["id"].to_pylist(), strict=True)
    )
    assert caplog.messages[1] == "bad: SourceNotFound: nothing is there"
    deadline, found = time.monotonic() + EXPORT_SECONDS, {}
    while len(found) < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
        told = [(dict(labels), value) for (name, labels), value in scrape().items() if name.endswith("_rows_total")]
        found = {labels["outcome"]: value for labels, value in told if labels["program"] == "a_test"}
    assert found == {"ok": 1, "error": 1, "quarantined": 1}


def test_slots_queue_and_step_time_are_told_while_the_actor_works(watched: WatchedRun) -> None:
    told = {name: value for (name, labels), value in watched.series.items() if ("program", "bulk_manipulate") in labels}
    assert {f"ray_{name}" for name in SLOT_GAUGES} <= told.keys()
    assert told["ray_soundguide_slots"] == NUM_SLOTS


def test_bytes_are_those_of_the_files(watched: WatchedRun) -> None:
    written = [path for name in ("images", "sources", "latents") for path in (watched.output / name).iterdir()]
    assert len(written) == 3 * len(GOOD)
    assert watched.counted("ray_soundguide_bytes_written_total") == sum(path.stat().st_size for path in written)
    assert any(name == "ray_soundguide_bytes_read_total" and value > 0 for (name, _), value in watched.series.items())


def test_a_preparer_tells_the_bytes_of_each_source_that_it_reads(
    tiny_models: ManipulatorConfig, bulk_sources: Path
) -> None:
    heard: list[int] = []
    preparer = EditPreparer(read_model_facts(tiny_models), on_read=heard.append)
    sound, photo = bulk_sources / "rain.wav", bulk_sources / "photo.png"
    assert not preparer.prepare({"id": "a", "audio": str(sound), "image": str(photo)})["error"]
    assert heard == [sound.stat().st_size, photo.stat().st_size]


def test_no_metric_has_a_label_that_grows_with_the_rows(watched: WatchedRun) -> None:
    ours = {name: labels for name, labels in watched.series if ("program", "bulk_manipulate") in labels}
    known = OF_RAY | {"program", "outcome"}
    assert ours
    for name, labels in ours.items():
        assert {key for key, _ in labels if not key.startswith("otel_")} <= known, name


def test_each_row_has_one_line_that_says_who_did_it_and_how_it_ended(watched: WatchedRun) -> None:
    lines = {line["id"]: line for line in watched.row_lines}
    assert len(watched.row_lines) == len(lines) and lines.keys() == watched.rows
    for id in GOOD:
        assert (lines[id]["levelname"], lines[id]["outcome"], lines[id]["error_kind"]) == ("INFO", "ok", "")
        assert lines[id]["seconds"] > 0
    for id, (_, kind) in ERRORS.items():
        assert (lines[id]["levelname"], lines[id]["outcome"], lines[id]["error_kind"]) == ("WARNING", "error", kind)
    assert (lines["seed"]["steps"], lines["Seed two"]["steps"]) == (3, 0)
    assert all({"node_id", "task_id", "asctime"} <= line.keys() for line in lines.values())


def test_the_documentation_names_the_metrics_and_finds_the_rows_that_failed(watched: WatchedRun) -> None:
    section = (ROOT / "docs" / "bulk.md").read_text().partition("## Watching it")[2].partition("\n## ")[0]
    told = {name for name, labels in watched.series if ("program", "bulk_manipulate") in labels}
    assert set(re.findall(r"`(ray_soundguide_\w+)`", section)) == told
    [pattern] = re.findall(r"grep -h '(.+)' ", section)
    assert {line["id"] for line in watched.row_lines if pattern in json.dumps(line)} == ERRORS.keys()


def test_the_driver_logs_its_start_where_to_look_and_its_counts(watched: WatchedRun) -> None:
    told = {line["message"]: line for line in watched.driver if line["name"] == "soundguide.run"}
    assert list(told) == ["started", "connected", "ended"]
    assert (told["started"]["rows"], told["started"]["done_before"]) == (len(watched.rows), 0)
    counts = {name: told["ended"][name] for name in ("rows", "ok", "error", "quarantined", "computed")}
    assert counts == {
        "rows": len(watched.rows),
        "ok": len(GOOD),
        "error": len(ERRORS),
        "quarantined": 0,
        "computed": len(watched.rows),
    }
    place = " ".join(watched.printed.split())  # where the terminal is narrow, lines are folded
    assert f"metrics: {told['connected']['metrics']} logs: {told['connected']['logs']}" in place


def test_a_run_that_goes_on_says_so_and_one_that_is_refused_says_why(
    watched: WatchedRun, tiny_models: ManipulatorConfig, bulk_sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*flags(tiny_models, watched.manifest, watched.output), "--log_format", "json"]
    assert bulk_manipulate.main(arguments) == 0
    resumed, ended = json_of(capsys.readouterr().err)
    assert (resumed["message"], resumed["done_before"]) == ("resumed", len(watched.rows))
    assert (ended["message"], ended["computed"]) == ("ended", 0)
    other = write_manifest(bulk_sources / "refused.csv", {"seed": {"audio": "rain.wav", "seed": "9"}})
    assert bulk_manipulate.main([*flags(tiny_models, other, watched.output), "--log_format", "json"]) == 2
    [stopped] = json_of(capsys.readouterr().err)
    assert (stopped["levelname"], stopped["error_kind"]) == ("ERROR", "OutputConflict")


def test_as_text_the_driver_prints_no_log(
    watched: WatchedRun, tiny_models: ManipulatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bulk_manipulate.main(flags(tiny_models, watched.manifest, watched.output)) == 0
    assert capsys.readouterr().err == ""
