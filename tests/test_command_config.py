"""Settings of programs: what is wrong in flags or in a YAML file is told with its place and what was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from soundguide.command_config import CommandConfig, load_config
from soundguide.config import EditSettings
from soundguide.errors import InvalidConfig


class Program(CommandConfig):
    """A program's settings, as small as can be."""

    output: Annotated[str, Field(description="Where to.")]
    edit: Annotated[EditSettings, Field(description="How.")] = EditSettings()


def refusal(*flags: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load_config(Program, flags)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key.yaml"


@pytest.mark.parametrize("text", ["- a", "- [output, o]", "a: [", "only words", "3: x", "a: 2024-99-99", "a: \x00"])
def test_what_is_no_yaml_of_settings_is_refused(text: str, file: Path) -> None:
    file.write_text(text)
    assert re.match(
        rf"{re.escape(str(file))} is no YAML of settings \(.+\)\. Write one", refusal("--config", str(file))
    )


def test_an_empty_file_sets_nothing(file: Path) -> None:
    file.write_text("# all by flags\n")
    assert load_config(Program, ["--config", str(file), "--output", "o"]).edit == EditSettings()


def test_a_file_that_is_not_there_is_named() -> None:
    assert refusal("--config", "/none.yaml").startswith("/none.yaml: cannot be read (No such file")


def test_what_is_required_is_not_to_be_left_out() -> None:
    assert refusal("--edit.mix", "0.1") == "arguments: output: required, but not given. Give what is required."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("edit: {num_stepz: 3}", "edit.num_stepz: there is no such setting (got 3). Did you mean edit.num_steps?"),
        ("outptu: o", "outptu: there is no such setting (got 'o'). Did you mean output?"),
        ("edit: {zzz: 3}", "edit.zzz: there is no such setting (got 3). Correct the name, or leave it out."),
    ],
)
def test_an_unknown_name_in_a_file_is_met_with_the_file_and_the_nearest_known(text: str, told: str, file: Path) -> None:
    file.write_text(text)
    assert refusal("--config", str(file), "--output", "o") == f"{file}: {told}"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--edit.num_stepz", "3"], "--edit.num_stepz 3. Did you mean --edit.num_steps?"),
        (["--edti.mix=1"], "--edti.mix=1. Did you mean --edit.mix?"),
        (["--zzz"], "--zzz. Leave it out."),
        (["stray"], "stray. Leave it out."),
    ],
)
def test_an_unknown_flag_is_met_with_the_nearest_known(flags: list[str], told: str) -> None:
    assert refusal("--output", "o", *flags) == f"unknown arguments: {told} All are listed by --help"


@pytest.mark.parametrize(
    ("flags", "places"),
    [
        ([], "FILE"),
        (["--edit.mix", "4"], "arguments"),
        (["--edit.margin", "9"], "arguments and FILE"),
    ],
)
def test_a_wrong_value_is_told_with_where_it_was_written(flags: list[str], places: str, file: Path) -> None:
    file.write_text("edit: {mix: 3}\noutput: o")
    assert refusal("--config", str(file), *flags).partition(": ")[0] == places.replace("FILE", str(file))


def test_a_shortened_flag_is_no_flag() -> None:
    assert "--edit.num_step 3. Did you mean --edit.num_steps" in refusal("--output", "o", "--edit.num_step", "3")
