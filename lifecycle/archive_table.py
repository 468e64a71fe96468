"""Entries of the ledger as tables of an archive: what every tool can read, and what makes them again byte for byte.

One row is one entry. DATA stand first, in row groups of consecutive sequences; CONTROL entries in row groups after
them, both ascending by index.

    partition                    int32, the same in all rows: files of several partitions may be read together
    index, sequence              int64
    entry                        DATA or CONTROL
    input_offset, control_offset int64
    leader_epoch                 int32
    authority_timestamp          timestamp[ms, UTC]
    authority_kind               APPENDED or OBSERVED
    value_state                  PRESENT, NULL, OMITTED or ERASED
    value_length, value_hash     where the value is not there to tell them: OMITTED, ERASED
    key_is, key                  SOURCE (the key is the source), NONE, or OTHER: then key has it
    headers                      in canonical form (see canonical.py); null for none
    original                     the value as it was sent, where it is not what the columns give; all CONTROL
    event_id, source, kind       text; null where the value could not be read, like the following
    local_timestamp              timestamp[us, UTC]
    value                        double; null for none
    payload                      bytes
    hlc                          int64; null for none
    severity, flags, fault, cause, offset_us, bound_us    judge's verdict, as in `chunks`; severity null where none

GUARANTEE `data_of` and `control_of` give back what `data_table` and `control_table` were given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from lifecycle.arrow import AUTHORITY, LOCAL, causes, dictionary, plain, texts
from lifecycle.chunks import HASH_BYTES, Column, Rows
from lifecycle.packing import DamagedError, Texts
from lifecycle.sealing import KeyIs, Numbers, Sealing
from schemas.canonical import AuthorityKind, EntryKind, ValueState
from schemas.faults import Fault
from streams.causes import Cause
from streams.judge_kernel import NO_SEVERITY
from streams.severity import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_NAME: Final = pa.dictionary(pa.int32(), pa.string())
SCHEMA: Final = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("entry", _NAME, nullable=False),
        pa.field("input_offset", pa.int64(), nullable=False),
        pa.field("control_offset", pa.int64(), nullable=False),
        pa.field("leader_epoch", pa.int32(), nullable=False),
        pa.field("authority_timestamp", AUTHORITY, nullable=False),
        pa.field("authority_kind", _NAME, nullable=False),
        pa.field("value_state", _NAME, nullable=False),
        pa.field("value_length", pa.int64()),
        pa.field("value_hash", pa.binary(HASH_BYTES)),
        pa.field("key_is", _NAME, nullable=False),
        pa.field("key", pa.binary()),
        pa.field("headers", pa.binary()),
        pa.field("original", pa.binary()),
        pa.field("event_id", pa.string()),
        pa.field("source", _NAME),
        pa.field("kind", _NAME),
        pa.field("local_timestamp", LOCAL),
        pa.field("value", pa.float64()),
        pa.field("payload", pa.binary()),
        pa.field("hlc", pa.int64()),
        pa.field("severity", _NAME),
        pa.field("flags", pa.uint8()),
        pa.field("fault", _NAME, nullable=False),
        pa.field("cause", _NAME),
        pa.field("offset_us", pa.int64()),
        pa.field("bound_us", pa.int64()),
    ]
)
#: Of a row group; its bytes have checksums column by column.
ROWS_MAX: Final = 131_072


def _members(closed: Any) -> list[bytes]:
    return [closed(number).name.encode() if number in set(closed) else b"" for number in range(max(closed) + 1)]


_ENTRY_KINDS, _AUTHORITY_KINDS, _STATES = (_members(closed) for closed in (EntryKind, AuthorityKind, ValueState))
_KEYS, _FAULTS, _SEVERITIES, _CAUSES = (_members(closed) for closed in (KeyIs, Fault, Severity, Cause))


def data_table(
    partition: int, rows: Rows, sealing: Sealing, sources: Sequence[bytes], kinds: Sequence[bytes]
) -> pa.Table:
    """DATA entries; sources, kinds: what the codes in rows mean."""
    readable = rows.fault == Fault.NONE
    valid = None if readable.all() else readable
    judged = rows.severity != NO_SEVERITY
    estimated = rows.bound_us >= 0
    return pa.table(
        [
            *_entry_arrays(partition, rows, sealing, EntryKind.DATA),
            texts(pa.string(), rows.event_id, valid),
            dictionary(np.maximum(rows.source, 0), sources or [b""], valid),
            dictionary(np.maximum(rows.kind, 0), kinds or [b""], valid),
            plain(LOCAL, rows.local_us, valid),
            plain(pa.float64(), rows.value, _some(rows.has_value != 0)),
            texts(pa.binary(), rows.payload, valid),
            plain(pa.int64(), rows.hlc, _some(rows.has_hlc != 0)),
            dictionary(np.where(judged, rows.severity, 0), _SEVERITIES, _some(judged)),
            plain(pa.uint8(), rows.flags, None),
            dictionary(rows.fault, _FAULTS, None),
            causes(rows.cause),
            plain(pa.int64(), rows.offset_us, _some(estimated)),
            plain(pa.int64(), rows.bound_us, _some(estimated)),
        ],
        schema=SCHEMA,
    )


def control_table(partition: int, numbers: Numbers, sealing: Sealing) -> pa.Table:
    """CONTROL entries."""
    count = numbers.index.size
    empty = [pa.nulls(count, field.type) for field in list(SCHEMA)[len(SCHEMA) - _VERDICTS :]]
    fault = np.full(count, Fault.CONTROL_ENTRY, np.uint8)
    empty[SCHEMA.get_field_index("fault") - (len(SCHEMA) - _VERDICTS)] = dictionary(fault, _FAULTS, None)
    return pa.table([*_entry_arrays(partition, numbers, sealing, EntryKind.CONTROL), *empty], schema=SCHEMA)


#: Columns from event_id on.
_VERDICTS: Final = 13


def _entry_arrays(partition: int, rows: Rows | Numbers, sealing: Sealing, kind: EntryKind) -> list[pa.Array]:
    hidden = np.isin(sealing.value_state, (ValueState.OMITTED, ValueState.ERASED))
    return [
        plain(pa.int32(), np.full(rows.index.size, partition, np.int32), None),
        plain(pa.int64(), rows.index, None),
        plain(pa.int64(), rows.sequence, None),
        dictionary(np.full(rows.index.size, kind, np.int32), _ENTRY_KINDS, None),
        plain(pa.int64(), rows.input_offset, None),
        plain(pa.int64(), sealing.control_offset, None),
        plain(pa.int32(), sealing.leader_epoch, None),
        plain(AUTHORITY, rows.authority_ms, None),
        dictionary(sealing.authority_kind, _AUTHORITY_KINDS, None),
        dictionary(sealing.value_state, _STATES, None),
        plain(pa.int64(), sealing.value_length, hidden),
        plain(pa.binary(HASH_BYTES), sealing.value_hash, hidden),
        dictionary(sealing.key_is, _KEYS, None),
        texts(pa.binary(), sealing.key, sealing.key_is == KeyIs.OTHER),
        texts(pa.binary(), sealing.headers, np.diff(sealing.headers.offsets) > 0),
        texts(pa.binary(), sealing.original, sealing.kept),
    ]


def _some(valid: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return None if valid.all() else valid


class Found(NamedTuple):
    """DATA entries of a table. names: of sources, then of kinds, as the codes in rows mean them."""

    rows: Rows
    sealing: Sealing
    names: tuple[Texts, Texts]


#: Where the columns of rows stand; what else there is follows from several, or from all.
COLUMNS: Final = {
    Column.SEQUENCE: "sequence",
    Column.INDEX: "index",
    Column.INPUT_OFFSET: "input_offset",
    Column.AUTHORITY_MS: "authority_timestamp",
    Column.LOCAL_US: "local_timestamp",
    Column.VALUE: "value",
    Column.HAS_VALUE: "value",
    Column.SEVERITY: "severity",
    Column.FLAGS: "flags",
    Column.FAULT: "fault",
    Column.SOURCE: "source",
    Column.KIND: "kind",
    Column.EVENT_ID: "event_id",
    Column.PAYLOAD: "payload",
    Column.HLC: "hlc",
    Column.HAS_HLC: "hlc",
    Column.CAUSE: "cause",
    Column.OFFSET_US: "offset_us",
    Column.BOUND_US: "bound_us",
}
#: Numbers of members of an enumeration, and what stands where there is none.
_CODED: Final[dict[Column, tuple[Any, int]]] = {
    Column.SEVERITY: (Severity, NO_SEVERITY),
    Column.FAULT: (Fault, Fault.NONE),
    Column.CAUSE: (Cause, Cause.NONE),
}


def values_in(table: pa.Table, column: Column) -> NDArray[Any] | Texts:
    """One of COLUMNS, but for SOURCE and KIND, as `chunks.Rows` have it."""
    reader, name = _Reader(table), COLUMNS[column]
    if column in _CODED:
        return reader.codes(name, *_CODED[column])
    match column:
        case Column.EVENT_ID | Column.PAYLOAD:
            return reader.texts(name)
        case Column.LOCAL_US | Column.HLC | Column.OFFSET_US:
            return reader.numbers(name, np.int64, 0)
        case Column.BOUND_US:
            return reader.numbers(name, np.int64, -1)
        case Column.VALUE:
            return reader.numbers(name, np.float64, np.nan)
        case Column.HAS_VALUE | Column.HAS_HLC:
            return reader.valid(name).astype(np.uint8)
        case _:
            return reader.plain(name)


def names_in(table: pa.Table, column: Column) -> tuple[NDArray[np.int32], Texts]:
    """SOURCE or KIND: codes, -1 for none, and the names that they mean."""
    return _Reader(table).named(COLUMNS[column])


def data_of(table: pa.Table) -> Found:
    """What `data_table` was given, without chain hashes: they follow from all of it."""
    plain_ones = COLUMNS.keys() - {Column.SOURCE, Column.KIND}
    columns: dict[str, Any] = {column.name.lower(): values_in(table, column) for column in plain_ones}
    source, sources = names_in(table, Column.SOURCE)
    kind, kinds = names_in(table, Column.KIND)
    chain_hash = np.zeros((len(table), HASH_BYTES), np.uint8)
    rows = Rows(**columns, source=source, kind=kind, chain_hash=chain_hash)
    return Found(rows, _sealing_of(_Reader(table)), (sources, kinds))


def control_of(table: pa.Table) -> tuple[Numbers, Sealing]:
    """What `control_table` was given."""
    column = _Reader(table)
    names = ("sequence", "index", "input_offset", "authority_timestamp")
    return Numbers(*(column.plain(name) for name in names)), _sealing_of(column)


def _sealing_of(column: _Reader) -> Sealing:
    return Sealing(
        control_offset=column.plain("control_offset"),
        leader_epoch=column.plain("leader_epoch"),
        authority_kind=column.codes("authority_kind", AuthorityKind, 0),
        value_state=column.codes("value_state", ValueState, 0),
        value_length=column.numbers("value_length", np.int64, 0),
        value_hash=column.hashes("value_hash"),
        key_is=column.codes("key_is", KeyIs, 0),
        key=column.texts("key"),
        headers=column.texts("headers"),
        kept=column.valid("original"),
        original=column.texts("original"),
    )


def is_of(table: pa.Table, partition: int) -> bool:
    """Whether all rows of a table say that they are of that partition."""
    return bool((_Reader(table).plain("partition") == partition).all())


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether tables of one row group each are the same to the bit, however their names are numbered."""
    if len(one) != len(other) or one.schema != other.schema:
        return False
    first, second = _Reader(one), _Reader(other)
    return all(_same(first.array(name), second.array(name)) for name in SCHEMA.names)


def _same(one: pa.Array, other: pa.Array) -> bool:
    if pa.types.is_dictionary(one.type):
        places = {name: code for code, name in enumerate(one.dictionary.to_pylist())}
        codes = np.array([places.get(name, -1) for name in other.dictionary.to_pylist()] or [-1], np.int64)
        found, there = _Reader.numbers_in(one.indices, 0)
        others, theirs = _Reader.numbers_in(other.indices, 0)
        return np.array_equal(there, theirs) and np.array_equal(found[there], codes[others][there])
    if pa.types.is_floating(one.type):  # a NaN is no other than itself here
        found, others = (_numbers(array).view(np.int64) for array in (one, other))
        valid, theirs = (array.is_valid().to_numpy(zero_copy_only=False) for array in (one, other))
        return np.array_equal(valid, theirs) and np.array_equal(found[valid], others[valid])
    return bool(one.equals(other))


class _Reader:
    """Columns of a table of one row group as arrays."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def array(self, name: str) -> pa.Array:
        """A column in one piece."""
        column = self._table.column(name)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def valid(self, name: str) -> NDArray[np.bool_]:
        """Where it has a value."""
        found: NDArray[np.bool_] = self.array(name).is_valid().to_numpy(zero_copy_only=False)
        return found

    def plain(self, name: str) -> NDArray[Any]:
        """A column of numbers that has no null."""
        return _numbers(self.array(name))

    def numbers(self, name: str, dtype: Any, default: float) -> NDArray[Any]:
        """A column that may have nulls, in place of which a default stands."""
        array = self.array(name)
        if array.null_count == 0:
            return _numbers(array)
        if array.null_count == len(array):
            return np.full(len(array), default, dtype)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        return np.where(valid, _numbers(array), np.asarray(default, dtype))

    def codes(self, name: str, closed: Any, default: int) -> NDArray[np.uint8]:
        """The numbers of members of an enumeration."""
        array = self.array(name)
        try:
            codes = np.array([closed[text] for text in array.dictionary.to_pylist()] or [default], np.uint8)
        except KeyError as error:
            raise DamagedError(f"{name} has {error} among its names") from error
        indices, there = _Reader.numbers_in(array.indices, 0)
        return np.where(there, codes[indices], np.uint8(default))

    def named(self, name: str) -> tuple[NDArray[np.int32], Texts]:
        """Codes, -1 for null, and their names."""
        array = self.array(name)
        indices, there = _Reader.numbers_in(array.indices, 0)
        return np.where(there, indices, -1).astype(np.int32), _texts(array.dictionary)

    def texts(self, name: str) -> Texts:
        """Texts; a null is an empty one."""
        return _texts(self.array(name))

    def hashes(self, name: str) -> NDArray[np.uint8]:
        """Hashes; a null is zero."""
        array = self.array(name)
        found = np.zeros((len(array), HASH_BYTES), np.uint8)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        if valid.any():
            there = array.drop_null()
            content = np.frombuffer(there.buffers()[1], np.uint8)[there.offset * HASH_BYTES :]
            found[valid] = content[: len(there) * HASH_BYTES].reshape(-1, HASH_BYTES)
        return found

    @staticmethod
    def numbers_in(array: pa.Array, default: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Numbers, with a default in place of nulls, and where there are any."""
        if array.null_count == 0:
            return _numbers(array), np.ones(len(array), np.bool_)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        return np.where(valid, _numbers(array), default), valid


def _numbers(array: pa.Array) -> NDArray[Any]:
    """What stands in the buffer, whatever is null."""
    dtypes = {pa.int32(): np.int32, pa.uint8(): np.uint8, pa.float64(): np.float64}
    dtype = np.dtype(dtypes.get(array.type, np.int64))
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array)]


def _texts(array: pa.Array) -> Texts:
    """Texts; what stands under a null is left out."""
    if array.null_count:
        array = array.fill_null(pa.scalar(b"" if pa.types.is_binary(array.type) else "", array.type))
    _, offsets, content = array.buffers()
    if offsets is None or not len(array):
        return Texts(np.zeros(len(array) + 1, np.int32), np.zeros(1, np.uint8))
    places = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return Texts(places, np.zeros(1, np.uint8) if content is None else np.frombuffer(content, np.uint8))
