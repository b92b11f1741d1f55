"""What must hold of the repository as a whole: pins, versions, sizes, and targets that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import soundguide

ROOT = Path(__file__).parents[1]
CODE = ("soundguide", "jobs", "serve", "cluster", "tests", "benchmarks")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def pins() -> list[str]:
    return [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_every_pin_is_a_plain_name_and_version() -> None:
    # No addresses, local files or builds that only one index has.
    assert [line for line in pins() if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_no_package_is_pinned_twice() -> None:
    names = [canonical(line) for line in pins()]
    assert len(names) > 50
    assert len(names) == len(set(names))


def test_everything_that_make_installs_is_pinned() -> None:
    extras = project()["optional-dependencies"]
    wanted = {canonical(item) for item in [*project()["dependencies"], *extras["ray"], *extras["demo"], *extras["dev"]]}
    assert wanted - {canonical(line) for line in pins()} == set()


def test_no_python_file_is_longer_than_350_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for folder in CODE for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > 350} == {}


def test_bundled_weights_stay_under_20_megabytes_and_those_of_faces_under_12() -> None:
    faces = {path for path in (ROOT / "soundguide" / "miniature" / "weights" / "faces").rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in faces) < 12e6
    others = set((ROOT / "soundguide").rglob("*.safetensors")) - faces
    assert sum(path.stat().st_size for path in others) < 20e6


def test_every_folder_of_modules_is_a_package_that_gets_installed() -> None:
    folders = {path.parent for path in (ROOT / "soundguide").rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_changelog_and_citation_name_the_version() -> None:
    assert f"## [{soundguide.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {soundguide.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("target", ["demo", "test", "check", "clean", "venv"])
def test_make_alone_lists_the_target(target: str) -> None:
    listed = subprocess.run(["make", "-C", str(ROOT)], check=True, capture_output=True, text=True).stdout
    assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE)
