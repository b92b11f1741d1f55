"""How a music run ended, counted file by file: whether each row has one result, and what the sheet says of them all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from soundguide.errors import OutputConflict
from soundguide.records import STATUSES
from soundguide.result_counts import Tally
from soundguide.run_folder import RunFolder
from soundguide.songs.rows import Indices, SongRows

_COLUMNS = ("id", "status", "error", "error_kind", "similarity_before", "similarity_after")
_GAIN_UNIT = 1e-3  # gains are counted in such steps, for all of them would not fit


@dataclass(slots=True)
class Overview:
    """Counts of all rows, in memory that does not grow with them but for a byte each."""

    tally: Tally = field(default_factory=Tally)
    gains: Counter[int] = field(default_factory=Counter)

    @property
    def counts(self) -> dict[str, int]:
        """Rows in all, and by status."""
        return {"rows": self.tally.num_rows, **{name: self.tally.statuses[name] for name in STATUSES}}

    @property
    def median_gain(self) -> float | None:
        """The median gain in similarity, to a thousandth; None where no row went well."""
        left = (self.gains.total() + 1) // 2
        for step in sorted(self.gains):
            left -= self.gains[step]
            if left <= 0:
                return step * _GAIN_UNIT
        return None


def reconcile_rows(folder: RunFolder, rows: SongRows) -> Overview:
    """Count the results of a run. Raises `OutputConflict` where a row has none, or two, or one is of no row."""
    overview, seen = Overview(), np.zeros(rows.num_rows, np.bool_)
    strange: list[str] = []
    for table in folder.scan_results(pa.schema([folder.schema.field(name) for name in _COLUMNS])):
        overview.tally.add_rows(table)
        _add_gains(overview.gains, table)
        places = rows.index(table["id"])
        bad = (places < 0) | _repeated(places, seen)
        if bad.any():
            strange += table["id"].filter(pa.array(bad)).to_pylist()
        seen[places[places >= 0]] = True
    missing = int(len(seen) - seen.sum())
    if missing or strange:
        shown = f", and {strange[0]!r} is there twice, or belongs to no row" if strange else ""
        raise OutputConflict(
            f"{folder.results_uri} has {overview.tally.num_rows} rows for the {rows.num_rows} of the run, of which "
            f"{missing} are missing{shown}: its files were changed, or two runs wrote at once. Give another output "
            "folder, or empty this one"
        )
    return overview


def _repeated(places: Indices, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which places were seen before, or come a second time."""
    first = np.zeros(len(places), np.bool_)
    first[np.unique(places, return_index=True)[1]] = True
    again: NDArray[np.bool_] = ~first | seen[np.maximum(places, 0)]
    return again


def _add_gains(gains: Counter[int], table: pa.Table) -> None:
    gained = pc.subtract(table["similarity_after"], table["similarity_before"]).to_numpy()
    steps, counts = np.unique(np.rint(gained[np.isfinite(gained)] / _GAIN_UNIT).astype(np.int64), return_counts=True)
    for step, count in zip(steps.tolist(), counts.tolist(), strict=True):
        gains[step] += count
