"""A ledger, opened for questions: how far it goes, what stands in a range of sequences, whether numbers are missing.

Problem: anybody who can reach the broker must get the same answers, with no worker running, and without disturbing one
that is. So everything is read from the ledger itself, read_committed, with assign() only: no group, no offset, no file.

GUARANTEE what is answered was committed; the order is that of the sequence.
HAZARD while a lane's transaction is open the entries behind it are not visible yet: an answer is at most one
transaction old.
HAZARD where the beginning of a ledger was cut, `framing` is what the cut says; events before are in archives alone, and
no answer here has them: `first` says where it begins.
HAZARD `framing` is that of the partition's first judge DEFINITION. A ledger whose framing was changed later shows the
values of a range that begins after the change as unreadable; the sequence and the chain do not depend on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from schemas.canonical import EntryKind
from schemas.clock import source as time_source
from schemas.codec import Framing
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import INT64_MAX
from schemas.topics import topic_names
from streams.control import read_control
from streams.ledger_reader import decode_entry, find_offset, read_entries, read_tail
from streams.log import Log, offset_of
from streams.progress import read_lane
from streams.values import ControlBody, decode_values, event_row, judge_settings_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from streams.cuts import Cut
    from streams.ledger_reader import EntryBatch, Tail
    from streams.settings import Settings

#: A list of missing numbers longer than this is no answer that anybody reads; ask for a narrower range.
MISSING_MAX: Final = 1_000_000
#: GENESIS, then the first DEFINITION, each in a transaction of its own at most: offsets 0 to 3.
_BEGINNING_OFFSETS: Final = 16
#: Between two looks at the ends of the partitions that are followed.
FOLLOW_INTERVAL_S: Final = 0.5
#: How far the clocks of two brokers of a cluster may lie apart before `since` begins too late.
CLOCK_ALLOWANCE_MS: Final = 60_000


class First(NamedTuple):
    """The first entry of a partition: its index, the first sequence there is or will come, its ledger offset."""

    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks this for
    sequence: int
    offset: int


class Ledger:
    """One ledger of a cluster. Not for two threads at once; also a context manager.

    Raises UnreachableError where its topics do not exist.
    """

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self.settings, self.bootstrap = settings, bootstrap
        self.names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self.log = Log(bootstrap)
        #: Of the ledger topic and of the progress topic, as they are; settings may say otherwise.
        self.partitions = self._count(self.names.sequenced)
        self.lanes = self._count(self.names.progress)
        self._framings: dict[int, Framing] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the clients."""
        self.log.close()

    def chosen(self, partition: int | None) -> list[int]:
        """The partition asked for, or all. Raises BadInputError for one that is not there."""
        if partition is None:
            return list(range(self.partitions))
        self._check_partition(partition)
        return [partition]

    def lane_of(self, partition: int) -> int:
        """The lane that writes a partition."""
        return partition % self.lanes

    def tail(self, partition: int) -> Tail | None:
        """The last entry of a partition, None where it has none. Raises HaltError where the last record is no entry."""
        self._check_partition(partition)
        return read_tail(self.log, self.names.sequenced, partition)

    def first(self, partition: int) -> First:
        """Where a partition begins."""
        self._check_partition(partition)
        message = self.log.first(self.names.sequenced, partition)
        if message is None:
            return First(1, 1, 0)
        entry = decode_entry(partition, message.value())
        return First(entry["index"], entry["sequence"] + (entry["kind"] != "DATA"), offset_of(message))

    def cut(self, partition: int) -> Cut | None:
        """The last cut of a partition that is noted."""
        self._check_partition(partition)
        return read_lane(self.log, self.names.progress, self.lane_of(partition)).cuts.get(partition)

    def get_max_sequence(self, partition: int) -> int:
        """The last sequence of a partition, 0 if it is empty. Raises HaltError where the tail is no entry."""
        tail = self.tail(partition)
        return tail.head.sequence if tail else 0

    def get_events_by_sequence_range(self, partition: int, start: int, end: int) -> Iterator[dict[str, Any]]:
        """The DATA entries with start <= sequence <= end, in order, as far as there are any.

        Each is a dict of values.EVENT_FIELDS. Raises BadInputError for a range that is none, or begins
        before the ledger does since it was cut.
        """
        self.check_range(partition, start, end)
        self.check_kept(partition, start)
        return self._events(partition, start, end)

    def follow_events(self, partition: int, start: int) -> Iterator[dict[str, Any]]:
        """As get_events_by_sequence_range from start on, but going on with what comes, for ever."""
        self.check_range(partition, start)
        self.check_kept(partition, start)
        return self._coming_events(partition, start)

    def _events(self, partition: int, start: int, end: int) -> Iterator[dict[str, Any]]:
        tail = self.tail(partition)
        if tail is not None:
            batches = self.batches(partition, tail, self.offset_of(partition, tail, start))
            yield from self._rows(partition, batches, start, end)

    def _coming_events(self, partition: int, start: int) -> Iterator[dict[str, Any]]:
        tail = self.tail(partition)
        begin = self.end(partition) if tail is None else self.offset_of(partition, tail, start)
        batches = (batch for _, batch in self.follow({partition: begin}))
        yield from self._rows(partition, batches, start, INT64_MAX)

    def _rows(self, partition: int, batches: Iterator[EntryBatch], start: int, end: int) -> Iterator[dict[str, Any]]:
        framing: Framing | None = None
        for batch in batches:
            if framing is None:  # now there is a beginning that says it
                framing = self.framing(partition)
            decoded = decode_values(batch.entries, framing)
            framing = decoded.framing
            sequences = batch.entries.sequence
            rows = np.flatnonzero(
                (batch.entries.kind == EntryKind.DATA) & (sequences >= start) & (sequences <= end)
            ).tolist()
            for row in rows:
                yield event_row(partition, batch.entries, decoded.events, row)
            if sequences[-1] >= end:
                return

    def verify_sequence_continuity(self, partition: int, start: int, end: int) -> tuple[bool, list[int]]:
        """Whether start to end stand in the ledger, each once and in order, and which of them do not, sorted.

        Raises BadInputError for a range that is none, that begins before the ledger does since it was cut, or of which
        more than MISSING_MAX numbers are missing.
        """
        self.check_range(partition, start, end)
        self.check_kept(partition, start)
        tail = self.tail(partition)
        found: list[Any] = [np.zeros(0, np.int64)]
        if tail is not None:
            for batch in self.batches(partition, tail, self.offset_of(partition, tail, start)):
                sequences = batch.entries.sequence[batch.entries.kind == EntryKind.DATA]
                found.append(sequences[(sequences >= start) & (sequences <= end)])
        there = np.concatenate(found)
        distinct = np.unique(there)
        if end - start + 1 - distinct.size > MISSING_MAX:
            text = (
                f"{end - start + 1 - distinct.size} of the sequences {start} to {end} are not in partition {partition}"
            )
            raise BadInputError(f"{text}, which ends at {tail.head.sequence if tail else 0}. Give a narrower range")
        missing = _missing(distinct, start, end)
        return not missing and bool((np.diff(there) == 1).all()), missing

    # -------------------------------------------------------------------------------------------------- for the others

    def batches(self, partition: int, tail: Tail, begin: int) -> Iterator[EntryBatch]:
        """Entries from a ledger offset to the tail; see ledger_reader.read_entries."""
        return read_entries(self.bootstrap, self.names.sequenced, partition, begin, tail.offset + 1)

    def follow(self, positions: Mapping[int, int]) -> Iterator[tuple[int, EntryBatch]]:
        """Partition and entries from those ledger offsets on, as they are committed, for ever.

        In order of index within each; between partitions as they are found. A partition that has nothing new is asked
        for its end twice a second and no more.
        """
        clock = time_source()
        position = dict(positions)
        looked: dict[int, int] = {}
        while True:
            ends = self.log.ends(self.names.sequenced, position)
            for partition in [p for p, end in ends.items() if end != looked.get(p)]:
                looked[partition] = ends[partition]
                tail = self.tail(partition)
                if tail is not None and tail.offset >= position[partition]:
                    begin, position[partition] = position[partition], tail.offset + 1
                    yield from ((partition, batch) for batch in self.batches(partition, tail, begin))
            clock.sleep_s(FOLLOW_INTERVAL_S)

    def end(self, partition: int) -> int:
        """The ledger offset behind the last entry: what `follow` goes on from."""
        tail = self.tail(partition)
        return self.log.bounds(self.names.sequenced, partition).stable_end if tail is None else tail.offset + 1

    def since(self, partition: int, instant_ms: int) -> int:
        """A ledger offset before which no entry has that authority time or a later one.

        An entry is appended after its record was. HAZARD the two topics may be led by brokers whose clocks differ:
        CLOCK_ALLOWANCE_MS is allowed for that.
        """
        topic = self.names.sequenced
        found = self.log.offsets_since(topic, [partition], max(0, instant_ms - CLOCK_ALLOWANCE_MS))[partition]
        return self.end(partition) if found < 0 else found

    def sequence_since(self, partition: int, instant_ms: int) -> int:
        """A sequence before which no event has that authority time or a later one; see `since`."""
        tail, begin = self.tail(partition), self.since(partition, instant_ms)
        if tail is None:
            return 1
        if begin > tail.offset:
            return tail.head.sequence + 1
        message = next(self.log.scan(self.names.sequenced, partition, begin, tail.offset + 1))
        return max(1, int(decode_entry(partition, message.value())["sequence"]))

    def offset_of(self, partition: int, tail: Tail, wanted: int, field: str = "sequence") -> int:
        """Where the first entry whose number (sequence, index or control_offset) is at least wanted stands."""
        return find_offset(self.log, self.names.sequenced, partition, tail, field, wanted)

    def framing(self, partition: int) -> Framing:
        """The framing in force at the partition's beginning; that of the settings where there is no beginning."""
        if partition not in self._framings:
            self._framings[partition] = (
                self._cut_framing(partition) or self._first_framing(partition) or Framing(self.settings.framing)
            )
        return self._framings[partition]

    def _cut_framing(self, partition: int) -> Framing | None:
        """What a cut has noted where the first DEFINITION is gone."""
        if self.first(partition).index == 1:
            return None
        cut = self.cut(partition)
        return None if cut is None else cut.framing

    def _first_framing(self, partition: int) -> Framing | None:
        topic = self.names.sequenced
        bounds = self.log.bounds(topic, partition)
        until = min(bounds.start + _BEGINNING_OFFSETS, bounds.stable_end)
        for message in self.log.scan(topic, partition, bounds.start, until):
            entry = decode_entry(partition, message.value())
            if entry["kind"] == "CONTROL":
                settings = judge_settings_in(ControlBody(0, *read_control(entry["value"])))
                if settings is not None:
                    return settings.framing
        return None

    def _count(self, topic: str) -> int:
        facts = self.log.topic(topic)
        if facts is None:
            raise UnreachableError(f"topic {topic} does not exist. Run `{self.settings.command} topics create`")
        return facts.partitions

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self.partitions:
            raise BadInputError(
                f"there is no partition {partition}: {self.names.sequenced} has 0 to {self.partitions - 1}. Name one"
            )

    def check_kept(self, partition: int, start: int) -> None:
        """Raise BadInputError for a sequence that was cut: an answer without it would look whole."""
        first = self.first(partition)
        if first.index > 1 and start < first.sequence:
            raise BadInputError(
                f"partition {partition} of the ledger begins at sequence {first.sequence} (entry {first.index}), not "
                f"{start}: what was before is in archives. Begin there, or ask for older events with "
                f"`{self.settings.command} query range`"
            )

    def check_range(self, partition: int, start: int, end: int | None = None) -> None:
        """Raise BadInputError for a partition or a range of sequences that is none; end None: open."""
        self._check_partition(partition)
        check_sequences(start, end)


def check_sequences(start: int, end: int | None = None) -> None:
    """Raise BadInputError for a range of sequences that is none; end None: open."""
    if start < 1 or (end is not None and end < start):
        text = f"{start} to {'the end' if end is None else end} is no range of sequences"
        raise BadInputError(f"{text}: they begin at 1. Give 1 <= from <= to")


def _missing(distinct: np.ndarray[Any, np.dtype[np.int64]], start: int, end: int) -> list[int]:
    """Numbers of start to end that a sorted array of some of them lacks."""
    edges = np.concatenate(([start - 1], distinct, [end + 1]))
    gaps = np.flatnonzero(np.diff(edges) > 1).tolist()
    return [number for gap in gaps for number in range(int(edges[gap]) + 1, int(edges[gap + 1]))]
