"""Hostile checkpoints: nothing in them executes, nothing hangs or takes the memory, each ends in a clear error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_archives import hostile_archives
from hostile_networks import hostile_networks
from hostile_pickles import hostile_pickles

HERE = Path(__file__).parent
# more of them, or fewer: each number has its own file, whatever their count
MUTANTS = int(os.environ.get("SOUNDGUIDE_TEST_MUTANTS", "10000"))


def run(folder: Path, *words: str) -> dict[str, Any]:
    """Read files in a process of its own; return its report."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "guarded_reader.py"), *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def assert_harmless(report: dict[str, Any], folder: Path) -> None:
    assert report["violations"] == []
    assert not list(folder.rglob("pwned"))
    assert report["slowest_seconds"] < 10
    assert report["memory_mib"] < 1024


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, str], Path]:
    """Read all hostile files in one process; return its report, and what each refusal must say."""
    folder = tmp_path_factory.mktemp("hostile")
    made = hostile_pickles() | hostile_archives() | hostile_networks(folder)
    (folder / "files").mkdir()
    told = {}
    for index, (name, (data, says)) in enumerate(made.items()):
        suffix = ".safetensors" if name.startswith("safetensors") else ".pt"
        (folder / "files" / f"{index}{suffix}").write_bytes(data)
        told[name] = (f"{index}{suffix}", says)
    report = run(folder, "files", str(folder))
    assert len(report["outcomes"]) == len(made) > 100
    return report, told, folder


def test_no_hostile_file_executes_hangs_or_takes_the_memory(hostile: Any) -> None:
    report, _, folder = hostile
    assert_harmless(report, folder)


def test_each_hostile_file_is_refused_for_what_it_does(hostile: Any) -> None:
    report, told, _ = hostile
    wrong = {
        name: report["outcomes"][file][-400:]
        for name, (file, says) in told.items()
        if not re.match(rf"(refused|unknown): .*({says})", report["outcomes"][file], re.DOTALL)
    }
    assert wrong == {}


def test_refusals_name_the_file_and_a_remedy(hostile: Any) -> None:
    report, told, _ = hostile
    for name, (file, _) in told.items():
        assert f"{file}: " in report["outcomes"][file], name
        assert re.search(
            r"(Name|Download|download|Correct|Use|use|Run|import|Convert|Copy) ", report["outcomes"][file]
        ), name


def test_the_guard_hears_what_executes(tmp_path: Path) -> None:
    code = """
import guarded_reader, os, pickle, pathlib
guard = guarded_reader.Guard()
guard.armed = True
os.system("true"); open("written", "w").close(); pickle.loads(b"cbuiltins\\nlen\\n."); exec("1")
import colorsys
guard.armed = False
print(*sorted({each.split()[0] for each in guard.violations}))
"""
    heard = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"os.system", "open", "pickle.find_class", "exec", "import"} <= {*heard}


@pytest.mark.slow
def test_mutated_files_end_in_models_or_clear_errors(tmp_path: Path) -> None:
    report = run(tmp_path, "mutants", str(tmp_path), str(MUTANTS), "6")
    assert report["outcomes"] == {}
    assert_harmless(report, tmp_path)
    assert report["counts"].keys() == {"read", "unknown", "refused"}
    assert sum(report["counts"].values()) == MUTANTS
    assert report["counts"]["read"] > 0.01 * MUTANTS  # the mutations are not all so coarse that nothing is reached
    assert report["counts"]["unknown"] > 0.05 * MUTANTS
