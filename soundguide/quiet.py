"""Keep a library's unasked-for lines off the terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_lines(containing: str) -> Iterator[None]:
    """Hold back what this process, native code included, writes to stderr meanwhile, and drop lines that contain this.

    All other lines are written when it ends.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if containing.encode() not in line:
                    os.write(2, line)
