"""How the rows of a job ended, as it tells at its end."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from soundguide.result_counts import ErrorKind
from soundguide.run_folder import Facts

_NUM_ERRORS = 5


def add_counts(table: Table, name: str, summary: Facts) -> None:
    """Add a line with the counts of a summary, the quarantined ones only where there are any."""
    counts = f"{summary['rows']:,}: {summary['ok']:,} ok, {summary['error']:,} with errors"
    if summary["quarantined"]:
        counts += f", {summary['quarantined']:,} quarantined"
    table.add_row(name, counts)


def add_common_errors(table: Table, rows: pa.Table) -> None:
    """Add a line for each of the most common kinds of error among `rows` (id, status, error, error_kind)."""
    failed = rows.filter(pc.not_equal(rows["status"], "ok"))
    kinds = sorted(pc.value_counts(failed["error_kind"]).to_pylist(), key=lambda item: -item["counts"])
    for kind in kinds[:_NUM_ERRORS]:
        example = failed.filter(pc.equal(failed["error_kind"], kind["values"])).slice(0, 1).to_pylist()[0]
        _add_error(table, kind["values"], kind["counts"], example["id"], example["error"])


def add_error_kinds(table: Table, kinds: Sequence[ErrorKind]) -> None:
    """Add a line for each of the most common kinds of error, which come first."""
    for kind in kinds[:_NUM_ERRORS]:
        _add_error(table, kind.kind, kind.count, kind.example_id, kind.example)


def _add_error(table: Table, kind: str, count: int, id: str, error: str) -> None:
    table.add_row(f"{count:,} x {kind}", f"{id!r}: {error:.160}", style="yellow")
