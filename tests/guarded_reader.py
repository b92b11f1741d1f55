"""Reads files that may be hostile, in a process of its own that watches for anything that executes.

``python guarded_reader.py files FOLDER`` reads all files of a folder; ``... mutants FOLDER NUMBER SEED`` reads mutated
files. What happened is printed as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mutants import mutants, write_honest_files

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.recognise import read_foreign

SECONDS = 10  # of the processor: other work on the machine is not the file's fault
MEMORY = 2**30
EXECUTING = (
    "os.", "subprocess.", "socket.", "pickle.", "exec", "compile", "marshal.", "ctypes.", "shutil.", "import", "mmap",
    "code.__new__", "webbrowser.", "urllib.", "glob.", "tempfile.", "builtins.input", "sys.",
)  # fmt: skip
READ_ONLY = os.O_RDONLY | os.O_CLOEXEC


class Guard:
    """Watches what the interpreter does while a file is read."""

    def __init__(self) -> None:
        self.armed = False
        self.violations: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self.armed and (event.startswith(EXECUTING) or event == "open" and args[2] != READ_ONLY):
            self.violations.append(f"{event} {args!r:.200}")

    def read(self, path: Path) -> str:
        """Return ``"read"``, what the refusal said after ``"unknown"`` or ``"refused"``, or what went wrong."""
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self.armed = True
        try:
            read_foreign(path)
            return "read"
        except InvalidCheckpoint as error:
            return f"{'unknown' if 'no checkpoint that is known' in str(error) else 'refused'}: {error}"
        except BaseException as error:
            return f"ERROR: {type(error).__name__}: {error}"
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_PROF, 0)


def expire(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def peak_memory_mib() -> float:
    """Return the most memory that this process had; what resource tells begins with that of whoever started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def mutated(folder: Path, number: int, seed: int) -> Iterator[Path]:
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for name, data in mutants(files, number, seed=seed):
        path = folder / f"mutant{Path(name).suffix}"
        path.write_bytes(data)
        yield path


def main(mode: str, folder: str, number: str = "0", seed: str = "0") -> None:
    honest = Path(folder, "honest")
    honest.mkdir(exist_ok=True)
    write_honest_files(honest)
    guard = Guard()
    for path in honest.iterdir():  # imports what is imported when it is needed
        guard.read(path)
    "ä".encode("cp437")  # imported to read the names in archives
    guard.violations.clear()
    signal.signal(signal.SIGPROF, expire)
    bound_memory()
    paths = mutated(honest, int(number), int(seed)) if mode == "mutants" else sorted(Path(folder, "files").iterdir())
    outcomes: dict[str, str] = {}
    counts: Counter[str] = Counter()
    slowest = 0.0
    start = time.process_time()
    for index, path in enumerate(paths):
        begun = time.process_time()
        outcome = guard.read(path)
        slowest = max(slowest, time.process_time() - begun)
        counts[outcome.partition(":")[0]] += 1
        if mode == "files" or outcome.startswith("ERROR"):
            outcomes[path.name if mode == "files" else f"mutant {index}"] = outcome
    report = {
        "outcomes": outcomes,
        "counts": counts,
        "violations": guard.violations,
        "slowest_seconds": slowest,
        "seconds": time.process_time() - start,
        "memory_mib": peak_memory_mib(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
