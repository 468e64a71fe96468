"""Health and metrics of a worker, its page, a door for events and questions to the hot tiers, over HTTP.

    GET /health    200 where the broker answers, the worker is a member of its group, every lane it owns is live and
                   nothing is halted, else 503; JSON says what is what. A lock is what somebody wants: it is told, and
                   makes nothing 503
    GET /metrics   Prometheus text
    POST /put      events into the input, answered when Kafka has them: see put_requests.py
    GET /get, /range, /aggregate, /drift/log, /drift/warnings, /hot   questions to the hot tiers: see query_requests.py
    GET /lifecycle/status, /lifecycle/history   tiers and runs of jobs: see lifecycle_requests.py
    GET /page/     what a browser shows of all this: see page_requests.py
    GET /live/VIEW, /csv/VIEW   what the page shows, as it changes and as files: see live_requests.py
    GET /          the names of these; a browser is sent to the page

It listens on loopback unless `http_host` says otherwise. Who is answered says http_access.py, of all paths alike.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from lifecycle.lifecycle_watch import LifecycleWatch
from lifecycle.live_questions import VIEWS
from lifecycle.owned import NOT_KEPT, OwnedLane
from lifecycle.requests import URL_BYTES_MAX
from schemas.clock import source as time_source
from schemas.instants import US_PER_MS
from streams import metrics
from streams.alert_watch import AlertWatch
from streams.http_access import Access, is_wildcard
from streams.lane_host import State
from streams.lifecycle_requests import PATHS as LIFECYCLE_PATHS
from streams.lifecycle_requests import LifecycleRequests
from streams.live_requests import LiveRequests
from streams.live_views import LiveViews
from streams.page_requests import PATH, PageRequests, add_headers
from streams.put_requests import BODY_BYTES_MAX, PutRequests, answer_json, refuse
from streams.query_requests import PATHS, QueryRequests

if TYPE_CHECKING:
    import logging

    from aiohttp.typedefs import Handler

    from lifecycle.hot_tier import Place
    from streams.app import Worker
    from streams.lane_part import Part
    from streams.put import Puts
    from streams.settings import Settings

_STOP_WITHIN_S: Final = 1.0
_LOOPBACK: Final = "127.0.0.1"
_UNAUTHORIZED: Final = 401
_VIEW_PATHS: Final = ("/live/", "/csv/")
_logger = structlog.get_logger()


class Api:
    """Serves one worker. port 0 takes a free one, and so does a port that is taken: a second worker on one machine.

    puts: where events go; without it there is no /put. settings: of the ledger, without them there are no questions and
    no page. address: "http://host:port", once it listens.
    """

    def __init__(self, worker: Worker, port: int, puts: Puts | None = None, settings: Settings | None = None) -> None:
        self.address = ""
        self._worker, self._port = worker, port
        self._host = _LOOPBACK if settings is None else settings.http_host
        self._access = Access(self._host, None if settings is None else settings.token)
        self._door = None if puts is None else PutRequests(puts)
        self._queries = (
            None if settings is None else QueryRequests(lambda: owned_lanes(worker, settings), worker.keeper)
        )
        self._watch = None if settings is None else _lifecycle_watch(worker, settings)
        self._lifecycle = None if self._watch is None else LifecycleRequests(self._watch)
        self._live = None if settings is None else _live_requests(worker, settings, self._watch)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each of the others
        server_logger.addFilter(_is_no_noise)
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        application.router.add_get("/", self._index)
        application.router.add_get("/health", self._health)
        application.router.add_get("/metrics", self._metrics)
        if self._door is not None:
            application.router.add_post("/put", self._door.put)
        if self._queries is not None:
            self._queries.add_to(application)
        if self._lifecycle is not None:
            self._lifecycle.add_to(application)
        if self._live is not None:
            self._live.add_to(application)
            PageRequests().add_to(application)
        application.on_response_prepare.append(add_headers)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=_STOP_WITHIN_S, max_line_size=URL_BYTES_MAX
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            await web.TCPSite(self._runner, self._host, 0).start()
        host, port = self._runner.addresses[0][:2]
        if is_wildcard(host):
            host = _LOOPBACK
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _logger.info("http_listening", health=f"{self.address}/health", metrics=f"{self.address}/metrics")

    async def stop(self) -> None:
        """Stop listening; puts under way are answered first."""
        if self._door is not None:
            await self._door.stop()
        if self._live is not None:
            self._live.stop()
        if self._queries is not None:
            self._queries.stop()
        if self._lifecycle is not None:
            self._lifecycle.stop()
        if self._watch is not None:
            self._watch.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.Response:
        if self._live is not None and "text/html" in request.headers.get("Accept", ""):
            return web.Response(status=303, headers={"Location": PATH})
        paths = ["/health", "/metrics"]
        paths += ["/put"] if self._door is not None else []
        paths += [*PATHS, "/hot"] if self._queries is not None else []
        paths += LIFECYCLE_PATHS if self._lifecycle is not None else ()
        paths += [PATH, *(path + view for path in _VIEW_PATHS for view in VIEWS)] if self._live is not None else []
        return web.Response(text="".join(f"{path}\n" for path in paths))

    async def _health(self, _request: web.Request) -> web.Response:
        facts = health(self._worker)
        return answer_json(200 if facts["healthy"] else 503, facts)

    async def _metrics(self, _request: web.Request) -> web.Response:
        metrics.show_suspended(suspended(self._worker))
        metrics.show_locked(locked(self._worker))
        if self._lifecycle is not None:
            metrics.show_lifecycle(await self._lifecycle.for_metrics(), time_source().now_us() // US_PER_MS)
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse whom http_access.py refuses; and say where what is asked for is, if it is not there."""
        page_file = request.path.startswith(PATH.rstrip("/")) or (request.path == "/" and self._live is not None)
        refusal = self._access.refusal(request.headers, page_file=page_file)
        if refusal is not None:
            answer = refuse(*refusal)
            if refusal.status == _UNAUTHORIZED:
                answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return refuse(404, f"there is no {request.path!r:.80}. GET / lists the paths")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            answer = refuse(405, f"{request.path} is not for {request.method:.20}. Send {allowed}")
            answer.headers["Allow"] = allowed
            return answer


def _lifecycle_watch(worker: Worker, settings: Settings) -> LifecycleWatch:
    hot = None if worker.keeper is None else worker.keeper.hot
    return LifecycleWatch(settings, worker.bootstrap, hot)


def _live_requests(worker: Worker, settings: Settings, watch: LifecycleWatch | None) -> LiveRequests:
    alerts = AlertWatch(settings, worker.bootstrap)
    views = LiveViews(worker.boards, alerts, lambda: owned_lanes(worker, settings), worker.keeper, watch)
    return LiveRequests(views, worker.boards, alerts, lambda: page_status(worker, settings))


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about more than bytes that were no request: whoever sent them was told."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def owned_lanes(worker: Worker, settings: Settings) -> list[OwnedLane]:
    """The lanes of a worker as questions need them; for any thread."""
    lanes = []
    for number, host in sorted(worker.hosts.items()):
        lane = host.lane
        partitions = tuple(range(number, settings.partitions, settings.lanes))
        heads = {} if lane is None else {part.number: part.head.index for part in list(lane.parts.values())}
        why = "of a lane that is not open" if lane is None else NOT_KEPT
        lanes.append(OwnedLane(partitions, heads, None if lane is None else lane.hot, why))
    return lanes


def health(worker: Worker) -> dict[str, Any]:
    """What /health answers."""
    lanes = []
    for number, host in sorted(worker.hosts.items()):
        lane = host.lane
        places = {} if lane is None or lane.hot is None else lane.hot.places()
        parts = {} if lane is None else lane.parts
        lanes.append(
            {
                "lane": number,
                "state": str(host.state),
                "error": host.error,
                "partitions": [_partition(part, places.get(part.number)) for part in parts.values()],
            }
        )
    halts = [
        {"partition": p, "code": str(halt.code), "detail": halt.detail, "remedy": halt.remedy}
        for p, halt in sorted(worker.halts().items())
    ]
    served = all(host.state is State.LIVE for host in worker.hosts.values())
    return {
        "healthy": served and not halts and worker.unreachable is None and worker.is_member(),
        "worker": worker.worker_id,
        "broker": worker.unreachable or "answers",
        "member": worker.is_member(),
        "lanes": lanes,
        "halts": halts,
    }


def page_status(worker: Worker, settings: Settings) -> dict[str, Any]:
    """What the page shows of the worker: its health, and a row for each of its partitions."""
    facts = health(worker)
    rows = [
        {
            "partition": part["partition"],
            "lane": lane["lane"],
            "state": lane["state"],
            "sequence": part["sequence"],
            "index": part["index"],
            "input_position": part["input_position"],
            "input_lag": worker.lag.get(part["partition"]),
            "hot": None if part["hot"] is None else str(part["hot"]["standing"]),
            "hot_error": None if part["hot"] is None else part["hot"]["error"],
            "windows": len(part["windows"]),
            "suspended": ", ".join(window["name"] for window in part["windows"] if window["suspended"]) or None,
            "locked": " ".join(lock["told"] for lock in part["locks"]) or None,
        }
        for lane in facts["lanes"]
        for part in lane["partitions"]
    ]
    return {
        "worker": facts["worker"],
        "healthy": facts["healthy"],
        "halted": len(facts["halts"]),
        "served": len(rows),
        "partitions": settings.partitions,
        "broker": facts["broker"],
        "member": facts["member"],
        "lanes": [{name: lane[name] for name in ("lane", "state", "error")} for lane in facts["lanes"]],
        "halts": facts["halts"],
        "rows": sorted(rows, key=lambda row: row["partition"]),
    }


def suspended(worker: Worker) -> dict[str, int]:
    """In how many partitions of a worker each of its windows is suspended; 0 for one that works wherever it is."""
    lanes = [host.lane for host in worker.hosts.values() if host.lane is not None]
    states = [part.states for lane in lanes for part in list(lane.parts.values()) if part.states is not None]
    found: Counter[str] = Counter()
    for state in states:
        found.update({name: int(run.suspended is not None) for name, run in state.derive.running.items()})
    return found


def locked(worker: Worker) -> dict[int, int]:
    """Of each partition of a worker how many locks are engaged there."""
    lanes = [host.lane for host in worker.hosts.values() if host.lane is not None]
    states = [(part.number, part.states) for lane in lanes for part in list(lane.parts.values())]
    return {number: len(state.judge.locks) for number, state in states if state is not None}


def _partition(part: Part, place: Place | None) -> dict[str, Any]:
    """A partition, what is locked, how its hot tier stands (place; None: it has none), and the windows in force.

    locked: whether its input is kept back.
    """
    running = {} if part.states is None else part.states.derive.running
    locks = [] if part.states is None else list(part.states.judge.locks.values())
    return {
        "partition": part.number,
        "locked": part.locked,
        "locks": [{**lock.row(), "told": f"{lock.what} is {lock.since}. {lock.remedy}"} for lock in locks],
        "index": part.head.index,
        "sequence": part.head.sequence,
        "input_position": part.position,
        "hot": None if place is None else {"standing": place.standing, "reached": place.index, "error": place.error},
        "windows": [
            {"name": name, "version": run.version, "suspended": run.suspended} for name, run in running.items()
        ],
    }
