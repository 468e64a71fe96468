"""The aggregates topic, read: results of windows, counts of late events, suspensions, as values of their own types.

Problem: a window can have many records, each a revision of the one before, and the topic holds three sorts of them.
Who asks for a window wants its last revision, and what stood before only on request.

All records of a window are in one partition, in order of revision, so the one that stands last is the one that counts.
A record that is none of the three is skipped, with a line in the log that says where it stands: only lanes may write
there, but one foreign record must not hide what they wrote.

HAZARD the topic keeps 30 days: a window whose last record is older is not there. The ledger has its events.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.errors import BadInputError, UnreachableError
from schemas.instants import format_ms, format_us
from streams.control import read_control
from streams.ledger_reader import decode_entry
from streams.log import offset_of
from streams.order import merge, newest_first
from streams.snapshots import read_snapshots
from streams.windows import Function, WindowDefinition, read_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from confluent_kafka import Message

    from streams.queries import Ledger

#: The newest records are looked for in the last offsets, then in so many times as many before them, and so on.
_FIRST_SPAN_OFFSETS: Final = 256
_SPAN_GROWTH: Final = 4
_FOLLOW_WAIT_S: Final = 0.2
_FUNCTIONS: Final = tuple(str(function) for function in Function if function is not Function.COUNT)
_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What all records have. at_index: of the entry that caused it; recorded_at_ms: when the broker appended it."""

    recorded_at_ms: int
    partition: int
    offset: int
    definition: str
    version: int
    at_index: int


@dataclass(frozen=True, slots=True)
class Result(Recorded):
    """One revision of one window. functions and percentiles: those that the definition asks for, by name."""

    frame: str
    key: str | None
    window_start_us: int
    window_end_us: int
    revision: int
    final: bool
    count: int
    values: int
    functions: dict[str, float | None]
    percentiles: dict[str, float | None]
    method: str | None
    #: Of the percentiles, at most; None also where the record does not say.
    relative_error: float | None
    #: Of the events, those that may belong to a neighbouring window; None but in frame corrected.
    near_edge: int | None = None

    @property
    def window(self) -> tuple[str, int, int, str | None, int]:
        """What its revisions have in common."""
        return self.definition, self.version, self.partition, self.key, self.window_start_us

    def row(self) -> dict[str, Any]:
        """For a listing; its times also as text."""
        return {
            **_common(self),
            "frame": self.frame,
            "key": self.key,
            "window_start": format_us(self.window_start_us),
            "window_end": format_us(self.window_end_us),
            "window_start_us": self.window_start_us,
            "window_end_us": self.window_end_us,
            "revision": self.revision,
            "final": self.final,
            "count": self.count,
            "values": self.values,
            "near_edge": self.near_edge,
            **self.functions,
            "percentiles": self.percentiles or None,
            "method": self.method,
            "relative_error": self.relative_error,
        }


@dataclass(frozen=True, slots=True)
class LateCounts(Recorded):
    """Events of a source that were left out of a window since the last such record.

    Because they were late, ahead of authority, or, in frame corrected, for their source's clock.
    """

    source: str
    late: int
    ahead: int
    doubtful: int | None = None

    def row(self) -> dict[str, Any]:
        """For a listing."""
        counts = {"late": self.late, "ahead": self.ahead, "doubtful": self.doubtful}
        return {**_common(self), "source": self.source, **counts}


@dataclass(frozen=True, slots=True)
class Suspension(Recorded):
    """A definition outgrew its bounds, and gives no results from that entry on."""

    reason: str

    def row(self) -> dict[str, Any]:
        """For a listing."""
        return {**_common(self), "suspended": self.reason}


AggregateRecord = Result | LateCounts | Suspension


def _common(record: Recorded) -> dict[str, Any]:
    return {
        "recorded_at": format_ms(record.recorded_at_ms),
        "recorded_at_ms": record.recorded_at_ms,
        "partition": record.partition,
        "definition": record.definition,
        "version": record.version,
        "at_index": record.at_index,
    }


def parse(value: bytes, recorded_at_ms: int, partition: int, offset: int) -> AggregateRecord:
    """The record in a value. Raises BadInputError where it is none of the three, or says another partition."""
    try:
        fields: Any = orjson.loads(value)
        stated, version, at_index = _integers(fields, "partition", "version", "at_index")
        common = (recorded_at_ms, partition, offset, _text(fields, "definition"), version, at_index)
        _check_partition(stated, partition)
        if "suspended" in fields:
            return Suspension(*common, _text(fields, "suspended"))
        if "late" in fields:
            counts = _two(fields, "late", "ahead")
            return LateCounts(*common, _text(fields, "source"), *counts, _one(fields, "doubtful"))
        start_us, end_us, revision, count, values = _integers(fields, *_WINDOW)
        return Result(
            *common,
            frame=_text(fields, "frame"),
            key=None if fields["key"] is None else _text(fields, "key"),
            window_start_us=start_us,
            window_end_us=end_us,
            revision=revision,
            final=_flag(fields, "final"),
            count=count,
            values=values,
            functions={name: _number(fields[name]) for name in _FUNCTIONS if name in fields},
            percentiles={name: _number(number) for name, number in fields.get("percentiles", {}).items()},
            method=_text(fields, "method") if "method" in fields else None,
            relative_error=_number(fields.get("relative_error")),
            near_edge=_one(fields, "near_edge"),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInputError(f"no record of a window: {error}. Only lanes may write to this topic") from error


_WINDOW: Final = ("window_start_us", "window_end_us", "revision", "count", "values")


def _check_partition(stated: int, partition: int) -> None:
    if stated != partition:
        raise ValueError(f"it says partition {stated}")


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is neither true nor false")
    return value


def _integers(fields: dict[str, Any], *names: str) -> list[int]:
    found = [fields[name] for name in names]
    if any(type(number) is not int for number in found):
        raise TypeError(f"{', '.join(names)} are not all integers")
    return found


def _two(fields: dict[str, Any], first: str, second: str) -> tuple[int, int]:
    one, other = _integers(fields, first, second)
    return one, other


def _one(fields: dict[str, Any], name: str) -> int | None:
    """Of what is not always there."""
    return _integers(fields, name)[0] if fields.get(name) is not None else None


def _number(value: Any) -> float | None:
    if value is not None and type(value) not in {float, int}:
        raise TypeError(f"{value!r} is no number")
    return None if value is None else float(value)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def record_of(message: Message) -> AggregateRecord | None:
    """What stands in a message; None for what is no record of a window."""
    partition, offset = message.partition() or 0, offset_of(message)
    try:
        return parse(message.value() or b"", message.timestamp()[1], partition, offset)
    except BadInputError as error:
        _logger.warning(
            "aggregate_not_readable", topic=message.topic(), partition=partition, offset=offset, error=str(error)
        )
        return None


# ------------------------------------------------------------------------------------------------------------- listing


def ends(ledger: Ledger, partition: int | None = None) -> dict[int, int]:
    """Where the committed records of each partition end now: what `follow` goes on from."""
    topic = ledger.names.aggregates
    return {p: ledger.log.bounds(topic, p).stable_end for p in ledger.chosen(partition)}


def newest(
    ledger: Ledger,
    most: int,
    wanted: Callable[[AggregateRecord], bool],
    *,
    partition: int | None = None,
    every_revision: bool = False,
) -> list[AggregateRecord]:
    """The newest records that are wanted, newest first; of a window its last wanted one, unless every_revision."""
    if most < 1:
        raise BadInputError(f"the last {most} results are none. Ask for 1 or more")
    found = (_newest(ledger, p, most, wanted, every_revision=every_revision) for p in ledger.chosen(partition))
    return newest_first(map(_placed, found), most)


def between(
    ledger: Ledger,
    first_ms: int,
    last_ms: int,
    wanted: Callable[[AggregateRecord], bool],
    *,
    partition: int | None = None,
    every_revision: bool = False,
) -> list[AggregateRecord]:
    """The wanted records appended from first_ms to last_ms, both included, oldest first; otherwise as `newest`."""
    topic = ledger.names.aggregates
    of_each: list[list[AggregateRecord]] = []
    for p, begin in sorted(_since(ledger, first_ms, partition).items()):
        records = [
            record
            for record in read(ledger, p, begin, ledger.log.bounds(topic, p).stable_end)
            if record.recorded_at_ms <= last_ms and wanted(record)
        ]
        of_each.append(records if every_revision else last_revisions(records))
    return list(merge(map(_placed, of_each)))


def follow(
    ledger: Ledger, positions: dict[int, int], wanted: Callable[[AggregateRecord], bool]
) -> Iterator[AggregateRecord]:
    """Records as they are committed, every revision, from those offsets on, for ever."""
    topic = ledger.names.aggregates
    consumer = Consumer(
        {
            "bootstrap.servers": ledger.bootstrap,
            "group.id": "driftledger-reader",  # never joined: assign() only, nothing committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in sorted(positions.items())])
        while True:
            message = consumer.poll(_FOLLOW_WAIT_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                record = record_of(message)
                if record is not None and wanted(record):
                    yield record
            elif not error.retriable() and error.code() not in _PASSING:
                raise UnreachableError(f"{topic} cannot be read: {error.str()}. Is Kafka up?")
    finally:
        consumer.close()


_PASSING: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)  # noqa: SLF001 - public names


def read(ledger: Ledger, partition: int, begin: int, end: int) -> Iterator[AggregateRecord]:
    """The records with begin <= offset < end, in order."""
    records = map(record_of, ledger.log.scan(ledger.names.aggregates, partition, begin, end))
    return (record for record in records if record is not None)


def last_revisions(records: Iterable[AggregateRecord]) -> list[AggregateRecord]:
    """Of each window the last record, in the order of these; other records as they are."""
    last: dict[Any, AggregateRecord] = {}
    for record in records:
        place = record.window if isinstance(record, Result) else (record.partition, record.offset)
        last.pop(place, None)
        last[place] = record
    return list(last.values())


def definition_at(ledger: Ledger, partition: int, version: int, name: str) -> WindowDefinition | None:
    """The definition that the ledger's entry of that index puts in force; None where it is none of that name.

    Of an entry that was cut it is what derive's snapshots have in force since; None where it was replaced, too.
    """
    tail = ledger.tail(partition)
    if tail is None or not 1 <= version <= tail.head.index:
        return None
    offset = ledger.offset_of(partition, tail, version, "index")
    message = next(ledger.log.scan(ledger.names.sequenced, partition, offset, tail.offset + 1))
    entry = decode_entry(partition, message.value())
    if entry["index"] > version:
        return _in_force(ledger, partition, version, name)
    kind, body = read_control(entry["value"])
    if kind != "Definition":
        return None
    try:
        definition = read_entry(body["name"], body["body"])
    except BadInputError:  # derive passes it over, so does everybody
        return None
    return definition if definition is not None and definition.name == name else None


def _in_force(ledger: Ledger, partition: int, version: int, name: str) -> WindowDefinition | None:
    from streams.derive import Derive  # noqa: PLC0415 - a compiler, which whoever lists results does not need

    derive, lane = Derive(), ledger.lane_of(partition)
    for packed in read_snapshots(ledger.log, ledger.names.snapshots, lane, (derive.name,), partition):
        if packed.version == derive.version:
            state = packed.loaded(partial(derive.load, partition))
            run = None if state is None else state.running.get(name)
            if run is not None and run.version == version:
                return run.definition
    return None


def _since(ledger: Ledger, first_ms: int, partition: int | None) -> dict[int, int]:
    """Of each partition the first offset appended at that instant or later; its end where there is none."""
    found = ledger.log.offsets_since(ledger.names.aggregates, ledger.chosen(partition), max(0, first_ms))
    return {p: offset if offset >= 0 else ends(ledger, p)[p] for p, offset in found.items()}


def _newest(
    ledger: Ledger, partition: int, most: int, wanted: Callable[[AggregateRecord], bool], *, every_revision: bool
) -> list[AggregateRecord]:
    bounds = ledger.log.bounds(ledger.names.aggregates, partition)
    found: list[AggregateRecord] = []
    end, span = bounds.stable_end, _FIRST_SPAN_OFFSETS
    while end > bounds.start and len(found) < most:
        begin = max(bounds.start, end - span)
        found = [record for record in read(ledger, partition, begin, end) if wanted(record)] + found
        found = (found if every_revision else last_revisions(found))[-most:]
        end, span = begin, span * _SPAN_GROWTH
    return found


def _placed(records: Iterable[AggregateRecord]) -> Iterator[tuple[int, AggregateRecord]]:
    return ((record.recorded_at_ms, record) for record in records)
