"""Streams and files of a page where something goes wrong: it is said, it passes, and costs nobody else his stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from streams import live_boards, live_requests
from streams.boards import make_board
from tests.core.test_live_requests import Server, serve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look more often than for people."""
    monkeypatch.setattr(live_requests, "APART_MS", 5)
    monkeypatch.setattr(live_requests, "LOOK_S", 0.05)
    monkeypatch.setattr(live_boards, "BOARD_MS", 0)


def _fields(lines: list[str]) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines)


def test_a_view_that_cannot_be_made_is_told_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream goes on, also where nothing has changed since."""
    monkeypatch.setattr(live_requests, "HEARTBEAT_S", 0.02)

    async def scenario(server: Server) -> None:
        server.tick("a", "b", count=3)
        async with server.stream("fleet") as stream:
            server.lane.show()
            before = await stream.until(lambda view: len(view.order) == 2)
            with monkeypatch.context() as patched:
                patched.setattr(server.requests._views, "view", lambda *_: 1 // 0)
                lines = await stream.block()
                while lines == [": here"]:
                    lines = await stream.block()
                assert _fields(lines)["event"] == "failed"
                assert "id" not in _fields(lines)
                assert json.loads(_fields(lines)["data"])["error"].startswith("ZeroDivisionError(")
                for _ in range(3):
                    assert await stream.block() == [": here"]
            assert await stream.next() == before
            assert not stream.said[-1]["whole"]
            async with server.stream("fleet", stream.last_id) as again:
                assert await again.block() == [": here"]

    serve(scenario)


def test_a_stream_that_cannot_begin_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else so many of them would be all there are."""
    monkeypatch.setattr(live_requests, "STREAMS_MAX", 1)

    def no_thread() -> None:
        raise RuntimeError("can't start new thread")

    async def scenario(server: Server) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(server.lane.alerts, "start", no_thread)
            for path in ("/live/alerts", "/csv/alerts"):
                async with server.client.get(path) as answer:
                    assert answer.status == 500
        async with server.stream("fleet") as stream:
            await stream.next()
            assert server.requests._users == 1

    serve(scenario)


def test_a_partition_without_a_board_is_told_in_every_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a file of the others alone is none."""

    def fail(partition: int, *rest: Any) -> Any:
        if partition == 1:
            raise IndexError("row 7")
        return make_board(partition, *rest)

    async def scenario(server: Server) -> None:
        server.tick("a", "b", count=3)
        server.tick("c", partition=1)
        async with server.stream("fleet") as stream, server.stream("status") as other:
            server.lane.show()
            view = await stream.until(lambda view: view.facts["missing"] and len(view.order) == 2)
            assert view.facts["missing"] == {"1": "IndexError('row 7')"}
            assert {row["partition"] for row in view.rows.values()} == {0}
            await other.until(lambda view: view.facts["missing"] == {"1": "IndexError('row 7')"})
            async with server.stream("source?source=c&partition=1") as one:
                assert "IndexError('row 7')" in (await one.next()).facts["error"]
            async with server.client.get("/csv/fleet") as answer:
                assert answer.status == 503
                assert "1 (IndexError('row 7'))" in (await answer.json())["error"]
            async with server.client.get("/csv/fleet?partition=0") as answer:
                assert answer.status == 200

    monkeypatch.setattr(live_boards, "make_board", fail)
    serve(scenario)


def test_a_file_of_some_of_the_sources_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lane has published nothing yet."""
    monkeypatch.setattr(live_requests, "_READY_S", 0.1)

    async def scenario(server: Server) -> None:
        server.tick("a")
        async with server.client.get("/csv/fleet") as answer:
            assert answer.status == 503
            assert "partitions are not known now: 0, 1. Ask again" in (await answer.json())["error"]

    serve(scenario)


def test_the_drift_log_tells_cause_and_estimate(tmp_path: Path) -> None:
    """Of each event, where they are known; in the file, too."""

    async def scenario(server: Server) -> None:
        server.tick("a", offset_us=7_000_000, count=8)
        async with server.stream("log") as stream:
            view = await stream.next()
            newest = view.rows[view.order[0]]
            assert newest["cause"] == "AHEAD"
            assert 0 < abs(newest["offset_ms"] - 7_000) <= newest["bound_ms"]
            assert view.rows[view.order[-1]]["cause"] == "AHEAD"
        async with server.client.get("/csv/log") as answer:
            names = (await answer.text()).partition("\r\n")[0].split(",")
            assert names[5:9] == ["severity", "cause", "offset_ms", "bound_ms"]

    serve(scenario, tmp_path / "lane-0")
