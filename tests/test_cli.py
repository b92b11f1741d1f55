"""The command line: its help teaches, its answers are well-formed, its errors are one line and exit code 2."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runs import assert_refused, plain, run
from typer.testing import CliRunner

from soundguide.cli.main import app
from soundguide.config import ManipulatorConfig

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "",
    "edit",
    "film",
    "listen",
    "replay",
    "presets",
    "settings",
    "status",
    "models",
    "models import",
    "models list",
    "models info",
    "models verify",
    "models pull",
    "models export",
    "miniature",
    "miniature render",
    "miniature synthesise",
    "miniature videos",
    "miniature report",
    "miniature train",
    "miniature train generator",
    "miniature train image-text",
    "miniature train audio",
    "miniature train reader",
    "miniature train identity",
]


@functools.cache
def help_of(command: str) -> str:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    return plain(result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(command: str) -> None:
    _, found, examples = help_of(command).partition("Examples")
    assert found and f"soundguide {command}".strip() in examples


def test_every_command_is_among_those_tested() -> None:
    def names(group: object, prefix: str) -> list[str]:
        children = getattr(group, "commands", {})
        found = [prefix]
        for name, child in children.items():
            found += names(child, f"{prefix} {name}".strip())
        return found

    import typer.main

    assert sorted(names(typer.main.get_command(app), "")) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_options_that_exist(command: str) -> None:
    _, _, examples = help_of(command).partition("Examples")
    for line in re.findall(r"soundguide (.+)", examples):
        owner = max((name for name in COMMANDS if f"{line} ".startswith(f"{name} ".lstrip())), key=len)
        options = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", line)) - {"--help"}
        missing = [option for option in options if option not in help_of(owner).partition("Examples")[0]]
        assert not missing, line


def test_loading_the_program_loads_nothing_heavy() -> None:
    code = "import sys, soundguide.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not set(loaded.stdout.split()) & {"torch", "ray", "numpy", "scipy", "pyarrow", "PIL", "av"}


def test_version_is_the_package_s() -> None:
    from soundguide import __version__

    assert run("--version").output.strip() == f"soundguide {__version__}"


def test_settings_lists_every_field_with_its_default() -> None:
    from soundguide.config import EditSettings

    lines = {line.split()[0]: line for line in plain(run("settings").output).splitlines() if line.split()}
    assert {
        name: str(field.default) in lines[name] for name, field in EditSettings.model_fields.items()
    } == dict.fromkeys(EditSettings.model_fields, True)


def test_listen_prints_probabilities_best_first(models_file: Path, rain_file: Path) -> None:
    answer = json.loads(run("listen", rain_file, "--json", "--models", models_file).stdout)
    assert set(answer) == {"labels"}
    probabilities = [item["probability"] for item in answer["labels"]]
    assert {item["label"] for item in answer["labels"]} == {"raining", "wind noise", "church bells"}
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_listen_takes_any_labels(models_file: Path, rain_file: Path) -> None:
    labels = ["--labels", "hail, a frying pan,"]
    answer = json.loads(run("listen", rain_file, *labels, "--json", "--models", models_file).stdout)
    assert {item["label"] for item in answer["labels"]} == {"hail", "a frying pan"}


def test_another_sound_encoder_takes_the_place_of_the_models_own(
    models_file: Path, rain_file: Path, tiny_models: ManipulatorConfig, tmp_path: Path
) -> None:
    other = tmp_path / "encoder"
    shutil.copytree(tiny_models.audio, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "labels": ["applause"]}))
    answer = json.loads(run("listen", rain_file, "--json", "--models", models_file, "--audio", other).stdout)
    assert [item["label"] for item in answer["labels"]] == ["applause"]
    assert_refused(run("listen", rain_file, "--models", models_file, "--audio", tmp_path / "none"), "none")


def test_listen_by_window_tells_where_each_starts(models_file: Path, rain_file: Path) -> None:
    answer = json.loads(run("listen", rain_file, "--windows", "--top", "1", "--json", "--models", models_file).stdout)
    assert [window["start_seconds"] for window in answer["windows"]] == [0.0, 0.5, 1.0]  # 1.2 s, windows of 0.5 s
    assert all(len(window["labels"]) == 1 for window in answer["windows"])


def test_listen_reads_standard_input(models_file: Path, rain_file: Path) -> None:
    by_name = run("listen", rain_file, "--json", "--models", models_file)
    piped = run("listen", "-", "--json", "--models", models_file, stdin=rain_file.read_bytes())
    assert piped.stdout == by_name.stdout


def test_listen_draws_a_table_for_people(models_file: Path, rain_file: Path) -> None:
    output = plain(run("listen", rain_file, "--models", models_file).stdout)
    assert "church bells" in output and "%" in output


@pytest.mark.parametrize("text", ["generator: [1", "no_such_field: 1", "- a\n- b", "generator: /nowhere/at/all"])
def test_a_wrong_models_file_is_told(text: str, rain_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    assert_refused(run("listen", rain_file, "--models", path))


def test_a_misspelt_field_of_the_models_file_is_met_with_the_one_meant(rain_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("gneerator: miniature")
    told = f"{path}: gneerator: there is no such setting (got 'miniature'). Did you mean generator?"
    assert_refused(run("listen", rain_file, "--models", path), told)


@pytest.mark.parametrize("hint", ["", "The same command goes on."])
def test_an_interrupt_exits_with_130_and_a_word(hint: str, monkeypatch: pytest.MonkeyPatch, rain_file: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(*filter(None, [hint]))

    monkeypatch.setattr("soundguide.cli.listen.load_config", interrupt)
    result = run("listen", rain_file)
    assert (result.exit_code, plain(result.stderr).strip()) == (130, f"Stopped. {hint}".strip())


@pytest.mark.parametrize("command", [["edit", "-o", "a.png"], ["miniature", "render", "-o", "a.png"]])
def test_a_value_of_the_wrong_type_is_told(command: list[str]) -> None:
    result = run(*command, "--seed", "abc")
    assert result.exit_code == 2
    assert plain(result.stderr).count("got 'abc'") == 1


def test_listen_refuses_a_sound_by_name_before_any_model_loads(
    monkeypatch: pytest.MonkeyPatch, models_file: Path, tmp_path: Path
) -> None:
    from soundguide.audio.decode import encode_wav

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("soundguide.world.World", load)
    sounds = {"empty": b"", "silent": encode_wav(np.zeros(9000), 8000), "short": encode_wav(np.ones(9), 8000)}
    for name, data in sounds.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(data)
        assert_refused(run("listen", path, "--models", models_file), f"{path}: the sound")
    assert_refused(run("listen", "-", "--models", models_file, stdin=b"RIFF"), "standard input: the bytes")


def test_tables_in_a_file_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from soundguide.cli.console import wide

    monkeypatch.delenv("COLUMNS", raising=False)
    assert wide(Console(file=io.StringIO())).width >= 120
    assert wide(Console(file=io.StringIO(), width=200)).width == 200
    assert wide(Console(file=io.StringIO(), width=70, force_terminal=True)).width == 70
    monkeypatch.setenv("COLUMNS", "60")
    assert wide(Console(file=io.StringIO())).width == 60


def test_a_name_in_a_list_is_whole_in_a_narrow_window() -> None:
    import io

    from rich.console import Console

    from soundguide.cli.console import listing

    table, name = listing("name", "what it is"), "stylegan3-t-afhqv2-512"
    table.add_row(name, "a generator of animals' faces at 512 px")
    narrow = Console(file=io.StringIO(), width=40)
    narrow.print(table)
    assert name in narrow.file.getvalue()  # type: ignore[attr-defined]


def test_brackets_in_a_path_or_an_error_are_shown(tmp_path: Path) -> None:
    import io

    from rich.console import Console
    from rich.table import Table

    from soundguide.cli.console import add_errors
    from soundguide.result_counts import ErrorKind

    path = tmp_path / "[draft]" / "rain.wav"
    path.parent.mkdir()
    assert str(path) in run("miniature", "synthesise", "raining", "--seconds", "0.5", "-o", path).stdout
    table, console = Table(box=None), Console(file=io.StringIO(), width=120)
    add_errors(table, [ErrorKind(kind="InvalidAudio", count=2, example_id="a[/b]", example="no [sound] in [/it]")])
    console.print(table)
    assert "'a[/b]': no [sound] in [/it]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_labels_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "_SOUNDGUIDE_COMPLETE": "complete_bash",
        "COMP_WORDS": "soundguide miniature synthesise tech",
        "COMP_CWORD": "3",
    }
    result = CliRunner().invoke(app, [], prog_name="soundguide", env=environment)
    assert result.output.split("\n")[0] == "techno music"


def test_a_bar_is_as_long_as_its_share() -> None:
    from soundguide.cli.console import bar

    lengths = [bar(share, width=8).plain.count("█") for share in (0.0, 0.5, 1.0, math.inf)]
    assert lengths == [0, 4, 8, 8]
    assert len(bar(0.3, width=8).plain) == 8


def test_replay_of_a_folder_without_a_run_says_what_to_name(tmp_path: Path) -> None:
    assert_refused(run("replay", tmp_path, "--id", "x", "-o", tmp_path / "a.png"), "run.json")
