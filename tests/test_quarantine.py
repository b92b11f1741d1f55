"""Rows that kill their process, found by the marks of deaths: without Ray, deaths are marks that were left."""

import asyncio
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pytest

from soundguide.errors import Quarantined
from soundguide.quarantine import MAX_DEATHS, Attempts, GuardedActor, GuardedStage
from soundguide.storage import Storage

LEFT: list[AbstractContextManager[None]] = []


class Died(BaseException):
    """In place of a death: it takes no mark away."""


def table(*ids: str) -> pa.Table:
    return pa.table({"id": list(ids), "said": [""] * len(ids)})


def say(batch: pa.Table, word: str) -> pa.Table:
    return batch.set_column(1, "said", pa.array([word] * batch.num_rows))


def refuse(batch: pa.Table, error: Quarantined) -> pa.Table:
    assert batch.num_rows == 1
    return say(batch, "refused")


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(str(tmp_path / "attempts"), Storage())


def leave_mark(attempts: Attempts, ids: list[str]) -> None:
    """Leave what a process leaves that died at these rows."""
    deaths = attempts.deaths(ids)
    context = attempts.marked(ids, deaths)
    context.__enter__()
    LEFT.append(context)  # never out again: collected, it would take the mark away


def rows(tables: list[pa.Table]) -> dict[str, str]:
    pairs = [(row["id"], row["said"]) for part in tables for row in part.to_pylist()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_without_a_death_a_table_is_worked_on_whole_and_leaves_no_mark(attempts: Attempts) -> None:
    sizes = []

    def work(batch: pa.Table):  # type: ignore[no-untyped-def]
        sizes.append(batch.num_rows)
        yield say(batch, "done")

    assert rows(list(GuardedStage(work, refuse, attempts)(table("a", "b")))) == {"a": "done", "b": "done"}
    assert sizes == [2] and attempts.storage.list(attempts.uri) == ()


def test_an_error_of_the_program_is_no_death(attempts: Attempts) -> None:
    def work(batch: pa.Table):  # type: ignore[no-untyped-def]
        yield say(batch, "done")
        raise OSError("the disk is full")

    with pytest.raises(OSError):
        list(GuardedStage(work, refuse, attempts)(table("a")))
    assert attempts.deaths(["a"]) == 0


@pytest.mark.parametrize("ids", [("a", "poison", "b"), ("poison",)])
def test_exactly_the_guilty_row_of_a_stage_is_refused(attempts: Attempts, ids: tuple[str, ...]) -> None:
    died_alone = 0
    leave_mark(attempts, list(ids))  # the first death, with all rows at work
    while True:
        alone: list[str] = []

        def work(batch: pa.Table, seen: list[str] = alone):  # type: ignore[no-untyped-def]
            assert batch.num_rows == 1
            seen.append(batch["id"][0].as_py())
            if seen[-1] == "poison":
                raise Died
            yield say(batch, "done")

        stage = GuardedStage(work, refuse, attempts)
        try:
            found = rows(list(stage(table(*ids))))
            break
        except Died:  # a real one would have left both marks
            died_alone += 1
            leave_mark(attempts, list(ids))
            for _ in range(died_alone):
                leave_mark(attempts, ["alone", "poison"])
    assert died_alone == MAX_DEATHS
    assert found == {id: "refused" if id == "poison" else "done" for id in ids}


def test_a_suspect_has_the_process_to_itself(attempts: Attempts) -> None:
    inside: set[str] = set()
    together: list[set[str]] = []

    async def work(batch: pa.Table) -> pa.Table:
        inside.update(batch["id"].to_pylist())
        await asyncio.sleep(0.01)
        together.append(set(inside))
        inside.difference_update(batch["id"].to_pylist())
        return say(batch, "done")

    async def run() -> list[pa.Table]:
        actor = GuardedActor(lambda: work, refuse, attempts, num_calls=3)
        tables = [table("a", "b"), table("c", "d"), table("e", "f"), table("s", "t"), table("g", "h")]
        return list(await asyncio.gather(*(actor(each) for each in tables)))

    leave_mark(attempts, ["s", "t"])
    for _ in range(MAX_DEATHS):
        leave_mark(attempts, ["alone", "t"])
    found = asyncio.run(run())
    assert [part["id"].to_pylist() for part in found] == [["a", "b"], ["c", "d"], ["e", "f"], ["s", "t"], ["g", "h"]]
    assert rows(found)["t"] == "refused" and rows(found)["s"] == "done"
    assert {"s"} in together and all(group == {"s"} for group in together if "s" in group)
    assert max(len(group) for group in together) > 2  # the others work side by side


def test_marks_of_an_earlier_run_are_cleared(attempts: Attempts) -> None:
    leave_mark(attempts, ["a", "b"])
    assert attempts.deaths(["a", "b"]) == 1 and attempts.deaths(["a"]) == 0
    attempts.clear()
    assert attempts.deaths(["a", "b"]) == 0
