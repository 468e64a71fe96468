"""POST /put of a worker: events over HTTP.

The body is JSON lines (Content-Type application/x-ndjson or application/json), each an event as `driftledger
publish` takes it, or an Arrow stream (application/vnd.apache.arrow.stream, see arrow_events.py). ?source= and ?kind=
are for events that name none.

    200   {"accepted": 2, "refused": [], "positions": [{"partition": 0, "first_offset": 7, "last_offset": 8}]}
    422   the same, with "refused": [{"line": 3, "reason": "..."}]; the others are in
    423   the same where a halt or a lock stood in the way of some: "error" says who, when, why and what to do
    503   Kafka did not take them, or too many requests are under way: "error" says what to do; where some events were
          taken, the members above say which, and "lost" how many were not
    400, 403, 408, 413, 415   "error" says what is wrong with the request

GUARANTEE memory is bounded: PUTS_MAX requests at a time, each of BODY_BYTES_MAX and EVENTS_MAX at most.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from schemas.errors import BadInputError, UnreachableError
from streams import arrow_events
from streams.arrow_bytes import stream_bytes
from streams.publish import DEFAULT_KIND, Format, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streams.publish import Accepted, Rejected
    from streams.put import Outcome, Puts

#: What a request may weigh: events that are longer, one by one, go by `driftledger publish`.
BODY_BYTES_MAX: Final = 32 * 1_048_576
EVENTS_MAX: Final = 100_000
#: Two fill two cores; more of them only overlap one's work with another's wait for Kafka.
PUTS_MAX: Final = 4
#: A body comes over loopback: one that takes longer keeps others out.
BODY_TIMEOUT_S: Final = 30.0
RETRY_AFTER_S: Final = 1
JSON_LINES: Final = ("application/x-ndjson", "application/json")
ARROW: Final = "application/vnd.apache.arrow.stream"
_DEFAULTS: Final = ("source", "kind")


class PutRequests:
    """POST /put. Events are read, encoded and sent on threads of its own, so that nothing waits for them."""

    def __init__(self, puts: Puts) -> None:
        self._puts = puts
        self._under_way = 0
        self._threads = ThreadPoolExecutor(PUTS_MAX, "put")

    async def put(self, request: web.Request) -> web.Response:
        """See the module."""
        if request.content_type not in (*JSON_LINES, ARROW):
            return refuse(415, f"Content-Type is {request.content_type}. Send one of {', '.join((*JSON_LINES, ARROW))}")
        unknown = [name for name in request.query if name not in _DEFAULTS]
        if unknown:
            return refuse(400, f"unknown parameter {unknown[0]!r:.80}; the parameters are {', '.join(_DEFAULTS)}")
        for name in _DEFAULTS:
            if len(request.query.getall(name, ())) > 1:
                return refuse(400, f"{name} is given more than once. Give it once")
        if self._under_way >= PUTS_MAX:
            busy = refuse(503, f"{PUTS_MAX} requests are under way already. Send this one again in a moment")
            busy.headers["Retry-After"] = str(RETRY_AFTER_S)
            return busy
        self._under_way += 1
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await request.read()
            defaults = {"kind": DEFAULT_KIND, **request.query}
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._answer, body, request.content_type, defaults)
        except web.HTTPRequestEntityTooLarge:
            return refuse(413, f"the body has more than {BODY_BYTES_MAX} bytes. Send it in parts")
        except (web.RequestPayloadError, ConnectionError):
            return refuse(400, "the body ends early, or is not compressed as its Content-Encoding says. Send it again")
        except TimeoutError:
            return refuse(408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s. Send it again")
        finally:
            self._under_way -= 1

    async def stop(self) -> None:
        """Answer what is under way, then close the connection to Kafka."""
        await asyncio.get_running_loop().run_in_executor(None, self._puts.stop)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, body: bytes, content_type: str, defaults: Mapping[str, str]) -> web.Response:
        try:
            lines = _lines(body, content_type, defaults)
            return _told(self._puts.topic, self._puts.put(lines))
        except _TooLargeError as error:
            return refuse(413, str(error))
        except BadInputError as error:
            return refuse(400, str(error))
        except UnreachableError as error:
            return refuse(503, str(error))


class _TooLargeError(BadInputError):
    """More than a request may have."""


def _too_many() -> _TooLargeError:
    return _TooLargeError(f"there are more than {EVENTS_MAX} events. Send them in parts")


def _lines(body: bytes, content_type: str, defaults: Mapping[str, str]) -> Iterator[Accepted | Rejected]:
    if content_type == ARROW:
        if stream_bytes(body) > BODY_BYTES_MAX:
            raise _TooLargeError(f"the rows have more than {BODY_BYTES_MAX} bytes decompressed. Send them in parts")
        table = arrow_events.open_table(body)
        if table.num_rows > EVENTS_MAX:
            raise _too_many()
        if arrow_events.text_bytes(table) > BODY_BYTES_MAX:
            raise _TooLargeError(f"the texts of the rows have more than {BODY_BYTES_MAX} bytes. Send them in parts")
        return arrow_events.read_table(table, defaults)
    if body.count(b"\n") > EVENTS_MAX:
        raise _too_many()
    return read(io.BytesIO(body), Format.JSONL, defaults)


def _told(topic: str, outcome: Outcome) -> web.Response:
    facts: dict[str, Any] = {
        "accepted": outcome.accepted,
        "refused": [{"line": line.number, "reason": line.reason} for line in outcome.refused],
        "positions": [span._asdict() for span in outcome.positions],
    }
    if not outcome.lost and outcome.locked:
        return answer_json(423, {**facts, "error": outcome.locked})
    if not outcome.lost:
        return answer_json(422 if outcome.refused else 200, facts)
    facts["lost"] = outcome.lost
    facts["error"] = (
        f"{topic} took {outcome.accepted} events, {outcome.lost} were not delivered; the first is line "
        f"{outcome.first_lost}. Send all again when Kafka is back: those with an event_id of your own are known again"
    )
    return answer_json(503, facts)


def refuse(status: int, error: str) -> web.Response:
    """What is wrong, and what to do."""
    return answer_json(status, {"error": error})


def answer_json(status: int, facts: Mapping[str, Any]) -> web.Response:
    """One line."""
    body = orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=status, content_type="application/json")
