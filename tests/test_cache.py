"""Results by content hash: computed once for all who ask, bounded, and never kept waiting by who left."""

import asyncio

import pytest

from soundguide.cache import ContentCache


class Work:
    """Something costly that waits for ``go``, counting its starts and endings."""

    def __init__(self, value: str = "value") -> None:
        self.value, self.go = value, asyncio.Event()
        self.num_started = self.num_cancelled = 0

    async def __call__(self) -> str:
        self.num_started += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        return self.value


def make(max_bytes: int = 1000) -> ContentCache[str]:
    return ContentCache(max_bytes=max_bytes, size_of=len)


async def quick(value: str) -> str:
    return value


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_second_ask_is_answered_from_memory() -> None:
    async def main() -> None:
        cache = make()
        assert [await cache.get("a", lambda: quick("first")), await cache.get("a", lambda: quick("second"))] == [
            "first",
            "first",
        ]
        assert cache.num_computed == 1

    asyncio.run(main())


def test_those_who_ask_at_once_wait_for_one_computation() -> None:
    async def main() -> None:
        cache, work = make(), Work()
        asks = [asyncio.ensure_future(cache.get("a", work)) for _ in range(5)]
        await settle()
        work.go.set()
        assert await asyncio.gather(*asks) == ["value"] * 5
        assert (work.num_started, cache.num_computed) == (1, 1)

    asyncio.run(main())


def test_failure_is_told_to_all_and_not_kept() -> None:
    async def fail() -> str:
        raise ValueError("broken")

    async def main() -> None:
        cache = make()
        answers = await asyncio.gather(*(cache.get("a", fail) for _ in range(3)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["broken"] * 3
        assert await cache.get("a", lambda: quick("mended")) == "mended"
        assert cache.num_computed == 1

    asyncio.run(main())


def test_who_leaves_does_not_take_the_work_from_the_others() -> None:
    async def main() -> None:
        cache, work = make(), Work()
        first, second = (asyncio.ensure_future(cache.get("a", work)) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        work.go.set()
        assert await second == "value"
        assert (work.num_started, work.num_cancelled) == (1, 0)

    asyncio.run(main())


def test_work_ends_when_the_last_who_waits_has_left() -> None:
    async def main() -> None:
        cache, work = make(), Work()
        asks = [asyncio.ensure_future(cache.get("a", work)) for _ in range(2)]
        await settle()
        for ask in asks:
            ask.cancel()
        await settle()
        assert work.num_cancelled == 1
        assert cache.num_computed == 0

    asyncio.run(main())


def test_who_asks_just_after_the_last_left_gets_work_of_his_own() -> None:
    async def main() -> None:
        cache, work = make(), Work()
        leaving = asyncio.ensure_future(cache.get("a", work))
        await settle()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert await cache.get("a", lambda: quick("new")) == "new"

    asyncio.run(main())


def test_least_recently_used_is_forgotten_beyond_the_bound() -> None:
    async def main() -> None:
        cache = make(max_bytes=8)
        for key in ("a", "b"):
            await cache.get(key, lambda key=key: quick(key * 4))
        await cache.get("a", lambda: quick("not asked"))
        await cache.get("c", lambda: quick("cccc"))  # one too many: b was used least recently
        assert await cache.get("a", lambda: quick("again")) == "aaaa"
        assert await cache.get("b", lambda: quick("again")) == "again"

    asyncio.run(main())


def test_next_event_loop_finds_what_the_last_one_left() -> None:
    cache = make()

    async def abandon() -> None:
        await cache.get("kept", lambda: quick("kept"))
        asyncio.ensure_future(cache.get("abandoned", Work()))  # the end of the loop cancels it
        await settle()

    async def ask() -> list[str]:
        return [await cache.get(key, lambda: quick("new")) for key in ("kept", "abandoned")]

    asyncio.run(abandon())
    assert asyncio.run(asyncio.wait_for(ask(), 60)) == ["kept", "new"]


def test_value_larger_than_the_bound_is_still_answered() -> None:
    cache = make(max_bytes=2)
    assert asyncio.run(cache.get("a", lambda: quick("long value"))) == "long value"


def test_cancelling_a_waiter_raises_in_the_waiter() -> None:
    async def main() -> None:
        ask = asyncio.ensure_future(make().get("a", Work()))
        await settle()
        ask.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ask

    asyncio.run(main())
