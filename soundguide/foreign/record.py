"""What stands for classes and objects of other projects: names and data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """The full name of a class or function that a pickle mentions."""

    name: str


@dataclass(slots=True, eq=False, repr=False)  # what records hold may hold itself
class Record:
    """An object that was not built: its class's name, its constructor's arguments and its state."""

    name: str
    args: tuple[object, ...] = ()
    state: object = None
