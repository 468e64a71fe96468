# ruff: noqa: S608 - the SQL is made of integers, and of names of [a-z0-9_]
"""Windows recounted by DuckDB: every result that a definition must have given, in the order in which it gave them.

Problem: the kernels that fill windows are fast and intricate, and a sum that is wrong in the last bit looks like any
other. So what a window says is told again from the ordered list of its values. A result is what had come until then: an
early one what came before its entry, the first final one what came before the window closed, and one for a late event
that event too. See `recount` for which events these are, and which entries.

GUARANTEE sum, mean and variance are folds in order of the sequence (`list_reduce`), so they are the kernel's to the
last bit; DuckDB's own sum, which adds in any order, is not used.
HAZARD the values of a window are folded anew for each of its results. Where those would be more than REVISED_VALUES,
only the last is told in full (`full`), of the others the entry, the count and the number of values.
Windows are gathered slice by slice; only the values of one window of one key must fit into memory, 20 million of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.instants import INT64_MAX, INT64_MIN
from streams.recount import floored
from streams.windows import By, Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from streams.windows import WindowDefinition

#: Events in windows that one query gathers, unless one window has more: about 100 bytes each.
SLICE_EVENTS: Final = 500_000
#: Of all results of a window, each counted with what it holds. DuckDB takes 2,048 results at a time, and copies to each
#: the values of its window: with these two bounds 10 million at most.
REVISED_VALUES: Final = 50_000


@dataclass(frozen=True, slots=True)
class Slice:
    """Windows that one query recounts: starts from first_us to last_us, and of their keys one part of `parts`."""

    first_us: int
    last_us: int
    part: int
    parts: int

    @property
    def where(self) -> str:
        """In SQL."""
        return f"start_us BETWEEN {self.first_us} AND {self.last_us} AND hash(key) % {self.parts} = {self.part}"


def slices(sql: duckdb.DuckDBPyConnection, definition: WindowDefinition) -> Iterator[Slice]:
    """All starts there can be, in parts whose events memory holds, for the definition that was marked."""
    starts = sql.cursor().execute(
        f"SELECT start_us, count(*) FROM ({_placed(definition, 'true')}) GROUP BY start_us ORDER BY start_us"
    )
    first_us, last_us, gathered = INT64_MIN, INT64_MIN, 0
    while rows := starts.fetchmany(10_000):
        for start_us, count in rows:
            if gathered and gathered + count > SLICE_EVENTS:
                yield from _parts(first_us, last_us, gathered)
                first_us, gathered = last_us + 1, 0
            last_us, gathered = start_us, gathered + count
    yield from _parts(first_us, INT64_MAX, gathered)


def windows_over(sql: duckdb.DuckDBPyConnection, definition: WindowDefinition, values: int) -> int:
    """How many windows, final or not, have more values than that, of the definition that was marked."""
    windows = f"FROM ({_placed(definition, 'true')}) GROUP BY key, start_us HAVING count(v) > {values}"
    [(count,)] = sql.execute(f"SELECT count(*) FROM (SELECT key, start_us {windows})").fetchall()
    return int(count)


def fill(sql: duckdb.DuckDBPyConnection, definition: WindowDefinition, of: Slice) -> None:
    """The table `expected`: all results of the windows of the slice.

    Columns: key, start_us, end_us, revision (from 1), stands (the last of its window), final, full, results (1),
    at_index, count, values, near_edge (NULL but in frame corrected), the functions, percentiles (a list, in the
    definition's order).
    """
    near = f"t BETWEEN {of.first_us} AND {min(of.last_us, INT64_MAX - definition.size_us) + definition.size_us}"
    ranks = ", ".join(f"ordered[({p} * len(ordered) + 99999) // 100000]" for p in definition.percentiles)
    welford = (
        "list_reduce(list_transform(vs, lambda x: {'n': 1.0::DOUBLE, 'x': x, 'mean': x, 'm2': 0.0::DOUBLE}),"
        " lambda a, b: {'n': a.n + 1, 'x': b.x, 'mean': a.mean + (b.x - a.mean) / (a.n + 1),"
        " 'm2': a.m2 + (b.x - a.mean) * (b.x - (a.mean + (b.x - a.mean) / (a.n + 1)))}).m2"
    )
    variance = welford if "variance" in {str(function) for function in definition.functions} else "NULL::DOUBLE"
    key = "NULL::VARCHAR" if definition.by is By.ALL else "of_key"
    near_edge = "count(*) FILTER (edge) OVER upto" if definition.frame is Frame.CORRECTED else "NULL::BIGINT"
    sql.execute("DROP TABLE IF EXISTS expected")
    sql.execute(
        f"""CREATE TABLE expected AS
        WITH placed AS (
            SELECT *, coalesce(key, '') AS of_key FROM ({_placed(definition, near)}) WHERE {of.where}),
        counted AS (
            SELECT of_key, start_us, i, row_number() OVER upto AS count, count(v) OVER upto AS "values",
                {near_edge} AS near_edge
            FROM placed WINDOW upto AS (PARTITION BY of_key, start_us ORDER BY i ROWS UNBOUNDED PRECEDING)),
        gathered AS (
            SELECT of_key AS full_key, start_us, list(v ORDER BY i) FILTER (v IS NOT NULL) AS vs
            FROM placed GROUP BY of_key, start_us),
        closed AS (
            SELECT start_us, steps.i AS closed_i
            FROM (SELECT DISTINCT start_us FROM placed) ASOF LEFT JOIN steps ON start_us + {definition.size_us} <= w),
        told AS (
            SELECT DISTINCT of_key, start_us, crossings.i AS at_index, 0 AS turn
            FROM placed JOIN closed USING (start_us) ASOF JOIN crossings ON placed.i < crossings.i
            WHERE NOT late AND coalesce(crossings.i <= closed_i, true)
            UNION ALL SELECT DISTINCT of_key, start_us, closed_i, 1
            FROM placed JOIN closed USING (start_us) WHERE NOT late AND closed_i IS NOT NULL
            UNION ALL SELECT of_key, start_us, i, 2 FROM placed WHERE late),
        results AS (
            SELECT told.*, count, "values", near_edge, row_number() OVER upto AS revision,
                revision = count(*) OVER whole AS stands, stands OR sum("values") OVER whole <= {REVISED_VALUES} AS full
            FROM (SELECT *, at_index + (turn = 2)::BIGINT AS before_i FROM told) AS told
            ASOF JOIN counted
                ON told.of_key = counted.of_key AND told.start_us = counted.start_us AND before_i > counted.i
            WINDOW whole AS (PARTITION BY told.of_key, told.start_us),
                upto AS (PARTITION BY told.of_key, told.start_us ORDER BY at_index, turn ROWS UNBOUNDED PRECEDING)),
        folded AS (
            SELECT *, list_reduce(vs, lambda a, b: a + b) AS total, list_sort(vs) AS ordered, {variance} AS m2
            FROM (SELECT results.*, CASE WHEN "values" > 0 THEN vs[1:"values"] END AS vs
                FROM (SELECT *, CASE WHEN "full" THEN of_key END AS full_key FROM results) AS results
                LEFT JOIN gathered USING (full_key, start_us)))
        SELECT {key} AS key, start_us, start_us + {definition.size_us} AS end_us, revision, stands, turn > 0 AS final,
            "full", 1 AS results, at_index, count, "values", near_edge,
            total AS sum, ordered[1] AS min, ordered[-1] AS max,
            total / "values" AS mean, m2 / "values" AS variance, vs[1] AS first, vs[-1] AS last,
            [{ranks}]::DOUBLE[] AS percentiles
        FROM folded"""
    )


def _placed(definition: WindowDefinition, near: str) -> str:
    """Every event of those that a window takes, once for each: i, key, v, start_us, late, edge (near one of its)."""
    size, slide, update = definition.size_us, definition.slide_us, definition.update_us
    if definition.kind is Kind.SLIDING:
        taken = f"SELECT * FROM marked WHERE in_time AND coalesce(t + 1 > w, true) AND {near}"
        return f"""WITH taken AS ({taken})
            SELECT i, taken.key, v, start_us, false AS late, false AS edge
            FROM (SELECT DISTINCT key, t AS last_us, t - {size} + 1 AS start_us FROM taken) AS ends
            JOIN taken ON ends.key IS NOT DISTINCT FROM taken.key AND t BETWEEN start_us AND last_us"""
    return f"""SELECT i, key, v, start_us, coalesce(start_us + {size} <= w, false) AS late,
            coalesce(t - start_us < bound_us OR start_us + {size} - t <= bound_us, true) AS edge
        FROM (SELECT i, t, bound_us, w, key, v,
                {floored("t", slide)} * {slide} - unnest(range({definition.windows_per_event})) * {slide} AS start_us
            FROM marked WHERE in_time AND {near})
        WHERE start_us + {size} > t AND coalesce(start_us + {size} + {update} > w, true)"""


def _parts(first_us: int, last_us: int, events: int) -> Iterator[Slice]:
    """A slice, by keys where it is too large: only one window can be."""
    parts = max(1, -(-events // SLICE_EVENTS))
    yield from (Slice(first_us, last_us, part, parts) for part in range(parts))
