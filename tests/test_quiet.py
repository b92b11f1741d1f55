"""One line of native code is held back, all others arrive."""

import os

import pytest

from soundguide.quiet import without_lines


def test_only_the_named_line_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines("noise"):
        os.write(2, b"a noise from below\nkept\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "kept\n"


def test_what_was_written_before_a_failure_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="why"), without_lines("noise"):
        os.write(2, b"last words\n")
        raise ValueError("why")
    assert capfd.readouterr().err == "last words\n"
