# ruff: noqa: S608 - the SQL is made of integers, and of names of [a-z0-9_]
"""The results on the aggregates topic, compared with what the raw input says (see `recount`).

Every window that was final within what was read is compared: that it is there, and no result of it twice, count,
values, revision, the entry that made it final, and each function to the last bit. Exact percentiles must be equal;
those of a sketch within its relative error of the exact one.

HAZARD whether a definition really had to be suspended is not checked; what it said before is. Nor is it whether so many
sketches were in use at a time that a window got none: only that the definition had so many windows that need one, and
in a range not even that, for those before it are not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from schemas.instants import INT64_MIN, format_us
from streams.aggregates import Result, Suspension
from streams.recount import Recount
from streams.windows import Function, Kind, percentile_text

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
_RESULTS_AT_ONCE: Final = 10_000
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
    "frame": pa.string(), "revision": pa.int64(), "at_index": pa.int64(), "count": pa.int64(), "values": pa.int64(),
    **dict.fromkeys(_FUNCTIONS, pa.float64()), "method": pa.string(), "percentiles": pa.list_(pa.float64()),
}  # fmt: skip


class Difference(NamedTuple):
    """One field of one window: recomputed, and as it stands on the topic; None where there is no such result."""

    definition: str
    version: int
    partition: int
    key: str | None
    window_start_us: int
    field: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        key = "all" if self.key is None else repr(self.key)
        return (
            f"partition {self.partition}, window {self.definition} version {self.version}, key {key}, start "
            f"{format_us(self.window_start_us)}: {self.field} is {self.found!r}, recomputed {self.expected!r}"
        )


@dataclass(slots=True)
class DefinitionCheck:
    """Of one version of a definition in one partition. windows: compared; events: in them, once for each window.

    sums: compared bit for bit; gone: final windows whose result the topic no longer keeps. differing: fields that
    differ; differences: the first of them.
    """

    partition: int
    definition: str
    version: int
    windows: int = 0
    events: int = 0
    sums: int = 0
    percentiles: int = 0
    gone: int = 0
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
        self.recount = Recount(settings)
        self._partition, self._first_sequence = partition, first_sequence
        self._oldest_index = 0
        self.recount.sql.execute(
            f"""CREATE TABLE standing (name VARCHAR, version BIGINT, key VARCHAR, start_us BIGINT, end_us BIGINT,
            frame VARCHAR, revision BIGINT, at_index BIGINT, count BIGINT, "values" BIGINT,
            {", ".join(f"{name} DOUBLE" for name in _FUNCTIONS)}, method VARCHAR, percentiles DOUBLE[])"""
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
        rows = []
        for record in records:
            if record.at_index > self.recount.last_index:
                continue
            if isinstance(record, Suspension):
                self.recount.suspend(record.definition, record.version, record.at_index)
            elif isinstance(record, Result) and record.final:
                rows.append(_standing(record))
            if len(rows) == _RESULTS_AT_ONCE:
                self._insert(rows)
                rows = []
        self._insert(rows)

    def compare(self, name: str | None = None) -> list[DefinitionCheck]:
        """Each version of each definition, or of the one of that name."""
        self.recount.settle()
        checks = [self._compare(one) for one in self.recount.in_force() if name in (None, one.definition.name)]
        return [*checks, *self._strays(name)]

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            columns = zip(*rows, strict=True)
            batch = pa.table(  # noqa: F841 - DuckDB reads it by its name
                [pa.array(column, kind) for column, kind in zip(columns, _STANDING.values(), strict=True)],
                names=list(_STANDING),
            )
            self.recount.sql.execute("INSERT INTO standing SELECT * FROM batch")

    def _compare(self, one: InForce) -> DefinitionCheck:
        definition, sql = one.definition, self.recount.sql
        check = DefinitionCheck(self._partition, definition.name, one.version)
        after_us = INT64_MIN
        if self._first_sequence > 1:
            clock_us = self.recount.clock_us(self._first_sequence)
            after_us = INT64_MIN if clock_us is None else clock_us + definition.max_ahead_us
        self.recount.mark(one)
        sql.execute(
            f"""CREATE OR REPLACE TABLE found AS
            SELECT *, count(*) OVER (PARTITION BY key, start_us) AS results FROM standing
            WHERE name = '{definition.name}' AND version = {one.version} AND start_us > {after_us}
            QUALIFY row_number() OVER (PARTITION BY key, start_us ORDER BY revision DESC) = 1"""
        )
        tests = _tests(definition, scarce=self._scarce(definition))
        tests["results"] = "f.results <= e.results" if self._oldest_index else "f.results = e.results"
        for part in self.recount.slices(definition):
            self.recount.fill(definition, part)
            sql.execute(
                f"""CREATE OR REPLACE TABLE pairs AS
                SELECT e, f FROM (SELECT e FROM expected e WHERE start_us > {after_us}) AS a
                FULL JOIN (SELECT f FROM found f WHERE {part.where}) AS b
                ON e.start_us = f.start_us AND e.key IS NOT DISTINCT FROM f.key"""
            )
            gone = f"f IS NULL AND e.at_index <= {self._oldest_index}"
            count = sql.execute(
                f"""SELECT count(*), coalesce(sum(e.count), 0), count(e.sum), coalesce(sum(len(e.percentiles)), 0)
                FROM pairs WHERE e IS NOT NULL AND NOT ({gone})"""
            ).fetchone()
            left = sql.execute(f"SELECT count(*) FROM pairs WHERE {gone}").fetchone()
            windows, events, sums, percentiles = map(int, count or (0, 0, 0, 0))
            check.windows += windows
            check.events += events
            check.sums += sums if Function.SUM in definition.functions else 0
            check.percentiles += percentiles
            check.gone += int(left[0]) if left else 0
            for found in self._differences(one, tests, gone):
                check.add(found)
        return check

    def _scarce(self, definition: WindowDefinition) -> bool:
        """Whether there may have been no sketch left for a window of `found` that says it has none."""
        unkept = f"""method = 'none' AND "values" > {_EXACT_VALUES} AND "values" <= {_SKETCH_BINS}"""
        if definition.kind is Kind.SLIDING or not self.recount.sql.execute(f"FROM found WHERE {unkept}").fetchone():
            return False
        return self._first_sequence > 1 or self.recount.windows_over(definition, _EXACT_VALUES) > SKETCHES

    def _differences(self, one: InForce, tests: dict[str, str], gone: str) -> Iterator[Difference]:
        """Of the pairs of a slice."""
        cases = ", ".join(f"CASE WHEN NOT ({test}) THEN '{name}' END" for name, test in tests.items())
        rows = self.recount.sql.cursor().execute(
            f"""SELECT * FROM (SELECT e, f, CASE WHEN e IS NULL OR f IS NULL THEN ['result']
                ELSE list_filter([{cases}], lambda x: x IS NOT NULL) END AS fields
            FROM pairs WHERE NOT ({gone})) WHERE len(fields) > 0 ORDER BY coalesce(e, f).start_us, coalesce(e, f).key"""
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
            "SELECT name, version, any_value(key), min(start_us), count(*) FROM standing GROUP BY ALL ORDER BY ALL"
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
        record.revision, record.at_index, record.count, record.values,
        *(record.functions.get(name) for name in _FUNCTIONS), record.method, list(record.percentiles.values()),
    )  # fmt: skip


def _tests(definition: WindowDefinition, *, scarce: bool) -> dict[str, str]:
    """By field what must hold between a recomputed result e and the standing one f, in SQL. scarce: sketches were."""
    integers = ["end_us", "at_index", "count", "values"]
    if not definition.early_us:
        integers.append("revision")
    tests = {name: f'e."{name}" = f."{name}"' for name in integers}
    tests["frame"] = f"f.frame = '{definition.frame}'"
    for name in _FUNCTIONS:
        if name in {str(function) for function in definition.functions}:
            finite = f"CASE WHEN isfinite(e.{name}) THEN e.{name} END"
            tests[name] = _same(finite, f"f.{name}")
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
                OR {f} = 0 AND abs({e}) < {_LEAST_INDEXABLE}, false) END"""
    return {name: f"coalesce({test}, false)" for name, test in tests.items()}


def _same(e: str, f: str) -> str:
    """Equal to the last bit: zeros have a sign."""
    return f"({e} IS NOT DISTINCT FROM {f} AND signbit({e}) IS NOT DISTINCT FROM signbit({f}))"


def _shown(row: dict[str, Any] | None, name: str) -> Any:
    """The value of a field that differs; of what is not there, nothing."""
    if row is None:
        return None
    if name == "result":
        return {field: row[field] for field in ("count", "values", "revision", "at_index")}
    if name.startswith("percentile "):
        return row["percentiles"]
    return row.get(name)
