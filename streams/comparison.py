# ruff: noqa: S608 - the SQL is made of integers, and of names of [a-z0-9_]
"""The results on the aggregates topic, compared with what the raw input says (see `recount`).

Every result up to the last entry read is compared, early ones and each revision: that it is there, once, count, values,
the entry that caused it, and each function to the last bit (see `recount_windows` for what is left out where a window
was revised very often). Exact percentiles must be equal; those of a sketch within its relative error of the exact one.
From the beginning of a partition, so are the counts of late events, by source and report.

HAZARD whether a definition really had to be suspended is not checked; what it said before is. Nor is it whether so many
sketches were in use at a time that a window got none: only that the definition had so many windows that need one, and
in a range not even that, for those before it are not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from schemas.instants import INT64_MAX, INT64_MIN, format_us
from streams.aggregates import LateCounts, Result, Suspension
from streams.recount import Recount
from streams.recount_windows import fill, slices, windows_over
from streams.windows import Frame, Function, Kind, percentile_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from schemas.columns import Entries
    from streams.aggregates import AggregateRecord
    from streams.definitions import JudgeSettings
    from streams.recount import InForce
    from streams.windows import WindowDefinition

#: Differences of a definition that are told one by one; the others are counted.
DIFFERENCES_MAX: Final = 100
_RECORDS_AT_ONCE: Final = 10_000
_FUNCTIONS: Final = tuple(str(function) for function in Function if function is not Function.COUNT)
#: Values up to which percentiles must be exact, and beyond which a sketch may have given up.
_EXACT_VALUES: Final = 256
_SKETCH_BINS: Final = 1_792
#: Windows of a definition that may have a sketch at once; of one more there are no percentiles.
SKETCHES: Final = 2_048
#: The error of a sketch, and what rounding adds; zero and what is below the least indexable double share a bin.
_SKETCH_ERROR: Final = "0.01000000001"
_LEAST_INDEXABLE: Final = "2.2250738585072014e-308"
_STANDING: Final = {
    "name": pa.string(), "version": pa.int64(), "key": pa.string(), "start_us": pa.int64(), "end_us": pa.int64(),
    "frame": pa.string(), "revision": pa.int64(), "final": pa.bool_(),
    "at_index": pa.int64(), "count": pa.int64(), "values": pa.int64(), "near_edge": pa.int64(),
    **dict.fromkeys(_FUNCTIONS, pa.float64()), "method": pa.string(), "percentiles": pa.list_(pa.float64()),
}  # fmt: skip
_REPORTED: Final = {
    "name": pa.string(), "version": pa.int64(), "source": pa.string(), "at_index": pa.int64(), "late": pa.int64(),
    "ahead": pa.int64(), "doubtful": pa.int64(),
}  # fmt: skip


class Difference(NamedTuple):
    """One field of one result: recomputed, and as it stands on the topic; None where there is no such result.

    window_start_us: None where it is a count of late events; then key is their source.
    """

    definition: str
    version: int
    partition: int
    key: str | None
    window_start_us: int | None
    field: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        of_it = f"key {'all' if self.key is None else repr(self.key)}, start {format_us(self.window_start_us or 0)}"
        if self.window_start_us is None:
            of_it = f"source {self.key!r}"
        return (
            f"partition {self.partition}, window {self.definition} version {self.version}, {of_it}: "
            f"{self.field} is {self.found!r}, recomputed {self.expected!r}"
        )


@dataclass(slots=True)
class DefinitionCheck:
    """Of one version of a definition in one partition. windows: final ones; events: in them, once for each window.

    results: compared, with early ones and revisions; sums: of those, bit for bit; late: events left out whose counts
    were compared; passed_over: why nothing could be, None as a rule; gone: final windows whose result the topic no
    longer keeps. differing: fields that differ; differences: the first of them.
    """

    partition: int
    definition: str
    version: int
    windows: int = 0
    results: int = 0
    events: int = 0
    sums: int = 0
    percentiles: int = 0
    late: int = 0
    gone: int = 0
    passed_over: str | None = None
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, found: Difference) -> None:
        """Count it, and keep it while there are few."""
        self.differing += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(found)


class Comparison:
    """Of one partition: take the entries, then the records of the topic, then compare. A context manager.

    first_sequence: the first that was asked for, where entries are taken from before it on.
    """

    def __init__(self, partition: int, settings: JudgeSettings | None = None, first_sequence: int = 1) -> None:
        self.recount = Recount(settings, judged=first_sequence == 1)
        self._partition, self._first_sequence = partition, first_sequence
        self._oldest_index = 0
        self.recount.sql.execute(
            f"""CREATE TABLE standing (name VARCHAR, version BIGINT, key VARCHAR, start_us BIGINT, end_us BIGINT,
            frame VARCHAR, revision BIGINT, final BOOLEAN, at_index BIGINT, count BIGINT, "values" BIGINT,
            near_edge BIGINT,
            {", ".join(f"{name} DOUBLE" for name in _FUNCTIONS)}, method VARCHAR, percentiles DOUBLE[])"""
        )
        self.recount.sql.execute(
            "CREATE TABLE reported (name VARCHAR, version BIGINT, source VARCHAR, at_index BIGINT, late BIGINT, "
            "ahead BIGINT, doubtful BIGINT)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.recount.__exit__(*details)

    def take_entries(self, entries: Entries) -> None:
        """The next entries."""
        self.recount.take(entries)

    def take_records(self, records: Iterable[AggregateRecord], oldest_index: int = 0) -> None:
        """What stands on the topic; oldest_index: of the first record it keeps, 0 where it keeps all there were."""
        self._oldest_index = oldest_index
        results: list[tuple[Any, ...]] = []
        reports: list[tuple[Any, ...]] = []
        for record in records:
            if record.at_index > self.recount.last_index:
                continue
            if isinstance(record, Suspension):
                self.recount.suspend(record.definition, record.version, record.at_index)
            elif isinstance(record, LateCounts):
                where = record.definition, record.version, record.source, record.at_index
                reports.append((*where, record.late, record.ahead, record.doubtful))
            else:
                results.append(_standing(record))
            if len(results) + len(reports) == _RECORDS_AT_ONCE:
                self._insert("standing", _STANDING, results)
                self._insert("reported", _REPORTED, reports)
        self._insert("standing", _STANDING, results)
        self._insert("reported", _REPORTED, reports)

    def compare(self, name: str | None = None) -> list[DefinitionCheck]:
        """Each version of each definition, or of the one of that name."""
        self.recount.settle()
        checks = [self._compare(one) for one in self.recount.in_force() if name in (None, one.definition.name)]
        return [*checks, *self._strays(name)]

    def _insert(self, table: str, columns: dict[str, pa.DataType], rows: list[tuple[Any, ...]]) -> None:
        """The rows, which are then none."""
        if rows:
            batch = pa.table(  # noqa: F841 - DuckDB reads it by its name
                [pa.array(of_it, kind) for of_it, kind in zip(zip(*rows, strict=True), columns.values(), strict=True)],
                names=list(columns),
            )
            self.recount.sql.execute(f"INSERT INTO {table} SELECT * FROM batch")
            rows.clear()

    def _compare(self, one: InForce) -> DefinitionCheck:
        definition, sql = one.definition, self.recount.sql
        check = DefinitionCheck(self._partition, definition.name, one.version)
        if definition.frame is Frame.CORRECTED and not self.recount.judged:
            check.passed_over = "its sources' clocks are known only from the beginning of the partition on"
            return check
        after_us = INT64_MIN
        if self._first_sequence > 1:
            clock_us = self.recount.clock_us(self._first_sequence)
            after_us = INT64_MIN if clock_us is None else clock_us + definition.max_ahead_us
        self.recount.mark(one)
        sql.execute(
            f"""CREATE OR REPLACE TABLE found AS
            SELECT *, count(*) OVER same AS results FROM standing
            WHERE name = '{definition.name}' AND version = {one.version} AND start_us > {after_us}
            WINDOW same AS (PARTITION BY key, start_us, revision)
            QUALIFY row_number() OVER same = 1"""
        )
        tests = _tests(definition, scarce=self._scarce(definition))
        for part in slices(sql, definition):
            fill(sql, definition, part)
            sql.execute(
                f"""CREATE OR REPLACE TABLE pairs AS
                SELECT e, f FROM (SELECT e FROM expected e WHERE start_us > {after_us}) AS a
                FULL JOIN (SELECT f FROM found f WHERE {part.where}) AS b
                ON e.start_us = f.start_us AND e.revision = f.revision AND e.key IS NOT DISTINCT FROM f.key"""
            )
            gone = f"f IS NULL AND e.at_index <= {self._oldest_index}"
            window = "e.stands AND e.final"
            count = sql.execute(
                f"""SELECT count(*) FILTER ({window}), count(*), coalesce(sum(e.count) FILTER ({window}), 0),
                    count(e.sum), coalesce(sum(len(e.percentiles)) FILTER (e.full), 0)
                FROM pairs WHERE e IS NOT NULL AND NOT ({gone})"""
            ).fetchone()
            left = sql.execute(f"SELECT count(*) FROM pairs WHERE {gone} AND {window}").fetchone()
            windows, results, events, sums, percentiles = map(int, count or (0, 0, 0, 0, 0))
            check.windows += windows
            check.results += results
            check.events += events
            check.sums += sums if Function.SUM in definition.functions else 0
            check.percentiles += percentiles
            check.gone += int(left[0]) if left else 0
            for found in self._differences(one, tests, gone):
                check.add(found)
        if self._first_sequence == 1:
            self._compare_late(one, check)
        return check

    def _compare_late(self, one: InForce, check: DefinitionCheck) -> None:
        """Counts of late events and of those ahead, by source and by the entry at which they must be told."""
        kept = "true"
        if self._oldest_index:  # of the first report that is still there others may be gone
            first = f"SELECT coalesce(min(i), {INT64_MAX}) FROM reports WHERE i >= {self._oldest_index}"
            kept = f"i > ({first})"
        beyond = f" UNION ALL SELECT {INT64_MAX}" if self.recount.has_ended(one) else ""  # where nothing may be told
        rows = self.recount.sql.execute(
            f"""WITH told AS (
                SELECT source, reports.i, sum(late) AS late, sum(ahead) AS ahead, sum(doubtful) AS doubtful FROM (
                    SELECT * FROM reported WHERE name = '{one.definition.name}' AND version = {one.version}) AS r
                ASOF JOIN (FROM reports{beyond}) AS reports ON r.at_index <= reports.i GROUP BY ALL)
            SELECT source, i, e.late, e.ahead, e.doubtful, f.late, f.ahead, f.doubtful
            FROM ({self.recount.late_counts(one.definition)}) AS e FULL JOIN told AS f USING (source, i)
            WHERE {kept} ORDER BY i, source"""
        ).fetchall()
        for source, index, *counts in rows:
            numbers = [None if number is None else int(number) for number in counts]
            check.late += sum(number or 0 for number in numbers[:3])
            for name, expected, found in zip(("late", "ahead", "doubtful"), numbers[:3], numbers[3:], strict=True):
                if expected != found:
                    text = f"{name} {'after its end' if index == INT64_MAX else f'at index {index}'}"
                    check.add(
                        Difference(
                            one.definition.name, one.version, self._partition, source, None, text, expected, found
                        )
                    )

    def _scarce(self, definition: WindowDefinition) -> bool:
        """Whether there may have been no sketch left for a window of `found` that says it has none."""
        unkept = f"""method = 'none' AND "values" > {_EXACT_VALUES} AND "values" <= {_SKETCH_BINS}"""
        if definition.kind is Kind.SLIDING or not self.recount.sql.execute(f"FROM found WHERE {unkept}").fetchone():
            return False
        return self._first_sequence > 1 or windows_over(self.recount.sql, definition, _EXACT_VALUES) > SKETCHES

    def _differences(self, one: InForce, tests: dict[str, str], gone: str) -> Iterator[Difference]:
        """Of the pairs of a slice."""
        cases = ", ".join(f"CASE WHEN NOT ({test}) THEN '{name}' END" for name, test in tests.items())
        rows = self.recount.sql.cursor().execute(
            f"""SELECT * FROM (SELECT e, f, CASE WHEN e IS NULL OR f IS NULL THEN ['result']
                ELSE list_filter([{cases}], lambda x: x IS NOT NULL) END AS fields
            FROM pairs WHERE NOT ({gone})) WHERE len(fields) > 0
            ORDER BY coalesce(e, f).start_us, coalesce(e, f).key, coalesce(e, f).revision"""
        )
        while found := rows.fetchmany(1_000):
            for expected, standing, fields in found:
                there = standing or expected
                for name in fields:
                    yield Difference(
                        one.definition.name,
                        one.version,
                        self._partition,
                        there["key"],
                        there["start_us"],
                        name,
                        *(_shown(row, name) for row in (expected, standing)),
                    )

    def _strays(self, name: str | None) -> list[DefinitionCheck]:
        """Results of a definition that was not in force."""
        known = {(one.definition.name, one.version) for one in self.recount.in_force()}
        rows = self.recount.sql.execute(
            """SELECT name, version, any_value(key), min(start_us), count(*)
            FROM (SELECT name, version, key, start_us FROM standing
                UNION ALL SELECT name, version, source, NULL FROM reported)
            GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
        strays = []
        for stray, version, key, start_us, count in rows:
            if (stray, version) not in known and name in (None, stray):
                check = DefinitionCheck(self._partition, stray, version)
                check.add(Difference(stray, version, self._partition, key, start_us, "version", None, version))
                check.differing = count
                strays.append(check)
        return strays


def _standing(record: Result) -> tuple[Any, ...]:
    return (
        record.definition, record.version, record.key, record.window_start_us, record.window_end_us, record.frame,
        record.revision, record.final, record.at_index, record.count, record.values, record.near_edge,
        *(record.functions.get(name) for name in _FUNCTIONS), record.method, list(record.percentiles.values()),
    )  # fmt: skip


def _tests(definition: WindowDefinition, *, scarce: bool) -> dict[str, str]:
    """By field what must hold between a recomputed result e and the standing one f, in SQL. scarce: sketches were."""
    tests = {name: f'e."{name}" = f."{name}"' for name in ("end_us", "final", "results", "at_index", "count", "values")}
    tests["frame"] = f"f.frame = '{definition.frame}'"
    tests["near_edge"] = "e.near_edge IS NOT DISTINCT FROM f.near_edge"
    for name in _FUNCTIONS:
        if name in {str(function) for function in definition.functions}:
            finite = f"CASE WHEN isfinite(e.{name}) THEN e.{name} END"
            tests[name] = f"NOT e.full OR {_same(finite, f'f.{name}')}"
    if definition.percentiles:
        unkept_from = _EXACT_VALUES if scarce else _SKETCH_BINS
        tests["method"] = f"""CASE WHEN e."values" <= {_EXACT_VALUES} THEN f.method = 'exact'
            ELSE f.method = 'ddsketch' OR f.method = 'none' AND e."values" > {unkept_from} END"""
    for place, percentile in enumerate(definition.percentiles, 1):
        e, f = f"e.percentiles[{place}]", f"f.percentiles[{place}]"
        tests[
            f"percentile {percentile_text(percentile)}"
        ] = f"""CASE f.method WHEN 'exact' THEN {_same(e, f)} WHEN 'none' THEN {f} IS NULL
            ELSE coalesce(abs({f} - {e}) <= abs({e}) * {_SKETCH_ERROR}
                OR {f} = 0 AND abs({e}) < {_LEAST_INDEXABLE}, false) END OR NOT e.full"""
    return {name: f"coalesce({test}, false)" for name, test in tests.items()}


def _same(e: str, f: str) -> str:
    """Equal to the last bit: zeros have a sign."""
    return f"({e} IS NOT DISTINCT FROM {f} AND signbit({e}) IS NOT DISTINCT FROM signbit({f}))"


def _shown(row: dict[str, Any] | None, name: str) -> Any:
    """The value of a field that differs; of what is not there, nothing."""
    if row is None:
        return None
    if name == "result":
        return {field: row[field] for field in ("count", "values", "revision", "final", "at_index")}
    if name.startswith("percentile "):
        return row["percentiles"]
    return row.get(name)
