"""What every record of a benchmark says about itself."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version


def where_and_when() -> dict[str, str]:
    """Return the machine with its torch, and the date (UTC)."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {version('torch')}",
        "date": datetime.now(UTC).date().isoformat(),
    }
