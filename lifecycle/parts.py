"""Rows of an answer, gathered from where they stand: from chunks, and from what is in no chunk yet.

A Part is rows that stand together and read their columns when they are asked for; a Piece is those of them that an
answer takes. `gather` puts pieces one behind the other, or in the order across partitions where they have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lifecycle.chunks import HASH_BYTES, Column
from lifecycle.dating_kernel import Dated, date_rows
from lifecycle.packing import Texts
from lifecycle.planner import Field
from lifecycle.row_kernel import deltas, look_up, merge_counted, merge_runs, put_at, put_lengths, put_texts
from schemas.errors import BadInputError
from schemas.faults import Fault
from streams.corrected_kernel import TO_AUTHORITY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lifecycle.planner import Explain


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a partition.

    whole: all of them are counted; valued: all of them are known to have a value. order_ms: the running maximum of
    authority before them. low, high: their times in the frame of the question are between these. sources, kinds: codes
    of the catalog by the codes that rows have. unknown: what becomes of rows without an estimate, in corrected time:
    TO_AUTHORITY or TO_NOTHING.
    """

    partition: int
    first_sequence: int
    rows: int
    whole: bool
    order_ms: int
    low: int
    high: int
    sources: NDArray[np.int32]
    kinds: NDArray[np.int32]
    read: Callable[[Column], Any]
    valued: bool = False
    unknown: int = TO_AUTHORITY

    def dated(self) -> Dated:
        """Its rows' corrected times."""
        found = Dated(np.empty(self.rows, np.int64), np.empty(self.rows, np.int64), np.empty(self.rows, np.uint8))
        date_rows(self.unknown, found, *map(self.read, _DATING))
        return found


class Piece(NamedTuple):
    """Rows of a part: their places, or from one to another. order: the order across partitions, empty without."""

    part: Part
    rows: NDArray[np.int64] | slice
    order: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many there are."""
        return _size(self.rows)


class Values(NamedTuple):
    """A column of an answer. valid: where there is a value; None: everywhere."""

    values: NDArray[Any] | Texts
    valid: NDArray[np.bool_] | None = None


class Gathered(NamedTuple):
    """Rows of pieces; order: the order across partitions of each, where pieces have one."""

    rows: int
    columns: dict[Field, Values]
    order: NDArray[np.int64]


class Selected(NamedTuple):
    """Rows in order. sources, kinds: what the codes in these columns mean (-1: unreadable). more: it was cut."""

    rows: int
    columns: dict[Field, Values]
    sources: Sequence[bytes]
    kinds: Sequence[bytes]
    more: bool
    explain: Explain


#: Of pieces that come in order.
NO_ORDER: Final = np.zeros(0, np.int64)
#: Up to so many orders for each row it is quicker to count them than to compare rows: 2 to 6 ns a row for 12.
_COUNTED_PER_ROW: Final = 8
#: Offsets of texts are int32.
TEXT_BYTES_MAX: Final = 2**31 - 1

#: Of what corrected times follow, in the order in which `date_rows` takes it.
_DATING: Final = (Column.LOCAL_US, Column.AUTHORITY_MS, Column.OFFSET_US, Column.BOUND_US, Column.FAULT)
_TEXTS: Final = frozenset({Field.EVENT_ID, Field.PAYLOAD})
#: Fields that only readable rows have, besides those whose columns say it themselves.
_READABLE: Final = frozenset({Field.LOCAL_US, Field.DELTA_MS, Field.EVENT_ID, Field.PAYLOAD, Field.KIND, Field.SOURCE})
_HAS: Final = {Field.VALUE: Column.HAS_VALUE, Field.HLC: Column.HAS_HLC}
#: Fields of rows whose source had an estimate.
_ESTIMATED: Final = frozenset({Field.OFFSET_US, Field.BOUND_US})
_DTYPES: Final[dict[Field, Any]] = {
    Field.PARTITION: np.int32, Field.SEVERITY: np.uint8, Field.FLAGS: np.uint8, Field.FAULT: np.uint8,
    Field.CAUSE: np.uint8, Field.CHAIN_HASH: np.uint8, Field.SOURCE: np.int32, Field.KIND: np.int32,
    Field.VALUE: np.float64,
}  # fmt: skip


class _Taken(NamedTuple):
    """Rows of a part that are in the answer, and where: their places, which ascend, or from one to another."""

    part: Part
    rows: NDArray[np.int64] | slice
    places: NDArray[np.int64] | slice


def gather(pieces: list[Piece], fields: Sequence[Field], limit: int) -> Gathered:
    """The first rows of pieces, at most so many.

    Pieces come ascending by partition and sequence; where they have an order, rows are put into it.
    """
    rows = min(sum(piece.size for piece in pieces), limit)
    if any(piece.order.size for piece in pieces):
        taken, order = _merged(pieces, rows)
    else:
        taken, order = _first(pieces, rows), NO_ORDER
    return Gathered(rows, {name: _column(taken, name, rows) for name in fields}, order)


def text_bytes_of(piece: Piece, fields: Sequence[Field]) -> int:
    """Of those of its texts that are among the fields."""
    total = 0
    for name in _TEXTS.intersection(fields):
        offsets: NDArray[np.int32] = piece.part.read(Column[name.name]).offsets
        places = _places(piece.rows)
        total += int((offsets[places + 1] - offsets[places]).sum(dtype=np.int64))
    return total


def _first(pieces: list[Piece], rows: int) -> list[_Taken]:
    """The pieces that the first so many rows are in, one behind the other."""
    taken = []
    start = 0
    for piece in pieces:
        stop = min(start + piece.size, rows)
        if start == stop:
            break
        taken.append(_Taken(piece.part, _cut(piece.rows, stop - start), slice(start, stop)))
        start = stop
    return taken


def _merged(pieces: list[Piece], rows: int) -> tuple[list[_Taken], NDArray[np.int64]]:
    """The pieces that the first so many rows in order are in; and the order of these."""
    order = np.concatenate([piece.order for piece in pieces])
    stops = np.cumsum([piece.size for piece in pieces])
    last = [here.part.partition != after.part.partition for here, after in pairwise(pieces)]
    ends = stops[[*last, True]]
    heads = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    places, merged = np.empty(order.size, np.int64), np.empty(rows, np.int64)
    lowest, highest = int(order[heads].min()), int(order[ends - 1].max())
    if highest - lowest < order.size * _COUNTED_PER_ROW:
        next_place = np.zeros(highest - lowest + 2, np.int32)
        merge_counted(order, heads, ends, lowest, next_place, places, merged)
    else:
        merge_runs(order, heads, ends, places, merged)
    taken = []
    run = 0
    for piece, stop, ends_run in zip(pieces, stops.tolist(), [*last, True], strict=True):
        start = stop - piece.size
        count = min(int(heads[run]) - start, piece.size)
        if count > 0:
            taken.append(_Taken(piece.part, _cut(piece.rows, count), as_slice(places[start : start + count])))
        run += ends_run
    return taken, merged


def as_slice(places: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Ascending places; from the first to the last where none between is left out: slices are not copied."""
    first, last = (int(places[0]), int(places[-1])) if places.size else (0, -1)
    return slice(first, last + 1) if last - first == places.size - 1 else places


def _cut(rows: NDArray[np.int64] | slice, most: int) -> NDArray[np.int64] | slice:
    return slice(rows.start, min(rows.stop, rows.start + most)) if isinstance(rows, slice) else rows[:most]


def _column(taken: list[_Taken], name: Field, rows: int) -> Values:
    """One field of all pieces."""
    if name in _TEXTS:
        values: NDArray[Any] | Texts = _texts(taken, Column[name.name], rows)
    else:
        values = np.empty((rows, HASH_BYTES) if name is Field.CHAIN_HASH else rows, _DTYPES.get(name, np.int64))
        for piece in taken:
            _put(_read(piece, name), piece.places, values)
    masks = [_valid(piece, name) for piece in taken]
    if all(mask is None for mask in masks):
        return Values(values)
    valid = np.ones(rows, np.bool_)
    for piece, mask in zip(taken, masks, strict=True):
        if mask is not None:
            valid[piece.places] = mask
    return Values(values, valid)


def _put(values: NDArray[Any], places: NDArray[np.int64] | slice, target: NDArray[Any]) -> None:
    if isinstance(places, slice) or values.ndim > 1:
        target[places] = values
    else:
        put_at(values, places, target)


def _read(piece: _Taken, name: Field) -> NDArray[Any]:
    """A field that is no text."""
    part, rows = piece.part, piece.rows
    if name is Field.PARTITION:
        return np.full(_size(rows), part.partition, np.int32)
    if name is Field.SEQUENCE:
        return _places(rows) + part.first_sequence
    if name is Field.DELTA_MS:
        delta_ms = np.empty(_size(rows), np.int64)
        deltas(part.read(Column.LOCAL_US)[rows], part.read(Column.AUTHORITY_MS)[rows], delta_ms)
        return delta_ms
    if name is Field.CORRECTED_US:
        return part.dated().time[rows]
    values: NDArray[Any] = part.read(Column[name.name])[rows]
    if name in (Field.SOURCE, Field.KIND):
        codes = part.sources if name is Field.SOURCE else part.kinds
        named = np.empty(values.size, np.int32)
        look_up(values, codes if part.whole else np.append(codes, np.int32(-1)), named)
        return named
    return values


def _valid(piece: _Taken, name: Field) -> NDArray[np.bool_] | None:
    """Where rows have the field; None: all of them."""
    mask: NDArray[np.bool_] | None = None
    if name in _HAS:
        if name is not Field.VALUE or not piece.part.valued:
            mask = piece.part.read(_HAS[name])[piece.rows] != 0
    elif name is Field.CORRECTED_US:
        mask = piece.part.dated().fault[piece.rows] == Fault.NONE
    elif name in _ESTIMATED:
        mask = piece.part.read(Column.BOUND_US)[piece.rows] >= 0
    elif name in _READABLE and not piece.part.whole:
        mask = piece.part.read(Column.FAULT)[piece.rows] == Fault.NONE
    return None if mask is None or mask.all() else mask


def _size(rows: NDArray[np.int64] | slice) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else rows.size


def _places(rows: NDArray[np.int64] | slice) -> NDArray[np.int64]:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def _texts(taken: list[_Taken], column: Column, rows: int) -> Texts:
    """Texts one behind the other."""
    chosen = [(piece.part.read(column), _places(piece.rows), _places(piece.places)) for piece in taken]
    ends = np.zeros(rows + 1, np.int64)
    for texts, places, targets in chosen:
        put_lengths(texts.offsets, places, targets, ends)
    np.cumsum(ends, out=ends)
    if ends[-1] > TEXT_BYTES_MAX:
        raise BadInputError(
            f"{ends[-1]} bytes of texts are more than an answer holds ({TEXT_BYTES_MAX}). Ask for fewer rows"
        )
    content = np.empty(int(ends[-1]), np.uint8)
    for texts, places, targets in chosen:
        put_texts(texts.offsets, texts.content, places, targets, ends, content)
    return Texts(ends.astype(np.int32), content)
