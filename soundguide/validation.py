"""What pydantic refuses, told to people: which setting, what was got, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, what: str, *, of: type[BaseModel] | None = None) -> str:
    """Return pydantic's findings as one line: field, rule, what was got, and the remedy.

    ``what``: where the values came from. ``of``: the model that refused them; with it, an unknown field is met with
    the nearest known ones.
    """
    by_remedy: dict[str, list[str]] = {}
    for item in error.errors():
        problem, remedy = _finding(dict(item), of)
        by_remedy.setdefault(remedy, []).append(problem)
    told = (f"{'; '.join(problems)}. {remedy}" for remedy, problems in by_remedy.items())
    return f"{what}: {' '.join(told)}"


def near_settings(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Return the dotted names of settings of ``kind`` that the names in ``path``, one per level, may have meant.

    Names are compared on the first level that has no such field; there are none where nothing is near, or all exist.
    """
    for depth, name in enumerate(path):
        if name not in kind.model_fields:
            return [".".join([*path[:depth], near, *path[depth + 1 :]]) for near in near_names(name, kind.model_fields)]
        inner = kind.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return []


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the ``known`` names that ``name`` may have meant, nearest first."""
    return difflib.get_close_matches(name, list(known), n=3)


def did_you_mean(names: Sequence[str]) -> str:
    """Return the question whether one of ``names`` was meant; ``""`` where there are none."""
    return f"Did you mean {' or '.join(names)}?" if names else ""


def _finding(item: dict[str, Any], of: type[BaseModel] | None) -> tuple[str, str]:
    """Return what one finding says is wrong, and its remedy."""
    path = [str(part) for part in item["loc"]]
    field = f"{'.'.join(path)}: " if path else ""
    got = item.get("input")
    shown = "" if isinstance(got, dict) or item["type"] == "value_error" else f" (got {got!r:.80})"
    match item["type"]:
        case "missing":
            return f"{field}required, but not given", "Give what is required."
        case "extra_forbidden":
            near = did_you_mean(near_settings(of, path)) if of else ""
            return f"{field}there is no such setting{shown}", near or "Correct the name, or leave it out."
        case _:
            rule = item["msg"].removeprefix("Value error, ").rstrip(".")
            return f"{field}{rule}{shown}", "Correct the value, or leave it out for the default."
