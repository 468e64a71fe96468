"""Questions put to workers on a real broker: what they answer is what was sent, whoever holds it, and without any."""

from __future__ import annotations

import io
import json
import math
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from lifecycle.arrow_stream import read_arrow
from lifecycle.client import Client
from lifecycle.reader import Reader, explanation
from schemas.errors import BadInputError, UnreachableError
from streams.address import find_workers
from streams.cli.main import main
from tests.broker.harness import Ledger, Worker, time, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = 6_000
DUPLICATES = 5
SOURCES = 13
#: Of the first event; they are a millisecond apart.
BEGAN_US = 1_795_251_600_000_000
VALUES = [round(math.sin(n) * 10.0 ** (n % 7), 3) for n in range(EVENTS)]


def _events(first: int, last: int) -> Iterator[dict[str, Any]]:
    for n in range(first, last):
        yield {
            "event_id": f"e{n}",
            "source": f"s{n % SOURCES}",
            "kind": f"k{n % 3}",
            "value": VALUES[n],
            "local_timestamp": BEGAN_US + 1_000 * n,
            "payload": "p",
        }


def _wait_level(ledger: Ledger, events: int = EVENTS) -> None:
    def level() -> bool:
        try:
            table = Reader(ledger.settings).aggregate()
        except UnreachableError:
            return False
        if table["count"][0].as_py() != events:
            return False
        rows = Reader(ledger.settings).temporal_range_query(limit=2 * events, columns=["sequence"])
        return bool(rows.num_rows == events + DUPLICATES)

    wait_for(level, f"{events} events are answered")


@pytest.fixture(scope="module")
def served(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Worker]]:
    """A ledger with events and a worker; some of them are duplicates."""
    ledger = Ledger(kafka.bootstrap, f"query-{time.now_us():x}", tmp_path_factory.mktemp("query")).create()
    with ledger.worker() as worker:
        worker.wait_live(ledger.settings.lanes)
        with Client(ledger.settings) as client:
            assert client.temporal_put(_events(0, EVENTS)).accepted == EVENTS
            assert client.temporal_put(_events(0, DUPLICATES)).accepted == DUPLICATES
        _wait_level(ledger)
        yield ledger, worker
        worker.stop()


@pytest.fixture
def asked(served: tuple[Ledger, Worker], monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Its ledger, for commands run in this process."""
    ledger = served[0]
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)
    return ledger


def _fetch(ledger: Ledger, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Of the first worker."""
    address = find_workers(ledger.settings)[0].address
    request = urllib.request.Request(address + path, headers=headers)  # noqa: S310 - its own loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - its own loopback
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def _check(reader: Reader) -> None:
    """That questions of every sort are answered as the events say."""
    total = reader.aggregate(percentiles=[50], partitions=[0, 1, 2, 3]) if not _several(reader) else reader.aggregate()
    assert total["count"].to_pylist() == [EVENTS]
    assert total["sum"].to_pylist() == [math.fsum(VALUES)]
    assert (total["min"].to_pylist(), total["max"].to_pylist()) == ([min(VALUES)], [max(VALUES)])
    by_source = reader.aggregate(by="source", percentiles=["99.9"], functions=["sum"])
    assert by_source["source"].to_pylist() == sorted(f"s{n}" for n in range(SOURCES))
    assert by_source["sum"].to_pylist() == [
        math.fsum(VALUES[int(name[1:]) :: SOURCES]) for name in by_source["source"].to_pylist()
    ]
    windows = reader.aggregate(BEGAN_US, BEGAN_US + 3_000_000, window_ms=1_000, by="kind")
    assert windows["count"].to_pylist() == [len(range(s * 1_000, s * 1_000 + 1_000)[(k - s * 1_000) % 3 :: 3])
                                            for s in range(3) for k in range(3)]  # fmt: skip
    rows = reader.temporal_range_query(BEGAN_US + 1_000_000, BEGAN_US + 2_000_000, columns=["event_id", "value"])
    assert rows.column_names == ["event_id", "value"]
    # The order across partitions is that of the broker's times, so only within a partition is it that of the events.
    assert sorted(rows["event_id"].to_pylist()) == sorted(f"e{n}" for n in range(1_000, 2_000))
    first = reader.temporal_range_query(limit=700)
    assert (first.num_rows, explanation(first)["more"]) == (700, True)
    placed = reader.temporal_range_query(limit=100_000, columns=["partition", "sequence", "authority_ms", "event_id"])
    assert placed.num_rows == EVENTS + DUPLICATES
    order = placed["authority_timestamp"].cast(pa.int64()).to_pylist()
    keys = list(zip(order, placed["partition"].to_pylist(), placed["sequence"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert first["event_id"].to_pylist() == placed["event_id"].to_pylist()[:700]
    last = reader.temporal_get("s3", BEGAN_US + 1_000 * 100)
    assert last["event_id"].to_pylist() == ["e94"]
    assert reader.temporal_get("nobody").num_rows == 0
    assert reader.temporal_get("s0", columns=["value"]).to_pylist() == [{"value": VALUES[EVENTS // SOURCES * SOURCES]}]


def _several(reader: Reader) -> bool:
    return len(explanation(reader.aggregate())["answers"]) > 1


def test_a_worker_answers_what_was_sent(served: tuple[Ledger, Worker]) -> None:
    """By Python: counts, exact sums, windows, rows in order, the last event; duplicates count in none but rows."""
    _check(Reader(served[0].settings))
    with Client(served[0].settings) as client:
        explained = explanation(client.aggregate())
        assert explained["answers"] == [{"by": client.address, "partitions": [0, 1, 2, 3]}]
        assert explained["rows_unsealed"] + explained["rows_scanned"] >= EVENTS
        _check(Reader(client.address))


def test_thousands_of_sources_may_be_asked_for(served: tuple[Ledger, Worker]) -> None:
    """What a URL does not hold is refused before it is sent; a text in place of a list is too."""
    reader = Reader(served[0].settings)
    crowd = [f"sensor-{number:06}" for number in range(9_000)]
    assert reader.temporal_range_query(sources=[*crowd, "s1"], limit=5, columns=["sequence"]).num_rows == 5
    with pytest.raises(BadInputError, match="is too long"):
        reader.temporal_range_query(sources=[f"{name}-{n}" for name in crowd for n in range(2)])
    for asked in ({"sources": "s1"}, {"kinds": "k1"}, {"columns": "value"}):
        with pytest.raises(BadInputError, match="Give a list"):
            reader.temporal_range_query(**asked)  # type: ignore[arg-type]
    for asked in ({"percentiles": "99"}, {"functions": "sum"}):
        with pytest.raises(BadInputError, match="Give a list"):
            reader.aggregate(**asked)  # type: ignore[arg-type]


def test_lines_and_streams_say_the_same(served: tuple[Ledger, Worker]) -> None:
    """JSON lines with the explanation last, and the Arrow stream with the same rows."""
    ledger, _ = served
    status, headers, body = _fetch(ledger, "/range?limit=100&source=s1&source=s2&explain=1")
    lines = [json.loads(line) for line in body.splitlines()]
    assert (status, headers["Content-Type"], len(lines)) == (200, "application/x-ndjson", 101)
    assert lines[-1]["more"] is True
    assert lines[-1]["explain"]["rows_unsealed"] > 0
    assert {line["source"] for line in lines[:-1]} == {"s1", "s2"}
    _, _, stream = _fetch(ledger, "/range?limit=100&source=s1&source=s2", Accept="application/vnd.apache.arrow.stream")
    table, ending = read_arrow(io.BytesIO(stream))
    assert (ending.more, ending.partitions) == (True, (0, 1, 2, 3))
    assert table["event_id"].to_pylist() == [line["event_id"] for line in lines[:-1]]
    assert lines[0]["local_timestamp_us"] == table["local_timestamp"].cast(pa.int64()).to_pylist()[0]
    status, _, body = _fetch(ledger, "/hot")
    assert [place["standing"] for place in json.loads(body)["partitions"]] == ["level"] * 4


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/range?form=1", 400, "unknown parameter 'form'"),
        ("/range?limit=0", 400, "limit: 0 is too little"),
        ("/range?from=noon", 400, "from: 'noon' is not an instant"),
        ("/range?last=1h&to=5", 400, "Give one or the other"),
        ("/range?sequences=5", 400, "PARTITION:FIRST-LAST"),
        ("/range?partition=9", 404, "partitions [9] are not held here"),
        ("/get", 400, "source is given 0 times"),
        ("/aggregate?window_ms=1.5", 400, "window_ms: it is '1.5'"),
        ("/aggregate?percentiles=101", 400, "percentiles: the percentile 101"),
        ("/aggregate?slide_ms=5", 400, "Give window_ms too"),
        ("/aggregate?partial=1", 400, "Send Accept"),
        ("/aggregate?explain=yes", 400, "explain is 'yes'"),
    ],
)
def test_what_cannot_be_asked_is_refused(served: tuple[Ledger, Worker], path: str, status: int, says: str) -> None:
    """With the name of the parameter and what to give."""
    found, _, body = _fetch(served[0], path)
    assert found == status
    assert says in json.loads(body)["error"]


@pytest.mark.usefixtures("asked")
def test_the_commands_answer(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """As tables, lines, CSV and Arrow, and say how."""
    assert main(["get", "s3", "--at", str(BEGAN_US + 100_000), "--output", "jsonl"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["event_id"] == "e94"
    assert main(["range", "--source", "s4", "--limit", "7", "--output", "csv", "--columns", "event_id,value"]) == 0
    captured = capsysbinary.readouterr()
    assert captured.out.decode().splitlines()[:2] == ["event_id,value", f"e4,{VALUES[4]}"]
    assert b"more than 7 rows. Give a larger --limit" in captured.err
    assert main(["aggregate", "--by", "kind", "--percentiles", "50", "--explain"]) == 0
    captured = capsysbinary.readouterr()
    assert b"k2" in captured.out
    assert b"asked      http://127.0.0.1:" in captured.err
    assert b"answer     3 rows in " in captured.err
    assert main(["aggregate", "--functions", "count,mean", "--explain", "--output", "csv"]) == 0
    captured = capsysbinary.readouterr()
    assert captured.out.splitlines()[0] == b"count,values,mean"
    assert b"answer     1 row in " in captured.err
    assert main(["range", "--columns", "sequence", "--limit", "9", "--output", "arrow"]) == 0
    assert pa.ipc.open_stream(capsysbinary.readouterr().out).read_all().num_rows == 9
    assert main(["get", "nobody"]) == 0
    assert b"nothing of the source 'nobody'" in capsysbinary.readouterr().err
    assert main(["aggregate", "--window", "5 apples"]) == 2
    assert b"--window: '5 apples' is no duration" in capsysbinary.readouterr().err


def test_two_workers_and_none_answer_the_same(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Merged to the bit; without a worker from what is stored, and the ledger behind it; without that, the ledger."""
    ledger = Ledger(kafka.bootstrap, f"merge-{time.now_us():x}", tmp_path_factory.mktemp("merge")).create()
    reader = Reader(ledger.settings)
    with ledger.worker() as first, ledger.worker() as second:

        def shared() -> bool:
            return (
                bool(first.live_lanes() and second.live_lanes())
                and len(first.live_lanes() | second.live_lanes()) == ledger.settings.lanes
            )

        wait_for(shared, "both have lanes")
        with Client(ledger.settings) as client:
            assert client.temporal_put(_events(0, EVENTS)).accepted == EVENTS
            assert client.temporal_put(_events(0, DUPLICATES)).accepted == DUPLICATES
        _wait_level(ledger)
        assert _several(reader)
        _check(reader)
        with pytest.raises(BadInputError, match="percentiles of events that different workers hold"):
            reader.aggregate(percentiles=[50])
        second.stop()
        first.stop()
    _check(reader)
    explained = explanation(reader.aggregate())
    assert explained["answers"][0]["by"] == str(ledger.folder)
    assert sum(place["read"] for place in explained["answers"][0]["local"]) > 0
    elsewhere = ledger.settings.model_copy(update={"data_dir": ledger.folder / "nothing"})
    _check(Reader(elsewhere))
    assert {place["store"] for place in explanation(Reader(elsewhere).aggregate())["answers"][0]["local"]} == {None}


def test_without_a_worker_a_damaged_chunk_is_passed_over(kafka: Any, tmp_path: Path) -> None:
    """One that no opening reads; the ledger answers in place of its store."""
    ledger = Ledger(kafka.bootstrap, f"spoilt-{time.now_us():x}", tmp_path, {"partitions": 1}).create()
    with ledger.worker() as worker:
        worker.wait_live()
        with Client(ledger.settings) as client:
            assert client.temporal_put({"source": "s", "kind": "k", "value": n} for n in range(20_000)).accepted
        ledger.wait_level(worker)
        worker.stop()
    for file in (tmp_path / "hot").rglob("*.blob"):
        content = bytearray(file.read_bytes())
        for at in range(200, len(content) // 4, 97):
            content[at] ^= 0x5A
        file.write_bytes(content)
    table = Reader(ledger.settings).aggregate(percentiles=[50])
    assert (table["count"].to_pylist(), table["p50"].to_pylist()) == ([20_000], [9_999.0])
    assert explanation(table)["answers"][0]["local"][0]["store"] is None


def test_nobody_answers_without_a_broker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """And it is said what to do."""
    ledger = Ledger("127.0.0.1:1", "gone", tmp_path_factory.mktemp("gone"))
    with pytest.raises(UnreachableError):
        Reader(ledger.settings).aggregate()
    with pytest.raises(UnreachableError, match="does not answer"):
        Reader("http://127.0.0.1:1").temporal_get("s")
    with pytest.raises(BadInputError, match="there are no partitions"):
        Reader(ledger.settings).temporal_get("s", partitions=[77])
