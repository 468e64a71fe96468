"""Questions to a worker without a broker: what is told while stores are behind, closed, damaged or busy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest
from aiohttp import ClientError, ClientSession, web

from lifecycle import owned
from lifecycle.chunks import ChunkDamagedError, Column, StoreDamagedError
from lifecycle.hot_tier import HotTier, Place, Standing
from lifecycle.owned import NotHeldError, NotReadyError, OwnedLane, OwnedPartitions, RebuiltError, TooLongError
from lifecycle.planner import Aggregation, Question
from streams import query_requests
from streams.query_requests import QueryRequests
from tests.core.hot_rows import DictionaryStore, odd_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lifecycle.owned import Asker
    from schemas.errors import DriftledgerError


class _Store:
    """A dictionary as the hot store, in which a section may be damaged."""

    damaged = False

    def __init__(self, content: DictionaryStore) -> None:
        self._content, self.contents = content, content.contents
        self.headers, self.unsealed = content.headers, content.unsealed

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        """Cut where it is damaged."""
        content = self._content.section(partition, first_sequence, column)
        return content[:-1] if self.damaged else content

    def applied(self, _partition: int) -> None:
        """Nothing is asked of it."""


class _Tier:
    """A lane's hot tier, of which the test says how it stands."""

    def __init__(self, *partitions: int, unsealed: int = 10) -> None:
        self.store: _Store | None = _Store(
            DictionaryStore({p: odd_rows(p, 200, 3) for p in partitions}, chunk_rows=64, unsealed=unsealed)
        )
        self.standing = dict.fromkeys(partitions, Standing.LEVEL)
        self.told: list[Exception] = []
        self.readings = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[_Store | None]:
        """Damage that passes is noted."""
        self.readings += 1
        try:
            yield self.store
        except StoreDamagedError as error:
            self.told.append(error)
            raise
        finally:
            self.readings -= 1

    def unsealed(self, partition: int) -> Any:
        """Of the store."""
        return None if self.store is None else self.store.unsealed(partition)

    def places(self) -> dict[int, Place]:
        """As said."""
        return {p: Place(standing, 40, None) for p, standing in self.standing.items()}


def _lane(tier: _Tier | None, *partitions: int) -> OwnedLane:
    return OwnedLane(
        partitions, dict.fromkeys(partitions, 250), cast("HotTier | None", tier), "of a lane that is not open"
    )


def _count(asker: Asker) -> int:
    return int(asker.queries.aggregate(Question(), Aggregation()).count[0])


def test_all_lanes_are_one_store_and_stay_warm() -> None:
    """The same queries answer as long as the stores are the same; another store gets new ones."""
    tiers = _Tier(0, 2), _Tier(1)
    lanes = [_lane(tiers[0], 0, 2), _lane(tiers[1], 1)]
    partitions = OwnedPartitions(lambda: lanes)
    assert partitions.choose(None) == (0, 1, 2)
    together = sum(_count_of(tier) for tier in tiers)
    first = partitions.ask(lambda asker: (asker, _count(asker)))
    again = partitions.ask(lambda asker: (asker, _count(asker)))
    assert (first[1], again) == (together, first)
    tiers[1].store = _Tier(1).store
    assert partitions.ask(lambda asker: asker) is not first[0]
    lanes.pop()
    assert partitions.ask(_count) == _count_of(tiers[0])
    with pytest.raises(NotHeldError, match=r"partitions \[1\] are not held here, but \[0, 2\]"):
        partitions.choose([1, 2])


def _count_of(tier: _Tier) -> int:
    alone = OwnedPartitions(lambda: [_lane(tier, *tier.standing)])
    return alone.ask(_count)


def test_a_partition_that_is_not_level_is_never_left_out() -> None:
    """It is said how far it is; the others are answered by themselves."""
    tier = _Tier(0, 1)
    lanes = [_lane(tier, 0, 1, 3), _lane(None, 2)]
    partitions = OwnedPartitions(lambda: lanes)
    tier.standing[1] = Standing.BEHIND
    with pytest.raises(NotReadyError) as late:
        partitions.choose(None)
    assert str(late.value) == (
        "partition 1 is behind at index 40 of 250; partition 2 is of a lane that is not open at index 0 of 250; "
        "partition 3 is halted at index 0 of 250. Ask again in a moment, or for other partitions alone"
    )
    assert partitions.choose([0]) == (0,)

    def falls_back(asker: Asker) -> None:
        tier.standing[0] = Standing.UNAVAILABLE
        asker.unsealed(0)

    with pytest.raises(NotReadyError, match="partition 0 is unavailable"):
        partitions.ask(falls_back)
    with pytest.raises(NotReadyError, match=r"^this worker has no lane\. Ask again"):
        OwnedPartitions(list).choose(None)


def test_a_store_that_closes_ends_its_questions() -> None:
    """At the next read, so that whoever closes it does not wait for them; no read is left open."""
    tier = _Tier(0)
    partitions = OwnedPartitions(lambda: [_lane(tier, 0)])

    def closes(asker: Asker) -> int:
        tier.store = None
        return _count(asker)

    with pytest.raises(RebuiltError, match="was closed"):
        partitions.ask(closes)
    assert tier.readings == 0


def test_damage_is_told_to_the_tier_it_is_in() -> None:
    """And to nobody else; the caller is told to ask again."""
    tiers = _Tier(0), _Tier(1)
    partitions = OwnedPartitions(lambda: [_lane(tiers[0], 0), _lane(tiers[1], 1)])
    assert tiers[1].store is not None
    tiers[1].store.damaged = True
    with pytest.raises(RebuiltError, match=r"is damaged.*Ask again"):
        partitions.ask(lambda asker: asker.queries.aggregate(Question(), Aggregation(), statistics=False))
    assert [len(tier.told) for tier in tiers] == [0, 1]
    assert isinstance(tiers[1].told[0], ChunkDamagedError)


def test_a_question_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for the caller to ask for less."""
    monkeypatch.setattr(owned, "ASK_S", -1.0)
    with pytest.raises(TooLongError, match="Ask for a shorter range"):
        OwnedPartitions(lambda: [_lane(_Tier(0), 0)]).ask(_count)


# ---------------------------------------------------------------------------------------------------------------- HTTP


def _serve(lanes: list[OwnedLane], scenario: Callable[[ClientSession], Awaitable[None]]) -> None:
    """Run a scenario against a server of these lanes."""

    async def run() -> None:
        requests = QueryRequests(lambda: lanes)
        application = web.Application()
        requests.add_to(application)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with ClientSession(f"http://{host}:{port}") as session:
            await scenario(session)
        requests.stop()
        await runner.cleanup()

    asyncio.run(run())


def test_a_flag_that_is_given_twice_is_refused() -> None:
    """As any other parameter that may be given once."""

    async def scenario(session: ClientSession) -> None:
        async with session.get("/aggregate?explain=0&explain=1") as answer:
            assert (answer.status, await answer.json()) == (400, {"error": "explain is given 2 times. Give it once"})

    _serve([_lane(_Tier(0), 0)], scenario)


def test_who_asks_too_early_is_told_when_to_ask_again() -> None:
    """503 and Retry-After; /hot says how far it is."""
    tier = _Tier(0)
    tier.standing[0] = Standing.BEHIND

    async def scenario(session: ClientSession) -> None:
        async with session.get("/aggregate") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "partition 0 is behind at index 40 of 250" in (await answer.json())["error"]
        async with session.get("/hot") as answer:
            assert (await answer.json())["partitions"] == [
                {"partition": 0, "standing": "behind", "reached": 40, "head": 250, "error": None}
            ]

    _serve([_lane(tier, 0)], scenario)


def test_the_drift_log_is_told_in_pages_of_a_partition() -> None:
    """As JSON lines, each page from where the one before ended; of a partition that is not level none."""
    tier = _Tier(0, 1)
    tier.standing[1] = Standing.BEHIND

    async def scenario(session: ClientSession) -> None:
        ids: list[int] = []
        after, more = 0, True
        while more:
            async with session.get(f"/drift/log?partition=0&limit=40&explain=1&after={after}") as answer:
                *rows, ending = [orjson.loads(line) for line in (await answer.read()).splitlines()]
            ids += [row["index"] for row in rows]
            assert len(rows) <= 40
            after, more = ending["explain"]["reached"], ending["more"]
        content = tier.store.contents[0].rows if tier.store is not None else None
        assert content is not None
        assert ids == content.index[content.fault == 0].tolist()
        for path, status in (("log?partition=1", 503), ("log?partition=7", 404), ("warnings?limit=0&partition=0", 400)):
            assert await _status(session, f"/drift/{path}") == status

    _serve([_lane(tier, 0, 1)], scenario)


class _Slow(_Tier):
    """Says when it is asked, and answers when it is told to."""

    def __init__(self, entered: threading.Event, go_on: threading.Event) -> None:
        super().__init__(0)
        self._entered, self._go_on = entered, go_on

    def unsealed(self, partition: int) -> Any:
        """Late."""
        self._entered.set()
        self._go_on.wait(10)
        return super().unsealed(partition)


def test_more_questions_than_places_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing piles up."""
    monkeypatch.setattr(query_requests, "ANSWERS_MAX", 1)
    entered, go_on = threading.Event(), threading.Event()

    async def scenario(session: ClientSession) -> None:
        waiting = asyncio.create_task(_status(session, "/aggregate"))
        await asyncio.to_thread(entered.wait, 10)
        assert await _status(session, "/aggregate") == 503
        go_on.set()
        assert await waiting == 200

    _serve([_lane(_Slow(entered, go_on), 0)], scenario)


def test_how_partitions_stand_is_told_while_questions_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are threads: who wants to know whom to ask does not wait for their answers."""
    monkeypatch.setattr(query_requests, "ASKERS_MAX", 1)
    entered, go_on = threading.Event(), threading.Event()

    async def scenario(session: ClientSession) -> None:
        waiting = asyncio.create_task(_status(session, "/aggregate"))
        await asyncio.to_thread(entered.wait, 10)
        try:
            async with asyncio.timeout(5):
                assert await _status(session, "/hot") == 200
        finally:
            go_on.set()
        assert await waiting == 200

    _serve([_lane(_Slow(entered, go_on), 0)], scenario)


async def _status(session: ClientSession, path: str) -> int:
    async with session.get(path) as answer:
        await answer.read()
        return answer.status


def test_who_hangs_up_before_the_answer_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged, and the next one is answered."""
    entered, go_on = threading.Event(), threading.Event()

    async def scenario(session: ClientSession) -> None:
        url = session._base_url
        assert url is not None
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /range HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.to_thread(entered.wait, 10)
        writer.transport.abort()
        await _status(session, "/hot")  # by then the server has seen it
        go_on.set()
        assert await _status(session, "/aggregate") == 200

    _serve([_lane(_Slow(entered, go_on), 0)], scenario)
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]


def test_an_answer_that_cannot_go_on_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first part is sent; then the store is gone, and the connection is broken off."""
    monkeypatch.setattr("lifecycle.answers.PART_ROWS", 50)
    tier = _Tier(0)
    whole = OwnedPartitions.ask

    def once(self: OwnedPartitions, question: Any) -> Any:
        found = whole(self, question)
        tier.store = None
        return found

    monkeypatch.setattr(OwnedPartitions, "ask", once)

    async def scenario(session: ClientSession) -> None:
        with pytest.raises(ClientError):
            await _status(session, "/range?limit=1000")

    _serve([_lane(tier, 0)], scenario)


def test_errors_have_a_remedy() -> None:
    """Each says what to do."""
    progress = owned.Progress(1, "behind", 3, 9, "the disk is full")
    errors: list[DriftledgerError] = [NotReadyError([progress]), RebuiltError("x. Ask again"), TooLongError("y. Ask")]
    assert all("Ask" in str(error) for error in errors)
    assert "(the disk is full)" in str(errors[0])
