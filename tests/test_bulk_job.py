"""The bulk job as its users run it: on a private Ray, killed and resumed, and submitted to a cluster."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_stages import noise, png_header
from tiny_world import SAMPLE_RATE, write_tiny_world

from soundguide.audio.decode import encode_wav
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidEdit, SourceNotFound
from soundguide.replay import replay

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "jobs"))  # jobs import their neighbours by file name

import bulk_manipulate  # noqa: E402

os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers would stand back behind whatever else runs here

ERRORS = {
    "missing": ({"audio": "none.wav", "seed": "1"}, "SourceNotFound"),
    "truncated": ({"audio": "rain.wav", "image": "truncated.png"}, "InvalidImage"),
    "absurd": ({"audio": "rain.wav", "image": "absurd.png"}, "InvalidImage"),
    "empty": ({"audio": "empty.wav", "seed": "1"}, "InvalidAudio"),
    "silent": ({"audio": "silent.wav", "seed": "1"}, "InvalidAudio"),
    "text": ({"audio": "m.csv", "seed": "1"}, "InvalidAudio"),
    "scheme": ({"audio": "ftp://host/x.wav", "seed": "1"}, "SourceNotFound"),
    "../../x": ({"audio": "rain.wav", "seed": "1"}, "InvalidEdit"),
    "steps": ({"audio": "rain.wav", "seed": "1", "num_steps": "many"}, "InvalidSettings"),
    "identity": ({"audio": "rain.wav", "seed": "1", "lambda_id": "1"}, "InvalidSettings"),
}
GOOD = {
    "seed": {"audio": "rain.wav", "seed": "1"},
    "Seed two": {"audio": "wind.wav", "seed": "2", "num_steps": "0"},
    "photo": {"audio": "rain.wav", "image": "photo.png", "note": "a photo"},
    "text": {"audio": "", "seed": "3", "text": "snow"},
}
GOOD["words"] = GOOD.pop("text")
COLUMNS = ("id", "audio", "image", "seed", "text", "num_steps", "lambda_id", "note")


def write_manifest(path: Path, rows: dict[str, dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({"id": id, **values} for id, values in rows.items())
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    return write_tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name, data in {
        "rain.wav": encode_wav(noise(), SAMPLE_RATE),
        "wind.wav": encode_wav(noise()[::-1], SAMPLE_RATE),
        "silent.wav": encode_wav(np.zeros(4000), SAMPLE_RATE),
        "empty.wav": b"",
        "absurd.png": png_header(50_000, 50_000),
    }.items():
        (folder / name).write_bytes(data)
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)).save(folder / "photo.png")
    (folder / "truncated.png").write_bytes((folder / "photo.png").read_bytes()[:200])
    return folder


def flags(models: ManipulatorConfig, manifest: str, output: Path | str) -> list[str]:
    """The command line of a small run: few steps, one actor."""
    chosen = {
        "manifest": manifest,
        "output": str(output),
        "edit.num_steps": 3,
        "edit.num_views": 1,
        "edit.inversion_steps": 3,
        "manipulator.generator": models.generator,
        "manipulator.image_text": models.image_text,
        "manipulator.audio": models.audio,
        "manipulator.num_slots": 4,
        "pool.num_actors": 1,
        "pool.stall_seconds": 120,
    }
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


def results(output: Path) -> dict[str, dict[str, object]]:
    """All result rows by id; fails where an id has two."""
    rows = pq.read_table(output / "results").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def result_files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "results").iterdir()}


@pytest.fixture(scope="module")
def done(
    local_ray: None, models: ManipulatorConfig, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """One whole run over good and bad rows: its output, its manifest and its exit code under --strict."""
    output = tmp_path_factory.mktemp("out") / "run"
    manifest = write_manifest(sources / "m.csv", GOOD | {id: values for id, (values, _) in ERRORS.items()})
    return output, manifest, bulk_manipulate.main([*flags(models, manifest, output), "--strict"])


def test_every_row_has_one_result_and_strict_exits_with_three(done: tuple[Path, str, int]) -> None:
    output, _, code = done
    rows = results(output)
    assert code == 3
    assert rows.keys() == GOOD.keys() | ERRORS.keys()
    assert {id for id, row in rows.items() if row["status"] == "ok"} == GOOD.keys()


def test_every_kind_of_bad_row_says_what_is_wrong(done: tuple[Path, str, int]) -> None:
    rows = results(done[0])
    assert {id: rows[id]["error_kind"] for id in ERRORS} == {id: kind for id, (_, kind) in ERRORS.items()}
    assert all(rows[id]["error"] and not rows[id]["edited_image"] for id in ERRORS)


def test_pictures_lie_in_the_output_folder_under_escaped_ids(done: tuple[Path, str, int]) -> None:
    output, rows = done[0], results(done[0])
    names = {id: Path(str(rows[id]["edited_image"])) for id in GOOD}
    assert names["seed"] == Path("images/seed.png") and " " not in str(names["Seed two"])
    assert {path.name for path in (output / "images").iterdir()} == {name.name for name in names.values()}
    source, edited = (
        np.asarray(Image.open(output / str(rows["Seed two"][n]))) for n in ("source_image", "edited_image")
    )
    np.testing.assert_array_equal(source, edited)  # num_steps was 0 in this row


def test_the_run_is_described_and_can_be_looked_at(done: tuple[Path, str, int]) -> None:
    record = json.loads((done[0] / "run.json").read_text())
    assert (record["status"], record["rows"], record["ok"], record["error"]) == ("complete", 14, len(GOOD), len(ERRORS))
    assert record["config"]["edit"]["num_steps"] == 3 and set(record["models"]) == {"generator", "image_text", "audio"}
    page = (done[0] / "index.html").read_text()
    assert "Seed two" in page and "InvalidSettings" in page and "a photo" in page


def test_a_second_run_computes_nothing(
    done: tuple[Path, str, int], models: ManipulatorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, manifest, _ = done
    before = result_files(output)
    monkeypatch.setattr(bulk_manipulate, "edit_rows", lambda *_, **__: pytest.fail("rows were edited again"))
    assert bulk_manipulate.main(flags(models, manifest, output)) == 0
    assert result_files(output) == before


def test_another_configuration_is_refused_with_the_difference(
    done: tuple[Path, str, int], models: ManipulatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    output, manifest, _ = done
    assert bulk_manipulate.main([*flags(models, manifest, output), "--edit.lambda_reg", "0.5"]) == 2
    assert "edit.lambda_reg was 0.002, is 0.5. Give another output" in capsys.readouterr().err


def test_changed_rows_are_refused_by_their_ids(
    done: tuple[Path, str, int], models: ManipulatorConfig, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = GOOD | {id: values for id, (values, _) in ERRORS.items()} | {"seed": {"audio": "rain.wav", "seed": "9"}}
    manifest = write_manifest(sources / "changed.csv", rows)
    assert bulk_manipulate.main(flags(models, manifest, done[0])) == 2
    assert "the rows 'seed' were different" in capsys.readouterr().err


def test_replay_makes_the_same_picture(done: tuple[Path, str, int]) -> None:
    for id in ("seed", "photo", "words"):
        edit = replay(str(done[0] / "run.json"), id)
        saved = np.asarray(Image.open(done[0] / "images" / f"{id}.png")).astype(float)
        assert np.mean((saved - edit.image) ** 2) < 255**2 / 10**4.5  # 45 dB: the run had other company and slots


def test_replay_refuses_what_has_no_picture(done: tuple[Path, str, int]) -> None:
    with pytest.raises(InvalidEdit, match="did you mean 'seed'"):
        replay(str(done[0]), "sead")
    with pytest.raises(InvalidEdit, match="its error was: .*silent"):
        replay(str(done[0]), "silent")


def test_replay_notices_other_models_and_other_sounds(
    done: tuple[Path, str, int], models: ManipulatorConfig, sources: Path, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(done[0], output)
    sound = (sources / "wind.wav").read_bytes()
    (sources / "wind.wav").write_bytes(encode_wav(noise(0.3), SAMPLE_RATE))
    try:
        with pytest.raises(SourceNotFound, match="wind.wav is not the file of the run any more"):
            replay(str(output), "Seed two")
    finally:
        (sources / "wind.wav").write_bytes(sound)
    record = json.loads((output / "run.json").read_text())
    shutil.copytree(models.generator, tmp_path / "generator")
    config = json.loads((tmp_path / "generator" / "config.json").read_text())
    (tmp_path / "generator" / "config.json").write_text(json.dumps(config | {"weights_sha256": "0" * 64}))
    record["config"]["manipulator"]["generator"] = str(tmp_path / "generator")
    (output / "run.json").write_text(json.dumps(record))
    with pytest.raises(InvalidCheckpoint, match="generator .* is 000000000000, the run had"):
        replay(str(output), "seed")


def test_new_rows_join_a_finished_run_and_only_they_are_computed(
    done: tuple[Path, str, int], models: ManipulatorConfig, sources: Path, tmp_path: Path
) -> None:
    output = tmp_path / "more"
    shutil.copytree(done[0], output)
    before = result_files(output)
    rows = {"new": {"audio": "rain.wav", "seed": "5"}} | GOOD | {id: values for id, (values, _) in ERRORS.items()}
    assert bulk_manipulate.main(flags(models, write_manifest(sources / "more.csv", rows), output)) == 0
    after = result_files(output)
    assert results(output).keys() == rows.keys()
    assert before.items() <= after.items()
    assert json.loads((output / "run.json").read_text())["computed"] == 1


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("id,seed\na,1\n", "InvalidManifest: .* lacks the column audio or text"),
        ("id,audio,seed\na,x,1\nb,x,1\na,x,1\n", "InvalidManifest: .*'a' in lines 2, 4"),
        ("id,audio,seed\na,x\n", "InvalidManifest: .* cannot be read as csv"),
    ],
)
def test_a_bad_manifest_stops_before_any_model_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: str, says: str
) -> None:
    (tmp_path / "m.csv").write_text(manifest)
    nowhere = ["--manipulator.generator", str(tmp_path / "no-model")]  # would be an error of its own
    arguments = ["--manifest", str(tmp_path / "m.csv"), "--output", str(tmp_path / "out"), *nowhere]
    assert bulk_manipulate.main(arguments) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_missing_model_stops_before_the_output_is_touched(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(sources / "one.csv", {"a": {"audio": "rain.wav", "seed": "1"}})
    arguments = ["--manifest", manifest, "--output", str(tmp_path / "out"), "--manipulator.audio", str(tmp_path)]
    assert bulk_manipulate.main(arguments) == 2
    assert "InvalidCheckpoint" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("manifest: m.csv\nstrict: true\nedit: {num_steps: 7, mix: 0.1}\n")
    config = bulk_manipulate.load_config(["--config", str(tmp_path / "f.yaml"), "--output", "o", "--edit.mix", "0.2"])
    assert (config.manifest, config.output, config.strict) == ("m.csv", "o", True)
    assert (config.edit.num_steps, config.edit.mix, config.edit.num_views) == (7, 0.2, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--manifest", "m.csv"], "output: Field required"),
        (["--manifest", "m", "--output", "o", "--edit.mix", "3"], "edit.mix: .* less than or equal to 1"),
        (["--manifest", "m", "--output", "o", "--config", "/none.yaml"], "no file"),
    ],
)
def test_bad_arguments_exit_with_two(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bulk_manipulate.main(arguments) == 2
    assert re.search(says, capsys.readouterr().err)


def test_a_yaml_file_that_is_none_is_a_bad_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, says in (
        ("a: [", "no YAML"),
        ("edit: {steps: 3}\nmanifest: m\noutput: o", "edit.steps"),
        ("- 3", "no YAML"),
    ):
        (tmp_path / "f.yaml").write_text(text)
        assert bulk_manipulate.main(["--config", str(tmp_path / "f.yaml")]) == 2
        assert says in capsys.readouterr().err


def script(arguments: list[str]) -> list[str]:
    return [sys.executable, "jobs/bulk_manipulate.py", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.chaos
def test_a_killed_run_goes_on_and_writes_no_id_twice(
    request: pytest.FixtureRequest, models: ManipulatorConfig, sources: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    # Slow enough to be killed in the middle, and in blocks of two rows.
    rows = {f"row-{i}": {"audio": "rain.wav", "seed": str(i), "num_steps": "150" if i else "0"} for i in range(24)}
    arguments = [*flags(models, write_manifest(sources / "kill.csv", rows), output), "--pool.rows_per_block", "2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            script(arguments), cwd=ROOT, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 150
        while len(committed(output)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()[-2000:]
    time.sleep(1)  # workers notice that their parent is gone
    finished = committed(output)
    assert 0 < 2 * len(finished) < len(rows)
    before = {name: data for name, data in result_files(output).items() if any(name.startswith(f) for f in finished)}
    request.getfixturevalue("local_ray")  # not before: two Rays at once are slow
    assert bulk_manipulate.main(arguments) == 0
    assert results(output).keys() == rows.keys()
    assert before and before.items() <= result_files(output).items()
    assert json.loads((output / "run.json").read_text())["computed"] == len(rows) - 2 * len(finished)


def committed(output: Path) -> list[str]:
    """The names, without endings, of blocks that are finished for good."""
    names = [path.name for path in output.glob("_run/checkpoint/*/*.parquet")]
    return [name.removesuffix(".parquet") for name in names if not name.endswith(".pending.parquet")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster() -> Iterator[str]:
    """A Ray cluster of its own, as `ray start --head` makes it on a machine of two CPUs; yields the jobs' address."""
    folder = tempfile.mkdtemp(prefix="sgjob", dir="/tmp")
    port, dashboard = free_port(), free_port()
    command = ["-m", "ray.scripts.scripts", "start", "--head", "--block", f"--temp-dir={folder}", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", "--num-cpus=2", "--num-gpus=0", "--include-dashboard=true"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={256 * 2**20}"]
    command += ["--ray-client-server-port", str(free_port()), "--disable-usage-stats"]
    with open(f"{folder}/log", "w") as log:
        head = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_submitted_job_runs_and_refuses_a_relative_output(
    cluster: str, models: ManipulatorConfig, sources: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobSubmissionClient

    working_dir = tmp_path / "tree"  # as a user's checkout, without what git does not keep
    for name in ("soundguide", "jobs"):
        shutil.copytree(ROOT / name, working_dir / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    deadline = time.monotonic() + 90
    while True:
        try:
            client = JobSubmissionClient(cluster)
            break
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.5)
    manifest = write_manifest(sources / "job.csv", {"a": GOOD["seed"], "b": ERRORS["missing"][0]})

    def submit(output: Path | str) -> tuple[str, str]:
        entrypoint = " ".join([sys.executable, "jobs/bulk_manipulate.py", *flags(models, manifest, output)])
        job = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(working_dir)})
        while not (status := client.get_job_status(job)).is_terminal():
            assert time.monotonic() < deadline + 150, client.get_job_logs(job)
            time.sleep(0.3)
        return status.value, client.get_job_logs(job)

    status, logs = submit("out")
    assert status == "FAILED" and "output is 'out', relative to the job's own working folder" in logs
    status, logs = submit(tmp_path / "out")
    assert status == "SUCCEEDED", logs
    assert {id: row["status"] for id, row in results(tmp_path / "out").items()} == {"a": "ok", "b": "error"}
    assert pa.types.is_string(pq.read_schema(next((tmp_path / "out" / "results").iterdir())).field("error").type)
