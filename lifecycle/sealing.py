"""What an archive keeps of entries beside their rows, and the entries made again from both.

`chunks.Rows` hold what queries ask for of DATA entries. A Sealing holds the rest: offsets, the key where it is not the
source, headers, the value where its columns do not give it. From the two, and the CONTROL entries among them, each
entry follows byte for byte; its hashes are made anew, so a chain that ends where it should proves all of it.

GUARANTEE `entries_of(rows, sealing_of(entries, rows))` are the entries, but for their hashes.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lifecycle.event_bytes import EventColumns, originals_of, values_of
from lifecycle.packing import Texts
from lifecycle.store_kernel import same
from schemas.canonical import EntryKind, ValueState
from schemas.columns import Entries, allocate_entries
from schemas.errors import DriftledgerError
from schemas.memory import address_of, copy, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.chunks import Rows

_PRESENT: Final = int(ValueState.PRESENT)
_HIDDEN: Final = (int(ValueState.OMITTED), int(ValueState.ERASED))
_TEXTS_BYTES_MAX: Final = 2**31 - 1


class KeyIs(enum.IntEnum):
    """Where the key of an entry is."""

    SOURCE = 0
    NONE = 1
    OTHER = 2


_SOURCE, _NO_KEY, _OTHER = (int(where) for where in KeyIs)


class TooMuchAtOnceError(DriftledgerError):
    """Values, keys or headers that no row group can hold: its offsets have 32 bits. Attributes: size_bytes."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            f"{size_bytes:,} bytes of values that could not be read, of keys or of headers stand in one chunk, and an "
            f"archive holds {_TEXTS_BYTES_MAX:,} of that. Nothing is archived from here on: it stays in the ledger"
        )
        self.size_bytes = size_bytes


class Sealing(NamedTuple):
    """Of n entries, what Rows do not have.

    value_hash: uint8[n, 32], of values that are OMITTED or ERASED, as value_length is. kept: whether the value is in
    original; the texts of rows without one are empty.
    """

    control_offset: NDArray[np.int64]
    leader_epoch: NDArray[np.int32]
    authority_kind: NDArray[np.uint8]
    value_state: NDArray[np.uint8]
    value_length: NDArray[np.int64]
    value_hash: NDArray[np.uint8]
    key_is: NDArray[np.uint8]
    key: Texts
    headers: Texts
    kept: NDArray[np.bool_]
    original: Texts


class Numbers(NamedTuple):
    """What CONTROL entries have of Rows."""

    sequence: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, which nobody asks for
    input_offset: NDArray[np.int64]
    authority_ms: NDArray[np.int64]


@kernel
def _where_keys_are(
    keys: NDArray[np.int64], lengths: NDArray[np.int64], source: NDArray[np.int32], names: NDArray[np.int32],
    content: int, key_is: NDArray[np.uint8],
) -> None:  # fmt: skip
    for row in range(keys.size):
        code = source[row]
        if lengths[row] < 0:
            key_is[row] = _NO_KEY
        elif code >= 0 and (
            names[code + 1] - names[code] == lengths[row]
            and same(int(keys[row]), content + int(names[code]), int(lengths[row]))
        ):
            key_is[row] = _SOURCE
        else:
            key_is[row] = _OTHER


@kernel
def _copy_texts(addresses: NDArray[np.int64], offsets: NDArray[np.int32], content: int) -> None:
    for row in range(addresses.size):
        copy(content + int(offsets[row]), int(addresses[row]), int(offsets[row + 1] - offsets[row]))


def columns_of(rows: Rows, sources: Texts, kinds: Texts) -> EventColumns:
    """What the events of rows are made of."""
    return EventColumns(
        rows.local_us, rows.value, rows.has_value, rows.hlc, rows.has_hlc, rows.source, rows.kind, rows.event_id,
        rows.payload, sources, kinds,
    )  # fmt: skip


def sealing_of(entries: Entries, columns: EventColumns | None) -> Sealing:
    """Of DATA entries and what their rows say of the events in them, or (None) of CONTROL entries."""
    present = entries.value_state == _PRESENT
    hidden = np.isin(entries.value_state, _HIDDEN)
    if columns is None:
        kept = present
        key_is = np.where(entries.key_length < 0, _NO_KEY, _OTHER).astype(np.uint8)
    else:
        kept = originals_of(columns, entries.value_address, np.where(present, entries.value_length, -1))
        key_is = np.empty(present.size, np.uint8)
        names = columns.sources
        _where_keys_are(
            entries.key_address, entries.key_length, columns.source, names.offsets, address_of(names.content), key_is
        )
    return Sealing(
        control_offset=entries.control_offset,
        leader_epoch=entries.leader_epoch,
        authority_kind=entries.authority_kind,
        value_state=entries.value_state,
        value_length=np.where(hidden, entries.value_length, 0),
        value_hash=np.where(hidden[:, None], entries.value_hash, np.uint8(0)),
        key_is=key_is,
        key=_texts_at(entries.key_address, np.where(key_is == _OTHER, entries.key_length, 0)),
        headers=_texts_at(entries.headers_address, entries.headers_length),
        kept=kept,
        original=_texts_at(entries.value_address, np.where(kept, entries.value_length, 0)),
    )


class Made(NamedTuple):
    """Entries, and what they point into."""

    entries: Entries
    memory: tuple[object, ...]


def entries_of(kind: EntryKind, rows: Rows | Numbers, sealing: Sealing, columns: EventColumns | None) -> Made:
    """The entries, with value_hash where the value is not there and no other hash; columns: None for CONTROL."""
    count = rows.index.size
    entries = allocate_entries(count)
    present = sealing.value_state == _PRESENT
    entries.kind[:] = kind
    entries.index[:], entries.sequence[:] = rows.index, rows.sequence
    entries.input_offset[:], entries.control_offset[:] = rows.input_offset, sealing.control_offset
    entries.leader_epoch[:], entries.authority_ms[:] = sealing.leader_epoch, rows.authority_ms
    entries.authority_kind[:], entries.value_state[:] = sealing.authority_kind, sealing.value_state
    entries.value_hash[:] = sealing.value_hash
    entries.headers_length[:] = np.diff(sealing.headers.offsets)
    entries.headers_address[:] = np.where(entries.headers_length > 0, _places(sealing.headers), 0)
    entries.key_length[:] = np.where(sealing.key_is == _NO_KEY, -1, np.diff(sealing.key.offsets))
    entries.key_address[:] = np.where(sealing.key_is == _OTHER, _places(sealing.key), 0)
    memory: tuple[object, ...] = (sealing, columns)
    if columns is None:
        lengths, addresses = np.diff(sealing.original.offsets).astype(np.int64), _places(sealing.original)
    else:
        of_source = sealing.key_is == _SOURCE
        codes, names = columns.source[of_source], columns.sources
        entries.key_length[of_source] = np.diff(names.offsets)[codes]
        entries.key_address[of_source] = _places(names)[codes]
        values, addresses, lengths = values_of(columns, present, sealing.original, sealing.kept)
        memory = (*memory, values)
    entries.value_address[:] = np.where(present, addresses, 0)
    entries.value_length[:] = np.where(present, lengths, sealing.value_length)
    entries.value_length[sealing.value_state == ValueState.NULL] = -1
    return Made(entries, memory)


def copied(entries: Entries) -> Made:
    """Entries with texts of their own: what a reader gives is gone with its next batch."""
    present = entries.value_state == _PRESENT
    key = _texts_at(entries.key_address, np.maximum(entries.key_length, 0))
    headers = _texts_at(entries.headers_address, entries.headers_length)
    value = _texts_at(entries.value_address, np.where(present, entries.value_length, 0))
    columns: list[Any] = [column.copy() for column in entries]
    own = Entries(*columns)._replace(
        key_address=np.where(entries.key_length > 0, _places(key), 0),
        headers_address=np.where(entries.headers_length > 0, _places(headers), 0),
        value_address=np.where(present, _places(value), 0),
    )
    return Made(own, (key, headers, value))


def interleaved(data: Entries, control: Entries) -> Entries:
    """Both, ascending by index."""
    order = np.argsort(np.concatenate([data.index, control.index]), kind="stable")
    return taken(behind([data, control]), order) if control.index.size else data


def taken(entries: Entries, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Entries:
    """Some of them."""
    columns: list[Any] = [column[rows] for column in entries]
    return Entries(*columns)


def of_kind(entries: Entries, kind: EntryKind) -> Entries:
    """Those of a kind."""
    chosen = entries.kind == kind
    return entries if chosen.all() else taken(entries, chosen)


def behind(parts: list[Entries]) -> Entries:
    """Entries one behind the other."""
    columns: list[Any] = [np.concatenate(same_columns) for same_columns in zip(*parts, strict=True)]
    return Entries(*columns)


def _places(texts: Texts) -> NDArray[np.int64]:
    """Where each text begins."""
    return texts.offsets[:-1].astype(np.int64) + address_of(texts.content)


def _texts_at(addresses: NDArray[np.int64], lengths: NDArray[np.int64]) -> Texts:
    """A copy of texts that stand anywhere."""
    ends = np.cumsum(lengths, dtype=np.int64)
    if ends.size and ends[-1] > _TEXTS_BYTES_MAX:
        raise TooMuchAtOnceError(int(ends[-1]))
    offsets = np.zeros(lengths.size + 1, np.int32)
    offsets[1:] = ends
    content = np.empty(int(offsets[-1]) + 1, np.uint8)
    _copy_texts(addresses, offsets, address_of(content))
    return Texts(offsets, content)
