"""POST /put without a broker: who may ask, what is refused, and what is answered."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pytest
from aiohttp import ClientSession
from confluent_kafka import KafkaError

from schemas.codec import Framing
from schemas.errors import UnreachableError
from streams import api, put_requests
from streams.api import Api
from streams.gate import closed_by
from streams.librdkafka import ERROR_PURGED
from streams.locks import Lock
from streams.progress import LaneState
from streams.publish import Accepted, Rejected
from streams.put import Outcome, Puts, Span, outcome_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp import ClientResponse

    from streams.app import Worker
    from streams.event_sender import Batch
    from streams.gate import Closed, Gate

LINES = "application/x-ndjson"


class _Puts:
    """Takes everything, into partition 0."""

    topic = "input"

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.lost = 0
        self.away = False
        self.locked = ""
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Semaphore(0)

    def put(self, lines: Iterable[Accepted | Rejected]) -> Outcome:
        """As Puts does."""
        self.entered.release()
        self.go_on.wait(10)
        if self.away:
            raise UnreachableError("Kafka is away. Wait")
        found = list(lines)
        events = [line.event for line in found if isinstance(line, Accepted)]
        first = len(self.events)
        self.events += events
        spans = [Span(0, first, first + len(events) - 1)] if events else []
        refused = [line for line in found if isinstance(line, Rejected)]
        first_lost = "1 (timed out)" if self.lost else ""
        return Outcome(len(events) - self.lost, refused, spans, self.lost, first_lost, self.locked)

    def stop(self) -> None:
        """Nothing is open."""


def _served(puts: _Puts, ask: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def serve() -> None:
        served = Api(cast("Worker", None), 0, cast("Puts", puts))
        await served.start()
        try:
            async with ClientSession(served.address) as client:
                await ask(client)
        finally:
            await served.stop()

    asyncio.run(serve())


def _asked(puts: _Puts, body: bytes, path: str = "/put", **headers: str) -> tuple[int, dict[str, Any]]:
    """One request, as JSON lines unless its headers say otherwise."""
    found: list[tuple[int, dict[str, Any]]] = []

    async def ask(client: ClientSession) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with client.post(path, data=body, headers={"Content-Type": LINES} | given) as answer:
            found.append((answer.status, await answer.json()))

    _served(puts, ask)
    return found[0]


def test_events_are_taken_and_their_positions_told() -> None:
    """200; what a line leaves out is the request's to say, or the usual."""
    puts = _Puts()
    status, facts = _asked(puts, b'{"source": "a"}\n\n{"kind": "own"}\n', "/put?source=s")
    assert (status, facts) == (
        200,
        {"accepted": 2, "refused": [], "positions": [{"partition": 0, "first_offset": 0, "last_offset": 1}]},
    )
    assert [(event["source"], event["kind"]) for event in puts.events] == [("a", "event"), ("s", "own")]


def test_a_refused_line_costs_only_itself() -> None:
    """422, with its number and the reason that `driftledger publish` gives."""
    puts = _Puts()
    status, facts = _asked(puts, b'{"source": "a"}\n{"source": ""}\n[]\n{"source": "b"}')
    assert (status, facts["accepted"]) == (422, 2)
    assert facts["refused"] == [
        {"line": 2, "reason": "source has 0 bytes; 1 to 256 are allowed"},
        {"line": 3, "reason": "it is a list of 0, it must be an object"},
    ]


def test_what_kafka_does_not_take_is_told_as_unavailable() -> None:
    """503: before anything was sent, or with what was taken and what was not."""
    puts = _Puts()
    puts.lost = 1
    status, facts = _asked(puts, b'{"source": "a"}\n{"source": "b"}')
    assert (status, facts["accepted"], facts["lost"]) == (503, 1, 1)
    assert "1 were not delivered; the first is line 1 (timed out). Send all again when Kafka is back" in facts["error"]
    puts.away = True
    assert _asked(puts, b'{"source": "a"}') == (503, {"error": "Kafka is away. Wait"})


def test_what_is_locked_is_told_with_who_when_why_and_the_remedy() -> None:
    """423; what else the request had is in. What Kafka lost is told first."""
    puts = _Puts()
    puts.locked = "source b is locked since noon by ada because it is set. Release it"
    status, facts = _asked(puts, b'{"source": "a"}')
    assert (status, facts["accepted"], facts["error"]) == (423, 1, puts.locked)
    puts.lost = 1
    assert _asked(puts, b'{"source": "a"}')[0] == 503


class _Sender:
    """Takes everything at once."""

    def send(self, batch: Batch) -> None:
        """Every row settles without an error."""
        batch.lose(0)

    def drain(self, _within_s: float) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


class _Gate:
    """Closed for one source, or away."""

    away = False
    #: How often it answers before a source is locked, and before it is away.
    opens, answers = 0, 1_000_000

    def closed(self) -> Closed:
        """As Gate does."""
        self.opens, self.answers = self.opens - 1, self.answers - 1
        if self.opens >= 0:
            return closed_by(1, [LaneState({}, {}, {}, [])])
        if self.away or self.answers < 0:
            raise UnreachableError("Kafka is away. Wait")
        return closed_by(1, [LaneState({}, {}, {}, [Lock(0, "b", ("put",), 9, 0, -40, "ada", "it is set")])])

    def close(self) -> None:
        """Nothing is open."""


def test_an_event_of_a_locked_source_is_refused_and_the_others_are_put() -> None:
    """By the very door that a worker has; where the gate cannot be asked, nothing is taken."""
    gate = _Gate()
    puts = Puts("127.0.0.1:1", "input", Framing.JSON, cast("Gate", gate))
    puts._open = cast("Any", _Sender)
    body = b'{"source": "a"}\n{"source": "b"}\n[]\n{"source": "b"}\n{"source": "c"}'
    status, facts = _asked(cast("_Puts", puts), body)
    why = (
        "source b is locked since 1970-01-01T00:00:00.000Z by ada because it is set. Once that is mended, run "
        "`driftledger lock release --source b --reason TEXT`"
    )
    assert (status, facts["accepted"], facts["error"]) == (423, 2, why)
    assert [(line["line"], line["reason"] == why) for line in facts["refused"]] == [(2, True), (3, False), (4, True)]
    puts = Puts("127.0.0.1:1", "input", Framing.JSON, cast("Gate", gate))
    puts._open = cast("Any", _Sender)
    assert _asked(cast("_Puts", puts), b'{"source": "b"}')[0] == 423
    gate.away = True
    puts = Puts("127.0.0.1:1", "input", Framing.JSON, cast("Gate", gate))
    puts._open = cast("Any", _Sender)
    assert _asked(cast("_Puts", puts), b'{"source": "a"}') == (503, {"error": "Kafka is away. Wait"})


@pytest.mark.parametrize("answers", [2, 1_000_000])
def test_a_lock_that_comes_while_a_request_is_under_way_refuses_the_rest_of_it(answers: int) -> None:
    """What was sent is sent. Where the gate cannot be asked any more, what it said last holds."""
    gate = _Gate()
    gate.opens, gate.answers = 2, answers
    puts = Puts("127.0.0.1:1", "input", Framing.JSON, cast("Gate", gate))
    puts._open = cast("Any", _Sender)
    event = {"event_id": None, "source": "b", "local_timestamp": None, "kind": "k", "value": 1.5, "payload": b""}
    outcome = puts.put(Accepted(line, dict(event)) for line in range(1, 1_001))
    told = (500, 500) if answers > 2 else (1_000, 0)
    assert (outcome.accepted, len(outcome.refused)) == told
    assert ("source b is locked" in outcome.locked) == (answers > 2)


@pytest.mark.parametrize("form", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_a_page_may_send_without_asking_is_refused(form: str) -> None:
    """415: only what needs a preflight, which nobody answers here, is taken."""
    puts = _Puts()
    status, facts = _asked(puts, b'{"source": "a"}', Content_Type=form)
    assert status == 415
    assert "Send one of application/x-ndjson, application/json, application/vnd.apache.arrow.stream" in facts["error"]
    assert puts.events == []


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1"])
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    """403, also where it is served from this machine."""
    puts = _Puts()
    status, facts = _asked(puts, b'{"source": "a"}', Origin=origin)
    assert (status, puts.events) == (403, [])
    assert origin in facts["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8411", "127.0.0.1.evil.example", "10.0.0.1", "", "["])
def test_a_name_that_was_bound_to_loopback_is_refused(host: str) -> None:
    """403: a browser that believes to ask another site says so. Also for what only reads."""
    puts = _Puts()
    status, _ = _asked(puts, b'{"source": "a"}', Host=host)
    assert (status, puts.events) == (403, [])

    async def ask(client: ClientSession) -> None:
        for path in ("/", "/health", "/metrics"):
            async with client.get(path, headers={"Host": host}) as answer:
                assert answer.status == 403

    _served(puts, ask)


@pytest.mark.parametrize("host", ["localhost", "localhost:8411", "127.0.0.1:1", "[::1]:8411"])
def test_loopback_has_several_names_and_a_page_of_its_own_may_ask(host: str) -> None:
    """The Origin then is the Host."""
    assert _asked(_Puts(), b'{"source": "a"}', Host=host, Origin=f"http://{host}")[0] == 200


def test_a_preflight_gets_no_leave() -> None:
    """Whoever asks."""

    async def ask(client: ClientSession) -> None:
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        async with client.options("/put", headers=headers) as answer:
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("Access-Control")]

    _served(_Puts(), ask)


def test_a_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """413 for bytes and for events, in either form; nothing is taken."""
    puts = _Puts()
    for module in (api, put_requests):
        monkeypatch.setattr(module, "BODY_BYTES_MAX", 1_000)
    status, facts = _asked(puts, b" " * 1_001)
    assert (status, facts) == (413, {"error": "the body has more than 1000 bytes. Send it in parts"})
    monkeypatch.setattr(put_requests, "EVENTS_MAX", 2)
    status, facts = _asked(puts, b'{"source": "a"}\n' * 3)
    assert (status, facts) == (413, {"error": "there are more than 2 events. Send them in parts"})
    assert puts.events == []
    assert _asked(puts, b'{"source": "a"}\n' * 2)[0] == 200


def test_long_texts_of_a_dictionary_are_not_told_as_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """413 says what there is too much of."""
    monkeypatch.setattr(put_requests, "BODY_BYTES_MAX", 5_000)
    rows = pa.table({"source": ["s"] * 10, "payload": pa.array(["x" * 1_000] * 10).dictionary_encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    status, facts = _asked(_Puts(), sink.getvalue().to_pybytes(), Content_Type=put_requests.ARROW)
    assert (status, facts["error"]) == (413, "the texts of the rows have more than 5000 bytes. Send them in parts")


def test_a_short_stream_that_becomes_a_long_one_is_refused() -> None:
    """413, before it is decompressed."""
    rows = pa.table({"source": ["s"] * 40, "payload": [b"\0" * 1_048_576] * 40})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(rows)
    assert sink.getvalue().size < 20_000
    puts = _Puts()
    status, facts = _asked(puts, sink.getvalue().to_pybytes(), Content_Type=put_requests.ARROW)
    assert (status, puts.events) == (413, [])
    assert "more than 33554432 bytes decompressed" in facts["error"]


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    """Whichever was meant."""
    puts = _Puts()
    assert _asked(puts, b"{}", "/put?source=a&source=b") == (
        400,
        {"error": "source is given more than once. Give it once"},
    )
    assert puts.events == []


def test_bytes_that_are_no_request_are_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody on the machine may try a port; who did is told, in 400."""

    async def ask(client: ClientSession) -> None:
        async with client.get("/") as index:
            reader, writer = await asyncio.open_connection(index.url.host, index.url.port)
        writer.write(b"POST /put HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()

    _served(_Puts(), ask)
    assert caplog.records == []


def test_an_unknown_parameter_is_refused() -> None:
    """A misspelt one would otherwise lose its value without a word."""
    assert _asked(_Puts(), b"{}", "/put?sorce=a") == (
        400,
        {"error": "unknown parameter 'sorce'; the parameters are source, kind"},
    )


def test_an_arrow_stream_that_is_none_is_refused() -> None:
    """400, before anything is taken."""
    status, facts = _asked(_Puts(), b"noise", Content_Type=put_requests.ARROW)
    assert status == 400
    assert facts["error"].startswith("the body is not an Arrow stream")


def test_a_body_that_does_not_arrive_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """408 after a while."""
    monkeypatch.setattr(put_requests, "BODY_TIMEOUT_S", 0.05)

    async def ask(client: ClientSession) -> None:
        arrived = asyncio.Event()

        async def body() -> Any:
            yield b"{"
            await arrived.wait()

        async with client.post("/put", data=body(), headers={"Content-Type": LINES}) as answer:
            assert answer.status == 408
            arrived.set()

    _served(_Puts(), ask)


def test_too_many_requests_at_a_time_are_told_to_come_again() -> None:
    """503 with Retry-After; health is answered meanwhile, and those under way end."""
    puts = _Puts()
    puts.go_on.clear()

    async def ask(client: ClientSession) -> None:
        def post() -> Any:
            return client.post("/put", data=b'{"source": "a"}', headers={"Content-Type": LINES})

        async def posted() -> ClientResponse:
            return cast("ClientResponse", await post())

        waiting = [asyncio.create_task(posted()) for _ in range(put_requests.PUTS_MAX)]
        for _ in waiting:
            await asyncio.to_thread(puts.entered.acquire)
        async with post() as busy:
            assert (busy.status, busy.headers["Retry-After"]) == (503, "1")
        async with client.get("/") as index:
            assert (await index.text()).splitlines() == ["/health", "/metrics", "/put"]
        puts.go_on.set()
        assert [(await task).status for task in waiting] == [200] * len(waiting)
        async with post() as again:
            assert again.status == 200

    _served(puts, ask)


def test_without_a_door_there_is_no_put() -> None:
    """Nor is it named."""

    async def ask() -> None:
        served = Api(cast("Worker", None), 0)
        await served.start()
        async with ClientSession(served.address) as client:
            async with client.post("/put", data=b"{}", headers={"Content-Type": LINES}) as answer:
                assert answer.status == 404
            async with client.get("/") as index:
                assert "/put" not in await index.text()
        await served.stop()

    asyncio.run(ask())


def test_an_outcome_tells_taken_refused_and_lost_apart() -> None:
    """By the error of each row; lines that Kafka refused stand among those that were no events."""
    too_large = KafkaError.MSG_SIZE_TOO_LARGE
    notes = np.array(
        [[0, 1, 10, 0], [too_large, 1, -1, 0], [0, 0, 7, 0], [ERROR_PURGED, 0, -1, 0], [0, 1, 12, 0]], np.int64
    )
    outcome = outcome_of([Rejected(3, "why")], [([1, 2], notes[:2]), ([4, 5, 6], notes[2:])])
    assert outcome.accepted == 3
    assert outcome.positions == [Span(0, 7, 7), Span(1, 10, 12)]
    assert [line.number for line in outcome.refused] == [2, 3]
    assert outcome.refused[0].reason.startswith("Kafka refused it: ")
    assert (outcome.lost, outcome.first_lost) == (1, "5 (Local: Purged in queue)")
