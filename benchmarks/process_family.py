"""The processes of a program under measurement: what they take, and how to end them all."""

import re
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

MIB = 2**20


@dataclass
class Process:
    """One process of a run: what it is, its peaks in MiB, and the seconds of a CPU that it took so far.

    ``own_mib`` leaves out pages that it shares with others: those of the object store and of libraries.
    """

    kind: str = "other"
    rss_mib: float = 0.0
    own_mib: float = 0.0
    cpu_seconds: float = 0.0


class Family(threading.Thread):
    """Looks at a process and all that it starts, again and again until `done`."""

    def __init__(self, driver: int) -> None:
        super().__init__(daemon=True)
        self._driver, self.done = driver, threading.Event()
        self.members: dict[int, Process] = {}
        self.driver_rss: list[tuple[float, float]] = []

    def run(self) -> None:
        while not self.done.wait(0.5):
            with suppress(psutil.Error):
                driver = psutil.Process(self._driver)
                for process in (driver, *driver.children(recursive=True)):
                    with suppress(psutil.Error):
                        self._look(process)

    def _look(self, process: psutil.Process) -> None:
        with process.oneshot():
            command, memory, times = process.cmdline()[:1], process.memory_info(), process.cpu_times()
        member = self.members.setdefault(process.pid, Process())
        member.rss_mib = max(member.rss_mib, memory.rss / MIB)
        member.own_mib = max(member.own_mib, (memory.rss - memory.shared) / MIB)
        member.cpu_seconds = times.user + times.system
        if process.pid == self._driver:
            member.kind = "driver"
            self.driver_rss.append((time.time(), memory.rss / MIB))
        elif command and command[0].startswith("ray::") and "Agent" not in command[0]:
            member.kind = "worker"

    def summary(self) -> dict[str, dict[str, float]]:
        """Return by kind of process how many there were, the peaks of the largest, and the seconds of all."""
        kinds: dict[str, list[Process]] = {}
        for member in self.members.values():
            kinds.setdefault(member.kind, []).append(member)
        return {
            kind: {
                "processes": len(members),
                "rss_mib": round(max(member.rss_mib for member in members)),
                "own_mib": round(max(member.own_mib for member in members)),
                "cpu_seconds": round(sum(member.cpu_seconds for member in members), 1),
            }
            for kind, members in sorted(kinds.items())
        }


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill -9 the job and all that it started, as a machine that goes away would, and remove its Ray's folder."""
    family, folders = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)], set()
    for member in family:
        with suppress(psutil.Error):
            folders |= set(re.findall(r"/tmp/sg-ray-\w+", " ".join(member.cmdline())))
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=20)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
