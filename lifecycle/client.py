"""The Python API of a running worker, over its loopback HTTP: no Kafka client, no broker address.

    with Client(load()) as client:                # or Client("http://127.0.0.1:8411")
        result = client.temporal_put([{"source": "pump-7", "kind": "pressure", "value": 4.2}])
        table = client.temporal_get("pump-7")

What it asks, and how without a worker, is in reader.py.

Events are mappings with the members of schemas/event_json.py, or a pyarrow.Table with columns of those names (see
streams/arrow_events.py). Beyond JSON, payload may be bytes, local_timestamp a datetime with a time zone, and value NaN
or infinite.

GUARANTEE an event counted as accepted is acknowledged by all in-sync replicas of the input; events of one source keep
their order.
GUARANTEE an event without event_id gets one here, and one without local_timestamp the time at which it was read. So
where the connection breaks, what was under way is sent again as it was: in the ledger that is an event and a duplicate.
HAZARD of a table this holds only for rows with an event_id: the worker fills in what its rows leave out.
HAZARD for one thread at a time.
"""

from __future__ import annotations

import base64
import io
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import orjson
import pyarrow as pa

from lifecycle.fetch import TIMEOUT_S, retry_after
from lifecycle.reader import Reader
from schemas.clock import SystemTime
from schemas.clock import source as time_source
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import NS_PER_S
from schemas.producer import uuid7
from streams.address import find_workers, parse_address
from streams.settings import Settings
from streams.worker_http import authorization

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

#: Events of one request: enough that waiting for Kafka costs little, few enough that a lane sees them soon.
PART_EVENTS: Final = 5_000
#: Bytes after which a request is full; what one event has beyond it still fits the worker's limit.
PART_BYTES: Final = 8 * 1_048_576
#: Of one event as it is sent: behind a request that is nearly full it still fits the worker's limit.
EVENT_BYTES_MAX: Final = 23 * 1_048_576
_JSON_LINES: Final = "application/x-ndjson"
_ARROW: Final = "application/vnd.apache.arrow.stream"
_TAKEN: Final = (200, 422, 423)
#: Sent again it may be taken; 408: a machine that is busy, or slept, was too slow for it.
_UNAVAILABLE: Final = (408, 503)
_UUID_RANDOM_BYTES: Final = 8
#: A worker is waited for in true time, whatever dates the events.
_system: Final = SystemTime()


class Refused(NamedTuple):
    """An event that is not in the input: its number, from 1, and why."""

    line: int
    reason: str


class Positions(NamedTuple):
    """Offsets of the input between which a request's events of one partition are."""

    partition: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of the events. positions: one for each partition of each request."""

    accepted: int
    refused: tuple[Refused, ...]
    positions: tuple[Positions, ...]

    def __add__(self, later: PutResult) -> PutResult:
        return PutResult(self.accepted + later.accepted, self.refused + later.refused, self.positions + later.positions)


class PutError(UnreachableError):
    """Not everything was taken, and nothing after it was sent.

    Attributes: result (what was, until then).
    """

    def __init__(self, message: str, result: PutResult) -> None:
        super().__init__(message)
        self.result = result


class Client(Reader):
    """Puts into one worker, and asks. Also a context manager: the connection is closed on exit.

    worker: its address, or the settings of a ledger whose worker on this machine is meant; token: as of Reader. Raises
    UnreachableError where there is none.
    """

    def __init__(self, worker: Settings | str, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> None:
        super().__init__(worker, timeout_s=timeout_s, token=token)
        self.address = _address(worker) if isinstance(worker, Settings) else parse_address(worker)
        self._connection = HTTPConnection(urlsplit(self.address).netloc, timeout=timeout_s)

    def temporal_put(
        self, events: Iterable[Mapping[str, Any]] | pa.Table, *, source: str | None = None, kind: str | None = None
    ) -> PutResult:
        """Put events into the input, and wait until Kafka has them. source, kind: for events that name none.

        An event that a halt or a lock stands in the way of is refused, with who, when, why and what to do.

        Raises PutError where the worker or Kafka stops taking them, BadInputError for a table that is none of events,
        and for one event that is not in a list.
        """
        if isinstance(events, Mapping):
            raise BadInputError("this is one event. Put a list of events: [event]")
        defaults = {name: value for name, value in (("source", source), ("kind", kind)) if value is not None}
        path = f"/put?{urlencode(defaults)}" if defaults else "/put"
        total = PutResult(0, (), ())
        for part in _of_table(events) if isinstance(events, pa.Table) else _of_mappings(events):
            total += PutResult(0, part.refused, ())
            if not part.numbers:
                continue
            status, answer = self._ask(path, part, total)
            taken = _result(part, answer)
            total += taken
            if status in _UNAVAILABLE:
                raise PutError(str(answer["error"]), total)
        return total

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, path: str, part: _Part, before: PutResult) -> tuple[int, dict[str, Any]]:
        """Status and answer; a worker that is busy is asked again until timeout_s."""
        deadline_ns = _system.monotonic_ns() + int(self._timeout_s * NS_PER_S)
        while True:
            try:
                status, retry_after_s, body = self._post(path, part)
                answer = orjson.loads(body)
            except (OSError, HTTPException, orjson.JSONDecodeError) as error:
                raise PutError(
                    f"the worker at {self.address} does not answer ({error}). Start `driftledger worker`, then send "
                    f"again what follows the {before.accepted} events that were taken",
                    before,
                ) from error
            if not isinstance(answer, dict) or ("accepted" if status in _TAKEN else "error") not in answer:
                raise PutError(
                    f"what answers at {self.address} is no worker: {status}, and not what became of the events. Name "
                    "one, or start `driftledger worker`",
                    before,
                )
            if status in _TAKEN:
                return status, answer
            if status not in _UNAVAILABLE:
                raise BadInputError(str(answer["error"]))
            if retry_after_s is None or _system.monotonic_ns() > deadline_ns:
                return status, answer
            _system.sleep_s(retry_after_s)

    def _post(self, path: str, part: _Part) -> tuple[int, float | None, bytes]:
        """Status, how long to wait, and body; a connection that the worker has closed is opened again, once."""
        try:
            return self._post_once(path, part)
        except (ConnectionError, HTTPException):
            self._connection.close()
            return self._post_once(path, part)

    def _post_once(self, path: str, part: _Part) -> tuple[int, float | None, bytes]:
        self._connection.request(
            "POST", path, part.body, {"Content-Type": part.content_type, **authorization(self._token)}
        )
        answer = self._connection.getresponse()
        return answer.status, retry_after(answer), answer.read()


class _Part(NamedTuple):
    """One request. numbers: of the event on each of its lines; refused: events that could not be written."""

    body: bytes
    content_type: str
    numbers: range | list[int]
    refused: tuple[Refused, ...] = ()


def _address(settings: Settings) -> str:
    workers = find_workers(settings)
    if not workers:
        raise UnreachableError(
            f"no worker of ledger {settings.ledger} (prefix {settings.prefix}) runs on this machine with data_dir "
            f"{settings.data_dir}. Start `{settings.command} worker`"
        )
    return workers[0].address


def _result(part: _Part, answer: Mapping[str, Any]) -> PutResult:
    return PutResult(
        answer.get("accepted", 0),
        tuple(Refused(part.numbers[line["line"] - 1], line["reason"]) for line in answer.get("refused", ())),
        tuple(Positions(**span) for span in answer.get("positions", ())),
    )


def _of_mappings(events: Iterable[Mapping[str, Any]]) -> Iterator[_Part]:
    numbered = zip(count(1), events)
    while True:
        lines: list[bytes] = []
        numbers: list[int] = []
        refused: list[Refused] = []
        size = 0
        for number, event in numbered:
            if not isinstance(event, Mapping):
                refused.append(Refused(number, f"it is of type {type(event).__name__}, it must be a mapping"))
                continue
            try:
                line = orjson.dumps(_document(event))
            except orjson.JSONEncodeError as error:
                refused.append(Refused(number, f"it cannot be written as JSON: {error}"))
                continue
            if len(line) > EVENT_BYTES_MAX:
                refused.append(_too_long(number, len(line)))
            else:
                lines.append(line)
                numbers.append(number)
                size += len(line)
            if len(numbers) == PART_EVENTS or size >= PART_BYTES:
                break
        if not numbers and not refused:
            return
        yield _Part(b"\n".join(lines), _JSON_LINES, numbers, tuple(refused))


def _document(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event as JSON can spell it, with an id and a time of its own."""
    document = dict(event)
    now_us = time_source().now_us()
    if document.get("event_id") is None:
        document["event_id"] = str(uuid7(now_us, secrets.token_bytes(_UUID_RANDOM_BYTES)))
    if document.get("local_timestamp") is None:
        document["local_timestamp"] = now_us
    value = document.get("value")
    if isinstance(value, float) and not math.isfinite(value):
        document["value"] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(document.get("payload"), bytes):
        document["payload_base64"] = base64.b64encode(document.pop("payload")).decode()
    return document


def _of_table(table: pa.Table) -> Iterator[_Part]:
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and field.type.value_type in (pa.string(), pa.large_string()):
            # it would go along whole with each request
            table = table.set_column(number, field.name, table.column(number).cast(pa.large_string()))
    rows = max(1, min(PART_EVENTS, PART_BYTES * table.num_rows // max(1, table.nbytes)))
    for start in range(0, table.num_rows, rows):
        yield from _of_rows(table.slice(start, rows), start + 1)


def _of_rows(part: pa.Table, first: int) -> Iterator[_Part]:
    """Rows as one request; by halves where some of them are much longer than the others."""
    target = io.BytesIO()
    with pa.ipc.new_stream(target, part.schema) as stream:
        stream.write_table(part)
    body, rows = target.getvalue(), part.num_rows
    if len(body) <= EVENT_BYTES_MAX:
        yield _Part(body, _ARROW, range(first, first + rows))
    elif rows == 1:
        yield _Part(b"", _ARROW, [], (_too_long(first, len(body)),))
    else:
        yield from _of_rows(part.slice(0, rows // 2), first)
        yield from _of_rows(part.slice(rows // 2), first + rows // 2)


def _too_long(number: int, size: int) -> Refused:
    reason = f"it has {size} bytes, a worker takes {EVENT_BYTES_MAX} of an event. Use `driftledger publish`"
    return Refused(number, reason)
