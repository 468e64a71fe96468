"""Health and metrics of a worker, over HTTP on loopback.

    GET /health    200 where the broker answers, the worker is a member of its group, every lane it owns is live and
                   nothing is halted, else 503; JSON says what is what
    GET /metrics   Prometheus text
    GET /          the names of these two

HAZARD there is no authentication: it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from streams import metrics
from streams.lane_host import State

if TYPE_CHECKING:
    from streams.app import Worker

_HOST = "127.0.0.1"
_logger = structlog.get_logger()


class Api:
    """Serves one worker. port 0 takes a free one, and so does a port that is taken: a second worker on one machine."""

    def __init__(self, worker: Worker, port: int) -> None:
        self._worker, self._port = worker, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each of the others
        application = web.Application()
        application.router.add_get("/", self._index)
        application.router.add_get("/health", self._health)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, _HOST, self._port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            await web.TCPSite(self._runner, _HOST, 0).start()
        host, port = self._runner.addresses[0][:2]
        _logger.info("http_listening", health=f"http://{host}:{port}/health", metrics=f"http://{host}:{port}/metrics")

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _index(self, _request: web.Request) -> web.Response:
        return web.Response(text="/health\n/metrics\n")

    async def _health(self, _request: web.Request) -> web.Response:
        facts = health(self._worker)
        return web.json_response(facts, status=200 if facts["healthy"] else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


def health(worker: Worker) -> dict[str, Any]:
    """What /health answers."""
    lanes = []
    for number, host in sorted(worker.hosts.items()):
        parts = host.lane.parts if host.lane else {}
        lanes.append(
            {
                "lane": number,
                "state": str(host.state),
                "error": host.error,
                "partitions": [
                    {
                        "partition": p.number,
                        "index": p.head.index,
                        "sequence": p.head.sequence,
                        "input_position": p.position,
                    }
                    for p in parts.values()
                ],
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
