"""What is measured of an optimiser's slots while it works: the same names in a bulk job and in the service.

Ray writes ``ray_`` before each name. The tag ``program`` tells who works, since both can share a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from soundguide.slots import Load

TAG_KEYS = ("program",)

SLOT_GAUGES = {
    "soundguide_slots": "Edits that one process optimises side by side.",
    "soundguide_slots_running": "Slots that are taken.",
    "soundguide_slots_waiting": "Runs that wait for a slot.",
    "soundguide_step_seconds": "Seconds of the last step of all slots.",
}
"""What each gauge says. Ray forgets a gauge that nobody has set for 20 seconds: it must be set again and again."""


@runtime_checkable
class Loaded(Protocol):
    """What has slots, `Manipulator` for one."""

    @property
    def load(self) -> Load:
        """How busy they are."""


def slot_values(load: Load) -> dict[str, float]:
    """Return the value of each of `SLOT_GAUGES`."""
    return {
        "soundguide_slots": load.num_slots,
        "soundguide_slots_running": load.num_running,
        "soundguide_slots_waiting": load.num_waiting,
        "soundguide_step_seconds": load.step_seconds,
    }
