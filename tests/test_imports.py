"""Who may import whom, what loads lazily, and that every setting has a reader: the rules of docs/architecture.md."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "soundguide"
SHELLS = ("jobs", "serve")
# What a shell may use besides the library, Ray and the standard library: tables, tensors to carry, HTTP, flags.
SHELL_LIBRARIES = {"fastapi", "jinja2", "numpy", "pyarrow", "pydantic", "pydantic_settings", "rich", "starlette"}
SHELL_LIBRARIES |= {"tensorboardX", "torch", "typer", "uvicorn", "yaml"}
MODEL_LIBRARIES = {"insightface", "onnxruntime", "open_clip", "timm", "torchvision", "transformers"}
VAGUE_NAMES = {"base", "common", "helpers", "misc", "util", "utils"}
# Fields whose names other objects have too: their readers must go through something called settings, config or limits.
COMMON_FIELDS = {"audio", "device", "generator", "identity", "image", "image_text", "labels", "seed", "text"}


@dataclass(frozen=True)
class Import:
    """One import statement: the absolute module, where it stands, and whether it runs when its file is imported."""

    module: str
    where: str
    lazy: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> list[Import]:
    return list(_imports(ast.parse(path.read_text()), path, lazy=False))


def _imports(node: ast.AST, path: Path, *, lazy: bool) -> Iterator[Import]:
    where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, where, lazy) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
        origin = ".".join([*parents, *filter(None, [node.module])])
        # `from package import name` may import the submodule of that name: both count.
        yield from (Import(f"{origin}.{alias.name}", where, lazy) for alias in node.names)
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
        yield from _imports(child, path, lazy=lazy or typing_only)


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_the_library_never_imports_ray() -> None:
    assert not [found for path in python_files(LIBRARY) for found in imports(path) if found.top == "ray"]


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    loaded = loaded_by("soundguide")
    assert "soundguide" in loaded
    assert not loaded & {"torch", "ray", "numpy"}


@pytest.mark.parametrize("module", ["config", "records", "errors"])
def test_types_and_errors_load_without_torch(module: str) -> None:
    assert not loaded_by(f"soundguide.{module}") & {"torch", "ray"}


@pytest.mark.parametrize("part", ["audio", "losses", "optimize"])
def test_sound_losses_and_optimiser_do_not_import_each_other(part: str) -> None:
    files = python_files(LIBRARY / part) if (LIBRARY / part).is_dir() else [LIBRARY / f"{part}.py"]
    others = {f"soundguide.{other}" for other in ("audio", "losses", "optimize") if other != part}
    found = [found for path in files for found in imports(path)]
    assert any(item.top == "torch" for item in found)
    assert not [item for item in found if ".".join(item.module.split(".")[:2]) in others]


@pytest.mark.parametrize("path", python_files(LIBRARY / "models"), ids=lambda path: path.stem)
def test_a_model_module_loads_one_model_library_at_most_and_late(path: Path) -> None:
    found = [item for item in imports(path) if item.top in MODEL_LIBRARIES]
    assert len({item.top for item in found}) <= 1
    assert not [item for item in found if not item.lazy]


def test_jobs_and_service_import_only_the_library_ray_and_plumbing() -> None:
    strangers = []
    for shell in SHELLS:
        neighbours = {shell, *(path.stem for path in python_files(ROOT / shell))}
        allowed = {"soundguide", "ray", *sys.stdlib_module_names, *SHELL_LIBRARIES, *neighbours}
        strangers += [
            found for path in python_files(ROOT / shell) for found in imports(path) if found.top not in allowed
        ]
    assert not strangers


@pytest.mark.parametrize("folder", [*SHELLS, "cluster"])
def test_the_folder_of_a_shell_is_no_package(folder: str) -> None:
    # Beside `from ray import serve`, a package of the same name would answer in its place.
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_cluster_files_import_nothing_of_ours() -> None:
    ours = {"soundguide", "ray", "torch", "jobs", "serve"}
    assert not [found for path in python_files(ROOT / "cluster") for found in imports(path) if found.top in ours]


def test_no_module_has_a_vague_name() -> None:
    files = [
        path for folder in ("soundguide", *SHELLS, "cluster", "benchmarks") for path in python_files(ROOT / folder)
    ]
    assert not [path for path in files if VAGUE_NAMES & {path.stem.strip("_"), path.parent.name}]


@functools.cache
def config_fields() -> dict[str, set[str]]:
    """Return the field names of each settings or config class of the library, the jobs and the service."""
    fields: dict[str, set[str]] = {}
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Settings", "Limits")) and node.bases:
                fields[node.name] = {
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return fields


def product_files() -> list[Path]:
    return [path for folder in ("soundguide", *SHELLS) for path in python_files(ROOT / folder)]


def attributes_read(node: ast.AST, *, config_class: bool = False, checks: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (owner, attribute) of each attribute read; what a config's validator reads of itself is a check, no use."""
    if isinstance(node, ast.ClassDef):
        config_class = node.name in config_fields()
    elif isinstance(node, ast.FunctionDef):
        checks = any("validator" in ast.unparse(decorator) for decorator in node.decorator_list)
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        owner = ast.unparse(node.value).rpartition(".")[2].lower()
        if not (config_class and owner == "self"):
            yield owner, node.attr
        elif not checks:
            yield "config", node.attr
    for child in ast.iter_child_nodes(node):
        yield from attributes_read(child, config_class=config_class, checks=checks)


def test_every_setting_has_a_reader() -> None:
    read = {pair for path in product_files() for pair in attributes_read(ast.parse(path.read_text()))}
    anyhow = {name for _, name in read} - COMMON_FIELDS
    by_config = {name for owner, name in read if any(word in owner for word in ("settings", "config", "limits"))}
    unread = {cls: sorted(names - anyhow - by_config - {"model_config"}) for cls, names in config_fields().items()}
    assert {cls: names for cls, names in unread.items() if names} == {}
