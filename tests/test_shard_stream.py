"""The stream of prepared clips: shares that never overlap, orders that can be made again, and no clip twice."""

import pytest
from prepared_clips import write_prepared

from soundguide.clips.splits import TRAIN, VALIDATION
from soundguide.config import ManipulatorConfig
from soundguide.pretraining.prepared_set import PreparedSet, read_prepared_set
from soundguide.pretraining.shard_stream import ShardStream


@pytest.fixture(scope="module")
def clips(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return read_prepared_set(write_prepared(tmp_path_factory.mktemp("prepared"), tiny_models))


def ids(stream: ShardStream, size: int, **how: int | None) -> list[list[str]]:
    return [table["id"].to_pylist() for table in stream.tables(size, **how)]  # type: ignore[arg-type]


def flat(tables: list[list[str]]) -> list[str]:
    return [id for table in tables for id in table]


def test_workers_share_the_good_clips_of_their_split_equally(clips: PreparedSet) -> None:
    stream = clips.stream(TRAIN, seed=0)
    shares = [flat(ids(stream, 4, epoch=2, rank=rank, world=3, shuffle=10)) for rank in range(3)]
    assert [len(share) for share in shares] == [16] * 3  # of 50 clips, two wait for another epoch
    assert len(set(flat(shares))) == 48 and "bad" not in flat(shares)
    others = clips.stream(VALIDATION, seed=0)
    assert not set(flat(shares)) & set(flat(ids(others, 4, epoch=0)))


def test_every_epoch_has_its_own_order_which_can_be_made_again(clips: PreparedSet) -> None:
    stream = clips.stream(TRAIN, seed=0)
    first, again = (ids(stream, 8, epoch=1, shuffle=20) for _ in range(2))
    assert first == again and first != ids(stream, 8, epoch=3, shuffle=20)
    assert first != ids(clips.stream(TRAIN, seed=1), 8, epoch=1, shuffle=20)
    assert ids(stream, 8, epoch=1, shuffle=20, skip=2) == first[2:]


def test_clips_far_apart_in_the_shards_meet_in_a_batch(clips: PreparedSet) -> None:
    stream = clips.stream(TRAIN, seed=0)
    in_order = flat(ids(stream, 50, epoch=0))
    mixed = flat(ids(stream, 50, epoch=0, shuffle=50))
    assert sorted(mixed) == sorted(in_order)
    places = [abs(in_order.index(id) - place) for place, id in enumerate(mixed)]
    assert sum(places) / len(places) > 8  # 50 / 3 where all is chance


def test_only_validation_keeps_a_rest_that_fills_no_batch(clips: PreparedSet) -> None:
    assert [len(table) for table in ids(clips.stream(VALIDATION, seed=0), 6, epoch=0)] == [6, 6, 4]
    assert [len(table) for table in ids(clips.stream(TRAIN, seed=0), 16, epoch=0, shuffle=0)] == [16] * 3


def test_a_split_without_clips_is_an_empty_stream(clips: PreparedSet) -> None:
    assert ids(clips.stream("test", seed=0), 4, epoch=0) == []
