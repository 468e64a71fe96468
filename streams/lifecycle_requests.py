"""GET /lifecycle/status and /lifecycle/history of a worker: how data lies in tiers, and the runs of jobs, as JSON.

    /lifecycle/status
    /lifecycle/history    last: so many runs, what began last first; 20 unless given, LAST_MAX at most

docs/formats.md has the members of both.

    200   the answer
    400   a parameter is wrong: "error" names it and says what to give
    503   nothing could be read yet: "error" says why, Retry-After when to ask again

GUARANTEE an answer holds a row for each tier, grain and partition, and LAST_MAX runs; none is of what is older than
FRESH_S unless it says why in "error". One question is answered at a time, on a thread of its own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web  # noqa: TC002

from lifecycle.parameters import Given, positive
from lifecycle.run_view import RUNS_MAX
from schemas.errors import BadInputError
from streams.put_requests import answer_json, refuse

if TYPE_CHECKING:
    from lifecycle.lifecycle_page import Lifecycle
    from lifecycle.lifecycle_watch import LifecycleWatch

PATHS: Final = ("/lifecycle/status", "/lifecycle/history")
LAST: Final = 20
LAST_MAX: Final = RUNS_MAX
FRESH_S: Final = 1.0
#: How long an answer to /metrics waits for what is new, and how old what it tells may be.
METRICS_WAIT_S: Final = 1.0
METRICS_FRESH_S: Final = 10.0
_RETRY_AFTER_S: Final = 2


class LifecycleRequests:
    """Answers from what is followed."""

    def __init__(self, watch: LifecycleWatch) -> None:
        self._watch = watch
        self._threads = ThreadPoolExecutor(1, "lifecycle-http")

    def add_to(self, application: web.Application) -> None:
        """Serve the paths."""
        application.router.add_get(PATHS[0], self.status, allow_head=False)
        application.router.add_get(PATHS[1], self.history, allow_head=False)

    def stop(self) -> None:
        """Give up what is under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def status(self, request: web.Request) -> web.Response:
        """See the module."""
        try:
            Given(request.query.items()).check()
        except BadInputError as error:
            return refuse(400, str(error))
        now = await self._look(FRESH_S)
        if now.tiers is None:
            return _later(now)
        groups = await asyncio.get_running_loop().run_in_executor(self._threads, self._watch.groups)
        return answer_json(
            200,
            {
                "at_ms": now.tiers.now_ms,
                "commit": now.commit,
                "tiers": [row._asdict() for row in now.tiers.tiers],
                "archives": [group._asdict() for group in groups],
                "jobs": [row._asdict() for row in now.jobs],
                "limits": now.tiers.limits,
                "error": now.error,
            },
        )

    async def history(self, request: web.Request) -> web.Response:
        """See the module."""
        try:
            given = Given(request.query.items())
            given.check("last")
            last = given.one("last", positive) or LAST
            if last > LAST_MAX:
                return refuse(400, f"last is {last}, and {LAST_MAX} runs are kept. Give {LAST_MAX} at most")
        except BadInputError as error:
            return refuse(400, str(error))
        now = await self._look(FRESH_S)
        if now.tiers is None:
            return _later(now)
        runs: list[dict[str, Any]] = [heard.job.row() for heard in now.runs[:last]]
        return answer_json(200, {"runs": runs, "more": len(now.runs) > last or now.cut, "error": now.error})

    async def for_metrics(self) -> Lifecycle:
        """What is known; new, where that does not take long."""
        looking = asyncio.ensure_future(self._look(METRICS_FRESH_S))
        await asyncio.wait([looking], timeout=METRICS_WAIT_S)
        if not looking.done():
            looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._watch.now

    async def _look(self, fresh_s: float) -> Lifecycle:
        looked = partial(self._watch.look, fresh_s)
        return await asyncio.get_running_loop().run_in_executor(self._threads, looked)


def _later(now: Lifecycle) -> web.Response:
    answer = refuse(503, f"how data lies is not known yet: {now.error}. Ask again in a moment")
    answer.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return answer
