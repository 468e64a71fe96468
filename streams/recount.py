# ruff: noqa: S608 - the SQL is made of integers, and of names of [a-z0-9_]
"""The raw input told again by DuckDB, for a second opinion about every result: see `recount_windows` for the windows.

Problem: the kernels that fill windows are fast and intricate, and a sum that is wrong in the last bit looks like any
other. So everything is told again from the entries in another way: values are decoded one by one by the general path,
which events count follows from running maxima in SQL, and what a window says from the ordered list of its values. It
shares no code with judge and derive, only the definitions; but where a source's clock is, for windows of frame
corrected, judge says here too.

    counted      readable, and no earlier event of the same source and event_id stands within the dedupe horizon
    A, F         running maxima, in order of index, of authority time and of the heartbeats' frontier
    W            running maximum, from the definition's own entry on, of min(t, A) - lateness of counted events that are
                 not ahead, and of F - max_behind
    in a window  the event is not ahead, and W at it, its own part included, is below the window's end (late = "update":
                 below the end + update)
    final        at the first entry whose W reaches the end, and again at each late event that is still taken
    early        where the greater of A and F crosses a multiple of early, of each window that an event came into since
    doubtful     in frame corrected, and its source's clock RED or not known, where the definition leaves it out
    left out     late, ahead, doubtful: counted by source, and reported at the next entry where the greater of A and F
                 crosses a multiple of ten seconds, or where the definition ends

GUARANTEE DuckDB's memory stays within MEMORY_LIMIT; the rest is in a folder of temporary files, some 300 bytes for each
entry.
HAZARD a value that was erased after it was counted cannot be counted again: its windows differ.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from schemas.canonical import EntryKind, ValueState
from schemas.codec import DecodeError, Framing, decode
from schemas.errors import BadInputError
from schemas.memory import bytes_at
from streams.control import read_control
from streams.dedupe import empty_memory
from streams.definitions import JudgeSettings
from streams.judge import Judge, JudgeState
from streams.values import ControlBody, judge_settings_in
from streams.windows import DEFINITIONS_MAX, By, Frame, Kind, WindowDefinition, read_entry, window_name

if TYPE_CHECKING:
    from typing import Self

    from schemas.columns import Entries

#: Of DuckDB; what is beyond it goes to disk.
MEMORY_LIMIT: Final = "1GB"
#: Instants before it are in no window.
_TIME_MIN_US: Final = -(1 << 62)
#: The clock's grid on which late events are reported.
_REPORT_US: Final = 10_000_000
#: An offset that is rounded to 5 s is RED.
_RED_FROM_US: Final = 4_999_500
#: In SQL: local time put right; beyond these it is no clock's.
_CORRECTED: Final = f"CASE WHEN abs(local_us::HUGEINT) <= {1 << 62} THEN local_us - offset_us ELSE local_us END"
#: Anybody may write a heartbeat that names an earlier one: in microseconds it must fit int64.
_FRONTIER_MIN_MS: Final = -(1 << 61) // 1_000
_ENTRIES: Final = {
    "i": pa.int64(), "s": pa.int64(), "horizon": pa.int64(), "authority_us": pa.int64(), "frontier_us": pa.int64(),
    "readable": pa.bool_(), "source": pa.string(), "event_id": pa.string(), "kind": pa.string(),
    "local_us": pa.int64(), "value": pa.float64(), "offset_us": pa.int64(), "bound_us": pa.int64(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class InForce:
    """A definition at work: for the entries behind the index `version` and before the index `until`.

    suspended: the last of these moved the watermark, but its event went into no window.
    """

    definition: WindowDefinition
    version: int
    until: int
    suspended: bool = False

    @property
    def stops_at(self) -> int:
        """Index of the first entry whose event goes into no window of it: of that which suspends or replaces it."""
        return self.until - self.suspended


class Recount:
    """Of one partition. Take all entries in order, then `settle`, then `mark` each definition.

    settings: the judge's in force at the first entry. judged: where the sources' clocks are is known, too: for entries
    from the first of the partition on. A context manager: the folder goes with it.
    """

    def __init__(self, settings: JudgeSettings | None = None, *, judged: bool = True) -> None:
        self._settings = settings or JudgeSettings()
        self.judged = judged
        self._judge = Judge()
        self._state = JudgeState(0, self._settings, memory=empty_memory(self._settings.dedupe_horizon))
        self._open: dict[str, tuple[int, WindowDefinition]] = {}
        self._ended: list[InForce] = []
        self.last_index = 0
        self.events = 0
        self._folder = tempfile.TemporaryDirectory(prefix="driftledger-check-")
        self.sql = duckdb.connect(f"{self._folder.name}/recount.duckdb")
        self.sql.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        self.sql.execute(f"SET temp_directory = '{self._folder.name}'")
        self.sql.execute("SET preserve_insertion_order = false")
        self.sql.execute(
            """CREATE TABLE entries (i BIGINT, s BIGINT, horizon BIGINT, authority_us BIGINT, frontier_us BIGINT,
            readable BOOLEAN, source VARCHAR, event_id VARCHAR, kind VARCHAR, local_us BIGINT, value DOUBLE,
            offset_us BIGINT, bound_us BIGINT)"""
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sql.close()
        self._folder.cleanup()

    # ----------------------------------------------------------------------------------------------------- what is read

    def take(self, entries: Entries) -> None:
        """The next entries."""
        clocks = self._clocks(entries)
        rows = [(*self._row(entries, row), *clocks[row]) for row in range(entries.kind.size)]
        columns = list(zip(*rows, strict=True)) or [()] * len(_ENTRIES)
        batch = pa.table(  # noqa: F841 - DuckDB reads it by its name
            [pa.array(column, kind) for column, kind in zip(columns, _ENTRIES.values(), strict=True)],
            names=list(_ENTRIES),
        )
        self.sql.execute("INSERT INTO entries SELECT * FROM batch")
        if rows:
            self.last_index = int(entries.index[-1])

    def _clocks(self, entries: Entries) -> list[tuple[int | None, int | None]]:
        """Of each entry's source after it: its clock's offset, and how far the truth may be from that."""
        if not self.judged:
            return [(None, None)] * entries.kind.size
        verdicts = self._judge.step(self._state, entries).verdicts
        pairs = zip(verdicts.offset_us.tolist(), verdicts.bound_us.tolist(), strict=True)
        return [(offset_us, bound_us) if bound_us >= 0 else (None, None) for offset_us, bound_us in pairs]

    def define(self, version: int, definition: WindowDefinition) -> None:
        """A definition that came into force before the first entry that is taken."""
        self._open[definition.name] = (version, definition)

    def suspend(self, name: str, version: int, index: int) -> None:
        """A definition outgrew its bounds at that entry; once all entries are taken."""
        self._ended = [
            InForce(one.definition, one.version, min(one.until, index + 1), suspended=index < one.until)
            if (one.definition.name, one.version) == (name, version)
            else one
            for one in self.in_force()
        ]
        self._open = {}

    def in_force(self) -> list[InForce]:
        """All definitions that were, in the order in which they came."""
        still = [InForce(definition, version, self.last_index + 1) for version, definition in self._open.values()]
        return sorted([*self._ended, *still], key=lambda one: (one.definition.name, one.version))

    def _row(self, entries: Entries, row: int) -> tuple[Any, ...]:
        """Of the table `entries`."""
        index, sequence = int(entries.index[row]), int(entries.sequence[row])
        present = entries.value_state[row] == ValueState.PRESENT and entries.value_address[row] != 0
        value = bytes_at(int(entries.value_address[row]), int(entries.value_length[row])) if present else b""
        if entries.kind[row] != EntryKind.DATA:
            frontier_us = self._control(index, int(entries.authority_ms[row]), value)
            return index, sequence, self._settings.dedupe_horizon, None, frontier_us, False, *[None] * 5
        self.events += 1
        authority_us = int(entries.authority_ms[row]) * 1_000
        before = index, sequence, self._settings.dedupe_horizon, authority_us, None
        try:
            event = decode("Event", value, Framing(self._settings.framing))
        except DecodeError:
            return *before, False, *[None] * 5
        number = event["value"]
        finite = number if number is not None and math.isfinite(number) else None
        return (*before, True, event["source"], event["event_id"], event["kind"], event["local_timestamp"], finite)

    def _control(self, index: int, authority_ms: int, value: bytes) -> int | None:
        """The frontier that a heartbeat proves; notes what a DEFINITION changes."""
        kind, body = read_control(value)
        if kind == "Heartbeat":
            proved_ms = body["predecessor_appended_ms"]
            return None if proved_ms is None else max(min(int(proved_ms), authority_ms), _FRONTIER_MIN_MS) * 1_000
        self._settings = judge_settings_in(ControlBody(0, kind, body)) or self._settings
        name = window_name(body["name"]) if kind == "Definition" else None
        if name is not None:
            try:
                self._adopt(index, name, read_entry(body["name"], body["body"]))
            except BadInputError:  # derive passes it over, so does everybody
                return None
        return None

    def _adopt(self, index: int, name: str, definition: WindowDefinition | None) -> None:
        before = self._open.pop(name, None)
        if before is not None:
            self._ended.append(InForce(before[1], before[0], index))
        if definition is not None and len(self._open) < DEFINITIONS_MAX:  # derive passes one too many over
            self._open[name] = (index, definition)

    # -------------------------------------------------------------------------------------------------- what follows

    def settle(self) -> None:
        """Once all entries are taken: the clocks at each, and which events count."""
        self.sql.execute(
            """CREATE TABLE clocked AS SELECT *, lag(clock_us) OVER (ORDER BY i) AS clock_before_us
            FROM (SELECT *, greatest(a, f) AS clock_us
                FROM (SELECT *, max(authority_us) OVER upto AS a, max(frontier_us) OVER upto AS f,
                        greatest(s - horizon, max(s - horizon + 1) OVER before) AS oldest
                    FROM entries
                    WINDOW upto AS (ORDER BY i ROWS UNBOUNDED PRECEDING),
                        before AS (ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)))"""
        )
        self.sql.execute("DROP TABLE entries")
        # Of events that came more than once: the first counts, then the first that does not remember that one, and so
        # on. Where even the one before is forgotten, nothing further back matters: a run begins.
        self.sql.execute(
            """CREATE TABLE again AS
            WITH several AS (
                SELECT source, event_id FROM clocked WHERE readable GROUP BY ALL HAVING count(*) > 1),
            placed AS (
                SELECT source, event_id, s, oldest, coalesce(lag(s) OVER same < oldest, true) AS begins
                FROM clocked JOIN several USING (source, event_id) WHERE readable
                WINDOW same AS (PARTITION BY source, event_id ORDER BY s))
            SELECT source, event_id, s, oldest, count(*) FILTER (begins) OVER (
                PARTITION BY source, event_id ORDER BY s ROWS UNBOUNDED PRECEDING) AS run FROM placed"""
        )
        self.sql.execute(
            """CREATE TABLE repeats AS
            WITH RECURSIVE firsts(source, event_id, run, s) AS (
                SELECT source, event_id, run, min(s) FROM again GROUP BY ALL
                UNION ALL
                SELECT again.source, again.event_id, again.run, min(again.s) FROM firsts
                JOIN again USING (source, event_id, run) WHERE again.oldest > firsts.s GROUP BY ALL)
            SELECT s FROM again EXCEPT SELECT s FROM firsts"""
        )
        self.sql.execute("DROP TABLE again")

    def clock_us(self, sequence: int) -> int | None:
        """The greater of A and F before the event of that sequence; A at the first event where nothing was before."""
        before = "greatest(max(a) FILTER (s < $1), max(f) FILTER (s < $1))"
        found = self.sql.execute(f"SELECT coalesce({before}, min(a)) FROM clocked", [sequence]).fetchone()
        return None if found is None else found[0]

    def mark(self, one: InForce) -> None:
        """Where every counted event stands in a definition, in tables, for `recount_windows` and `late_counts`.

        marked: its time (and how sure that is: NULL for not at all), key and the watermark at it. steps: the first
        entry of each watermark. crossings, reports: the entries that have early results told, and late events reported.
        """
        definition = one.definition
        way = _way(definition)
        time = {"authority": "authority_us", "correct": _CORRECTED}
        times = " ".join(f"WHEN '{name}' THEN {instant}" for name, instant in time.items())
        key = {By.SOURCE: "source", By.KIND: "kind", By.ALL: "NULL::VARCHAR"}[definition.by]
        for table in ("marked", "steps", "crossings", "reports"):
            self.sql.execute(f"DROP TABLE IF EXISTS {table}")
        self.sql.execute(
            f"""CREATE TABLE marked AS
            WITH events AS (
                SELECT i, s, a, f, clock_us, clock_before_us, frontier_us, source, {key} AS key,
                    readable AND s NOT IN (FROM repeats) AS counted, CASE WHEN value = 0 THEN 0.0 ELSE value END AS v,
                    CASE way {times} ELSE local_us END AS t, CASE way WHEN 'correct' THEN bound_us END AS bound_us,
                    way IN ('exclude', 'side') AS doubtful
                FROM (SELECT *, {way} AS way FROM clocked WHERE i > {one.version} AND i < {one.until})),
            taken AS (
                SELECT *, counted AND NOT doubtful AND t <= a + {definition.max_ahead_us} AS not_ahead FROM events),
            candidates AS (
                SELECT *, CASE WHEN frontier_us IS NOT NULL THEN f - {definition.max_behind_us}
                    WHEN not_ahead AND t >= {_TIME_MIN_US} THEN least(t, a) - {definition.lateness_us} END AS candidate
                FROM taken)
            SELECT i, s, t, bound_us, key, v, source, clock_us, clock_before_us,
                counted AND i < {one.stops_at} AS counted, not_ahead, doubtful,
                not_ahead AND t >= {_TIME_MIN_US} AND i < {one.stops_at} AS in_time,
                max(candidate) OVER (ORDER BY i ROWS UNBOUNDED PRECEDING) AS w FROM candidates"""
        )
        self.sql.execute("CREATE TABLE steps AS SELECT w, min(i) AS i FROM marked WHERE w IS NOT NULL GROUP BY w")
        early = _crosses(definition.early_us) if definition.early_us else "false"
        self.sql.execute(f"CREATE TABLE crossings AS SELECT i FROM marked WHERE {early}")
        self.sql.execute(f"CREATE TABLE reports AS SELECT i FROM marked WHERE {_crosses(_REPORT_US)}")
        if self.has_ended(one):
            self.sql.execute(f"INSERT INTO reports SELECT {one.stops_at} WHERE {one.stops_at} NOT IN (FROM reports)")

    def has_ended(self, one: InForce) -> bool:
        """Whether it is suspended, withdrawn or replaced within the entries taken."""
        return one.stops_at <= self.last_index

    def late_counts(self, definition: WindowDefinition) -> str:
        """In SQL, of the definition that was marked: source, i (they must be reported by), late, ahead, doubtful."""
        first_end = "t + 1"
        if definition.kind is not Kind.SLIDING:
            size, slide = definition.size_us, definition.slide_us
            first_end = f"({floored(f'(t - {size})', slide)} + 1) * {slide} + {size}"
        late = f"CASE WHEN in_time THEN coalesce({first_end} <= w, false) ELSE true END"
        doubtful = "count(*) FILTER (doubtful)" if definition.frame is Frame.CORRECTED else "NULL::BIGINT"
        return f"""SELECT source, reports.i, count(*) FILTER (not_ahead) AS late,
                count(*) FILTER (NOT not_ahead AND NOT doubtful) AS ahead, {doubtful} AS doubtful
            FROM (SELECT * FROM marked WHERE counted AND (NOT not_ahead OR {late})) AS aside
            ASOF JOIN reports ON aside.i < reports.i GROUP BY ALL"""


def _way(definition: WindowDefinition) -> str:
    """In SQL: how a definition dates an event."""
    if definition.frame is not Frame.CORRECTED:
        return f"'{definition.frame}'"
    red = f"abs(offset_us) >= {_RED_FROM_US}"
    doubtful = f"WHEN bound_us IS NULL THEN '{definition.unknown}' WHEN {red} THEN '{definition.red}'"
    return f"CASE {doubtful} ELSE 'correct' END"


def floored(instant: str, step: int) -> str:
    """In SQL: the quotient rounded down, also before 1970."""
    return f"({instant} // {step} - ({instant} % {step} < 0)::BIGINT)"


def _crosses(grid_us: int) -> str:
    return f"{floored('clock_before_us', grid_us)} < {floored('clock_us', grid_us)}"
