"""The most common errors of a job, as it tells them at its end."""

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

_NUM_ERRORS = 5


def add_common_errors(table: Table, rows: pa.Table) -> None:
    """Add a line for each of the most common kinds of error among `rows` (id, status, error, error_kind)."""
    failed = rows.filter(pc.equal(rows["status"], "error"))
    kinds = sorted(pc.value_counts(failed["error_kind"]).to_pylist(), key=lambda item: -item["counts"])
    for kind in kinds[:_NUM_ERRORS]:
        example = failed.filter(pc.equal(failed["error_kind"], kind["values"])).slice(0, 1).to_pylist()[0]
        told = f"{example['id']!r}: {example['error']:.160}"
        table.add_row(f"{kind['counts']:,} x {kind['values']}", told, style="yellow")
