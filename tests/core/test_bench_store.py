"""The comparison of stores: its rows, its right answers, what is called wrong, our tiers and jobs, and output."""

from __future__ import annotations

from fractions import Fraction
from io import StringIO
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from rich.console import Console

from benchmarks.events import PAYLOAD, SOURCE_BYTES
from benchmarks.ledger_check import CheckFailedError
from benchmarks.store import jobs, others
from benchmarks.store.__main__ import main
from benchmarks.store.apart import ApartError, apart
from benchmarks.store.archive_root import ArchiveRoot
from benchmarks.store.bars import ROWS, bars
from benchmarks.store.embedded import DuckDb
from benchmarks.store.filling import Kept, fill
from benchmarks.store.oracle import Oracle
from benchmarks.store.ours import Archive, Hot
from benchmarks.store.picture import KINDS, draw
from benchmarks.store.questions import Groups, Kind, RowsOut, Tolerance, difference, drawn, label, source_codes
from benchmarks.store.report import JobFigures, Report, SizeFigures, StoreFigures, lines, notes, stores_in, tables
from benchmarks.store.rows import (
    LONG_PAYLOAD,
    NAMES,
    PARTITIONS,
    PIECE_ROWS,
    SOURCES,
    SPACING_US,
    START_US,
    UNITS,
    Rows,
    event_bytes,
    row_at,
)
from benchmarks.store.sizes import Sizes, archive_sizes, hot_sizes
from benchmarks.store.subjects import ROUNDS_MIN, Questions, Timing, measure, questions
from schemas.codec import decode
from schemas.topics import partition_for

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.store.questions import Asked

COUNT = 60_000
ROUNDS = 5


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Some rows."""
    return Rows(COUNT)


@pytest.fixture(scope="module")
def wanted(rows: Rows) -> Questions:
    """All kinds of questions to them, with their answers."""
    return questions(rows, ROUNDS)


@pytest.fixture(scope="module")
def filled(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with them in the hot tier."""
    folder = tmp_path_factory.mktemp("filled") / "ours"
    fill(folder, rows)
    return folder


# ---------------------------------------------------------------------------------------------------------------- rows


def test_rows_are_the_same_however_they_are_asked_for() -> None:
    """By piece and by number, and the first of many are those of few, but for where these end."""
    few, many = Rows(PIECE_ROWS + 5_000), Rows(2 * PIECE_ROWS)
    whole = [np.concatenate(columns) for columns in zip(*(piece[1:] for piece in few.pieces()), strict=True)]
    first, stop = PIECE_ROWS - 3_000, PIECE_ROWS + 2_000
    found = few.between(first, stop)
    assert found.first == first
    for column, right in zip(found[1:], whole, strict=True):
        assert np.array_equal(column, right[first:stop])
    other = many.between(0, PIECE_ROWS)
    for column, right in zip(other[1:], whole, strict=True):
        assert np.array_equal(column, right[:PIECE_ROWS])


def test_rows_are_of_a_ledger(rows: Rows) -> None:
    """Times rise, no two rows share a millisecond, sequences have no gap, sources keep to their partitions."""
    [piece] = rows.pieces()
    assert piece.local_us.size == COUNT
    assert (np.diff(piece.local_us // 1_000) > 0).all()
    assert (np.diff(piece.authority_ms) >= 0).all()
    assert (piece.authority_ms * 1_000 > piece.local_us).all()
    assert set(piece.source.tolist()) == set(range(SOURCES))
    for partition in range(PARTITIONS):
        of = piece.of(partition)
        assert np.array_equal(piece.sequence[of], np.arange(1, of.size + 1))
        assert rows.per_partition()[partition] == of.size
    homes = np.array([partition_for(name, PARTITIONS) for name in NAMES])
    assert np.array_equal(homes[piece.source], piece.partition)


def test_values_are_doubles_with_all_their_bits(rows: Rows) -> None:
    """Exactly the steps that the oracle adds up, and no easy ones: half of them need all but the last few bits."""
    [piece] = rows.pieces()
    assert all(
        Fraction(value) * UNITS == units for value, units in zip(piece.value[:500], piece.units[:500], strict=False)
    )
    assert np.count_nonzero(piece.units & 7) > COUNT * 0.8
    assert piece.value.min() >= 0
    assert piece.value.max() < 100


@pytest.mark.parametrize("payload", [PAYLOAD, LONG_PAYLOAD])
def test_events_are_those_rows(rows: Rows, payload: bytes) -> None:
    """The general decoder reads every field back; ids are different, a long payload is JSON of 63 bytes."""
    piece = rows.between(100, 160)
    some = np.arange(0, 60, 7)
    made = event_bytes(piece, some, long_payload=payload is LONG_PAYLOAD)
    ids = set()
    for row, line in zip(some.tolist(), made, strict=True):
        event = decode("Event", line[SOURCE_BYTES:].tobytes())
        name = NAMES[int(piece.source[row])]
        assert line[:SOURCE_BYTES].tobytes() == name == event["source"].encode()
        assert event["local_timestamp"] == piece.local_us[row]
        assert event["value"] == piece.value[row]
        assert len(event["payload"]) == len(payload)
        ids.add(event["event_id"])
        if payload is LONG_PAYLOAD:
            assert len(payload) == 63
            content = orjson.loads(event["payload"].replace(b":0", b":"))
            assert 0 <= content["battery"] <= 99
            assert -95 < content["rssi"] <= -40
    assert len(ids) == some.size


# ------------------------------------------------------------------------------------------------------------- answers


def brute(rows: Rows, asked: Asked) -> tuple[list[int], list[Fraction]]:
    """Start of the minute, and value, of each row that is asked for."""
    found = [
        (local // 60_000_000 * 60_000_000, Fraction(units, UNITS))
        for piece in rows.pieces()
        for local, source, units in zip(
            piece.local_us.tolist(), piece.source.tolist(), piece.units.tolist(), strict=True
        )
        if asked.from_us <= local < asked.to_us and asked.source in (None, source)
    ]
    return [start for start, _ in found], [value for _, value in found]


@pytest.mark.parametrize("kind", [Kind.MOST, Kind.TUMBLING, Kind.ONE_SOURCE])
def test_the_right_aggregate_is_the_true_one(rows: Rows, wanted: Questions, kind: Kind) -> None:
    """Row by row, in fractions."""
    asked = wanted.asked[kind][1]
    right = wanted.right[asked]
    starts, values = brute(rows, asked)
    groups = [0] * len(starts) if kind is not Kind.TUMBLING else starts
    assert right.start_us.tolist() == sorted(set(groups))
    for line, start in enumerate(right.start_us.tolist()):
        some = [value for group, value in zip(groups, values, strict=True) if group == start]
        assert right.count[line] == len(some)
        assert right.sum[line] == float(sum(some))
        assert (right.min[line], right.max[line]) == (float(min(some)), float(max(some)))
        assert right.mean[line] == float(sum(some) / len(some))


def test_the_oracle_goes_over_pieces() -> None:
    """Windows, ranges and rows that lie in two of them."""
    rows = Rows(PIECE_ROWS + 40_000)
    few = drawn(Kind.MOST, rows.count, 2)
    right = Oracle(rows).aggregates([*few, *drawn(Kind.TUMBLING, rows.count, 1)])
    assert int(right[2].count.sum()) == rows.count
    for asked, found in zip(few, right, strict=False):
        inside = sum(
            int(np.count_nonzero((piece.local_us >= asked.from_us) & (piece.local_us < asked.to_us)))
            for piece in rows.pieces()
        )
        assert int(found.count[0]) == inside


def test_questions_are_of_the_share_that_they_are_named_for(wanted: Questions) -> None:
    """80 % of the rows, a hundredth, and just as many rows as are to come out."""
    for asked in wanted.asked[Kind.MOST]:
        assert abs(int(wanted.right[asked].count[0]) - 0.8 * COUNT) < 2
    for asked in wanted.asked[Kind.ONE_SOURCE]:
        assert int(wanted.right[asked].count[0]) == pytest.approx(COUNT / 100, rel=0.25)
    for asked in wanted.asked[Kind.ROWS_OUT]:
        assert asked.rows == COUNT // 2
        assert asked.to_us - asked.from_us == asked.rows * SPACING_US
    assert len(set(wanted.asked[Kind.MOST])) == ROUNDS
    assert row_at(0) == START_US


def groups(**changed: Any) -> Groups:
    """An aggregate of two windows."""
    two = np.array([1.0, 2.0])
    whole = np.array([5, 6], np.int64)
    return Groups(whole * 60_000_000, whole, two * 10, two, two * 3, two * 2)._replace(**changed)


def test_an_answer_that_is_off_is_named() -> None:
    """Column by column: a line too few, a count, a sum beyond the tolerance, a value, what is no number."""
    right = groups()
    assert difference(right, groups(), Tolerance()) == ""
    off = np.array([10.0, 20.0 * (1 + 1e-10)])
    assert difference(right, groups(sum=off), Tolerance(sums=1e-9)) == ""
    assert "sum of line 1" in difference(right, groups(sum=off), Tolerance())
    assert "count of line 0 is 4" in difference(right, groups(count=np.array([4, 6])), Tolerance(sums=1e-9))
    assert "min" in difference(right, groups(min=np.array([1.0, 2.1])), Tolerance(sums=1e-9))
    assert "max" in difference(right, groups(max=np.array([np.nan, 6.0])), Tolerance(sums=1.0, values=1.0))
    assert "1 lines instead of 2" in difference(right, groups(start_us=np.array([300_000_000])), Tolerance())


def test_rows_out_are_compared_in_their_order(rows: Rows) -> None:
    """Two rows that changed places, a source, and a time cut to milliseconds where that is allowed."""
    [asked] = drawn(Kind.ROWS_OUT, rows.count, 1)
    right = Oracle(rows).answer(asked)
    assert isinstance(right, RowsOut)
    turned = right._replace(sequence=right.sequence[::-1])
    assert "sequence" in difference(right, turned, Tolerance())
    assert "source" in difference(right, right._replace(source=right.source[::-1]), Tolerance())
    cut = right._replace(local_us=right.local_us // 1_000 * 1_000)
    assert "local_us" in difference(right, cut, Tolerance())
    assert difference(right, cut, Tolerance(local_us=999)) == ""
    assert source_codes(["sensor-00003", "", "sensor-00049"]).tolist() == [3, -1, 49]


class Wrong:
    """A store that is right in everything but the last question of one kind."""

    name = "wrong"
    tolerance = Tolerance()

    def __init__(self, rows: Rows, bad: Asked) -> None:
        self._oracle, self._bad = Oracle(rows), bad
        self.asked: list[Asked] = []

    def ask(self, asked: Asked) -> Any:
        """What is right, or nearly so."""
        self.asked.append(asked)
        answer = self._oracle.answer(asked)
        return answer._replace(count=answer.count + 1) if asked == self._bad and isinstance(answer, Groups) else answer

    def told(self, asked: Asked, said: Any) -> Any:
        """As it is."""
        assert asked in self.asked
        return said

    def close(self) -> None:
        """Nothing is open."""


def test_no_figure_without_right_answers(rows: Rows, wanted: Questions) -> None:
    """One wrong answer of many, and there is none; else each was compared before any of its kind was timed."""
    kinds = {Kind.MOST: wanted.asked[Kind.MOST]}
    some = Questions(kinds, wanted.right)
    with pytest.raises(CheckFailedError, match=r"wrong answers .* wrongly: count of line 0"):
        measure(Wrong(rows, kinds[Kind.MOST][-1]), rows, some)
    good = Wrong(rows, drawn(Kind.ONE_SOURCE, COUNT, 1)[0])
    timing = measure(good, rows, some)[Kind.MOST]
    assert timing.rounds == ROUNDS >= ROUNDS_MIN
    assert good.asked == 2 * kinds[Kind.MOST]
    assert timing.p50_ms <= timing.p95_ms


# -------------------------------------------------------------------------------------------------------- stores, jobs


def asked_of(store: Any, rows: Rows, wanted: Questions) -> None:
    """All questions are answered rightly."""
    try:
        assert set(measure(store, rows, wanted)) == set(Kind)
    finally:
        store.close()


def test_the_hot_tier_answers_rightly(filled: Path, rows: Rows, wanted: Questions) -> None:
    """And holds rows in chunks and rows in none."""
    states = Kept(filled).states()
    assert all(state.visible.rows > 0 for state in states.values())
    asked_of(Hot(filled), rows, wanted)


def test_entries_are_read_from_any_on(filled: Path, rows: Rows) -> None:
    """As they were written, with texts that are where they are said to be."""
    last = rows.per_partition()[1]
    whole = [entries.index.tolist() for entries in Kept(filled).entries(1).read(1, last)]
    assert list(chain(*whole)) == list(range(1, last + 1))
    some = [entries.index.tolist() for entries in Kept(filled).entries(1).read(4_990, 5_010)]
    assert list(chain(*some)) == list(range(4_990, 5_011))


def test_jobs_lose_no_row(filled: Path, rows: Rows, wanted: Questions, tmp_path: Path) -> None:
    """Sealed, joined, moved, sent away and brought back; asked in between; pruned at last."""
    root, days = tmp_path / "root", tmp_path / "days"
    in_chunks = sum(rows.per_partition()) - sum(state.visible.rows for state in Kept(filled).states().values())
    assert jobs.seal_hours(filled, root, COUNT).rows == in_chunks
    joined = jobs.compact_hours(filled, root, COUNT)
    assert joined.rows == in_chunks
    assert {segment.grain.value for segment in ArchiveRoot(root).segments()} == {"daily"}
    assert jobs.verify_all(root).rows == in_chunks
    asked_of(Archive(filled, ArchiveRoot(root)), rows, wanted)
    assert jobs.seal_days(filled, days).rows == in_chunks
    assert jobs.compact_days(days).rows == in_chunks
    assert len(ArchiveRoot(days).segments()) == PARTITIONS
    away = jobs.demote_hours(filled, root, COUNT)
    assert 0 < away.rows < in_chunks
    assert jobs.promote_all(filled, root).rows == away.rows
    asked_of(Hot(filled), rows, wanted)
    assert jobs.demote_files(root).rows == in_chunks
    assert {segment.tier.value for segment in ArchiveRoot(root).segments()} == {"deep"}
    asked_of(Archive(filled, ArchiveRoot(root)), rows, wanted)
    pruned = tmp_path / "pruned"
    jobs.seal_days(filled, pruned)
    assert 0 < jobs.prune_all(pruned).rows < in_chunks
    assert len(ArchiveRoot(pruned).segments()) == PARTITIONS


def test_sizes_are_of_what_is_there(tmp_path: Path) -> None:
    """A row of a series is the smaller part; a payload costs what it should, in both tiers."""
    rows = Rows(40_000)
    fill(tmp_path / "ours", rows, long_payload=True)
    jobs.seal_hours(tmp_path / "ours", tmp_path / "root", rows.count)
    for sizes in (hot_sizes(tmp_path / "ours"), archive_sizes(tmp_path / "root")):
        assert 8 < sizes.row < 16
        assert 1 < sizes.payload < 40
        assert sizes.row + sizes.ids + sizes.payload < sizes.whole


def test_a_prune_of_many_files_is_planned() -> None:
    """The tree that it is planned over holds, and the plan takes what is beyond."""
    assert jobs.prune_plan_ms() > 0


def test_duckdb_answers_rightly(rows: Rows, wanted: Questions, tmp_path: Path) -> None:
    """The one of the others that is always there."""
    asked_of(DuckDb(tmp_path, rows, 2), rows, wanted)


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in others.OTHERS if name != "duckdb"])
def test_another_store_answers_rightly(name: str, rows: Rows, wanted: Questions, tmp_path: Path) -> None:
    """Where it is installed."""
    if lacking := others.missing(name):
        pytest.skip(lacking)
    folder = tmp_path / name
    folder.mkdir()
    asked_of(others.OTHERS[name].kind(folder, rows, 2), rows, wanted)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to install it."""
    assert others.missing("duckdb") == ""
    monkeypatch.setattr(others, "program", lambda _: None)
    assert others.missing("influxdb") == "influxd, setpriv not found; apt-get install influxdb"


def test_what_runs_apart_says_why_it_failed() -> None:
    """Whatever was raised there; what it returns comes back with the memory that it took."""
    assert apart(label, Kind.MOST, 100).value == "aggregate of 80 %"
    assert 10 < apart(label, Kind.MOST, 100).peak_mb < 2_000
    with pytest.raises(ApartError, match="KeyError"):
        apart(label, "none", 100)


# -------------------------------------------------------------------------------------------------------------- figures


def store(name: str, ms: float, rows: int = ROWS) -> StoreFigures:
    """One that answers everything in so many ms."""
    timings = {kind: Timing(ms, 2 * ms, 31) for kind in Kind}
    return StoreFigures(name, "1.0", rows, 2, timings, 10.0, 30.0)


def report(**changed: Any) -> Report:
    """Of all kinds of figures."""
    sizes = Sizes(0.1, 2.0, 0.8, 7.0, 17.0, 5.0, 40.0)
    return Report(
        [store("hot tier", 0.5), store("archives", 0.9), store("DuckDB, own file", 4.0), store("InfluxDB", 500.0)],
        [SizeFigures("archives", 63, sizes), SizeFigures("hot tier", 14, sizes)],
        [JobFigures("compact, 30 days", ROWS, 120, 0.5, 300.0), JobFigures("verify", ROWS, 4, 2.0, 310.0)],
        12.0,
        {"chdb": "chdb not found; make bench-store installs it"},
        {"postgresql": "it fell"},
    )._replace(**changed)


def shown(found: Report) -> str:
    """All tables and notes as they are printed."""
    console = Console(file=StringIO(), width=220)
    for table in tables(found):
        console.print(table)
    for text in notes(found):
        console.print(text)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_figures_are_shown() -> None:
    """Medians and 95th percentiles, rates, sizes, jobs; what is left out, and what failed."""
    text = shown(report())
    for part in (
        "2,000,000 rows, 2 threads", "0.50 / 1.00", "500 / 1,000", "100,000 rows out", "1,000,000 points", "200,000",
        "9.90", "compact, 30 days", "4,000,000", "prune over 10,000 files: 12.0 ms",
        "left out: chdb: chdb not found", "FAILED: postgresql: it fell",
    ):  # fmt: skip
        assert part in text


def test_figures_are_drawn_from_their_lines(tmp_path: Path) -> None:
    """Those of the last run in the file; what is no store is passed over."""
    content = b"".join(lines(report(stores=[store("hot tier", 9.0)]), {"cpu": "x"}, "2026-10-01T00:00:00Z"))
    content += b"".join(lines(report(), {"cpu": "x"}, "2026-10-02T00:00:00Z"))
    assert stores_in(content) == report().stores
    assert {orjson.loads(line)["what"] for line in content.splitlines()} == {
        "store", "size", "job", "plan", "left out", "failed",
    }  # fmt: skip
    draw(stores_in(content), tmp_path / "one.png")
    draw(stores_in(content), tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    assert len(KINDS) == 4


def test_bars_are_about_what_was_promised() -> None:
    """Times and ratios over two million rows, sizes, rates and memory of jobs; what is missed is told."""
    found = {bar.what: bar for bar in bars(report())}
    assert found["hot tier, aggregate of 80 %, ms"].reached
    assert found["hot tier against DuckDB, own file, one source, 1 %, times as fast"].figure == 8
    assert found["archives, row and payload, bytes"].figure == pytest.approx(14.9)
    assert found["hot tier, row, bytes"].limit == 12
    assert found["compact, 30 days, rows/s"].figure == 4_000_000
    assert found["verify, peak MB"].reached
    assert all(bar.reached for bar in found.values())
    slow = report(stores=[store("hot tier", 5.0), store("InfluxDB", 40.0)])
    missed = {bar.what for bar in bars(slow) if not bar.reached}
    assert "hot tier, aggregate of 80 %, ms" in missed
    assert "hot tier against InfluxDB, 1 minute over all, times as fast" in missed
    assert not [bar for bar in bars(report(stores=[store("hot tier", 5.0, 50_000)])) if "hot tier, agg" in bar.what]


def test_the_command_says_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that there is not, a picture of nothing or without a place, a file that cannot be written."""
    assert main(["--store", "oracle"]) == 2
    assert "--store oracle is none of driftledger, duckdb" in capsys.readouterr().err
    assert main(["--from", str(tmp_path / "none.jsonl")]) == 2
    (tmp_path / "figures.jsonl").write_bytes(b"".join(lines(report(), {}, "2026-10-02T00:00:00Z")))
    assert main(["--from", str(tmp_path / "figures.jsonl")]) == 2
    assert main(["--output", str(tmp_path / "nowhere" / "figures.jsonl")]) == 2
    assert "No such file or directory. Name a file that can be written" in capsys.readouterr().err
    assert main(["--from", str(tmp_path / "figures.jsonl"), "--picture", str(tmp_path / "store.png")]) == 0
    assert (tmp_path / "store.png").read_bytes().startswith(b"\x89PNG")
    assert main(["--help"]) == 0
