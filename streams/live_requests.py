"""GET /live/VIEW and /csv/VIEW of a worker: what a page shows, as it changes, and as a file.

/live is a stream of server-sent events, each of which says what changed (see live_view.py); the parameters are those of
lifecycle/live_questions.py. Who comes back with the id of the last event that he has, in Last-Event-ID, goes on from
there. After HEARTBEAT_S in which nothing changed a comment comes, at the next look, which is LOOK_S later at most.
/csv is the whole list as text/csv.

    200   the stream, or the file
    400   a parameter is wrong: "error" names it and says what to give
    404   no such view
    503   STREAMS_MAX streams are open already, FILES_MAX files are being sent already (Retry-After says when to ask
          again), or the list is not to be had now: "error" says why

GUARANTEE memory is bounded: of a stream the last VIEWS_KEPT views are kept, of RESUMED_MAX streams that ended likewise;
of each of FILES_MAX files what `live_views` and `live_log` hold, and one part of it as text. A reader that is slow gets
the newest view, never a backlog, and one that takes nothing for WRITE_TIMEOUT_S is given up.
GUARANTEE files keep no stream waiting: they are made on a thread of their own, part by part in turn.
GUARANTEE a file is whole, or it breaks off: then the last chunk of the answer is missing, and a client says so.
GUARANTEE LINGER_S after the last stream ended, lanes and the alerts topic are watched no more.
GUARANTEE a view that cannot be made ends no stream: it is logged, an event `failed` says so, and it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from aiohttp import web

from lifecycle.live_questions import VIEWS, LifecycleQuestion, LogQuestion, SourceQuestion, StatusQuestion, parse
from schemas.clock import SystemTime
from schemas.errors import BadInputError, DriftledgerError
from schemas.instants import NS_PER_MS, NS_PER_S
from streams.alert_shelf import AlertsQuestion
from streams.live_view import HEARTBEAT, NOTHING_CHANGED, change, event, failure
from streams.put_requests import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lifecycle.live_questions import LiveQuestion
    from streams.live_boards import LiveBoards
    from streams.live_view import View
    from streams.live_views import AlertsWatched, LiveViews

    Status = Callable[[], Mapping[str, Any]]

T = TypeVar("T")

#: A browser opens six connections to one host, a page takes one of them.
STREAMS_MAX: Final = 32
#: Files that are sent at a time: each holds some 20 MB while its reader takes it.
FILES_MAX: Final = 4
#: When to ask again for a file that was refused; most take less.
RETRY_AFTER_S: Final = 5
HEARTBEAT_S: Final = 1.0
WRITE_TIMEOUT_S: Final = 30.0
LINGER_S: Final = 30.0
VIEWS_KEPT: Final = 4
RESUMED_MAX: Final = 16
#: How soon after one event of a stream the next one may come.
APART_MS: Final = 100
#: How often is looked where nobody calls: at the hot tiers for the log, at the worker for its state, at tiers and jobs.
LOOK_S: Final = 1.0
#: How long a file waits for what is not known yet.
_READY_S: Final = 3.0
_READY_POLL_S: Final = 0.1
_PARTS: Final = 3
#: Streams live in true time, whatever dates the events.
_system: Final = SystemTime()
_logger = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Stream:
    """One page. sent: number and view of its last events; failed: what it was told last of a view not to be made."""

    asked: LiveQuestion
    number: int = 0
    sent: deque[tuple[int, View]] = field(default_factory=lambda: deque(maxlen=VIEWS_KEPT))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    followed: tuple[int, int] | None = None
    failed: str | None = None

    def last(self) -> View | None:
        """What its page has."""
        return self.sent[-1][1] if self.sent else None


class LiveRequests:
    """Serves pages. status: how the worker stands, asked on the loop."""

    def __init__(self, views: LiveViews, boards: LiveBoards, alerts: AlertsWatched, status: Status) -> None:
        self._views, self._boards, self._alerts, self._status = views, boards, alerts, status
        #: Tells streams of this process from those of an earlier one.
        self._boot = secrets.token_hex(4)
        self._serial = 0
        self._streams: dict[int, _Stream] = {}
        self._ended: OrderedDict[int, _Stream] = OrderedDict()
        self._users = 0
        self._files = 0
        self._rest: asyncio.TimerHandle | None = None
        self._stopping = False
        #: What is in memory is answered at once; the hot tiers may keep one waiting, and so may Kafka.
        self._quick = ThreadPoolExecutor(1, "live")
        self._slow = ThreadPoolExecutor(1, "live-log")
        self._of_lifecycle = ThreadPoolExecutor(1, "live-lifecycle")
        self._of_files = ThreadPoolExecutor(1, "live-csv")

    def add_to(self, application: web.Application) -> None:
        """Serve the paths."""
        application.router.add_get("/live/{view}", self.live, allow_head=False)
        application.router.add_get("/csv/{view}", self.csv, allow_head=False)

    def stop(self) -> None:
        """End all streams."""
        self._stopping = True
        self._tell()
        self._forget()
        for threads in (self._quick, self._slow, self._of_lifecycle, self._of_files):
            threads.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------------------------------------------------- streams

    async def live(self, request: web.Request) -> web.StreamResponse:
        """See the module."""
        if len(self._streams) >= STREAMS_MAX:
            return refuse(503, f"{STREAMS_MAX} streams are open already. Close a page of this worker")
        try:
            asked = _asked(request)
        except BadInputError as error:
            return refuse(400, str(error))
        if asked is None:
            return refuse(404, f"there is no view {request.match_info['view']!r:.40}. There are {', '.join(VIEWS)}")
        self._serial += 1
        serial, stream = self._serial, self._resumed(request.headers.get("Last-Event-ID", ""), asked)
        self._streams[serial] = stream
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            self._begin(asked)
            with contextlib.suppress(TimeoutError, ConnectionError):
                await response.prepare(request)
                await self._serve(serial, stream, request, response)
            if request.transport is not None and not self._stopping:
                request.transport.abort()
        finally:
            del self._streams[serial]
            self._ended[serial] = stream
            while len(self._ended) > RESUMED_MAX:
                self._ended.popitem(last=False)
            if stream.followed is not None:
                self._boards.leave(*stream.followed)
            self._end()
        return response

    async def _serve(self, serial: int, stream: _Stream, request: web.Request, response: web.StreamResponse) -> None:
        written_ns = _system.monotonic_ns()
        while not self._stopping and request.transport is not None and not request.transport.is_closing():
            stream.news.clear()
            content = await self._news(serial, stream)
            if not content and _system.monotonic_ns() - written_ns >= HEARTBEAT_S * NS_PER_S:
                content = HEARTBEAT
            if content:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(content)
                written_ns = _system.monotonic_ns()
            await asyncio.sleep(APART_MS * NS_PER_MS / NS_PER_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stream.news.wait(), LOOK_S)

    async def _news(self, serial: int, stream: _Stream) -> bytes:
        """The next event of a stream; nothing where its page has what there is."""
        try:
            looked = partial(self._views.view, stream.asked, self._status())
            view = await _run(self._threads_of(stream.asked), looked)
        except Exception as error:
            told, stream.failed = stream.failed, repr(error)
            if told == stream.failed:
                return b""
            _logger.exception("page_view_failed", view=type(stream.asked).__name__)
            return failure(stream.failed)
        if isinstance(stream.asked, SourceQuestion):
            self._follow(stream, stream.asked.partition, view.facts["number"])
        said: Mapping[str, Any] | None = change(stream.last(), view)
        if said is None and stream.failed is not None:
            said = NOTHING_CHANGED
        stream.failed = None
        if said is None:
            return b""
        stream.number += 1
        stream.sent.append((stream.number, view))
        return event(f"{self._boot}.{serial}.{stream.number}", said)

    def _threads_of(self, asked: LiveQuestion) -> ThreadPoolExecutor:
        match asked:
            case LogQuestion():
                return self._slow
            case LifecycleQuestion():
                return self._of_lifecycle
            case _:
                return self._quick

    def _resumed(self, last_id: str, asked: LiveQuestion) -> _Stream:
        """A stream that goes on from that event, where it is remembered; else one that begins."""
        stream = _Stream(asked)
        boot, _, place = last_id.partition(".")
        numbers = place.split(".")
        if boot != self._boot or len(numbers) != _PARTS - 1 or not all(n.isascii() and n.isdigit() for n in numbers):
            return stream
        serial, number = (int(n[:18]) for n in numbers)
        before = self._streams.get(serial) or self._ended.get(serial)
        if before is not None and before.asked == asked:
            stream.sent.extend((0, view) for found, view in before.sent if found == number)
        return stream

    def _follow(self, stream: _Stream, partition: int, number: int | None) -> None:
        """Have the events of its source collected, by the number that it has; from before its page hears of it."""
        place = None if number is None else (partition, number)
        if place is None or place == stream.followed:
            return
        if stream.followed is not None:
            self._boards.leave(*stream.followed)
        stream.followed = place
        self._boards.follow(*place)

    # ---------------------------------------------------------------------------------------------------------- files

    async def csv(self, request: web.Request) -> web.StreamResponse:
        """See the module."""
        try:
            asked = _asked(request)
        except BadInputError as error:
            return refuse(400, str(error))
        view = request.match_info["view"]
        if asked is None:
            return refuse(404, f"there is no view {view!r:.40}. There are {', '.join(VIEWS)}")
        if self._files >= FILES_MAX:
            busy = refuse(
                503, f"{FILES_MAX} files of this worker are being saved already. Ask again when one has ended"
            )
            busy.headers["Retry-After"] = str(RETRY_AFTER_S)
            return busy
        self._files += 1
        try:
            self._begin(asked)
            status = self._status()
            await self._until_ready(asked, status)
            parts = await _run(self._of_files, partial(self._views.csv, asked, status))
            first = await _run(self._of_files, partial(next, parts, None))
            name = f"driftledger-{view}{self._views.newest_alone(asked)}.csv"
            headers = {"Content-Disposition": f'attachment; filename="{name}"'}
            response = web.StreamResponse(headers={"Content-Type": "text/csv; charset=utf-8", **headers})
            await self._write(request, response, first, parts)
        except DriftledgerError as error:
            return refuse(503, str(error))
        finally:
            self._files -= 1
            self._end()
        return response

    async def _write(
        self, request: web.Request, response: web.StreamResponse, part: str | None, parts: Iterator[str]
    ) -> None:
        try:
            await response.prepare(request)
            while part is not None:
                if request.transport is None or request.transport.is_closing():
                    raise ConnectionResetError  # where nothing is found for long, no write would say so
                if part:
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        await response.write(part.encode())
                part = await _run(self._of_files, partial(next, parts, None))
            await response.write_eof()
        except (DriftledgerError, TimeoutError, ConnectionError) as error:  # the end is missing: that is how it is told
            if isinstance(error, DriftledgerError):
                _logger.warning("page_file_broken_off", error=str(error))
            if request.transport is not None:
                request.transport.abort()

    async def _until_ready(self, asked: LiveQuestion, status: Mapping[str, Any]) -> None:
        """Wait a little where nobody watched until now."""
        deadline_ns = _system.monotonic_ns() + int(_READY_S * NS_PER_S)
        served = int(status["served"])
        while not self._views.ready(asked, served) and _system.monotonic_ns() < deadline_ns:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_READY_POLL_S)

    # ------------------------------------------------------------------------------------------------- being watched

    def _begin(self, asked: LiveQuestion) -> None:
        self._users += 1
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if not self._boards.watched:
            loop = asyncio.get_running_loop()
            self._boards.on_news = self._alerts.on_news = partial(_on, loop, self._tell)
            self._boards.watch()
        if isinstance(asked, AlertsQuestion):
            self._alerts.start()

    def _end(self) -> None:
        self._users -= 1
        if not self._users and not self._stopping:
            self._rest = asyncio.get_running_loop().call_later(LINGER_S, self._forget)

    def _forget(self) -> None:
        """Nobody has come back."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = None
        self._boards.unwatch()
        self._alerts.stop()
        self._ended.clear()

    def _tell(self) -> None:
        for stream in self._streams.values():
            if self._stopping or not isinstance(stream.asked, LogQuestion | StatusQuestion | LifecycleQuestion):
                stream.news.set()


async def _run(threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function)


def _on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call on the loop, from any thread; a worker that ends has none any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def _asked(request: web.Request) -> LiveQuestion | None:
    """What is asked for; None for a view that there is not."""
    view = request.match_info["view"]
    return parse(view, request.query.items()) if view in VIEWS else None
