"""How the tests of the command line call it and look at its answers."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner, Result

from soundguide.cli.main import app


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env={"COLUMNS": "200"})


def picture_of(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def unwrapped(text: str) -> str:
    """Return what a terminal of any width shows as one line, without colours."""
    return " ".join(plain(text).split())


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    for word in words:
        assert word in plain(result.stderr)
