"""As much of PromQL as it takes to tell the metrics and the labels of an expression."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*")|(?P<range>\[[^\]]*\])|(?P<name>[A-Za-z_:][\w:]*)|(?P<number>\d[\w.]*)|(?P<sign>\S)"""
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = _GROUPING | {"and", "or", "unless", "bool", "offset"}


def metrics_and_labels(expr: str) -> tuple[set[str], set[str]]:
    """Return the names of the metrics in an expression, and of the labels that it matches or groups by."""
    metrics, labels = set(), set()
    for kind, name in _names(expr):
        (metrics if kind == "metric" else labels).add(name)
    return metrics, labels


def _names(expr: str) -> Iterator[tuple[str, str]]:
    tokens = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(expr)]
    braces, grouping = 0, False
    for number, (kind, text) in enumerate(tokens):
        after = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        braces += (text == "{") - (text == "}")
        grouping = (grouping or text in _GROUPING) and text != ")"
        if kind != "name" or text in _GROUPING:
            continue
        if braces or grouping:
            yield "label", text
        elif text not in _WORDS and after != "(" and after not in _GROUPING:
            yield "metric", text
