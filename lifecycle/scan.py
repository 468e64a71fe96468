"""A ledger as it stands now, read to its end in parts: what SQL and exports are made of.

Problem: what `reader` answers is held as a whole, and asks anew who has the data each time. A query over years, or a
file of them, must take the memory of a part, see one state of the ledger from its first part to its last, and not
notice that hours move between tiers, or partitions between workers, meanwhile.

How: entries never change, so a state is told by the first and the last sequence of each partition. These are taken once
and noted; each part is a question of its own for the next sequences, to whoever has the partition by then.

GUARANTEE every row between those sequences once, and none beside, wherever it lies; what is read of archives is
compared with its checksums, as every answer is. A part that does not come is asked for again, for `wait_s`.
GUARANTEE what was pruned meanwhile is found by `check`: rows that are gone by then are never left out without a word.
GUARANTEE memory: PART_ROWS rows, or PART_TEXT_BYTES of ids and payloads, of a partition; of `merged` that of each.
HAZARD what judge says of an event that is not stored yet is told as of now.
For several threads, a part at a time.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from lifecycle.answers import ORDER, PART_ROWS, PART_TEXT_BYTES, total_of
from lifecycle.archived_chunks import archives_of
from lifecycle.arrow import rows_table
from lifecycle.arrow_stream import read_part
from lifecycle.chunks import StoreDamagedError
from lifecycle.fetch import TIMEOUT_S, WAIT_S, answered, error_in, retry_after
from lifecycle.local import LocalPartitions
from lifecycle.planner import Explain, Field, Question
from lifecycle.reader import Reader
from lifecycle.requests import Range, encode, path_of
from schemas.clock import SystemTime
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.instants import INT64_MAX, NS_PER_S
from streams.broker import reach
from streams.queries import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lifecycle.archived_chunks import ArchivedChunks
    from streams.settings import Settings

#: Sequences that one question is about: so many are looked through in a second or two, though none be asked for.
SPAN_ROWS: Final = 4_194_304
#: Of a part where several partitions are merged.
_MERGED_ROWS_MIN: Final = 4_096
#: Of an answer, after which no more of it is read: twice what a worker puts into a part.
_PART_BYTES_MAX: Final = 4 * PART_TEXT_BYTES
_OK, _ELSEWHERE, _UNAVAILABLE = 200, 404, 503
#: Until who has a partition is asked again.
_BACKOFF_S: Final = 0.25
#: A worker is waited for in true time, whatever dates the events.
_system: Final = SystemTime()
_logger = structlog.get_logger()


class PrunedError(DriftledgerError):
    """Events went while they were read. Attributes: partition, sequence (the first that is there now; 0: none)."""

    def __init__(self, partition: int, before: int, sequence: int) -> None:
        super().__init__(
            f"partition {partition} began at sequence {before}, and now "
            f"{f'at {sequence}' if sequence else 'nowhere'}: archives were pruned meanwhile, so what was read is not "
            "whole. Ask again"
        )
        self.partition, self.sequence = partition, sequence


class _AgainError(UnreachableError):
    """A part that may come when it is asked for again, perhaps of somebody else."""

    def __init__(self, message: str, after_s: float = _BACKOFF_S) -> None:
        super().__init__(message)
        self.after_s = after_s


class Answer(NamedTuple):
    """A part. more: rows that were asked for stand behind it."""

    table: pa.Table
    explain: dict[str, Any]
    more: bool


class Scan:
    """All partitions of a ledger, or some; a context manager. Nothing is opened before something is asked for.

    Raises UnreachableError where a partition is answered by nobody for `wait_s`, and what questions raise.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: Sequence[int] | None = None,
        *,
        wait_s: float = WAIT_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._settings, self._wanted = settings, partitions
        self._wait_s, self._timeout_s = wait_s, timeout_s
        self._reader = Reader(settings)
        self._bootstrap = ""
        self._lock = threading.RLock()
        #: By partition the address of the worker that has it, None for none.
        self._holders: dict[int, str | None] = {}
        self._here: list[LocalPartitions] = []
        self._stored = True
        self._opened = ExitStack()
        self._archives: ArchivedChunks | None = None
        self._spans: dict[int, tuple[int, int]] | None = None
        self._done: dict[int, int] = {}
        self._explain = Explain()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of stores, archives and clients."""
        with self._lock:
            self._here.clear()
            self._opened.close()

    @property
    def spans(self) -> dict[int, tuple[int, int]]:
        """First and last sequence by partition, as they were when this was first asked; not of those without events.

        Raises BadInputError for a partition that is not there.
        """
        with self._lock:
            if self._spans is None:
                self._spans = self._begin()
            return self._spans

    @property
    def explain(self) -> Explain:
        """How what was read so far was found."""
        return self._explain

    def covered(self) -> tuple[int, int]:
        """Sequences that are read, or were passed over, and all that were to be; of the last `parts` or `merged`."""
        return sum(self._done.values()), sum(last - first + 1 for first, last in self.spans.values())

    def parts(self, question: Question, fields: Sequence[Field]) -> Iterator[pa.Table]:
        """The rows of a question, partition after partition, each in order of the sequence; as `rows_table` has them.

        sequence is among the columns, whether it is asked for or not.
        """
        for partition, (first, last) in self._asked(question).items():
            yield from self._parts_of(partition, (first, last), question, fields, PART_ROWS, ordered=False)

    def merged(self, question: Question, fields: Sequence[Field]) -> Iterator[pa.Table]:
        """The same in order across partitions, and with the columns that are asked for."""
        spans = self._asked(question)
        rows = max(_MERGED_ROWS_MIN, min(PART_ROWS, 2 * PART_ROWS // max(len(spans), 1)))
        wanted = (*dict.fromkeys((*fields, Field.PARTITION, Field.SEQUENCE)),)
        runs = {
            partition: self._parts_of(partition, span, question, wanted, rows, ordered=True)
            for partition, span in spans.items()
        }
        yield from merged(runs, len(fields))

    def check(self) -> None:
        """Raise PrunedError where events that were to be read are gone by now."""
        for partition, (first, last) in self.spans.items():
            found = self._first(partition, last)
            if found != first:
                raise PrunedError(partition, first, found)

    # -------------------------------------------------------------------------------------------------------- beginning

    def _begin(self) -> dict[int, tuple[int, int]]:
        self._bootstrap = reach(self._settings)
        with Ledger(self._settings, self._bootstrap) as ledger:
            count = ledger.partitions
            if missing := [number for number in self._wanted or () if not 0 <= number < count]:
                raise BadInputError(f"there are no partitions {missing}: the ledger has 0 to {count - 1}. Name those")
            wanted = range(count) if self._wanted is None else sorted(set(self._wanted))
            ends = {partition: ledger.get_max_sequence(partition) for partition in wanted}
        spans = {}
        for partition, last in ends.items():
            first = self._first(partition, last) if last else 0
            if first:
                self._await(partition, last)
                spans[partition] = first, last
        return spans

    def _first(self, partition: int, last: int) -> int:
        """The first sequence there is, 0 for none up to `last`."""
        table = self._ask(partition, _range((1, last), partition, rows=1), ordered=False).table
        return int(table["sequence"][0].as_py()) if table.num_rows else 0

    def _await(self, partition: int, last: int) -> None:
        """Until whoever answers has the last sequence: the ledger had it a moment ago."""
        deadline_ns = self._deadline_ns()
        while not self._ask(partition, _range((last, last), partition, rows=1), ordered=False).table.num_rows:
            if _system.monotonic_ns() > deadline_ns:
                raise UnreachableError(
                    f"the ledger has sequence {last} in partition {partition}, and nobody who answers does yet. Ask "
                    "again in a moment"
                )
            _system.sleep_s(_BACKOFF_S)

    def _asked(self, question: Question) -> dict[int, tuple[int, int]]:
        """What is to be read of each partition."""
        spans = {}
        for partition, (first, last) in self.spans.items():
            if question.partitions is not None and partition not in question.partitions:
                continue
            if question.sequences and partition not in question.sequences and question.partitions is None:
                continue
            low, high = question.sequences.get(partition, (1, INT64_MAX))
            if max(first, low) <= min(last, high):
                spans[partition] = max(first, low), min(last, high)
        self._done = {}
        for partition, (first, last) in self.spans.items():
            low, high = spans.get(partition, (1, 0))
            self._done[partition] = last - first + 1 - max(high - low + 1, 0)
        return spans

    # ------------------------------------------------------------------------------------------------------------ parts

    def _parts_of(
        self,
        partition: int,
        span: tuple[int, int],
        question: Question,
        fields: Sequence[Field],
        rows: int,
        *,
        ordered: bool,
    ) -> Iterator[pa.Table]:
        """Parts that have rows."""
        wanted = tuple(dict.fromkeys((*fields, Field.SEQUENCE)))
        first, last = span
        while first <= last:
            high = min(last, first + SPAN_ROWS - 1)
            one = replace(question, partitions=(partition,), sequences={partition: (first, high)})
            table, explain, more = self._ask(partition, Range(one, wanted, rows), ordered=ordered)
            if more:
                high = int(table["sequence"][-1].as_py())
            with self._lock:
                self._explain = total_of([asdict(self._explain), explain])
                self._done[partition] += high - first + 1
            first = high + 1
            if table.num_rows:
                yield table

    def _ask(self, partition: int, request: Range, *, ordered: bool) -> Answer:
        """A part, of whoever has the partition."""
        deadline_ns = self._deadline_ns()
        while True:
            try:
                address = self._holder(partition)
                if address is None:
                    return self._of_here(partition, request, ordered=ordered)
                return self._of_worker(address, request, ordered=ordered)
            except _AgainError as error:
                if _system.monotonic_ns() > deadline_ns:
                    raise UnreachableError(str(error)) from error
                with self._lock:
                    self._holders.pop(partition, None)
                _system.sleep_s(error.after_s)

    def _holder(self, partition: int) -> str | None:
        with self._lock:
            if partition not in self._holders:
                for address, partitions in self._reader.assigned(None).items():
                    for number in partitions or ():
                        self._holders.setdefault(number, address)
            return self._holders.get(partition)

    def _of_worker(self, address: str, request: Range, *, ordered: bool) -> Answer:
        path = f"{path_of(request)}?{urlencode([*encode(request), ('partial', str(int(ordered)))])}"
        try:
            with answered(address, path, self._timeout_s, token=self._settings.token) as answer:
                if answer.status == _OK:
                    table, ending = read_part(answer, _PART_BYTES_MAX)
                    explain = asdict(Explain()) if ending is None else ending.explain
                    return Answer(table, explain, ending is None or ending.more)
                status, after_s, why = answer.status, retry_after(answer), error_in(answer.status, answer.read())
        except UnreachableError as error:
            raise _AgainError(str(error)) from error
        if status in (_ELSEWHERE, _UNAVAILABLE):
            raise _AgainError(why, _BACKOFF_S if after_s is None else after_s)
        raise BadInputError(why)

    def _of_here(self, partition: int, request: Range, *, ordered: bool) -> Answer:
        """A part of what lies in the data directory and of the ledger behind it."""
        with self._lock:
            local = self._local_with(partition)
            try:
                selected, order = local.ask(
                    lambda queries, _last: queries.range_ordered(
                        request.question, request.fields, request.limit, of_one=ordered, text_bytes=PART_TEXT_BYTES
                    )
                )
            except StoreDamagedError as error:  # in a chunk that no opening reads
                _logger.warning("hot_store_passed_over", error=str(error))
                self._here.remove(local)
                self._stored = False
                raise _AgainError(str(error), 0.0) from error
        table = rows_table(selected)
        if ordered:
            table = table.append_column(ORDER, pa.array(order))
        return Answer(table, asdict(selected.explain), selected.more)

    def _local_with(self, partition: int) -> LocalPartitions:
        """Opened for all partitions that no worker has and that are not open yet."""
        for local in self._here:
            if partition in local.partitions():
                return local
        if self._archives is None:
            self._archives = self._opened.enter_context(archives_of(self._settings, self._bootstrap))
        there = {number for local in self._here for number in local.partitions()}
        asked = self._holders if self._wanted is None else self._wanted
        chosen = {number for number in asked if self._holders.get(number, "") is None} - there | {partition}
        local = self._opened.enter_context(
            LocalPartitions(
                self._settings, self._bootstrap, sorted(chosen), stored=self._stored, archives=self._archives
            )
        )
        self._here.append(local)
        return local

    def _deadline_ns(self) -> int:
        return _system.monotonic_ns() + int(self._wait_s * NS_PER_S)


def merged(runs: Mapping[int, Iterator[pa.Table]], columns: int) -> Iterator[pa.Table]:
    """Rows of partitions in order across them, from tables of each in order; the first so many columns.

    The tables have partition, sequence and order_ms.
    """
    heads = {partition: table for partition, run in runs.items() if (table := next(run, None)) is not None}
    while heads:
        ends = {partition: (int(table[ORDER][-1].as_py()), partition) for partition, table in heads.items()}
        bound_ms, last = min(ends.values())
        settled = []
        for partition, table in list(heads.items()):
            side: Any = "right" if partition <= last else "left"
            rows = int(np.searchsorted(table[ORDER].to_numpy(), bound_ms, side))
            settled.append(table.slice(0, rows))
            heads[partition] = table.slice(rows)
            if rows == table.num_rows:
                following = next(runs[partition], None)
                if following is None:
                    del heads[partition]
                else:
                    heads[partition] = following
        yield _in_order(settled).select(range(columns))


def _in_order(tables: list[pa.Table]) -> pa.Table:
    tables = [table for table in tables if table.num_rows]
    if len(tables) == 1:
        return tables[0]
    table = pa.concat_tables(tables).unify_dictionaries()
    keys = [(name, "ascending") for name in (ORDER, "partition", "sequence")]
    return table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()


def _range(span: tuple[int, int], partition: int, rows: int) -> Range:
    """Any row of a partition between two sequences."""
    return Range(Question(partitions=(partition,), sequences={partition: span}), (Field.SEQUENCE,), rows)
