"""The cluster files' commands, read as the programs would read them, and what the files, image and README name."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml
from cluster_checks import BUNDLE, CLUSTER, IMAGE, PINS, ROOT, cluster_in, serve_problems

from soundguide.command_config import CommandConfig, load_config
from soundguide.errors import InvalidConfig

FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())


def line_problems(line: str) -> list[str]:
    """Check a command as the programs of this repository and of Ray would read it, without running it."""
    words = shlex.split(line, comments=True)
    scripts = [index for index, word in enumerate(words) if re.fullmatch(r"(.*/)?(jobs|serve)/\w+\.py", word)]
    found = [problem for index in scripts[:1] for problem in job_problems(words[index], words[index + 1 :])]
    if words[0] in ("ray", "serve"):
        found += cli_problems(words)
    named = re.findall(r"(?<![\w/.-])(?:cluster|jobs|serve|docs)/[\w/-]+\.\w+", line.replace(f"{BUNDLE}/", ""))
    return found + [f"{path} does not exist" for path in named if not (ROOT / path).is_file()]


def job_problems(script: str, flags: Sequence[str]) -> list[str]:
    """Read a program's flags into its own configuration."""
    path = ROOT / script.removeprefix(f"{BUNDLE}/")
    if not path.is_file():
        return []  # told with the other files
    module = import_module("serve.run" if path.parent.name == "serve" else path.stem)
    kinds = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, CommandConfig)}
    [kind] = [each for each in kinds if not any(issubclass(other, each) for other in kinds - {each})]
    try:
        with contextlib.chdir(ROOT):
            load_config(kind, [flag.removeprefix(f"{BUNDLE}/") for flag in flags])
    except InvalidConfig as error:
        return [str(error)]
    return []


def cli_problems(words: Sequence[str]) -> list[str]:
    """Parse a line of `ray` or `serve`."""
    from ray.scripts.scripts import cli as ray_cli
    from ray.serve.scripts import cli as serve_cli

    command: click.Command | None = {"ray": ray_cli, "serve": serve_cli}[words[0]]
    rest = list(words[1:])
    while isinstance(command, click.Group) and rest:
        command = command.get_command(click.Context(command), rest.pop(0))
    if command is None:
        return [f"{' '.join(words)}: there is no such command"]
    try:
        command.make_context(words[0], rest)
    except click.ClickException as error:
        return [f"{' '.join(words)}: {error.format_message()}"]
    return []


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (CLUSTER / "README.md").read_text(), re.DOTALL)


def test_every_command_of_the_readme_could_run() -> None:
    lines = [line for block in readme_blocks("console") for line in block.replace("\\\n", " ").splitlines()]
    assert len(lines) > 30
    assert [problem for line in lines for problem in line_problems(line)] == []


@pytest.mark.parametrize("name", ["rayjob-bulk", "rayjob-training"])
def test_a_ray_job_gives_flags_that_its_program_knows_and_asks_for_gpus_that_there_may_be(name: str) -> None:
    document = yaml.safe_load((CLUSTER / "kuberay" / f"{name}.yaml").read_text())
    spec = document["spec"]
    assert line_problems(spec["entrypoint"]) == []
    asked = re.search(r"--(?:pool.num_actors|workers.num_workers) (\d+)", spec["entrypoint"])
    groups = cluster_in(document)["workerGroupSpecs"]
    most = sum(group["maxReplicas"] for group in groups if "priority" in group)
    assert asked and int(asked[1]) <= most


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("python jobs/bulk_manipulate.py --manifest m --output o --pool.num_actor 4", "--pool.num_actors"),
        (f"python {BUNDLE}/jobs/bulk_manipulate.py --output o", "manifest: required"),
        ("python jobs/pretrain_encoder.py --config jobs/configs/none.yaml --clips c --output o", "cannot be read"),
        ("python jobs/bulk_edit.py", "jobs/bulk_edit.py does not exist"),
        ("python serve/run.py --prt 8000", "--port"),
        ("kubectl apply -f cluster/kuberay/rayjob.yaml", "cluster/kuberay/rayjob.yaml does not exist"),
        ("ray up cluster/aws.yaml --yess", "No such option '--yess'"),
        ("ray job sumbit -- python x.py", "there is no such command"),
        ("serve deploy", "Missing argument"),
    ],
)
def test_a_command_with_a_mistake_is_refused(line: str, told: str) -> None:
    assert told in "\n".join(line_problems(line))


def test_the_second_choice_that_the_readme_shows_is_one_that_serve_takes() -> None:
    [block] = readme_blocks("yaml")
    config = yaml.safe_load((CLUSTER / "serve.yaml").read_text())
    config["applications"][0]["deployments"] = yaml.safe_load(block)
    assert serve_problems(config) == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    text = (CLUSTER / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)", text) + re.findall(r"`((?:kuberay/)?[\w-]+\.yaml|Dockerfile)`", text)
    assert len(links) > 8
    assert [link for link in links if not (CLUSTER / link).is_file()] == []


def drifted(text: str) -> list[str]:
    """Return the versions in a text that are not those of constraints.txt, of this package or of its Python."""
    named = re.findall(r"(?:rayproject/ray:|ray==|rayVersion: )([\d.]+)", text)
    own = re.findall(r"\bsoundguide[:-](\d[\d.]*\d)", text)
    pythons = re.findall(r"\bpy(3\d+)|Python (3\.\d+)", text)
    wrong = [version for version in named if version != PINS["ray"]]
    wrong += [version for version in own if f"soundguide:{version}" != IMAGE]
    return wrong + ["".join(pair) for pair in pythons if "".join(pair).replace(".", "") != "311"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_names_the_versions_of_the_constraints_and_no_registry(path: Path) -> None:
    text = path.read_text()
    assert drifted(text) == []
    assert re.search(r"pypi\.org|docker\.io|ghcr|quay\.io|gcr\.io|ecr\.aws|pkg\.dev", text) is None
    if path.name not in ("serve.yaml", "README.md"):
        assert PINS["ray"] in text


def test_drift_is_noticed() -> None:
    text = "image: rayproject/ray:2.61.0-py312-gpu, rayVersion: 2.60.1, soundguide-0.0.9-py3-none-any.whl, Python 3.12"
    assert drifted(text) == ["2.61.0", "2.60.1", "0.0.9", "312", "3.12"]


def test_the_image_copies_files_that_exist_and_that_its_context_has() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().split()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY") and "--from=" not in line]
    sources = {word for words in copies for word in words[:-1] if not word.startswith("--")}
    assert {"soundguide", "jobs", "serve", "constraints.txt"} <= sources
    assert [source for source in sources if not (ROOT / source).exists() or f"!{source}" not in ignored] == []
    assert "*" in ignored
    assert [line for line in lines if line.startswith("USER")][-1] == "USER ray"
    assert f"ARG RAY_IMAGE=rayproject/ray:{PINS['ray']}-py311-gpu" in lines
