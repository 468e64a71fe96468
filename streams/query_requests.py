"""GET /get, /range, /aggregate, /drift/log, /drift/warnings and /hot of a worker: questions to its hot tiers over HTTP.

The parameters are those of lifecycle/requests.py and lifecycle/drift_requests.py, and:

    explain=1   a last line {"explain": {...}, "more": false, "partitions": [...]} says how it was found
    partial=1   for an answer that is merged with those of other workers, see lifecycle/answers.py; Arrow only

Without `partition` all partitions that this worker owns are asked; but the drift log and warnings are asked of one, a
page at a time: explain says `reached`, from where to go on, and `head`, up to where the store goes. Rows are JSON
lines, or, where Accept says application/vnd.apache.arrow.stream, an Arrow stream (see lifecycle/answers.py).

    200   the answer; one that is broken off while it is sent is closed without its end
    400   a parameter is wrong: "error" names it and says what to give
    404   partitions that this worker does not own
    503   a store is not level with its ledger yet, or too many ask: "error" says how far it is, Retry-After when to ask
          again

/hot says how each owned partition stands: {"partitions": [{"partition", "standing", "reached", "head", "error"}]}.

GUARANTEE memory is bounded: ANSWERS_MAX answers at a time, of each a part; a reader that takes nothing for
WRITE_TIMEOUT_S is given up.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import orjson
from aiohttp import web

from lifecycle import drift_requests
from lifecycle.answers import parts_of
from lifecycle.arrow_stream import ArrowWriter
from lifecycle.drift_arrow import part_of
from lifecycle.drift_question import DriftQuestion
from lifecycle.owned import ASKERS_MAX, RETRY_AFTER_S, NotHeldError, NotReadyError, OwnedPartitions, RebuiltError
from lifecycle.requests import Get, Request, parse
from lifecycle.rows import rows_in
from schemas.clock import source as time_source
from schemas.errors import BadInputError, DriftledgerError
from streams.put_requests import ARROW, JSON_LINES, answer_json, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lifecycle.arrow_stream import Part
    from lifecycle.owned import Asker, Kept, OwnedLane
    from lifecycle.query import HotQueries

T = TypeVar("T")

#: Answers under way: as many as wait for one of ASKERS_MAX threads without anybody growing impatient.
ANSWERS_MAX: Final = 8
WRITE_TIMEOUT_S: Final = 30.0
_FLAGS: Final = ("explain", "partial")
PATHS: Final = ("/get", "/range", "/aggregate", *drift_requests.PATHS)


class QueryRequests:
    """Answers questions on threads of its own, so that nothing waits for them."""

    def __init__(self, lanes: Callable[[], Sequence[OwnedLane]], kept: Kept | None = None) -> None:
        self._owned = OwnedPartitions(lanes, kept)
        self._under_way = 0
        self._threads = ThreadPoolExecutor(ASKERS_MAX, "query")

    def add_to(self, application: web.Application) -> None:
        """Serve the paths."""
        for path in PATHS:
            application.router.add_get(path, self.answer, allow_head=False)
        application.router.add_get("/hot", self.hot)

    async def hot(self, _request: web.Request) -> web.Response:
        """How partitions stand: read from memory, on the loop, for who is to ask a question asks this first."""
        return answer_json(200, {"partitions": [place._asdict() for place in self._owned.progress()]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """See the module."""
        if self._under_way >= ANSWERS_MAX:
            return _later(f"{ANSWERS_MAX} questions are under way already. Ask again in a moment", RETRY_AFTER_S)
        self._under_way += 1
        try:
            return await self._answer(request)
        finally:
            self._under_way -= 1

    def stop(self) -> None:
        """Give up what is under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        arrow = ARROW in request.headers.get("Accept", "")
        try:
            flags = {name: _flag(request, name) for name in _FLAGS}
            pairs = [(name, text) for name, text in request.query.items() if name not in _FLAGS]
            asked: Request | DriftQuestion
            if request.path in drift_requests.PATHS:
                asked = drift_requests.parse(request.path, pairs)
            else:
                asked = parse(request.path, pairs, time_source().now_us())
            if flags["partial"] and not arrow:
                return refuse(400, f"partial answers are Arrow. Send Accept: {ARROW}")
            written = self._written(asked, arrow=arrow, **flags)
            first = await self._run(partial(next, written))
        except NotHeldError as error:
            return refuse(404, str(error))
        except BadInputError as error:
            return refuse(400, str(error))
        except (NotReadyError, RebuiltError) as error:
            return _later(str(error), error.retry_after_s)
        except DriftledgerError as error:
            return _later(str(error), RETRY_AFTER_S)
        response = web.StreamResponse(headers={"Content-Type": ARROW if arrow else JSON_LINES[0]})
        try:
            await response.prepare(request)
            content: bytes | None = first
            while content is not None:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(content)
                content = await self._run(partial(next, written, None))
            await response.write_eof()
        except (DriftledgerError, TimeoutError, ConnectionError):  # the end is missing, and that is how it is told
            if request.transport is not None:
                request.transport.abort()
        return response

    def _written(
        self, request: Request | DriftQuestion, *, arrow: bool, explain: bool, partial: bool
    ) -> Iterator[bytes]:
        """The parts of an answer as bytes; made on the threads."""
        writer = ArrowWriter()
        for part in (
            self._drift(request) if isinstance(request, DriftQuestion) else self._parts(request, partial=partial)
        ):
            yield writer.write(part) if arrow else _lines(part, explain=explain)

    def _drift(self, asked: DriftQuestion) -> Iterator[Part]:
        self._owned.choose((asked.partition,))
        yield part_of(asked, self._owned.ask(lambda asker: asker.queries.drift(asked)))

    def _parts(self, request: Request, *, partial: bool) -> Iterator[Part]:
        wanted = request.partitions if isinstance(request, Get) else request.question.partitions
        if wanted is None and not isinstance(request, Get) and request.question.sequences:
            wanted = tuple(sorted(request.question.sequences))

        def ask(question: Callable[[HotQueries, Callable[[int], int]], T]) -> T:
            self._owned.choose(chosen)

            def asked(asker: Asker) -> T:
                return question(asker.queries, asker.last_sequence)

            return self._owned.ask(asked)

        chosen = self._owned.choose(wanted)
        yield from parts_of(request, chosen, ask, partial=partial)

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _lines(part: Part, *, explain: bool) -> bytes:
    content = io.BytesIO()  # a list of lines would hold the 4 KB that each was made in
    for row in rows_in(part.table):
        content.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    if explain and part.ending is not None:
        content.write(orjson.dumps(part.ending._asdict(), option=orjson.OPT_APPEND_NEWLINE))
    return content.getvalue()


def _flag(request: web.Request, name: str) -> bool:
    text, *more = request.query.getall(name, ["0"])
    if more:
        raise BadInputError(f"{name} is given {1 + len(more)} times. Give it once")
    if text not in ("0", "1"):
        raise BadInputError(f"{name} is {text!r:.40}. Give 0 or 1")
    return text == "1"


def _later(error: str, after_s: int) -> web.Response:
    answer = refuse(503, error)
    answer.headers["Retry-After"] = str(after_s)
    return answer
