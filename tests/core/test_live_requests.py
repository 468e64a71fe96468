"""Streams and files over real HTTP: what changes, where one goes on, and what is too many."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientPayloadError, ClientSession, web

from lifecycle import drift_rows
from schemas.errors import UnreachableError
from streams import alert_shelf, live_log, live_requests
from streams.live_boards import LiveBoards
from streams.live_requests import LiveRequests
from streams.live_view import View, applied
from streams.live_views import LiveViews
from tests.core.judge_oracle import START_MS, control
from tests.core.live_lane import LiveLane, Sent
from tests.core.test_alert_shelf import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path


#: Of a socket: what a reader leaves there is soon too much for it.
_SOCKET_BYTES = 32 * 1024
#: Until what does not come is given up: longer than it takes a machine that has much to do.
_GIVEN_UP_S = 120


class Server:
    """A lane and its page's streams, over HTTP."""

    def __init__(self, folder: Path | None = None) -> None:
        self.boards = LiveBoards()
        self.lane = LiveLane(2, self.boards, folder)
        views = LiveViews(self.boards, self.lane.alerts, self.lane.owned)
        self.requests = LiveRequests(views, self.boards, self.lane.alerts, self.lane.status)
        self.client: ClientSession
        self.at_ms = START_MS

    def tick(self, *sources: str, offset_us: int = 0, count: int = 1, partition: int = 0) -> None:
        """So many events of each source, a second apart; on the loop: nothing else is under way then."""
        for _ in range(count):
            self.at_ms += 1_000
            self.lane.send(partition, [Sent(source, offset_us, self.at_ms) for source in sources])

    @asynccontextmanager
    async def stream(self, path: str, last_id: str | None = None) -> AsyncIterator[Stream]:
        """An open one."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        async with self.client.get(f"/live/{path}", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            yield Stream(answer.content)


class Stream:
    """What a browser has of it."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self.view: View | None = None
        self.last_id = ""
        self.said: list[dict[str, Any]] = []
        self.comments = 0

    async def block(self) -> list[str]:
        """The lines up to an empty one."""
        lines = []
        async with asyncio.timeout(_GIVEN_UP_S):
            while (line := (await self._content.readline()).decode()) not in ("\n", ""):
                lines.append(line.rstrip("\n"))
        return lines

    async def next(self) -> View:
        """After the next event."""
        while True:
            lines = await self.block()
            assert lines, "the stream ended"
            if lines[0].startswith(":"):
                self.comments += 1
                continue
            fields = dict(line.split(": ", 1) for line in lines)
            self.last_id = fields["id"]
            self.said.append(json.loads(fields["data"]))
            self.view = applied(self.view, self.said[-1])
            return self.view

    async def until(self, wanted: Callable[[View], object]) -> View:
        """After the event from which on it is so."""
        view = await self.next()
        while not wanted(view):
            view = await self.next()
        return view


def serve(scenario: Callable[[Server], Awaitable[None]], folder: Path | None = None) -> Server:
    """Run a scenario."""
    server = Server(folder)

    async def run() -> None:
        application = web.Application()
        server.requests.add_to(application)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)  # of what is accepted, too
        await web.SockSite(runner, listening).start()
        host, port = runner.addresses[0][:2]
        async with ClientSession(f"http://{host}:{port}") as server.client:
            await scenario(server)
        server.requests.stop()
        await runner.cleanup()

    try:
        asyncio.run(run())
    finally:
        server.lane.close()
    return server


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look more often than for people."""
    monkeypatch.setattr(live_requests, "APART_MS", 5)
    monkeypatch.setattr(live_requests, "LOOK_S", 0.05)
    monkeypatch.setattr(live_requests, "_READY_S", _GIVEN_UP_S)
    monkeypatch.setattr("streams.live_boards.BOARD_MS", 0)


def test_a_fleet_is_told_whole_and_then_what_changed() -> None:
    """A source that jumps ahead rises to the top, and no row that stayed is sent again."""

    async def scenario(server: Server) -> None:
        server.tick("a", "b", "c", count=8)
        async with server.stream("fleet?sort=source&desc=0") as stream:
            server.lane.show()
            view = await stream.until(lambda view: len(view.order) == 3)
            assert [view.rows[key]["source"] for key in view.order] == ["a", "b", "c"]
            server.tick("b", offset_us=60_000_000, count=8)
            view = await stream.until(lambda view: view.rows[view.order[1]]["state"] == "RED")
            assert view.rows[view.order[1]]["cause"] in ("AHEAD", "STEP")
            assert view.facts["severities"] == {"GREEN": 2, "YELLOW": 0, "RED": 1}
            assert not any(said["whole"] for said in stream.said[1:])
            assert "source" not in stream.said[-1]["rows"].get(view.order[1], {})

    serve(scenario)


def test_who_comes_back_goes_on_where_he_was() -> None:
    """With what changed since; who comes back with an id that nobody knows begins anew."""

    async def scenario(server: Server) -> None:
        server.tick("a", "b", count=3)
        async with server.stream("fleet") as stream:
            server.lane.show()
            view = await stream.until(lambda view: len(view.order) == 2)
        server.tick("b", count=2)
        async with server.stream("fleet", stream.last_id) as again:
            again.view = view
            found = await again.next()
            assert not again.said[0]["whole"]
            key = next(key for key in found.order if found.rows[key]["source"] == "b")
            assert found.rows[key]["samples"] == 5
            assert list(again.said[0]["rows"]) != [] or again.said[0]["facts"]
        for other in ("fleet?search=a", "fleet"):
            last_id = stream.last_id if other != "fleet" else "0.1.1"
            async with server.stream(other, last_id) as anew:
                await anew.next()
                assert anew.said[0]["whole"]
        for odd in ("", "x", "1.2", f"{stream.last_id}.9", stream.last_id.replace(".", "-"), "\u00e4.1.1"):
            async with server.stream("fleet", odd) as anew:
                await anew.next()
                assert anew.said[0]["whole"], odd

    serve(scenario)


def test_a_source_is_told_in_words_with_its_events() -> None:
    """From when it is looked at; one that is not known is said to be not."""

    async def scenario(server: Server) -> None:
        server.tick("pump 7", "other", count=8)
        async with server.stream("source?source=pump%207&partition=0") as stream:
            server.lane.show()
            await stream.until(lambda view: view.facts["words"])
            server.tick("pump 7", offset_us=250_000, count=3)
            view = await stream.until(lambda view: len(view.order) == 3)
            assert view.facts["words"].startswith("pump 7 is ")
            assert view.facts["clock"]["source"] == "pump 7"
            assert {row["delta_ms"] for row in view.rows.values()} == {250}
        async with server.stream("source?source=nobody&partition=1") as stream:
            view = await stream.until(lambda view: view.facts["at_ms"] is not None)
            assert view.facts["error"] == "Nothing is known of this source: judge does not know it."
            assert view.facts["words"] is None
        async with server.stream("source?source=nobody&partition=9") as stream:
            assert "its partition is not served here" in (await stream.next()).facts["error"]

    serve(scenario)


def test_alerts_open_and_close_on_the_page() -> None:
    """From the records of the topic."""

    async def scenario(server: Server) -> None:
        async with server.stream("alerts") as stream:
            await stream.next()
            server.tick("fast", offset_us=9_000_000, count=8)
            view = await stream.until(lambda view: view.facts["open"] == 1)
            assert view.facts["loaded"]
            assert view.rows[view.order[0]]["text"].startswith("fast is ")

    assert serve(scenario).lane.alerts.started == 1


def test_the_drift_log_is_the_newest_entries_of_the_hot_tier(tmp_path: Path) -> None:
    """Of all partitions in order, the newest first; of one source where that is asked for."""

    async def scenario(server: Server) -> None:
        server.tick("a", "b", count=3)
        server.tick("c", partition=1, offset_us=-2_000_000)
        async with server.stream("log?limit=5") as stream:
            view = await stream.next()
            assert [view.rows[key]["source"] for key in view.order] == ["c", "b", "a", "b", "a"]
            newest = view.rows[view.order[0]]
            assert (newest["drift_delta_ms"], newest["severity"], len(newest["phase_lock_hash"])) == (
                -2_000,
                "YELLOW",
                64,
            )
            server.tick("a")
            view = await stream.next()
            assert view.rows[view.order[0]]["source"] == "a"
        async with server.stream("log?source=b") as stream:
            view = await stream.next()
            assert {row["source"] for row in view.rows.values()} == {"b"}

    serve(scenario, tmp_path / "lane-0")


def test_a_source_that_is_silent_for_long_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind more chunks than a page looks into; or it is said how far that was."""
    monkeypatch.setattr(drift_rows, "CHUNKS_MAX", 3)
    monkeypatch.setattr(live_log, "VIEW_MS", _GIVEN_UP_S * 1_000)
    chunks, apart_ms = 20, 3_600_000

    async def scenario(server: Server) -> None:
        server.tick("silent", count=2)
        for number in range(chunks):
            at_ms = START_MS + (number + 1) * apart_ms
            server.lane.take(0, [control("Anchor", at_ms, source="a", anchor_timestamp=None)])
            server.lane.send(0, [Sent("busy", 0, at_ms)])
        async with server.stream("log?source=silent") as stream:
            view = await stream.next()
            assert [view.rows[key]["index"] for key in view.order] == [2, 1]
            assert view.facts["stopped"] == {}
        monkeypatch.setattr(live_log, "VIEW_MS", 0)
        async with server.stream("log?source=silent") as stream:
            view = await stream.next()
            assert view.order == ()
            (stopped,) = view.facts["stopped"].items()
            assert stopped[0] == "0"
            assert 2 < stopped[1] < 2 + 2 * chunks
        async with server.stream("log?limit=2") as stream:
            view = await stream.next()
            assert (len(view.order), view.facts["stopped"]) == (2, {})

    serve(scenario, tmp_path / "lane-0")


def test_a_log_that_is_not_kept_says_so() -> None:
    """Rather than to show nothing."""

    async def scenario(server: Server) -> None:
        async with server.stream("log") as stream:
            assert "kept nowhere" in (await stream.next()).facts["error"]

    serve(scenario)


def test_partitions_are_told_as_the_worker_tells_them() -> None:
    """With a row each."""

    async def scenario(server: Server) -> None:
        async with server.stream("status") as stream:
            view = await stream.next()
            assert view.order == ("0", "1")
            server.tick("a", count=4)
            view = await stream.until(lambda view: view.rows["0"]["sequence"] == 4)
            assert view.facts["healthy"]

    serve(scenario)


def test_something_comes_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a page knows that it is up to date."""
    monkeypatch.setattr(live_requests, "HEARTBEAT_S", 0.02)

    async def scenario(server: Server) -> None:
        async with server.stream("fleet") as stream:
            await stream.next()
            for _ in range(3):
                assert await stream.block() == [": here"]

    serve(scenario)


def test_streams_are_bounded_and_a_wrong_question_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """503, 400 and 404, as everywhere."""
    monkeypatch.setattr(live_requests, "STREAMS_MAX", 1)

    async def scenario(server: Server) -> None:
        async def status(path: str) -> tuple[int, str]:
            async with server.client.get(path) as answer:
                return answer.status, (await answer.json())["error"]

        assert (await status("/live/fleet?sort=x"))[0] == 400
        assert (await status("/live/elsewhere"))[0] == 404
        assert (await status("/csv/fleet?sort=x"))[0] == 400
        assert (await status("/csv/elsewhere"))[0] == 404
        async with server.stream("fleet") as stream:
            await stream.next()
            assert await status("/live/fleet") == (503, "1 streams are open already. Close a page of this worker")

    serve(scenario)


def test_nobody_is_watched_when_the_last_page_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, for it may come back."""
    monkeypatch.setattr(live_requests, "LINGER_S", 0.05)
    monkeypatch.setattr(live_requests, "HEARTBEAT_S", 0.01)

    async def scenario(server: Server) -> None:
        server.tick("a")
        async with server.stream("alerts") as stream:
            server.lane.show()
            await stream.until(lambda view: view.facts["at_ms"] is not None)
            assert server.boards.watched
        async with asyncio.timeout(_GIVEN_UP_S):
            while server.boards.watched:  # noqa: ASYNC110 - a timer ends it
                await asyncio.sleep(0.01)
        assert server.lane.alerts.now == (None, None)
        assert server.boards.boards() == {}
        async with server.stream("fleet") as stream:  # what was shown an hour ago is not shown again
            assert (await stream.next()).facts["at_ms"] is None

    serve(scenario)


def test_a_reader_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And gets the newest view before that, never a backlog."""
    monkeypatch.setattr(live_requests, "WRITE_TIMEOUT_S", 0.2)
    names = [f"source-{number:03d}-{'x' * 200}" for number in range(200)]

    async def scenario(server: Server) -> None:
        server.tick(*names)
        url = server.client._base_url
        assert url is not None
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
            reader.connect((url.host, url.port))
            reader.sendall(b"GET /live/fleet HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await _given_up(server, names)
        assert len(next(iter(server.requests._ended.values())).sent) <= live_requests.VIEWS_KEPT

    serve(scenario)


async def _given_up(server: Server, names: list[str]) -> None:
    """Send events until no stream is left."""
    async with asyncio.timeout(_GIVEN_UP_S):
        while not server.requests._streams:  # noqa: ASYNC110 - the server is asked
            await asyncio.sleep(0.01)
        while server.requests._streams:
            server.tick(*names)
            await asyncio.sleep(0.01)


def test_files_are_bounded_and_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever asks for one too many is told when to come again; a place is free when its reader has gone."""
    monkeypatch.setattr(live_requests, "FILES_MAX", 2)
    names = [f"source-{number:04d}-{'x' * 200}" for number in range(4_000)]

    async def scenario(server: Server) -> None:
        server.tick(*names)
        url = server.client._base_url
        assert url is not None
        with socket.socket() as one, socket.socket() as other:
            for path, reader in (("log", one), ("log?source=x", other)):
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
                reader.connect((url.host, url.port))
                with monkeypatch.context() as patched:
                    if reader is other:
                        patched.setattr(server.requests._views, "csv", lambda *_: _nothing())
                    reader.sendall(f"GET /csv/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                    assert (await asyncio.get_running_loop().run_in_executor(None, reader.recv, 12)) == b"HTTP/1.1 200"
            for path in ("log", "status", "fleet"):
                async with server.client.get(f"/csv/{path}") as answer:
                    told = (await answer.json())["error"]
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                    assert told == "2 files of this worker are being saved already. Ask again when one has ended"
            async with server.stream("log?limit=1") as stream:
                await stream.next()
                server.tick("a")
                assert (await stream.next()).facts["error"] is None
        async with asyncio.timeout(_GIVEN_UP_S):
            while server.requests._files:  # noqa: ASYNC110 - the server is asked
                await asyncio.sleep(0.01)
        assert len(await _csv(server, "status")) == 3

    serve(scenario, tmp_path / "lane-0")


def _nothing() -> Iterator[str]:
    """Of a list in which nothing is found, however long it is."""
    while True:
        threading.Event().wait(0.01)
        yield ""


def test_a_file_that_takes_long_keeps_no_stream_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not even that of the log."""
    end = threading.Event()

    async def scenario(server: Server) -> None:
        server.tick("a")

        def csv(*_: Any) -> Iterator[str]:
            end.wait(2 * _GIVEN_UP_S)
            yield "a,b\r\n"

        monkeypatch.setattr(server.requests._views, "csv", csv)
        saved = asyncio.create_task(_csv(server, "log"))
        async with asyncio.timeout(_GIVEN_UP_S):
            while not server.requests._files:  # noqa: ASYNC110 - the server is asked
                await asyncio.sleep(0.01)
        async with server.stream("log") as stream:
            assert len((await stream.next()).order) == 1
        assert not saved.done()
        end.set()
        assert await saved == [["a", "b"]]

    serve(scenario, tmp_path / "lane-0")


async def _csv(server: Server, path: str) -> list[list[str]]:
    async with server.client.get(f"/csv/{path}") as answer:
        assert (answer.status, answer.content_type) == (200, "text/csv"), await answer.text()
        assert "attachment" in answer.headers["Content-Disposition"]
        return list(csv.reader(io.StringIO(await answer.text(), newline="")))


def test_the_whole_list_is_a_file(tmp_path: Path) -> None:
    """Also where nobody watched before; names that are formulas are text."""
    names = [f"s{number:04d}" for number in range(1_500)]

    async def scenario(server: Server) -> None:
        server.tick(*names, "=cmd()")
        loop = asyncio.get_running_loop()
        shown = loop.call_later(0.1, server.lane.show)
        found = await _csv(server, "fleet?sort=source&desc=0")
        assert [row[0] for row in found] == ["source", "'=cmd()", *names]
        assert [row[0] for row in await _csv(server, "fleet?search=S149")] == ["source", *names[1_490:1_500]]
        server.tick("fast", offset_us=9_000_000, count=8)
        alerts = await _csv(server, "alerts")
        assert [row[alerts[0].index("source")] for row in alerts[1:]] == ["fast"]
        log = await _csv(server, "log?source=fast")
        assert len(log) == 9
        assert await _csv(server, "source?source=fast&partition=0") == log
        assert len(await _csv(server, "status")) == 3
        assert await _csv(server, "fleet?search=nobody") == []
        shown.cancel()

    serve(scenario, tmp_path / "lane-0")


def test_a_file_of_alerts_that_may_have_more_is_named_so() -> None:
    """A person sees the name, and takes the file for all there is without it."""

    async def scenario(server: Server) -> None:
        async def name(path: str) -> str:
            async with server.client.get(f"/csv/{path}") as answer:
                assert answer.status == 200
                return answer.headers["Content-Disposition"].split('"')[1]

        for number in range(alert_shelf.CLOSED_MAX - 1):
            server.lane.alerts.shelf.apply(record(f"x{number}", number + 1, "CLOSED"))
        assert await name("alerts") == "driftledger-alerts.csv"
        server.lane.alerts.shelf.apply(record("last", 1_000, "CLOSED"))
        assert await name("alerts") == await name("alerts?open=0") == "driftledger-alerts-newest-500-closed.csv"
        assert await name("alerts?open=1") == "driftledger-alerts.csv"
        assert await name("status") == "driftledger-status.csv"
        async with server.stream("alerts?open=1") as stream:
            assert (await stream.next()).facts["full"]

    serve(scenario)


def test_the_file_of_the_log_goes_back_to_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, partitions in one order, whatever a page has; names of chunks and of what is in none."""
    counts = (10_400, 700)
    of_source = 9

    async def scenario(server: Server) -> None:
        for partition, count in enumerate(counts):
            server.tick(*(f"s{number}" for number in range(count - of_source)), partition=partition)
            server.tick("rare", count=of_source, partition=partition)
        names, *rows = await _csv(server, "log")
        assert len(rows) == sum(counts)
        times = [int(row[names.index("created_at_ms")]) for row in rows]
        assert times == sorted(times, reverse=True)
        for partition, count in enumerate(counts):
            indexes = [int(row[1]) for row in rows if row[0] == str(partition)]
            assert indexes == list(range(count, 0, -1))
        rare = [row for row in rows if row[names.index("source")] == "rare"]
        for held in (live_log.LOG_ROWS_HELD, 10, 1):
            monkeypatch.setattr(live_log, "LOG_ROWS_HELD", held)
            assert (await _csv(server, "log?source=rare"))[1:] == rare
        assert await _csv(server, "source?source=rare&partition=1") == [names, *rare[:of_source]]

    serve(scenario, tmp_path / "lane-0")


def test_a_file_that_cannot_be_ended_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short one that looks whole would be taken for the log."""
    monkeypatch.setattr(live_log, "LOG_ROWS_HELD", 8)

    async def scenario(server: Server) -> None:
        server.tick("a", count=10)
        asked = server.requests._views._log._go_on

        def go_on(reading: Any, *rest: Any) -> None:
            if reading.before < 5:
                raise UnreachableError("its store was closed")
            asked(reading, *rest)

        monkeypatch.setattr(server.requests._views._log, "_go_on", go_on)
        async with server.client.get("/csv/log") as answer:
            assert answer.status == 200
            with pytest.raises(ClientPayloadError):
                await answer.text()

    serve(scenario, tmp_path / "lane-0")


def test_a_file_that_is_not_to_be_had_is_503() -> None:
    """It says why."""

    async def scenario(server: Server) -> None:
        async with server.client.get("/csv/log") as answer:
            assert answer.status == 503
            assert "kept nowhere" in (await answer.json())["error"]

    serve(scenario)
