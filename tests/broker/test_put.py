"""Events put through a worker, on a real broker: what is in the input, what is told, and what happens without it."""

from __future__ import annotations

import ctypes
import io
import json
import sys
import threading
import uuid
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from lifecycle.client import EVENT_BYTES_MAX, PART_BYTES, PART_EVENTS, Client, PutError, Refused
from schemas.codec import Framing, decode
from schemas.errors import BadInputError, UnreachableError
from schemas.topics import partition_for
from streams import event_sender
from streams.address import announce, find_workers
from streams.cli.main import main
from streams.event_sender import N_ERROR, Batch, EventSender
from streams.kafka_cluster import Cluster
from streams.publish import Format, Rejected, read
from streams.put import Outcome, Puts
from streams.put_requests import BODY_BYTES_MAX
from tests.broker.harness import STOP_WITHIN_S, Ledger, Worker, check_exactly_once, time, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def served(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Worker]]:
    """A ledger with a worker, for tests that only add to it."""
    ledger = Ledger(kafka.bootstrap, f"put-{time.now_us():x}", tmp_path_factory.mktemp("put")).create()
    with ledger.worker() as worker:
        worker.wait_live(ledger.settings.lanes)
        yield ledger, worker
        ledger.wait_level(worker)
        worker.stop()
        assert find_workers(ledger.settings) == []
        assert list((ledger.folder / "workers").iterdir()) == []
    assert check_exactly_once(ledger) > 0


@pytest.fixture
def asked(served: tuple[Ledger, Worker], monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Its ledger, for commands run in this process; they are not told of any broker."""
    ledger = served[0]
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", NOWHERE)
    return ledger


def _events(ledger: Ledger, mark: str) -> dict[int, list[tuple[int, dict[str, Any]]]]:
    """Offset and event of those whose kind is the mark, by partition."""
    found: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for partition in ledger.partitions:
        for record in ledger.records(ledger.names.input, partition):
            event = decode("Event", record.value() or b"")
            if event["kind"] == mark:
                assert record.key() == event["source"].encode()
                assert partition == partition_for(record.key() or b"", ledger.settings.partitions)
                found[partition].append((record.offset() or 0, event))
    return found


def _lines(number: int, **more: Any) -> bytes:
    return b"".join(json.dumps({"source": f"s{n % 7}", "value": n, **more}).encode() + b"\n" for n in range(number))


def _taken(puts: Puts, number: int) -> bool:
    """A broker that stood still needs a while to be itself again."""
    try:
        return _outcome(puts, _lines(number)).accepted == number
    except UnreachableError:
        return False


def _outcome(puts: Puts, body: bytes) -> Outcome:
    return puts.put(read(io.BytesIO(body), Format.JSONL, {"kind": "k"}))


def test_what_is_accepted_is_in_the_input_where_it_is_said_to_be(served: tuple[Ledger, Worker]) -> None:
    """Each source on its partition, in order, with an id and a time; over one connection, request after request."""
    ledger, _ = served
    (found,) = find_workers(ledger.settings)
    connection = HTTPConnection(found.address.removeprefix("http://"))
    answers = []
    for _ in range(2):
        connection.request("POST", "/put?kind=told", _lines(1_300), {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        answers.append(json.loads(answer.read()))
        assert (answer.status, answers[-1]["accepted"], answers[-1]["refused"]) == (200, 1_300, [])
    connection.close()
    events = _events(ledger, "told")
    assert sum(map(len, events.values())) == 2_600
    for partition, rows in events.items():
        spans = [span for answer in answers for span in answer["positions"] if span["partition"] == partition]
        half = len(rows) // 2
        for span, part in zip(spans, (rows[:half], rows[half:]), strict=True):
            assert (span["first_offset"], span["last_offset"]) == (part[0][0], part[-1][0])
            for source in {event["source"] for _, event in part}:
                values = [event["value"] for _, event in part if event["source"] == source]
                assert values == sorted(values)
        assert {uuid.UUID(event["event_id"]).version for _, event in rows} == {7}
        assert all(abs(event["local_timestamp"] - time.now_us()) < 600e6 for _, event in rows)


def test_clients_put_at_the_same_time(served: tuple[Ledger, Worker]) -> None:
    """More of them than the worker takes at once: the others wait for their turn, and nothing is lost or doubled."""
    ledger, _ = served

    def put(number: int) -> int:
        with Client(ledger.settings) as client:
            events = ({"source": f"c{number}", "kind": "crowd", "value": n} for n in range(2_000))
            return client.temporal_put(events).accepted

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(put, range(8))) == 16_000
    by_source = defaultdict(list)
    for rows in _events(ledger, "crowd").values():
        for _, event in rows:
            by_source[event["source"]].append(event["value"])
    assert by_source == {f"c{number}": list(range(2_000)) for number in range(8)}


def test_the_client_takes_what_python_has(served: tuple[Ledger, Worker]) -> None:
    """Bytes, NaN, tables; what cannot be sent is refused by its number, the others are in."""
    ledger, _ = served
    with Client(ledger.settings) as client:
        result = client.temporal_put(
            [
                {"source": "a", "payload": b"\xff", "value": float("nan")},
                {"source": "a", "payload": {1, 2}},
                {"source": ""},
                {"source": "b", "event_id": "mine", "local_timestamp": 5},
            ],
            kind="python",
        )
        assert result.accepted == 2
        assert [refused.line for refused in result.refused] == [2, 3]
        assert result.refused[0].reason.startswith("it cannot be written as JSON: ")
        assert result.refused[1] == Refused(3, "source has 0 bytes; 1 to 256 are allowed")
        assert sum(span.last_offset - span.first_offset + 1 for span in result.positions) == 2
        table = pa.table({"value": range(12_000), "event_id": [str(n) for n in range(11_999)] + ["x" * 2_000]})
        result = client.temporal_put(table, source="t", kind="table")
        assert (result.accepted, [refused.line for refused in result.refused]) == (11_999, [12_000])
        with pytest.raises(BadInputError, match="column 'colour' is unknown"):
            client.temporal_put(pa.table({"colour": ["red"]}))
        assert client.temporal_put([]).accepted == 0
    events = [event for rows in _events(ledger, "python").values() for _, event in rows]
    assert {(event["source"], event["payload"], event["local_timestamp"] == 5) for event in events} == {
        ("a", b"\xff", False),
        ("b", b"", True),
    }
    (rows,) = _events(ledger, "table").values()
    assert [event["value"] for _, event in rows] == list(range(11_999))


def test_a_line_that_kafka_refuses_is_refused_alone(served: tuple[Ledger, Worker]) -> None:
    """Longer than the topic takes even when compressed."""
    ledger, _ = served
    noise = "".join(uuid.uuid4().hex for _ in range(200_000))
    with Client(ledger.settings) as client:
        result = client.temporal_put([{"source": "a"}, {"source": "a", "payload": noise}, {"source": "a"}], kind="long")
    assert (result.accepted, [refused.line for refused in result.refused]) == (2, [2])
    assert result.refused[0].reason.startswith("Kafka refused it: ")


def test_an_event_that_no_request_holds_is_refused_alone(served: tuple[Ledger, Worker]) -> None:
    """Those before and after it are in, of a list as of a table; one event without a list is none."""
    ledger, _ = served
    huge = "x" * (EVENT_BYTES_MAX + 1)
    with Client(ledger.settings) as client:
        result = client.temporal_put([{"source": "a"}, {"source": "a", "payload": huge}, {"source": "a"}, 5], kind="h")
        assert (result.accepted, [refused.line for refused in result.refused]) == (2, [2, 4])
        assert "Use `driftledger publish`" in result.refused[0].reason
        assert result.refused[1].reason == "it is of type int, it must be a mapping"
        table = pa.table({"payload": [huge if n == 700 else "" for n in range(1_000)]})
        result = client.temporal_put(table, source="t", kind="h")
        assert (result.accepted, [refused.line for refused in result.refused]) == (999, [701])
        with pytest.raises(BadInputError, match="Put a list of events"):
            client.temporal_put({"source": "a"})
    assert PART_BYTES + PART_EVENTS + EVENT_BYTES_MAX <= BODY_BYTES_MAX
    assert sum(map(len, _events(ledger, "h").values())) == 1_001


def test_a_body_that_is_not_compressed_as_it_says_is_refused(served: tuple[Ledger, Worker]) -> None:
    """As any other bad request is."""
    (found,) = find_workers(served[0].settings)
    connection = HTTPConnection(found.address.removeprefix("http://"))
    connection.request("POST", "/put", b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.status == 400
    assert "Content-Encoding" in json.loads(answer.read())["error"]
    connection.close()


def test_deliveries_are_noted_by_one_thread(kafka: Any, prefix: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Also while the sender is drained: what counts them has no lock."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path).create()
    threads = set()
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)
    compiled = prototype(event_sender._NOTE_CALLBACK)

    def note(client: int, message: int, opaque: int) -> None:
        threads.add(threading.current_thread().name)
        compiled(client, message, opaque)

    callback = prototype(note)
    monkeypatch.setattr(event_sender, "_NOTE_CALLBACK", ctypes.cast(callback, ctypes.c_void_p).value)
    sender = EventSender(kafka.bootstrap, ledger.names.input, 30)
    batch = Batch([b"s%d" % (n % 16) for n in range(20_000)], [b"v"] * 20_000)
    sender.send(batch)
    sender.drain(STOP_WITHIN_S)
    assert not batch.wait()[:, N_ERROR].any()
    assert threads == {sender._poller.name}
    late = Batch([b"s"], [b"v"])
    sender.send(late)
    assert late.wait()[:, N_ERROR].all()
    sender.close()


def test_the_command_puts_a_file_without_a_broker_address(
    asked: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad lines by number and reason, exit code 1; it says through whom."""
    file = tmp_path / "events.jsonl"
    lines = [json.dumps({"source": "pump", "value": n}) for n in range(12_000)]
    lines[7_000] = '{"source": ""}'
    file.write_text("\n".join(lines))
    assert main(["put", str(file), "--kind", "file"]) == 1
    told = capsys.readouterr()
    address = find_workers(asked.settings)[0].address
    assert told.out == ""
    assert told.err.splitlines() == [
        f"putting through the worker at {address}",
        f"{file}:7001: source has 0 bytes; 1 to 256 are allowed",
        f"11999 events put into {asked.settings.input_topic}, 1 bad line",
    ]
    (rows,) = _events(asked, "file").values()
    assert [event["value"] for _, event in rows] == [n for n in range(12_000) if n != 7_000]


def test_the_command_reads_csv_and_standard_input(
    asked: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As publish does; a worker may be named."""
    file = tmp_path / "events.csv"
    file.write_text("value,payload_base64,local_timestamp\n1,/w==,1970-01-01T00:00:01Z\nNaN,,\n")
    assert main(["put", str(file), "--kind", "csv", "--source", "s"]) == 0
    address = find_workers(asked.settings)[0].address
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"value": 3}\n')))
    assert main(["put", "-", "--kind", "csv", "--source", "s", "--worker", address]) == 0
    (rows,) = _events(asked, "csv").values()
    assert [str(event["value"]) for _, event in rows] == ["1.0", "nan", "3.0"]
    assert (rows[0][1]["payload"], rows[0][1]["local_timestamp"]) == (b"\xff", 1_000_000)
    told = f"1 event put into the input of the worker at {address}, 0 bad lines"
    assert capsys.readouterr().err.splitlines()[-1] == told


def test_without_a_worker_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3: start one, or do without. So it does where one has just gone."""
    monkeypatch.setenv("DRIFTLEDGER_DATA_DIR", str(tmp_path))
    (tmp_path / "events.jsonl").write_text('{"source": "s"}')
    assert main(["put", str(tmp_path / "events.jsonl")]) == 3
    told = capsys.readouterr().err
    assert "Start `driftledger worker`, or use `driftledger publish`, which needs none" in told
    assert main(["put", str(tmp_path / "events.jsonl"), "--worker", "http://127.0.0.1:1"]) == 3
    assert "the worker at http://127.0.0.1:1 does not answer" in capsys.readouterr().err
    assert main(["put", str(tmp_path)]) == 2


def test_the_framing_is_the_ledgers(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """JSON where its setting is json."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 1}).create()
    puts = Puts(kafka.bootstrap, ledger.names.input, Framing.JSON)
    assert _outcome(puts, b'{"source": "s", "payload": [1, 2]}').accepted == 1
    puts.stop()
    (record,) = ledger.records(ledger.names.input, 0)
    assert decode("Event", record.value() or b"", Framing.JSON)["payload"] == b"[1,2]"


def test_without_kafka_nothing_is_read() -> None:
    """It says so; no broken connection is kept, the next request tries again."""
    puts = Puts(NOWHERE, "input", Framing.SINGLE_OBJECT, delivery_timeout_s=0.3)
    lines = iter([Rejected(1, "unread")])
    for _ in range(2):
        with pytest.raises(UnreachableError, match=r"Kafka at 127\.0\.0\.1:1 does not answer. Send the events again"):
            puts.put(lines)
    assert next(lines).reason == "unread"
    puts.stop()
    with pytest.raises(UnreachableError, match="the worker stops"):
        puts.put(lines)


def test_a_stop_does_not_wait_for_those_who_wait_for_kafka() -> None:
    """Who waits to connect is told that the worker stops, and that at once."""
    puts = Puts(NOWHERE, "input", Framing.SINGLE_OBJECT, delivery_timeout_s=2)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(puts.put, iter([])) for _ in range(4)]
        time.sleep_s(0.3)
        begun_ns = time.monotonic_ns()
        puts.stop()
        assert (time.monotonic_ns() - begun_ns) / 1e9 < 1
        said = [str(future.exception(STOP_WITHIN_S)) for future in waiting]
        assert (time.monotonic_ns() - begun_ns) / 1e9 < 4
    assert sum("the worker stops" in text for text in said) == 3


def test_a_topic_that_is_gone_takes_nothing(kafka: Any, prefix: str) -> None:
    """What was put is lost, and told so."""
    puts = Puts(kafka.bootstrap, prefix, Framing.SINGLE_OBJECT, delivery_timeout_s=5)
    outcome = _outcome(puts, _lines(10))
    assert (outcome.accepted, outcome.lost) == (0, 10)
    puts.stop()


def test_a_broker_that_stands_still_loses_what_is_under_way_and_takes_the_next(prefix: str, tmp_path: Path) -> None:
    """Within the time given; a stop does not wait for it."""
    with Cluster(tmp_path / "kafka") as cluster:
        ledger = Ledger(cluster.bootstrap, prefix, tmp_path).create()
        puts = Puts(cluster.bootstrap, ledger.names.input, Framing.SINGLE_OBJECT, delivery_timeout_s=2)
        assert _outcome(puts, _lines(100)).accepted == 100
        cluster.pause()
        lost = _outcome(puts, _lines(100))
        assert (lost.accepted, lost.lost, lost.positions) == (0, 100, [])
        assert lost.first_lost == "1 (Local: Message timed out)"
        cluster.resume()
        wait_for(lambda: _taken(puts, 100), "the broker takes events again")
        puts.stop()

        puts = Puts(cluster.bootstrap, ledger.names.input, Framing.SINGLE_OBJECT)
        assert _outcome(puts, _lines(10)).accepted == 10
        cluster.pause()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(_outcome, puts, _lines(100))
            time.sleep_s(0.5)
            begun_ns = time.monotonic_ns()
            puts.stop(0.1)
            assert (time.monotonic_ns() - begun_ns) / 1e9 < STOP_WITHIN_S / 2
            assert waiting.result(5).lost == 100
        cluster.resume()


def test_a_client_whose_worker_has_gone_says_what_was_taken(tmp_path: Path) -> None:
    """And what to do."""
    ledger = Ledger(NOWHERE, "p", tmp_path)
    file = announce(ledger.settings, "w", "http://127.0.0.1:1")
    with Client("http://127.0.0.1:1") as client, pytest.raises(PutError, match="does not answer") as gone:
        client.temporal_put([{"source": "s"}])
    assert gone.value.result.accepted == 0
    with pytest.raises(UnreachableError, match="no worker of ledger events"):
        Client(ledger.settings)
    assert not file.exists()
