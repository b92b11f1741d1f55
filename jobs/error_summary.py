"""How many rows a job has, and how they ended, as it tells."""

import pyarrow as pa
from rich.table import Table

from soundguide.cli.console import add_errors
from soundguide.result_counts import Tally
from soundguide.run_folder import Facts


def counted(number: int, thing: str) -> str:
    """Return so many things in words: ``1 row``, ``2,000 rows``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def add_counts(table: Table, name: str, summary: Facts) -> None:
    """Add a line with the counts of a summary, the quarantined ones only where there are any."""
    counts = f"{summary['rows']:,}: {summary['ok']:,} ok, {summary['error']:,} with errors"
    if summary["quarantined"]:
        counts += f", {summary['quarantined']:,} quarantined"
    table.add_row(name, counts)


def add_errors_of(table: Table, rows: pa.Table) -> None:
    """Add the most common errors among `rows` (id, status, error, error_kind), as `add_errors`."""
    tally = Tally()
    tally.add_rows(rows)
    add_errors(table, tally.errors)
