"""A batch of ledger entries, and of the events in them, as columns.

Problem: a Python object for each event costs more than everything that is done with it. So a batch is a set of arrays
over memory: one row for each entry, numbers in the arrays, texts and bytes as address and length where they already
lie. Folds work on the arrays in kernels without the GIL, or with numpy.

    Entries   one row for each ledger entry of one partition, in order
    Events    the decoded values; row i belongs to row i of Entries, and says so by its fault where there is none

decode_events fills Events from Entries, by a kernel for single-object framing and by orjson for json. A bad value costs
only its own row; the precedence of faults is given in faults.py. decode_entries fills Entries from records of the
ledger topic, which is how a fold that is behind reads it. A bad ledger record is reported by its index: whoever reads
it halts, since nobody but the sequencer writes there.

GUARANTEE no byte outside [address, address + length) of a value is read, whatever the value holds; every text in a row
without fault is UTF-8 within its limit. HAZARD addresses are not references: the owner of a batch keeps the messages,
the Scratch and what decode_events returns alive until it has let go of the columns.

An address of 0 means "nothing there": key_address of a null key (key_length -1), value_address unless PRESENT,
headers_address without headers, causes_address without causes. Of an empty text or payload the address points at where
it would stand.
causes_address is where the Avro array of causes begins (its first block count); it has been proved well formed.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from .codec import Framing, single_object_prefix
from .entry_kernel import read_entries, write_headers
from .event_json import event_from_json
from .event_kernel import read_events, state_fault
from .faults import DecodeError, Fault
from .memory import address_of, bytes_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Entries",
    "Events",
    "Fault",
    "Scratch",
    "allocate_entries",
    "allocate_events",
    "decode_entries",
    "decode_events",
    "slice_rows",
]


class Entries(NamedTuple):
    """n consecutive ledger entries of one partition; see LedgerEntry for the fields. One dimension unless said."""

    kind: NDArray[np.uint8]  # canonical.EntryKind
    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, which nobody asks a batch for
    sequence: NDArray[np.int64]
    input_offset: NDArray[np.int64]
    control_offset: NDArray[np.int64]
    leader_epoch: NDArray[np.int32]
    authority_ms: NDArray[np.int64]
    authority_kind: NDArray[np.uint8]  # canonical.AuthorityKind
    value_state: NDArray[np.uint8]  # canonical.ValueState
    value_address: NDArray[np.int64]
    value_length: NDArray[np.int64]  # -1 for NULL; the original length also when OMITTED or ERASED
    key_address: NDArray[np.int64]
    key_length: NDArray[np.int64]
    value_hash: NDArray[np.uint8]  # [n, 32]
    chain_hash: NDArray[np.uint8]  # [n, 32]
    headers_address: NDArray[np.int64]  # canonical form, see canonical.py
    headers_length: NDArray[np.int64]


class Events(NamedTuple):
    """The values of n entries; see Event for the fields. Only where fault is NONE are the other columns valid."""

    fault: NDArray[np.uint8]  # Fault
    event_id_address: NDArray[np.int64]
    event_id_length: NDArray[np.int64]
    source_address: NDArray[np.int64]
    source_length: NDArray[np.int64]
    local_us: NDArray[np.int64]
    kind_address: NDArray[np.int64]
    kind_length: NDArray[np.int64]
    value: NDArray[np.float64]  # NaN where null
    has_value: NDArray[np.uint8]  # 0 null, 1 a number, which may itself be NaN or infinite
    payload_address: NDArray[np.int64]
    payload_length: NDArray[np.int64]
    hlc: NDArray[np.int64]
    has_hlc: NDArray[np.uint8]
    causes_count: NDArray[np.int64]
    causes_address: NDArray[np.int64]
    has_exchange: NDArray[np.uint8]
    exchange: NDArray[np.int64]  # [n, 5]: partition, offset, sent_us, acked_us, appended_ms; valid where has_exchange


Columns = TypeVar("Columns", Entries, Events)

_DTYPES: dict[str, Any] = dict.fromkeys(
    ("kind", "authority_kind", "value_state", "fault", "has_value", "has_hlc", "has_exchange"), np.uint8
) | {"leader_epoch": np.int32, "value": np.float64, "value_hash": np.uint8, "chain_hash": np.uint8}
_WIDTHS = {"value_hash": 32, "chain_hash": 32, "exchange": 5}


class Scratch:
    """Bytes that the columns of one batch point into. Used again for the next batch; grows to the largest."""

    def __init__(self) -> None:
        self._bytes: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def reserve(self, length: int) -> int:
        """The address of `length` bytes. What was reserved before is given up."""
        if length > len(self._bytes):
            self._bytes = np.zeros(2 * length, np.uint8)
        return address_of(self._bytes)


class _Block(NamedTuple):
    """Columns of one type and width, which are allocated as one; places: where they stand in the tuple."""

    dtype: Any
    width: int
    places: list[int]

    def allocate(self, n: int) -> NDArray[Any]:
        """One row for each column."""
        shape = (len(self.places), n)
        return np.zeros((*shape, self.width) if self.width else shape, self.dtype)


def _blocks(columns: Any) -> list[_Block]:
    blocks: dict[tuple[Any, int], _Block] = {}
    for place, name in enumerate(columns._fields):
        dtype, width = _DTYPES.get(name, np.int64), _WIDTHS.get(name, 0)
        blocks.setdefault((dtype, width), _Block(dtype, width, [])).places.append(place)
    return list(blocks.values())


_BLOCKS: dict[Any, list[_Block]] = {columns: _blocks(columns) for columns in (Entries, Events)}


#: Puts the columns of the blocks, one after the other, in the order of the tuple.
_IN_ORDER: dict[Any, Any] = {
    columns: itemgetter(*np.argsort([place for block in blocks for place in block.places]).tolist())
    for columns, blocks in _BLOCKS.items()
}


def _allocate(columns: type[Columns], n: int) -> Columns:
    made = [column for block in _BLOCKS[columns] for column in block.allocate(n)]
    return columns(*_IN_ORDER[columns](made))


def allocate_entries(n: int) -> Entries:
    """Room for n entries, zeroed."""
    return _allocate(Entries, n)


def allocate_events(n: int) -> Events:
    """Room for n events, zeroed."""
    return _allocate(Events, n)


def slice_rows(columns: Columns, start: int, stop: int) -> Columns:
    """Rows start to stop - 1, as views."""
    views: list[Any] = [column[start:stop] for column in columns]
    return type(columns)(*views)


def _fingerprint(record: str) -> int:
    """The fingerprint as the kernels compare it: the int64 that its bytes are in memory."""
    return int.from_bytes(single_object_prefix(record)[2:], "little", signed=True)


def decode_events(entries: Entries, events: Events, framing: Framing) -> object:
    """Fill the first len(entries.kind) rows of `events`.

    Returns what the addresses in `events` need alive beyond the batch itself: a buffer for json, None otherwise.
    """
    n = len(entries.kind)
    if len(events.fault) < n:
        raise ValueError(f"{n} entries do not fit {len(events.fault)} rows of events")
    if framing is Framing.SINGLE_OBJECT:
        read_events(entries, events, address_of(events.exchange), _fingerprint("Event"))
        return None
    return _decode_json_events(entries, events, n)


class _Arena:
    """Bytes collected row by row; addresses are known only when all are there, so columns hold offsets until then."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, content: bytes) -> tuple[int, int]:
        """Offset and length of the content."""
        offset = self._length
        self._parts.append(content)
        self._length += len(content)
        return offset, len(content)

    def close(self) -> NDArray[np.uint8]:
        """The bytes in one piece; never of length zero, so that it has an address."""
        return np.frombuffer(b"".join([*self._parts, b"\0"]), np.uint8)


def _decode_json_events(entries: Entries, events: Events, n: int) -> NDArray[np.uint8]:
    arena = _Arena()
    for row in range(n):
        length = int(entries.value_length[row])
        fault = int(state_fault(entries.kind[row], entries.value_state[row], length))
        if fault == Fault.NONE:
            try:
                event = event_from_json(bytes_at(int(entries.value_address[row]), length))
            except DecodeError as error:
                fault = error.fault
            else:
                _store_event(events, row, event, arena)
        events.fault[row] = fault
    content = arena.close()
    base = address_of(content)
    good = events.fault[:n] == Fault.NONE
    for column in (events.event_id_address, events.source_address, events.kind_address, events.payload_address):
        column[:n][good] += base
    events.causes_address[:n][good & (events.causes_count[:n] > 0)] += base
    return content


def _store_event(events: Events, row: int, event: dict[str, Any], arena: _Arena) -> None:
    events.event_id_address[row], events.event_id_length[row] = arena.add(event["event_id"].encode())
    events.source_address[row], events.source_length[row] = arena.add(event["source"].encode())
    events.local_us[row] = event["local_timestamp"]
    events.kind_address[row], events.kind_length[row] = arena.add(event["kind"].encode())
    events.has_value[row] = event["value"] is not None
    events.value[row] = np.nan if event["value"] is None else event["value"]
    events.payload_address[row], events.payload_length[row] = arena.add(event["payload"])
    events.has_hlc[row] = event["hlc"] is not None
    events.hlc[row] = event["hlc"] or 0
    causes = event["causes"]
    events.causes_count[row] = len(causes)
    events.causes_address[row] = arena.add(_avro_causes(causes))[0] if causes else 0
    exchange = event["exchange"]
    events.has_exchange[row] = exchange is not None
    if exchange is not None:
        events.exchange[row] = tuple(exchange.values())


def _avro_long(value: int) -> bytes:
    rest = ((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while rest > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _avro_causes(causes: list[dict[str, int]]) -> bytes:
    """The causes as Avro has them: one block and the closing count of 0."""
    items = [_avro_long(cause["partition"]) + _avro_long(cause["sequence"]) for cause in causes]
    return b"".join([_avro_long(len(causes)), *items, b"\0"])


def decode_entries(
    addresses: NDArray[np.int64],
    lengths: NDArray[np.int64],
    key_addresses: NDArray[np.int64],
    key_lengths: NDArray[np.int64],
    entries: Entries,
    scratch: Scratch,
) -> int:
    """Fill the first len(addresses) rows of `entries` from records of the ledger topic (value and key of each).

    Lengths are -1 for null. Returns the index of the first malformed record, -1 when there is none; rows from a
    malformed one on, and all headers then, are not to be used. Canonical headers are written into `scratch`, whose
    earlier content is given up.
    """
    n = len(addresses)
    if len(entries.kind) < n or not n == len(lengths) == len(key_addresses) == len(key_lengths):
        raise ValueError(
            f"{n} records do not fit {len(entries.kind)} rows of entries, or a column is shorter than others"
        )
    malformed, headers = read_entries(
        addresses, lengths, entries, address_of(entries.value_hash), address_of(entries.chain_hash),
        _fingerprint("LedgerEntry"),
    )  # fmt: skip
    if malformed >= 0:
        return int(malformed)
    entries.key_length[:n] = key_lengths
    entries.key_address[:n] = np.where(key_lengths >= 0, key_addresses, 0)
    if headers > 0:
        write_headers(entries, n, scratch.reserve(headers))
    return -1
