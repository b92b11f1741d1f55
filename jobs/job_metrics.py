"""What the workers of a job tell while they work: metrics, and a line of log for each row that ends.

Travels to workers by value, for other machines do not have this folder (`data_pipeline.stream_rows`). So nothing is
kept here: a metric is made where it is used, and one that is made again goes on with its count. Ray is imported late,
because it reads its environment when it is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from soundguide.records import Row
from soundguide.slot_gauges import SLOT_GAUGES, TAG_KEYS, Loaded, slot_values

ROW_LOGGER = "soundguide.rows"
_DESCRIPTIONS = {
    "soundguide_rows": "Rows that ended, by outcome. A row that is worked on again after a death counts again.",
    "soundguide_bytes_read": "Bytes of the sources that rows name.",
    "soundguide_bytes_written": "Bytes of the pictures and codes that were written.",
}
_LOGGED = ("error_kind", "seconds", "steps")  # where the rows have them, beside id and outcome
_TELL_SECONDS = 5.0  # a gauge that is not set for 20 is forgotten


def count(name: str, value: float, **tags: str) -> None:
    """Add to the counter ``name`` of this process."""
    from ray.util.metrics import Counter

    if value:
        Counter(name, description=_DESCRIPTIONS[name], tag_keys=tuple(tags)).inc(value, tags)


@dataclass(frozen=True)
class ByteCount:
    """Adds bytes to a counter of whichever process it is called in."""

    name: str
    program: str

    def __call__(self, num_bytes: int) -> None:
        """Add so many."""
        count(self.name, num_bytes, program=self.program)


class MeasuredActor:
    """What `make` returns, with the load of its slots told to Ray; without slots nothing is told."""

    def __init__(self, make: Callable[[], Callable[[pa.Table], Awaitable[pa.Table]]], program: str) -> None:
        self._work, self._program = make(), program
        self._telling: asyncio.Task[None] | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Return what the work makes of a table."""
        if self._telling is None and isinstance(self._work, Loaded):  # ends with the process
            self._telling = asyncio.ensure_future(self._tell_load(self._work))
        return await self._work(batch)

    async def _tell_load(self, work: Loaded) -> None:
        from ray.util.metrics import Gauge

        gauges = {name: Gauge(name, description=text, tag_keys=TAG_KEYS) for name, text in SLOT_GAUGES.items()}
        while True:
            for name, value in slot_values(work.load).items():
                gauges[name].set(value, {"program": self._program})
            await asyncio.sleep(_TELL_SECONDS)


@dataclass(frozen=True)
class FinishedRows:
    """The last stage: what ``finish`` makes of a table, its rows counted by outcome and logged, failed ones louder."""

    program: str
    finish: Callable[[pa.Table], pa.Table] | None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the finished rows, order kept."""
        rows = batch if self.finish is None else self.finish(batch)
        for found in pc.value_counts(rows["status"]).to_pylist():
            count("soundguide_rows", found["counts"], program=self.program, outcome=found["values"])
        logged = [name for name in ("id", "status", "error", *_LOGGED) if name in rows.column_names]
        for row in rows.select(logged).to_pylist():
            _log(row)
        return rows


def _log(row: Row) -> None:
    good = row["status"] == "ok"
    told = "ok" if good else f"{row['error_kind']}: {row['error']}"
    extra = {"id": row["id"], "outcome": row["status"], **{name: row[name] for name in _LOGGED if name in row}}
    logging.getLogger(ROW_LOGGER).log(logging.INFO if good else logging.WARNING, "%s: %s", row["id"], told, extra=extra)
