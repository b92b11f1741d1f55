"""One run at a time in an output folder: a small file that says who is at work, kept fresh while it is."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from soundguide.errors import OutputConflict, SoundGuideError, SourceNotFound
from soundguide.storage import Storage

STALE_SECONDS = 120.0  # a holder that has not been heard of for so long is gone
_RENEW_SECONDS = 20.0
_SETTLE_SECONDS = 0.3  # two that begin at once both write; after this each sees who wrote last


@contextmanager
def only_run(uri: str, storage: Storage) -> Iterator[None]:
    """Hold the lock file at ``uri`` meanwhile. Raises `OutputConflict` where another run holds it.

    A killed run's lock is taken over at once on its own machine, elsewhere when it is stale.
    """
    mine = {"token": secrets.token_hex(8), "host": socket.gethostname(), "pid": os.getpid()}
    _refuse_other(uri, storage, mine)
    _write(uri, storage, mine)
    time.sleep(_SETTLE_SECONDS)
    _refuse_other(uri, storage, mine)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEW_SECONDS):
            with suppress(OSError, SoundGuideError):  # the run itself will say what is wrong with the folder
                _write(uri, storage, mine)

    thread = threading.Thread(target=renew, name="run-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        storage.remove(uri)


def _write(uri: str, storage: Storage, mine: dict[str, Any]) -> None:
    storage.write_bytes(uri, json.dumps({**mine, "time": time.time()}).encode())


def _refuse_other(uri: str, storage: Storage, mine: dict[str, Any]) -> None:
    try:
        other = json.loads(storage.read_bytes(uri, max_bytes=10_000))
        token, host, pid, seen = other["token"], other["host"], int(other["pid"]), float(other["time"])
    except (SourceNotFound, ValueError, KeyError, TypeError):
        return  # nobody, or nothing that a run has written
    age = time.time() - seen
    if token == mine["token"] or age > STALE_SECONDS or (host == mine["host"] and not is_alive(pid)):
        return
    folder = uri.rsplit("/", 2)[0]
    raise OutputConflict(
        f"another run (process {pid} on {host}) is at work in {folder}, heard of {max(0, age):.0f} s ago. "
        f"Wait for it, or give another output folder. If it was killed, its claim ends after {STALE_SECONDS:.0f} s"
    )


def is_alive(pid: int) -> bool:
    """Say whether a process of this machine has the number `pid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
