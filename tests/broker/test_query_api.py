"""Questions put to workers on a real broker: what they answer is what was sent, whoever holds it, and without any."""

from __future__ import annotations

import io
import json
import math
import re
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import pyarrow as pa
import pytest

from lifecycle import chunks
from lifecycle.arrow_stream import read_arrow
from lifecycle.client import Client
from lifecycle.planner import Aggregation, Field, Question, Window
from lifecycle.reader import Reader, explanation
from lifecycle.requests import Aggregate, Get, Range, path_of
from lifecycle.rows import rows_in
from schemas.codec import decode
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import INT64_MAX
from streams.address import find_workers
from streams.cli.main import main
from streams.judge_kernel import Flag
from streams.windows import By, Frame, percentile_text
from tests.broker.harness import Ledger, Worker, time, wait_for
from tests.broker.ledgers import begin, event, produce, records, sequence, use
from tests.core.query_oracle import Row, aggregate, in_order, last_event
from tests.core.query_oracle import asked as is_asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from lifecycle.requests import Request

    #: Name and text of a parameter, as HTTP takes it.
    Pair = tuple[str, str]

EVENTS = 6_000
DUPLICATES = 5
SOURCES = 13
#: Of the first event; they are a millisecond apart.
BEGAN_US = 1_795_251_600_000_000
#: More rows than there are.
ALL = "limit", "100000"
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
    assert main(["aggregate", "--percentiles", "50,99", "--exact", "--output", "jsonl"]) == 0
    captured = capsysbinary.readouterr()
    (row,) = [json.loads(line) for line in captured.out.splitlines()]
    assert (row["p50"], row["p99"]) == (sorted(VALUES)[EVENTS // 2 - 1], sorted(VALUES)[EVENTS * 99 // 100 - 1])
    assert (row["method"], row["relative_error"]) == ("exact", 0)
    assert f"exact: {EVENTS + DUPLICATES} rows were read\n".encode() in captured.err
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


# ------------------------------------------------------------------------------ by command and HTTP, as the twin says


def _rows_of(ledger: Ledger) -> list[Row]:
    """The rows of its topic for the plain twin, in order across partitions; an id that came before is a duplicate."""
    rows = []
    for partition in ledger.partitions:
        highest, seen = 0, set()
        for _, entry in records(ledger.settings, partition):
            if entry["kind"] != "DATA":
                continue
            sent = decode("Event", entry["value"])
            highest = max(highest, entry["authority_timestamp"])
            fields = {
                Field.PARTITION: partition,
                Field.SEQUENCE: entry["sequence"],
                Field.INDEX: entry["index"],
                Field.AUTHORITY_MS: entry["authority_timestamp"],
                Field.LOCAL_US: sent["local_timestamp"],
                Field.SOURCE: sent["source"].encode(),
                Field.KIND: sent["kind"].encode(),
                Field.EVENT_ID: sent["event_id"],
                Field.VALUE: sent["value"],
            }
            rows.append(Row(highest, sent["event_id"] not in seen, fields))
            seen.add(sent["event_id"])
    return in_order(rows)


def _twin(rows: list[Row], request: Request) -> list[dict[str, Any]]:
    """The whole answer as the plain twin tells it; partitions are named by their sequences, too."""
    if isinstance(request, Get):
        last = last_event(rows, request.source, request.at_us, request.frame)
        return [] if last is None else [_line_of(last)]
    question = request.question
    if question.partitions is None and question.sequences:
        question = replace(question, partitions=tuple(question.sequences))
    if isinstance(request, Range):
        return [_line_of(row) for row in rows if is_asked(question, row)]
    asked, lines = request.aggregation, []
    for start, name, group in aggregate(rows, question, asked):
        line: dict[str, Any] = {"count": group.count, "values": group.values}
        if asked.window is not None and start is not None:
            line |= {"window_start_us": start, "window_end_us": start + asked.window.size_us}
        if name is not None:
            line[asked.by.value] = name.decode()
        line |= {function.value: number for function, number in group.functions.items()}
        line |= {f"p{percentile_text(percentile)}": number for percentile, number in group.percentiles.items()}
        if group.relative_error is not None:
            line |= {"method": "ddsketch" if group.relative_error else "exact", "relative_error": group.relative_error}
        lines.append(line)
    return lines


_REPEATED = Flag.DUPLICATE | Flag.CONFLICT
#: Of a row: which it is, and what it says.
_SHOWN = (Field.PARTITION, Field.SEQUENCE, Field.EVENT_ID, Field.VALUE)


def _line_of(row: Row) -> dict[str, Any]:
    return {name.value: row.fields[name] for name in _SHOWN}


def _bare(path: str, lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of an answer without what the twin does not tell."""
    if path == "/aggregate":
        texts = ("window_start", "window_end")
        return [{name: value for name, value in line.items() if name not in texts} for line in lines]
    return [{name.value: line[name.value] for name in _SHOWN} for line in lines]


def _answered(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], path: str, pairs: Sequence[Pair]
) -> list[dict[str, Any]]:
    """Lines of the command, once HTTP has told the same."""
    options: list[str] = []
    for name, text in pairs:
        if (path, name) == ("/get", "source"):
            options.append(text)
        elif name.endswith("_ms"):
            options += [f"--{name.removesuffix('_ms')}", f"{text}ms"]
        else:
            options += [f"--{name}", text]
    capsys.readouterr()
    assert main([path[1:], *options, "--output", "jsonl"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_http = _lines(ledger, path, pairs)
    assert by_http == [{name: line[name] for name in by_http[0]} for line in told]
    return _bare(path, told)


def _lines(ledger: Ledger, path: str, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Of an answer by HTTP."""
    status, _, body = _fetch(ledger, f"{path}?{urlencode(pairs)}")
    assert status == 200
    return [json.loads(line) for line in body.splitlines()]


def _counts(rows: list[Row]) -> Counter[int]:
    """Rows by partition, which is the last sequence of each."""
    return Counter(row.fields[Field.PARTITION] for row in rows)


def _by_the_broker(rows: list[Row]) -> Question:
    """A range of the broker's time that some rows are in, but neither the first nor the last ones."""
    instants = sorted({1_000 * row.fields[Field.AUTHORITY_MS] for row in rows})
    question = Question(Frame.AUTHORITY, from_us=instants[1], to_us=instants[-1])
    assert 0 < sum(is_asked(question, row) for row in rows) < len(rows)
    return question


def _check_against_the_twin(reader: Reader, rows: list[Row]) -> None:
    """Questions by the broker's time, by sequences, and over windows that overlap."""
    few = Question(sequences={0: (10, 20), 3: (100, INT64_MAX)})
    hops = Aggregation(By.KIND, Window(1_000_000, 250_000))
    for question in (_by_the_broker(rows), few):
        for request in (Range(question, limit=100_000), Aggregate(question, hops)):
            assert _bare(path_of(request), rows_in(reader.ask(request))) == _twin(rows, request)
    get = Get(b"s3", 1_000 * rows[-1].fields[Field.AUTHORITY_MS] - 1, Frame.AUTHORITY)
    assert _bare("/get", rows_in(reader.ask(get))) == _twin(rows, get)


@pytest.fixture(scope="module")
def rows(served: tuple[Ledger, Worker]) -> list[Row]:
    """Of the ledger that is served, for the plain twin."""
    found = _rows_of(served[0])
    assert sum(row.counted for row in found) == EVENTS
    return found


def test_by_the_brokers_time_it_is_when_events_came(
    asked: Ledger, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges, windows, and the last event before an instant; by their sources' clocks all events are of another day."""
    question = _by_the_broker(rows)
    pairs = [("frame", "authority"), ("from", str(question.from_us)), ("to", str(question.to_us))]
    assert _answered(asked, capsys, "/range", [*pairs, ALL]) == _twin(rows, Range(question))
    windows = Aggregate(question, Aggregation(By.SOURCE, Window(20_000), percentiles=(50_000,)))
    of_windows = [*pairs, ("by", "source"), ("window_ms", "20"), ("percentiles", "50")]
    assert _answered(asked, capsys, "/aggregate", of_windows) == _twin(rows, windows)

    newest = last_event(rows, b"s3", None, Frame.AUTHORITY)
    assert newest is not None
    before_us = 1_000 * newest.fields[Field.AUTHORITY_MS] - 1
    (earlier,) = _answered(asked, capsys, "/get", [("source", "s3"), ("frame", "authority"), ("at", str(before_us))])
    assert [earlier] == _twin(rows, Get(b"s3", before_us, Frame.AUTHORITY))
    assert earlier["event_id"] != newest.fields[Field.EVENT_ID]


def test_sequences_are_asked_for_by_partition(
    asked: Ledger, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ends are in it. Partitions that are named otherwise are whole; without such, no other one is asked."""
    last = _counts(rows)
    question = Question(sequences={0: (10, 20), 3: (last[3] - 30, INT64_MAX)})
    pairs = [("sequences", "0:10-20"), ("sequences", f"3:{last[3] - 30}-")]
    listed = _answered(asked, capsys, "/range", pairs)
    assert listed == _twin(rows, Range(question))
    spans = (0, range(10, 21)), (3, range(last[3] - 30, last[3] + 1))
    places = [(partition, sequence) for partition, span in spans for sequence in span]
    assert sorted((line["partition"], line["sequence"]) for line in listed) == places

    by_source = Aggregation(By.SOURCE, percentiles=(99_900,))
    of_sources = [*pairs, ("by", "source"), ("percentiles", "99.9")]
    assert _answered(asked, capsys, "/aggregate", of_sources) == _twin(rows, Aggregate(question, by_source))

    question = Question(partitions=(0, 1), sequences={0: (10, 20)})
    pairs = [("sequences", "0:10-20"), ("partition", "0"), ("partition", "1"), ALL]
    listed = _answered(asked, capsys, "/range", pairs)
    assert listed == _twin(rows, Range(question))
    assert len(listed) == 11 + last[1]


@pytest.mark.parametrize("frame", [Frame.LOCAL, Frame.AUTHORITY])
def test_query_windows_may_overlap(
    asked: Ledger, rows: list[Row], capsys: pytest.CaptureFixture[str], frame: Frame
) -> None:
    """An event is in four windows that are four slides long; in two or three where slides do not fit into them."""
    for size_ms, slide_ms in ((1_000, 250), (700, 300)):
        hops = Aggregation(By.KIND, Window(1_000 * size_ms, 1_000 * slide_ms), percentiles=(50_000,))
        pairs = [("window_ms", str(size_ms)), ("slide_ms", str(slide_ms)), ("by", "kind"), ("percentiles", "50")]
        groups = _answered(asked, capsys, "/aggregate", [*pairs, ("frame", frame.value)])
        assert groups == _twin(rows, Aggregate(Question(frame), hops))
        counted = sum(group["count"] for group in groups)
        assert counted == 4 * EVENTS if slide_ms == 250 else 2 * EVENTS <= counted <= 3 * EVENTS


def test_corrected_time_is_reckoned_from_what_judge_says(asked: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command and HTTP alike: local time less the offset, else the broker's; windows count what the rows say."""
    frame = [("frame", "corrected")]
    lines = _lines(asked, "/range", [*frame, ALL])
    assert len(lines) == EVENTS + DUPLICATES
    for line in lines:
        known = line["bound_us"] is not None
        expected = line["local_timestamp_us"] - line["offset_us"] if known else 1_000 * line["authority_timestamp_ms"]
        assert line["corrected_timestamp_us"] == expected
    groups = _answered(asked, capsys, "/aggregate", [*frame, ("window_ms", "1000")])
    starts = Counter(line["corrected_timestamp_us"] // 10**6 * 10**6 for line in lines if not line["flags"] & _REPEATED)
    assert {group["window_start_us"]: group["count"] for group in groups} == starts
    assert sum(group["unknown"] for group in groups) == sum(
        line["bound_us"] is None for line in lines if not line["flags"] & _REPEATED
    )
    assert all(group["unknown"] <= group["near_edge"] <= group["count"] for group in groups)
    last = _lines(asked, "/get", [*frame, ("source", "s3")])
    assert last[0]["corrected_timestamp_us"] == max(
        line["corrected_timestamp_us"] for line in lines if line["source"] == "s3" and not line["flags"] & _REPEATED
    )
    assert main(["aggregate", "--frame", "corrected", "--unknown", "exclude", "--explain"]) == 0
    assert "statistics none in frame corrected" in capsys.readouterr().err


def test_a_kind_is_asked_for_by_its_name(asked: Ledger, rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    """One, several of which one is nobody's, and none that is there."""
    listed = _answered(asked, capsys, "/range", [("kind", "k1"), ALL])
    assert listed == _twin(rows, Range(Question(kinds=(b"k1",))))
    assert {line["event_id"] for line in listed} == {f"e{n}" for n in range(1, EVENTS, 3)}

    several = [("kind", "k2"), ("kind", "k0"), ("kind", "k9"), ("source", "s5")]
    question = Question(sources=(b"s5",), kinds=(b"k2", b"k0", b"k9"))
    assert _answered(asked, capsys, "/range", [*several, ALL]) == _twin(rows, Range(question))
    by_kind = _answered(asked, capsys, "/aggregate", [*several, ("by", "kind")])
    assert by_kind == _twin(rows, Aggregate(question, Aggregation(By.KIND)))
    assert [(line["kind"], line["sum"]) for line in by_kind] == [
        (f"k{k}", math.fsum(VALUES[n] for n in range(5, EVENTS, SOURCES) if n % 3 == k)) for k in (0, 2)
    ]

    assert main(["range", "--kind", "k9"]) == 0
    assert "nothing is there" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- explained


class Told(NamedTuple):
    """What a command printed, and what it explained. said: its last lines, of whom it asked."""

    out: str
    said: list[str]
    rows: int
    skipped: int
    statistics: int
    edges: int
    by_rows: int
    scanned: int
    unsealed: int


def _explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> Told:
    capsys.readouterr()
    assert main([*arguments, "--output", "jsonl", "--explain"]) == 0
    captured = capsys.readouterr()
    answer, of_chunks, decoded, rows, *said = captured.err.splitlines()
    assert decoded.startswith("decoded ")
    found = [
        re.fullmatch(r"answer     (\d+) rows? in [0-9.]+ ms", answer),
        re.fullmatch(
            r"chunks     (\d+) skipped, (\d+) from statistics, (\d+) in part from statistics, (\d+) by rows; "
            r"0 of these in archives",
            of_chunks,
        ),
        re.fullmatch(r"rows       (\d+) scanned in chunks, (\d+) unsealed", rows),
    ]
    numbers = [int(number) for line in found if line is not None for number in line.groups()]
    return Told(captured.out, said, *numbers)


def test_rows_and_the_last_event_are_explained(
    asked: Ledger, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    """How many there are, that each row where they may be was looked at once, and who was asked."""
    address, count = find_workers(asked.settings)[0].address, _counts(rows)
    told = _explained(capsys, "range", "--partition", "1", "--partition", "3", "--limit", "100000")
    assert told.rows == len(told.out.splitlines()) == count[1] + count[3]
    assert told.said == [f"asked      {address}: partitions 1, 3"]
    assert told.scanned + told.unsealed == count[1] + count[3]

    told = _explained(capsys, "get", "s3")
    place = json.loads(told.out)["partition"]
    assert told.rows == 1
    assert told.said == [f"asked      {address}: partitions 0, 1, 2, 3"]
    assert told.scanned + told.unsealed == count[place]
    _, _, body = _fetch(asked, "/get?source=s3&explain=1")
    row, last = [json.loads(line) for line in body.splitlines()]
    assert row["event_id"] == json.loads(told.out)["event_id"]
    assert (last["more"], last["partitions"]) == (False, [0, 1, 2, 3])
    assert (last["explain"]["rows_scanned"], last["explain"]["rows_unsealed"]) == (told.scanned, told.unsealed)
    said = [f"asked      {address}: partitions 0", "nothing of the source 's3' is there"]
    assert _explained(capsys, "get", "s3", "--partition", "0") == ("", said, 0, 0, 0, 0, 0, 0, 0)


def test_without_a_worker_it_is_explained_which_chunks_were_read(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of those that the ledger makes, the one in which the rows are; each entry of the ledger was read for it."""
    settings = begin(kafka, prefix)
    sent = (event("s", f"e{n}", BEGAN_US + 10_000 * n) for n in range(2 * chunks.ROWS + 10))
    produce(settings, settings.input_topic, ((None, value, []) for value in sent))
    sequence(settings)
    use(settings, monkeypatch)
    monkeypatch.setenv("DRIFTLEDGER_DATA_DIR", str(tmp_path))
    entries = len(records(settings))
    local = [
        f"asked      {tmp_path}: partitions 0",
        f"           partition 0: no store up to index 0, {entries} entries read from the ledger",
    ]
    for arguments, rows in (
        (("range", "--sequences", "0:101-107"), [f"e{n}" for n in range(100, 107)]),
        (("get", "s", "--at", str(BEGAN_US + 10_000 * 77)), ["e77"]),
    ):
        told = _explained(capsys, *arguments)
        assert [json.loads(line)["event_id"] for line in told.out.splitlines()] == rows
        assert told.rows == len(rows)
        assert (told.statistics, told.edges, told.by_rows) == (0, 0, 1)
        assert told.skipped > 0
        assert len(rows) <= told.scanned <= chunks.ROWS
        assert told.said == local


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
        rows = _rows_of(ledger)
        _check_against_the_twin(reader, rows)
        of_two = [_percentiles(reader, exact=exact) for exact in (False, True)]
        second.stop()
        first.stop()
    assert [_percentiles(reader, exact=exact) for exact in (False, True)] == of_two
    _check(reader)
    _check_against_the_twin(reader, rows)
    explained = explanation(reader.aggregate())
    assert explained["answers"][0]["by"] == str(ledger.folder)
    assert sum(place["read"] for place in explained["answers"][0]["local"]) > 0
    elsewhere = ledger.settings.model_copy(update={"data_dir": ledger.folder / "nothing"})
    _check(Reader(elsewhere))
    _check_against_the_twin(Reader(elsewhere), rows)
    assert {place["store"] for place in explanation(Reader(elsewhere).aggregate())["answers"][0]["local"]} == {None}


def _percentiles(reader: Reader, *, exact: bool) -> pa.Table:
    table = reader.aggregate(by="kind", percentiles=[1, 50, 99.9], exact=exact)
    assert set(table["method"].to_pylist()) == ({"exact"} if exact else {"ddsketch"})
    return table.replace_schema_metadata()


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
    table = Reader(ledger.settings).aggregate(percentiles=[50], exact=True)
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
