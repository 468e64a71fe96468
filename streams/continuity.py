"""Is a ledger partition whole? Its numbers and its chain, and every entry against the input that is still there.

Problem: "nothing was lost, doubled or changed" must be a thing that anybody can recompute, not a promise. Three proofs,
in one pass over both logs, natively:

    numbers   index and sequence contiguous, offsets rising, from GENESIS (index 1), where the ledger was cut from its
              first entry, or from a sequence on
    chain     every value hash and chain hash computed anew (sequence.verify)
    input     the readable records of the input partition, from GENESIS' base offset on, are the DATA entries: same
              value hash, key, headers and append time, and the sequence is the record's rank

GUARANTEE a partition without findings is whole as far as it was checked; a changed, missing, swapped or added entry is
found at its own index or at the one after.
HAZARD the chain shows changes made after an entry was written by those who did not rewrite everything behind it.
Against someone who did, only the input, or a head that was kept elsewhere, speaks.
GUARANTEE a ledger that does not begin with GENESIS is whole only where an entry of it, a CUT, says so.
HAZARD a check that begins at a sequence takes the entry before it for granted. So does one of a ledger that was cut,
unless the last cut took just what is gone: then it has the chain hash before the first entry.
HAZARD records that retention has removed from the input cannot be compared: `gone` counts their entries.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from schemas.columns import slice_rows
from schemas.errors import BadInputError, HaltError, UnreachableError
from schemas.memory import SHA256_CONTEXT_BYTES, address_of
from streams.compare_kernel import UNKNOWN_RANK, Met, compare_input
from streams.control import control_values, is_cut, read_control
from streams.cuts import covers, cut_in
from streams.ledger_reader import STALL_TIMEOUT_MS, decode_entry, head_after, open_reader
from streams.log import offset_of
from streams.records import Records, allocate_records, bound_labels, slice_records
from streams.sequence import Break, Head, head_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.cuts import Cut
    from streams.ledger_reader import EntryBatch, Tail
    from streams.queries import Ledger
    from streams.rdkafka import Batch, NativeConsumer

#: A partition with more wrong places than this is not read further: it is not the ledger that was written.
FINDINGS_MAX: Final = 100
_FETCH_ROWS: Final = 5_000
_FETCH_WAIT_MS: Final = 200

_RESTORE: Final = "Restore the ledger topic from a copy; no lane may write it until then"
_START_REMEDY: Final = "Its start was deleted: restore it, and see `driftledger topics check` for the retention"
_COMPARE: Final = "One of the two was changed by another hand: compare both with a copy"


class Wrong(enum.StrEnum):
    """What a finding is about."""

    START_LOST = "START_LOST"
    MALFORMED = "MALFORMED"
    INDEX = "INDEX"
    SEQUENCE = "SEQUENCE"
    OFFSET = "OFFSET"
    VALUE_HASH = "VALUE_HASH"
    CHAIN = "CHAIN"
    INPUT_RECREATED = "INPUT_RECREATED"
    INPUT_HOLE = "INPUT_HOLE"
    INPUT_NO_RECORD = "INPUT_NO_RECORD"
    INPUT_VALUE = "INPUT_VALUE"
    INPUT_KEY = "INPUT_KEY"
    INPUT_HEADERS = "INPUT_HEADERS"
    INPUT_TIME = "INPUT_TIME"
    INPUT_RANK = "INPUT_RANK"


class Finding(NamedTuple):
    """One wrong place. ledger_offset: where to look in the ledger topic."""

    partition: int
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks a finding for
    sequence: int
    ledger_offset: int
    wrong: Wrong
    detail: str
    remedy: str

    def __str__(self) -> str:
        where = f"partition {self.partition}, index {self.index}, sequence {self.sequence}"
        return f"{where} (ledger offset {self.ledger_offset}): {self.wrong}, {self.detail}. {self.remedy}"


class PartitionCheck(NamedTuple):
    """What was checked of a partition and found wrong.

    entries: checked. compared: DATA entries that met their input record. gone: those whose record retention removed.
    note: from where it was checked, where entries were cut; why the input was not compared; "" for neither. head: of
    the last entry; None for an empty partition.
    """

    partition: int
    entries: int
    first_index: int
    head: Head | None
    compared: int
    gone: int
    note: str
    findings: list[Finding]


def check_partition(
    ledger: Ledger, partition: int, start: int = 1, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> PartitionCheck:
    """Check from GENESIS, or from the entry of a sequence on, to the tail as it stands now.

    progress(entries checked, entries in all) is called for each batch. Raises BadInputError for a sequence that is not
    there.
    """
    try:
        tail = ledger.tail(partition)
    except HaltError as halt:  # not even the last record is an entry: there is no end to check up to
        lost = Finding(
            partition, 0, 0, -1, Wrong.MALFORMED, f"at its end, {halt.detail}; nothing was checked", _RESTORE
        )
        return PartitionCheck(partition, 0, 0, None, 0, 0, "the end of the ledger cannot be read", [lost])
    if tail is None:
        if start > 1:
            raise BadInputError(f"partition {partition} is empty: there is no sequence {start}. Leave --from out")
        return PartitionCheck(partition, 0, 0, None, 0, 0, "the partition is empty", [])
    if not 1 <= start <= max(tail.head.sequence, 1):
        raise BadInputError(f"partition {partition} has the sequences 1 to {tail.head.sequence}, not {start}")
    if start > 1:
        ledger.check_kept(partition, start)
    check = _Check(ledger, partition, tail)
    try:
        check.run(start, progress)
    finally:
        check.close()
    return PartitionCheck(
        partition, check.entries, check.first_index, tail.head, check.compared, check.gone, check.note, check.findings
    )


class _Check:
    """One run over one partition."""

    def __init__(self, ledger: Ledger, partition: int, tail: Tail) -> None:
        self.findings: list[Finding] = []
        self.entries = self.first_index = 0
        self.note = ""
        self._ledger, self._partition, self._tail = ledger, partition, tail
        self._head = Head()
        self._input: _Input | None = None
        #: As it is noted, where the first entries are gone, and whether an entry said so.
        self._cut: Cut | None = None
        self._cut_is_said = False
        self._numbers = np.array([UNKNOWN_RANK, 0, 0], np.int64)
        self._context = np.empty(SHA256_CONTEXT_BYTES, np.uint8)
        self._digest = np.empty(32, np.uint8)

    @property
    def compared(self) -> int:
        return int(self._numbers[1])

    @property
    def gone(self) -> int:
        return int(self._numbers[2])

    def run(self, start: int, progress: Callable[[int, int], None]) -> None:
        begin, self._head = self._begin(start)
        self._open_input()
        self._cut_is_said = self._cut is None or start > 1
        total = self._tail.head.index - self._head.index
        last_offset = begin - 1
        try:
            for batch in self._ledger.batches(self._partition, self._tail, begin):
                if self.entries == 0:
                    self.first_index = int(batch.entries.index[0])
                last_offset = int(batch.offsets[-1])
                self._verify(batch)
                self._compare(batch)
                self._look_for_cut(batch)
                self.entries += batch.entries.index.size
                progress(self.entries, total)
                if len(self.findings) >= FINDINGS_MAX:
                    return
        except HaltError as halt:  # the reader's word for a record that is no entry; nothing goes on here
            detail = f"{halt.detail}; nothing behind it was checked"
            self._find(Wrong.MALFORMED, self._head.index + 1, self._head.sequence, last_offset + 1, detail, _RESTORE)
            return
        if not self._cut_is_said:
            detail = f"the ledger begins with index {self.first_index}, and no CUT in it says so"
            self._find(Wrong.START_LOST, self.first_index, 0, begin, detail, _START_REMEDY)

    def _look_for_cut(self, batch: EntryBatch) -> None:
        """A cut that takes what is gone, in an entry."""
        if not self._cut_is_said:
            cuts = (cut_in(*read_control(value)) for _, value in control_values(batch.entries) if is_cut(value))
            self._cut_is_said = any(cut is not None and covers(cut, self.first_index) for cut in cuts)

    def close(self) -> None:
        if self._input is not None:
            self._input.close()

    # ----------------------------------------------------------------------------------------------------------- begin

    def _begin(self, start: int) -> tuple[int, Head]:
        """Ledger offset to read from, and the head that the entry there must follow."""
        ledger, partition = self._ledger, self._partition
        topic = ledger.names.sequenced
        kept = ledger.first(partition)
        cut = ledger.cut(partition) if kept.index > 1 else None
        if covers(cut, kept.index):
            self._cut = cut
            if cut is not None:
                self.note = f"entries 1 to {kept.index - 1} are in archives, which `lifecycle run verify` proves"
        if start > kept.sequence or (start > 1 and self._cut is None):
            offset = ledger.offset_of(partition, self._tail, start)
            entry = decode_entry(partition, next(ledger.log.scan(topic, partition, offset, offset + 1)).value())
            index = entry["index"]
            before = ledger.offset_of(partition, self._tail, index - 1, "index")
            entry_before = decode_entry(partition, next(ledger.log.scan(topic, partition, before, offset + 1)).value())
            if entry_before["index"] == index - 1:
                return offset, head_after(entry_before)
            detail = f"the entry before it, index {index - 1}, is not there"
            self._find(Wrong.INDEX, index, entry["sequence"], offset, detail, _RESTORE)
            return offset + 1, head_after(entry)
        first = ledger.log.first(topic, partition)
        offset = 0 if first is None else offset_of(first)
        entry = decode_entry(partition, first.value() if first else None)
        if self._cut is not None:
            return offset, self._head_before(entry)
        kind, _ = read_control(entry["value"])
        if entry["index"] != 1 or kind != "Genesis":
            detail = f"the ledger begins with index {entry['index']}, not with GENESIS at 1"
            self._find(Wrong.START_LOST, entry["index"], entry["sequence"], offset, detail, _START_REMEDY)
        return offset, Head()

    def _head_before(self, entry: Mapping[str, Any]) -> Head:
        """Of the first entry of a ledger that was cut, as far as that is known."""
        cut, is_data = self._cut, entry["kind"] == "DATA"
        chain_hash = b""
        if cut is not None and cut.before_index == entry["index"]:
            chain_hash = cut.chain_hash
        return Head(
            entry["index"] - 1,
            entry["sequence"] - is_data,
            entry["input_offset"] - is_data,
            entry["control_offset"] - (not is_data),
            chain_hash,
        )

    def _open_input(self) -> None:
        """Read the input beside the ledger, if it is the one the ledger was written from."""
        ledger, partition = self._ledger, self._partition
        topic = ledger.names.input
        facts = ledger.log.topic(topic)
        if facts is None or partition >= facts.partitions:
            self._tell(f"input {topic}[{partition}] does not exist: nothing to compare with")
            return
        first = ledger.log.first(ledger.names.sequenced, partition)
        genesis: Mapping[str, Any]
        kind, genesis = read_control(decode_entry(partition, first.value() if first else None)["value"])
        if self._cut is not None:
            genesis = self._cut.genesis
        elif kind != "Genesis":
            self._tell("GENESIS is gone, so the input that was sequenced is not known: not compared")
            return
        if genesis["topic_id"] != facts.topic_id:
            self._tell(f"input {topic} is another topic than the one that was sequenced: not compared")
            detail = f"input {topic} had id {genesis['topic_id']} at GENESIS and has {facts.topic_id} now"
            remedy = "It was deleted and made again: begin a new ledger under another name, or restore the topic"
            self._find(Wrong.INPUT_RECREATED, 1, 0, offset_of(first) if first else 0, detail, remedy)
            return
        begin = max(self._head.input_offset + 1, genesis["base_offset"])
        bounds = ledger.log.bounds(topic, partition)
        end = min(self._tail.head.input_offset + 1, bounds.stable_end)
        if bounds.start <= begin:
            self._numbers[0] = self._head.sequence
        self._input = _Input(ledger.bootstrap, topic, partition, max(begin, bounds.start), end)

    def _tell(self, note: str) -> None:
        self.note = f"{self.note}; {note}" if self.note else note

    # ------------------------------------------------------------------------------------------------------- per batch

    def _verify(self, batch: EntryBatch) -> None:
        """Numbers and chain; after a wrong entry it goes on as if that one were right."""
        row, rows = 0, batch.entries.index.size
        if not self._head.chain_hash:  # nothing says what it follows
            self._head, row = head_of(batch.entries, 0), 1
        while row < rows and len(self.findings) < FINDINGS_MAX:
            self._head, bad, what = verify(self._head, slice_rows(batch.entries, row, rows))
            if bad < 0:
                return
            row += bad
            self._find_row(batch, row, Wrong[what.name], _describe(what, self._head, batch.entries, row), _RESTORE)
            self._head = head_of(batch.entries, row)
            row += 1

    def _compare(self, batch: EntryBatch) -> None:
        feed = self._input
        if feed is None:
            return
        row = 0
        while len(self.findings) < FINDINGS_MAX:
            feed.row, row, what = compare_input(
                feed.records, feed.row, feed.ended, batch.entries, row, feed.begin, self._numbers,
                address_of(self._context), self._digest, address_of(self._digest),
            )  # fmt: skip
            match Met(what):
                case Met.ENTRIES_DONE:
                    return
                case Met.RECORDS_DONE:
                    feed.advance()
                case met:
                    self._mismatch(batch, row, met, feed)
                    feed.row += met is not Met.NO_RECORD
                    row += met is not Met.HOLE
                    # both logs go on together from here, so one wrong place is one finding
                    self._numbers[0] = UNKNOWN_RANK if met is Met.HOLE else batch.entries.sequence[row - 1]

    def _mismatch(self, batch: EntryBatch, row: int, met: Met, feed: _Input) -> None:
        topic = f"{self._ledger.names.input}[{self._partition}]"
        at = f"{topic}@{batch.entries.input_offset[row]}"
        if met is Met.HOLE:
            detail = f"the record {topic}@{feed.records.offset[feed.row]} has no entry; it should stand before this one"
            remedy = "The ledger was not written by a lane alone: compare with a copy, and begin a new ledger"
            self._find_row(batch, row, Wrong.INPUT_HOLE, detail, remedy)
            return
        if met is Met.NO_RECORD:
            remedy = f"{topic} lost records (unclean election?), or the entry was made up: compare with a copy"
            self._find_row(batch, row, Wrong.INPUT_NO_RECORD, f"there is no record {at}", remedy)
            return
        text = {
            Met.VALUE: "the value is not that of",
            Met.KEY: "the key is not that of",
            Met.HEADERS: "the headers are not those of",
            Met.TIME: f"authority_timestamp {batch.entries.authority_ms[row]} is not the append time of",
            Met.RANK: f"sequence {batch.entries.sequence[row]} is not the rank, {self._numbers[0] + 1}, of",
        }[met]
        self._find_row(batch, row, Wrong[f"INPUT_{met.name}"], f"{text} {at}", _COMPARE)

    def _find_row(self, batch: EntryBatch, row: int, wrong: Wrong, detail: str, remedy: str) -> None:
        entries = batch.entries
        index, sequence, offset = int(entries.index[row]), int(entries.sequence[row]), int(batch.offsets[row])
        self._find(wrong, index, sequence, offset, detail, remedy)

    def _find(self, wrong: Wrong, index: int, sequence: int, offset: int, detail: str, remedy: str) -> None:
        self.findings.append(Finding(self._partition, index, sequence, offset, wrong, detail, remedy))


def _describe(what: Break, head: Head, entries: Entries, row: int) -> str:
    """What verify found, in words."""
    match what:
        case Break.INDEX:
            return f"index {entries.index[row]} follows {head.index}"
        case Break.SEQUENCE:
            return f"sequence {entries.sequence[row]} follows {head.sequence}"
        case Break.OFFSET:
            found = f"input offset {entries.input_offset[row]}, control offset {entries.control_offset[row]}"
            return f"{found} cannot follow {head.input_offset} and {head.control_offset}"
        case Break.VALUE_HASH:
            return "the value does not have its value_hash"
        case _:
            return f"chain_hash {entries.chain_hash[row].tobytes().hex()} does not follow {head.chain_hash.hex()}"


class _Input:
    """Readable records of an input partition with begin <= offset < end, batch by batch."""

    def __init__(self, bootstrap: str, topic: str, partition: int, begin: int, end: int) -> None:
        self.begin = begin
        self.records: Records = allocate_records(0)
        self._memory: NDArray[np.uint8] | None = None  # what records point into beside the batch
        #: The next record to compare, and whether there is none after the last.
        self.row = 0
        self.ended = begin >= end
        self._end = end
        self._what = f"{topic}[{partition}] at {bootstrap}"
        self._batch: Batch | None = None
        self._consumer: NativeConsumer | None = None
        if not self.ended:
            self._consumer = open_reader(bootstrap, topic, partition, begin)

    def advance(self) -> None:
        """The next batch in place of this one; sets `ended` where the end was reached."""
        self._release()
        assert self._consumer is not None  # noqa: S101 - there is one until the end
        waited_ms = 0
        while (batch := self._consumer.fetch(_FETCH_ROWS, _FETCH_WAIT_MS)) is None:
            waited_ms += _FETCH_WAIT_MS
            if waited_ms >= STALL_TIMEOUT_MS:
                raise UnreachableError(f"{self._what} sent nothing for {waited_ms // 1_000} s: is the broker up?")
        self._batch = batch
        rows = int(np.searchsorted(batch.records.offset[: batch.rows], self._end))
        self.records, self._memory = bound_labels(slice_records(batch.records, 0, rows))
        self.ended = int(batch.positions[0]) >= self._end

    def close(self) -> None:
        """End the client."""
        self._release()
        if self._consumer is not None:
            self._consumer.close()

    def _release(self) -> None:
        self.records, self.row = allocate_records(0), 0
        if self._batch is not None:
            self._batch.release()
            self._batch = None
