"""The bulk job on a private Ray: every row has its result, a second run computes nothing, errors are told."""

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from bulk_runs import ERRORS, GOOD, flags, result_files, results, write_manifest
from PIL import Image
from test_stages import noise
from tiny_world import SAMPLE_RATE

import bulk_manipulate
from bulk_manipulate import BulkConfig
from data_pipeline import PoolConfig, connect, fit_pool
from soundguide.audio.decode import encode_wav
from soundguide.command_config import load_config
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidConfig, InvalidEdit, SourceNotFound
from soundguide.replay import replay


@pytest.fixture(scope="module")
def done(
    local_ray: None, tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """One whole run over good and bad rows: its output, its manifest and its exit code under --strict."""
    output = tmp_path_factory.mktemp("out") / "run"
    manifest = write_manifest(bulk_sources / "m.csv", GOOD | {id: values for id, (values, _) in ERRORS.items()})
    return output, manifest, bulk_manipulate.main([*flags(tiny_models, manifest, output), "--strict"])


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


def test_actors_wait_for_a_machine_with_the_labels_that_they_ask_for(
    local_ray: None,
    tiny_models: ManipulatorConfig,
    bulk_sources: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest, output = write_manifest(bulk_sources / "labels.csv", {"seed": GOOD["seed"]}), tmp_path / "out"
    asked = [*flags(tiny_models, manifest, output), "--pool.label_selector"]
    assert bulk_manipulate.main([*asked, '{"market": "on-demand"}', "--pool.stall_seconds", "4"]) == 2
    assert "label_selector" in capsys.readouterr().err
    assert bulk_manipulate.main([*asked, '{"market": "spot"}']) == 0
    assert results(output)["seed"]["status"] == "ok"


def test_a_cluster_without_a_machine_yet_must_be_told_what_to_start(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "cluster_resources", dict)
    with pytest.raises(InvalidConfig, match="no machine of the cluster has CPUs yet.*--pool.num_actors N"):
        fit_pool(PoolConfig(num_actors=2), ManipulatorConfig())
    pool, config = fit_pool(PoolConfig(num_actors=2, gpus_per_actor=0, cpus_per_actor=3), ManipulatorConfig())
    assert (pool.num_actors, pool.cpus_per_actor, config.device, config.num_threads) == (2, 3, "cpu", 3)


def test_a_second_run_computes_nothing(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, manifest, _ = done
    before = result_files(output)
    monkeypatch.setattr(bulk_manipulate, "stream_rows", lambda *_, **__: pytest.fail("rows were edited again"))
    assert bulk_manipulate.main(flags(tiny_models, manifest, output)) == 0
    assert result_files(output) == before


def test_another_configuration_is_refused_with_the_difference(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    output, manifest, _ = done
    assert bulk_manipulate.main([*flags(tiny_models, manifest, output), "--edit.lambda_reg", "0.5"]) == 2
    difference = f"edit.lambda_reg was {EditSettings().lambda_reg}, is 0.5. Give another output"
    assert difference in capsys.readouterr().err


def test_a_folder_in_which_another_run_is_at_work_is_refused(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    output, manifest, _ = done
    other = {"token": "theirs", "host": os.uname().nodename, "pid": os.getppid(), "time": time.time()}
    lock = output / "_run" / "lock.json"
    lock.write_text(json.dumps(other))
    assert bulk_manipulate.main(flags(tiny_models, manifest, output)) == 2
    assert f"another run (process {os.getppid()}" in capsys.readouterr().err
    lock.unlink()


def test_an_output_that_is_a_file_is_refused_before_any_work(
    tiny_models: ManipulatorConfig, done: tuple[Path, str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert bulk_manipulate.main(flags(tiny_models, done[1], output)) == 2
        assert "a file stands where a folder is needed" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_and_actors_that_do_not_fit_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with (
            pytest.raises(InvalidConfig, match="nothing answers"),
            connect(f"127.0.0.1:{taken.getsockname()[1]}", actor_cpus=1),
        ):
            pass
    with pytest.raises(InvalidConfig, match="ask for 9999 CPUs"), connect("", actor_cpus=9999):
        pass


def test_changed_rows_are_refused_by_their_ids(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, bulk_sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = GOOD | {id: values for id, (values, _) in ERRORS.items()} | {"seed": {"audio": "rain.wav", "seed": "9"}}
    manifest = write_manifest(bulk_sources / "changed.csv", rows)
    assert bulk_manipulate.main(flags(tiny_models, manifest, done[0])) == 2
    assert "the rows 'seed' were different" in capsys.readouterr().err


def test_replay_makes_the_same_picture(done: tuple[Path, str, int]) -> None:
    for id in ("seed", "photo", "words"):
        edit = replay(str(done[0] / "run.json"), id)
        saved = np.asarray(Image.open(done[0] / "images" / f"{id}.png"))
        np.testing.assert_array_equal(saved, edit.image)  # though the run had other company, slots and threads


def test_replay_takes_as_many_threads_as_the_run_had(
    done: tuple[Path, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundguide.manipulator

    asked: list[ManipulatorConfig] = []

    class Watched(soundguide.manipulator.Manipulator):
        def __init__(self, config: ManipulatorConfig) -> None:
            asked.append(config)
            super().__init__(config)

    monkeypatch.setattr(soundguide.manipulator, "Manipulator", Watched)
    replay(str(done[0] / "run.json"), "seed")
    assert asked[0].num_threads == results(done[0])["seed"]["threads"] > 0


def test_replay_computes_in_the_precision_of_the_run(
    done: tuple[Path, str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundguide.manipulator

    class Asked(Exception):
        pass

    def ask(config: ManipulatorConfig) -> None:
        raise Asked(config.precision)

    monkeypatch.setattr(soundguide.manipulator, "Manipulator", ask)
    with pytest.raises(Asked, match="fp32"):
        replay(str(done[0]), "seed")
    copy = shutil.copytree(done[0], tmp_path / "copy")
    record = json.loads((copy / "run.json").read_text())
    assert record["identity"]["manipulator"]["precision"] == "fp32"
    record["config"]["manipulator"]["precision"] = "bf16"
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(Asked, match="bf16"):
        replay(str(copy), "seed")


def test_replay_refuses_what_has_no_picture(done: tuple[Path, str, int]) -> None:
    with pytest.raises(InvalidEdit, match="did you mean 'seed'"):
        replay(str(done[0]), "sead")
    with pytest.raises(InvalidEdit, match="its error was: .*silent"):
        replay(str(done[0]), "silent")


def test_replay_notices_other_models_and_other_sounds(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(done[0], output)
    sound = (bulk_sources / "wind.wav").read_bytes()
    (bulk_sources / "wind.wav").write_bytes(encode_wav(noise(0.3), SAMPLE_RATE))
    try:
        with pytest.raises(SourceNotFound, match="wind.wav is not the file of the run any more"):
            replay(str(output), "Seed two")
    finally:
        (bulk_sources / "wind.wav").write_bytes(sound)
    record = json.loads((output / "run.json").read_text())
    shutil.copytree(tiny_models.generator, tmp_path / "generator")
    config = json.loads((tmp_path / "generator" / "config.json").read_text())
    (tmp_path / "generator" / "config.json").write_text(json.dumps(config | {"weights_sha256": "0" * 64}))
    record["config"]["manipulator"]["generator"] = str(tmp_path / "generator")
    (output / "run.json").write_text(json.dumps(record))
    with pytest.raises(InvalidCheckpoint, match="generator .* is 000000000000, the run had"):
        replay(str(output), "seed")


def test_new_rows_join_a_finished_run_and_only_they_are_computed(
    done: tuple[Path, str, int], tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    output = tmp_path / "more"
    shutil.copytree(done[0], output)
    before = result_files(output)
    rows = {"new": {"audio": "rain.wav", "seed": "5"}} | GOOD | {id: values for id, (values, _) in ERRORS.items()}
    assert bulk_manipulate.main(flags(tiny_models, write_manifest(bulk_sources / "more.csv", rows), output)) == 0
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
    bulk_sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(bulk_sources / "one.csv", {"a": {"audio": "rain.wav", "seed": "1"}})
    arguments = ["--manifest", manifest, "--output", str(tmp_path / "out"), "--manipulator.audio", str(tmp_path)]
    assert bulk_manipulate.main(arguments) == 2
    assert "InvalidCheckpoint" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("manifest: m.csv\nstrict: true\nedit: {num_steps: 7, mix: 0.1}\n")
    config = load_config(BulkConfig, ["--config", str(tmp_path / "f.yaml"), "--output", "o", "--edit.mix", "0.2"])
    assert (config.manifest, config.output, config.strict) == ("m.csv", "o", True)
    assert (config.edit.num_steps, config.edit.mix, config.edit.num_views) == (7, 0.2, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--manifest", "m.csv"], "output: required, but not given"),
        (["--manifest", "m", "--output", "o", "--edit.mix", "3"], "edit.mix: .* less than or equal to 1"),
        (["--manifest", "m", "--output", "o", "--config", "/none.yaml"], "No such file"),
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
