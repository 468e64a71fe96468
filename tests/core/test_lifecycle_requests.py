"""Tiers and runs over HTTP: as answers, as a page's stream and file, and as metrics."""

from __future__ import annotations

import asyncio
import csv
import io
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import ClientSession, web
from prometheus_client import generate_latest

from lifecycle.job_record import Did, State
from lifecycle.lifecycle_page import Lifecycle
from lifecycle.live_questions import LifecycleQuestion, parse
from lifecycle.run_view import RUNS_MAX
from lifecycle.tier_files import Group, groups_of
from schemas.errors import BadInputError
from streams import lifecycle_requests, metrics
from streams.lifecycle_requests import LifecycleRequests
from streams.live_boards import LiveBoards
from streams.live_views import LiveViews
from tests.core.lifecycle_histories import NOW_MS, Told, files_of, hot_of, known_of, run_of
from tests.core.live_lane import LiveLane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lifecycle.lifecycle_watch import LifecycleWatch

FILES = files_of(60, 2)


class Watch(Told):
    """What follows a ledger. held: until it is set, nobody is answered."""

    def __init__(self, known: Lifecycle) -> None:
        super().__init__(known)
        self.held = threading.Event()
        self.held.set()

    @property
    def now(self) -> Lifecycle:
        """Without a look."""
        return self.known

    def look(self, fresh_s: float) -> Lifecycle:
        """After it was let go."""
        self.held.wait(30)
        return super().look(fresh_s)

    def groups(self) -> list[Group]:
        """Of the same files."""
        return groups_of(FILES.files.values())


def some() -> Lifecycle:
    """A ledger of two partitions."""
    runs = [run_of(number) for number in range(50, 1, -1)] + [run_of(1, State.FAILED, "verify", error="damaged")]
    return known_of(FILES, hot_of(2), runs, partitions=2)


def serve(watch: Watch, scenario: Callable[[ClientSession, LifecycleRequests], Awaitable[None]]) -> None:
    """Run a scenario."""

    async def run() -> None:
        application, requests = web.Application(), LifecycleRequests(cast("LifecycleWatch", watch))
        requests.add_to(application)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with ClientSession(f"http://{host}:{port}") as client:
            await scenario(client, requests)
        requests.stop()
        await runner.cleanup()

    asyncio.run(run())


async def get(client: ClientSession, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON."""
    async with client.get(path) as answer:
        return answer.status, await answer.json()


def test_status_has_tiers_and_the_files_by_partition() -> None:
    """What the command says of the archive, and what is hot beside it."""

    async def scenario(client: ClientSession, _: LifecycleRequests) -> None:
        status, found = await get(client, "/lifecycle/status")
        assert status == 200
        assert {(row["tier"], row["store"]) for row in found["tiers"]} == {
            ("live", "hot"), ("recent", "hot"), ("historical", "archive"), ("deep", "archive"),
        }  # fmt: skip
        assert sum(group["files"] for group in found["archives"]) == found["commit"] == len(FILES.files)
        assert {group["partition"] for group in found["archives"]} == {0, 1}
        assert [row["job"] for row in found["jobs"]] == ["seal", "verify"]
        assert found["limits"]["leave_bits"] == 8.0
        assert (found["at_ms"], found["error"]) == (NOW_MS, None)
        assert (await get(client, "/lifecycle/status?last=3"))[0] == 400

    serve(Watch(some()), scenario)


def test_history_has_the_runs_that_began_last() -> None:
    """So many as are asked for, and whether there are more."""

    async def scenario(client: ClientSession, _: LifecycleRequests) -> None:
        status, found = await get(client, "/lifecycle/history")
        assert (status, len(found["runs"]), found["more"]) == (200, 20, True)
        assert (found["runs"][0]["job"], found["runs"][0]["error"]) == ("verify", "damaged")
        found = (await get(client, "/lifecycle/history?last=50"))[1]
        assert (len(found["runs"]), found["more"]) == (50, False)
        for wrong in ("last=0", f"last={RUNS_MAX + 1}", "last=x", "first=1", "last=1&last=2"):
            status, found = await get(client, f"/lifecycle/history?{wrong}")
            assert status == 400, wrong
            assert found["error"]

    serve(Watch(some()), scenario)


def test_nothing_known_yet_is_said() -> None:
    """With why, and when to ask again."""

    async def scenario(client: ClientSession, _: LifecycleRequests) -> None:
        for path in lifecycle_requests.PATHS:
            async with client.get(path) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
                assert "is not known yet: Kafka did not answer" in (await answer.json())["error"]

    serve(Watch(Lifecycle(error="Kafka did not answer")), scenario)


def test_metrics_wait_for_what_is_new_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away keeps no scrape waiting."""
    monkeypatch.setattr(lifecycle_requests, "METRICS_WAIT_S", 0.05)
    watch = Watch(some())

    async def scenario(_: ClientSession, requests: LifecycleRequests) -> None:
        assert (await requests.for_metrics()).commit == 60
        assert watch.looks == 1
        watch.held.clear()
        assert (await requests.for_metrics()).commit == 60
        assert watch.looks == 1
        watch.held.set()

    serve(watch, scenario)


def test_metrics_have_tiers_and_jobs() -> None:
    """Bytes, segments and age by tier; state, age and rows by job, which only grow."""
    known = some()
    for _ in range(2):
        metrics.show_lifecycle(known, NOW_MS)
    page = generate_latest(metrics.REGISTRY).decode().splitlines()
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in page if line[0] != "#"}
    daily = 'driftledger_tier_segments{grain="daily",store="archive",tier="historical"}'
    assert values[daily] == sum(file.grain == "daily" for file in FILES.files.values())
    assert values['driftledger_tier_segments{grain="hourly",store="hot",tier="recent"}'] == 2 * 167
    assert values['driftledger_tier_bytes{store="archive",tier="historical"}'] > 0
    assert values['driftledger_tier_oldest_seconds{store="hot",tier="recent"}'] > 6 * 86_400
    assert values['driftledger_job_last_state{job="verify",state="failed"}'] == 1
    assert values['driftledger_job_last_state{job="verify",state="done"}'] == 0
    assert values['driftledger_job_last_seconds{job="seal"}'] == 120
    assert 'driftledger_job_done_seconds{job="verify"}' not in values
    rows = values['driftledger_job_rows_total{job="seal"}']
    metrics.show_lifecycle(known_of(FILES, hot_of(2), [run_of(0, did=Did(rows=7))], partitions=2), NOW_MS)
    metrics.show_lifecycle(Lifecycle(), NOW_MS)
    page = generate_latest(metrics.REGISTRY).decode().splitlines()
    (line,) = (line for line in page if line.startswith('driftledger_job_rows_total{job="seal"}'))
    assert float(line.rsplit(" ", 1)[1]) == rows
    assert not any(line.startswith('driftledger_job_last_state{job="verify"') for line in page)


def test_a_page_is_told_the_same() -> None:
    """Facts always of the same names; and the file has all runs that are kept."""
    lane = LiveLane(2, LiveBoards())
    watch = Watch(Lifecycle(error="away"))
    views = LiveViews(LiveBoards(), lane.alerts, lane.owned, None, watch)
    nothing = views.view(LifecycleQuestion(), lane.status())
    assert (nothing.facts["error"], nothing.facts["tiers"], nothing.order) == ("away", None, ())
    watch.known = some()
    found = views.view(LifecycleQuestion(10), lane.status())
    assert found.facts.keys() == nothing.facts.keys()
    assert (len(found.order), found.facts["found"], found.facts["cut"]) == (10, 50, False)
    assert found.rows[found.order[0]]["state"] == "failed"
    lines = list(csv.DictReader(io.StringIO("".join(views.csv(LifecycleQuestion(), lane.status())))))
    assert [line["id"] for line in lines] == [heard.job.id for heard in some().runs]
    assert lines[0]["started_at"].endswith("Z")
    alone = LiveViews(LiveBoards(), lane.alerts, lane.owned)
    assert alone.view(LifecycleQuestion(), lane.status()).facts["error"] == "this worker does not follow it"


def test_its_parameters() -> None:
    """A limit, and nothing else."""
    assert parse("lifecycle", [("limit", "7")]) == LifecycleQuestion(7)
    with pytest.raises(BadInputError, match="unknown parameter 'sort'"):
        parse("lifecycle", [("sort", "x")])
