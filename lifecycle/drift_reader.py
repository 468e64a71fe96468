"""The drift log and warnings of a ledger, listed by its workers on this machine out of their hot tiers.

Problem: the list must be that of `streams.drift_log` and `streams.drift_warnings`, row for row, and cost neither the
broker nor a judge. So each partition is asked of the worker that holds it, in pages, and partitions are put together
here as `streams.order` says, by the times of what is listed alone.

GUARANTEE a list is of all partitions that were asked for, or UnreachableError: one that nobody holds, or that is not
level, leaves no list without it. `between` has asked every partition once before it gives a row; after that a worker
that goes is UnreachableError in the middle.
HAZARD a worker that was taken its lane from, and does not know it yet, answers as of then until another one claims the
lane (see `holders`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import numpy as np
import orjson
import pyarrow as pa

from lifecycle.arrow_stream import read_arrow
from lifecycle.drift_question import PAGE_ENTRIES
from lifecycle.drift_requests import encode, path_of
from lifecycle.fetch import WAIT_S, error_in, fetch
from lifecycle.holders import furthest
from lifecycle.rows import rows_in
from schemas.clock import SystemTime
from schemas.errors import UnreachableError
from schemas.instants import NS_PER_S
from streams.order import merge
from streams.severity import drift_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lifecycle.arrow_stream import Ending
    from lifecycle.drift_question import DriftQuestion

    #: A row of a list, as `emit` takes it.
    Row = dict[str, Any]

_OK, _UNAVAILABLE = 200, 503
#: Rows that are Python objects at a time.
_ROWS_AT_ONCE: Final = 4_096
#: `hot_tier.Standing.LEVEL` as /hot says it: the hot tier itself is not imported, which would take a second.
_LEVEL: Final = "level"
#: A worker is waited for in true time, whatever dates the events.
_system: Final = SystemTime()


class HotDrift:
    """Asks workers. holders: the address of each partition, as `find_holders` finds them; token: what they ask for."""

    def __init__(self, holders: dict[int, str], token: str | None = None) -> None:
        self._holders, self._token = holders, token
        self.addresses = list(dict.fromkeys(holders.values()))

    def newest(self, asked: DriftQuestion, most: int) -> Iterator[Row]:
        """The newest rows of a question, the newest first, at most so many. asked.partition is not looked at."""
        tables = [self._newest_of(replace(asked, partition=p), most) for p in sorted(self._holders)]
        return _rows(newest_first(tables, most))

    def between(self, asked: DriftQuestion) -> Iterator[Row]:
        """All rows of a question up to what there is now, oldest first."""
        firsts = [self._page(replace(asked, partition=p)) for p in sorted(self._holders)]
        return merge(
            self._all(replace(asked, partition=p), *first)
            for p, first in zip(sorted(self._holders), firsts, strict=True)
        )

    def _newest_of(self, asked: DriftQuestion, most: int) -> pa.Table:
        tables: list[pa.Table] = []
        left, before, more = most, asked.before, True
        while left and more:
            page = replace(asked, newest=True, before=before, limit=min(left, PAGE_ENTRIES))
            table, ending = self._page(page)
            tables.append(table)
            left, before, more = left - table.num_rows, ending.explain["reached"], ending.more
        return pa.concat_tables(tables[::-1])

    def _all(self, asked: DriftQuestion, table: pa.Table, ending: Ending) -> Iterator[tuple[int, Row]]:
        """Rows of a partition from its first page on, each behind its authority time."""
        name = "authority_timestamp_ms" if asked.warned else "created_at_ms"
        before = min(asked.before, ending.explain["head"] + 1)
        listed = 0
        while True:
            for row in _rows(table):
                yield row[name], row
            listed += table.num_rows
            if not ending.more:
                return
            page = replace(asked, after=ending.explain["reached"], before=before)
            try:
                table, ending = self._page(page, wait_s=WAIT_S)
            except UnreachableError as error:
                text = f"after {listed} rows of partition {asked.partition}: {error}. The ledger has all: --from-ledger"
                raise UnreachableError(text) from error

    def _page(self, asked: DriftQuestion, wait_s: float = 0.0) -> tuple[pa.Table, Ending]:
        """A page. wait_s: how long to wait for a worker that is busy. Raises UnreachableError."""
        address = self._holders[asked.partition]
        deadline_ns = _system.monotonic_ns() + int(wait_s * NS_PER_S)
        while True:
            status, after_s, body = fetch(address, f"{path_of(asked)}?{urlencode(encode(asked))}", token=self._token)
            if status == _OK:
                return read_arrow(body)
            wait_ns = int((after_s or 0) * NS_PER_S)
            if status != _UNAVAILABLE or _system.monotonic_ns() + wait_ns > deadline_ns:
                raise UnreachableError(f"the worker at {address} answers: {error_in(status, body)}")
            _system.sleep_s(after_s or 0)


def find_holders(
    addresses: Sequence[str], partitions: int, partition: int | None, token: str | None = None
) -> dict[int, str]:
    """The worker that holds a partition, or each of them, level. Raises UnreachableError where one is not to be had.

    partitions: how many the ledger has, for all that is known here; token: what the workers ask for.
    """
    told = []
    for address in addresses:
        status, _, body = fetch(address, "/hot", token=token)
        if status != _OK:
            raise UnreachableError(f"the worker at {address} answers: {error_in(status, body)}")
        told.append((address, orjson.loads(body)["partitions"]))
    held = furthest(told)
    if unknown := sorted(number for number in held if number >= partitions):
        raise UnreachableError(f"the workers hold partitions {unknown}, and the settings say there are {partitions}")
    wanted = range(partitions) if partition is None else [partition]
    if missing := [number for number in wanted if number not in held]:
        raise UnreachableError(f"no worker of this machine holds partitions {missing}")
    for number in wanted:
        place, _ = held[number]
        if place["standing"] != _LEVEL:
            why = f" ({place['error']})" if place["error"] else ""
            raise UnreachableError(
                f"partition {number} is {place['standing']} at index {place['reached']} of {place['head']}{why}"
            )
    return {number: held[number][1] for number in wanted}


def newest_first(tables: Sequence[pa.Table], most: int) -> pa.Table:
    """The last rows of partitions, in order of their number, in the order across them; the newest first.

    As `streams.order.newest_first`, over columns: the first timestamp in milliseconds is the authority time.
    """
    times = [_authority_ms(table) for table in tables]
    order = np.argsort(np.concatenate([np.maximum.accumulate(ms) for ms in times]), kind="stable")
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    return table.take(pa.array(order[: -most - 1 : -1]))


def _authority_ms(table: pa.Table) -> Any:
    name = next(field.name for field in table.schema if pa.types.is_timestamp(field.type) and field.type.unit == "ms")
    return table[name].cast(pa.int64()).to_numpy()


def _rows(table: pa.Table) -> Iterator[Row]:
    """With the members of `DriftEntry.row` and the verdict on an event, or those of `DriftWarning.row`."""
    warned = "event_id" in table.column_names
    few = pa.Table.from_batches(table.to_batches(_ROWS_AT_ONCE), table.schema)
    for row in rows_in(few):
        row["id"] = f"{row['partition']}:{row['index']}"
        if warned:
            row["drift_seconds"] = drift_seconds(row["drift_delta_ms"])
            row["logged_at_ms"], row["logged_at"] = row["authority_timestamp_ms"], row["authority_timestamp"]
        yield row
