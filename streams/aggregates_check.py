"""`driftledger check aggregates`: a ledger partition and its results, read and handed to `comparison`.

GUARANTEE from the beginning of a partition, a difference is one.
HAZARD a range is read with the dedupe horizon before it, and those windows are compared that begin after all authority
time seen in that (and max_ahead), or, where the horizon is 0, after that of its first event: so it is assumed that no
broker's clock was further ahead before it and stepped back, and that the judge's settings are those that the partition
began with. Where that is in doubt, check from the beginning.
Windows of the past, of events that were appended long after their local time, are compared only from the beginning.
HAZARD a range takes from the results which definitions were in force before it, and from the ledger what they say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.canonical import EntryKind
from schemas.clock import source as time_source
from schemas.codec import Framing
from schemas.columns import slice_rows
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import INT64_MAX, NS_PER_MS
from streams import aggregates
from streams.comparison import Comparison
from streams.control import read_control
from streams.definitions import JudgeSettings
from streams.judge import Judge
from streams.judge_states import reader_of, snapshots_of
from streams.ledger_reader import decode_entry
from streams.log import offset_of
from streams.queries import CLOCK_ALLOWANCE_MS
from streams.restore import restore
from streams.values import ControlBody, judge_settings_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.comparison import DefinitionCheck
    from streams.ledger_reader import Tail
    from streams.queries import Ledger

#: Beyond transaction_timeout_ms, when the broker ends a transaction that was left behind.
_STABLE_SLACK_MS: Final = 30_000
#: GENESIS and the first DEFINITIONs are among the first entries.
_BEGINNING_OFFSETS: Final = 16
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Range(NamedTuple):
    """Of sequences, both included."""

    first: int = 1
    last: int = INT64_MAX


def check_partition(
    ledger: Ledger,
    partition: int,
    asked: Range,
    name: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[DefinitionCheck]:
    """Read a partition and what stands on the aggregates topic, and compare. progress: entries read, and all there are.

    Raises BadInputError for a range that is none.
    """
    ledger.check_range(partition, asked.first, asked.last)
    tail = ledger.tail(partition)
    if tail is None or asked.first > tail.head.sequence:
        return []
    settings = _first_settings(ledger, partition)
    wanted = asked.first - settings.dedupe_horizon
    begin = ledger.offset_of(partition, tail, wanted) if wanted > 1 else 0
    message = next(
        ledger.log.scan(ledger.names.sequenced, partition, max(begin, _start(ledger, partition)), tail.offset + 1)
    )
    entry = decode_entry(partition, message.value())
    first_index, first_sequence = entry["index"], asked.first
    topic = ledger.names.aggregates
    bounds = ledger.log.bounds(topic, partition)
    start = bounds.start
    if first_index > 1:
        first_sequence = max(asked.first, entry["sequence"] + settings.dedupe_horizon)
        since_ms = max(0, entry["authority_timestamp"] - CLOCK_ALLOWANCE_MS)
        start = ledger.log.offsets_since(topic, [partition], since_ms)[partition]
        start = bounds.stable_end if start < 0 else start
    with Comparison(partition, settings, first_sequence) as comparison:
        _define(ledger, comparison, partition, first_index, start, bounds.stable_end)
        _read_entries(ledger, partition, tail, offset_of(message), asked.last, comparison, progress)
        end = _stable_end(ledger, partition)
        oldest = 0
        if bounds.start:  # some are kept no longer
            kept = next(aggregates.read(ledger, partition, bounds.start, end), None)
            oldest = comparison.recount.last_index if kept is None else kept.at_index
        records = aggregates.read(ledger, partition, start, end)
        comparison.take_records((record for record in records if record.at_index >= first_index), oldest)
        return comparison.compare(name)


def _start(ledger: Ledger, partition: int) -> int:
    """The first ledger offset that is kept."""
    return ledger.log.bounds(ledger.names.sequenced, partition).start


def _read_entries(
    ledger: Ledger,
    partition: int,
    tail: Tail,
    begin: int,
    last: int,
    comparison: Comparison,
    progress: Callable[[int, int], None],
) -> None:
    """Take the entries from an offset up to a sequence."""
    first = 0
    for batch in ledger.batches(partition, tail, begin):
        entries = batch.entries
        rows = int((entries.sequence <= last).sum())
        first = first or int(entries.index[0])
        comparison.take_entries(slice_rows(entries, 0, rows))
        if rows < entries.kind.size:
            break
        progress(int(entries.index[-1]) - first + 1, tail.head.index - first + 1)


def _stable_end(ledger: Ledger, partition: int) -> int:
    """The end of the results that the entries read have caused: a commit reaches one topic before the other.

    Raises UnreachableError where a transaction stays open.
    """
    topic, clock = ledger.names.aggregates, time_source()
    end = ledger.log.bounds(topic, partition).end
    timeout_ms = ledger.settings.transaction_timeout_ms + _STABLE_SLACK_MS
    deadline_ns = clock.monotonic_ns() + timeout_ms * NS_PER_MS
    while ledger.log.bounds(topic, partition).stable_end < end:
        if clock.monotonic_ns() >= deadline_ns:
            text = f"{topic}[{partition}] has had an open transaction for {timeout_ms / 1_000:g} s"
            raise UnreachableError(f"{text}: its results are not visible. Try again when its lane has gone on")
        clock.sleep_s(0.05)
    return end


def _define(ledger: Ledger, comparison: Comparison, partition: int, first_index: int, start: int, end: int) -> None:
    """The definitions in force before the first entry read: those that results name, as the ledger has them."""
    if first_index == 1:
        return
    named = {
        (record.definition, record.version)
        for record in aggregates.read(ledger, partition, start, end)
        if record.version < first_index <= record.at_index
    }
    for name, version in sorted(named):
        definition = aggregates.definition_at(ledger, partition, version, name)
        if definition is not None:
            comparison.recount.define(version, definition)


def _first_settings(ledger: Ledger, partition: int) -> JudgeSettings:
    """The judge's, of the partition's beginning, or of where it was cut; those that are set where it has none."""
    topic = ledger.names.sequenced
    tail, index = ledger.tail(partition), ledger.first(partition).index
    if tail is not None and index > 1:
        reader = reader_of(ledger, partition, tail)
        return restore(Judge(), partition, snapshots_of(ledger, partition), index, reader).settings
    bounds = ledger.log.bounds(topic, partition)
    until = min(bounds.start + _BEGINNING_OFFSETS, bounds.stable_end)
    for message in ledger.log.scan(topic, partition, bounds.start, until):
        entry = decode_entry(partition, message.value())
        if entry["kind"] == EntryKind.CONTROL.name:
            found = judge_settings_in(ControlBody(0, *read_control(entry["value"])))
            if found is not None:
                return found
    return JudgeSettings(framing=Framing(ledger.settings.framing))


def duration_ms(text: str) -> int:
    """A length of time as it is written: 90s, 30m, 1h, 7d. Raises BadInputError."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not int(found[1]):
        raise BadInputError(f"{text!r} is no length of time. Write a number and ms, s, m, h or d: 30m, 1h")
    return int(found[1]) * _UNIT_MS[found[2]]
