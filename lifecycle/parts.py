"""Rows of an answer, gathered from where they stand: from chunks, and from what is in no chunk yet.

A Part is rows that stand together and read their columns when they are asked for; a Piece is those of them that an
answer takes. `gather` puts pieces one behind the other, or in the order across partitions where they have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lifecycle.chunks import HASH_BYTES, Column
from lifecycle.packing import Texts
from lifecycle.planner import Field
from lifecycle.row_kernel import copy_texts, deltas, text_ends
from schemas.errors import BadInputError
from schemas.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lifecycle.planner import Explain


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a partition.

    whole: all of them are counted. order_ms: the running maximum of authority before them. low, high: their times in
    the frame of the question are between these. sources, kinds: codes of the catalog by the codes that rows have.
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


class Piece(NamedTuple):
    """Rows of a part: their places, or from one to another. order: the order across partitions, empty without."""

    part: Part
    rows: NDArray[np.int64] | slice
    order: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many there are."""
        return self.rows.stop - self.rows.start if isinstance(self.rows, slice) else self.rows.size


class Values(NamedTuple):
    """A column of an answer. valid: where there is a value; None: everywhere."""

    values: NDArray[Any] | Texts
    valid: NDArray[np.bool_] | None = None


class Selected(NamedTuple):
    """Rows in order. sources, kinds: what the codes in these columns mean (-1: unreadable). more: it was cut."""

    rows: int
    columns: dict[Field, Values]
    sources: Sequence[bytes]
    kinds: Sequence[bytes]
    more: bool
    explain: Explain


#: Offsets of texts are int32.
TEXT_BYTES_MAX: Final = 2**31 - 1

_TEXTS: Final = frozenset({Field.EVENT_ID, Field.PAYLOAD})
#: Fields that only readable rows have, besides those whose columns say it themselves.
_READABLE: Final = frozenset({Field.LOCAL_US, Field.DELTA_MS, Field.EVENT_ID, Field.PAYLOAD, Field.KIND, Field.SOURCE})
_HAS: Final = {Field.VALUE: Column.HAS_VALUE, Field.HLC: Column.HAS_HLC}
_DTYPES: Final[dict[Field, Any]] = {
    Field.PARTITION: np.int32, Field.SEVERITY: np.uint8, Field.FLAGS: np.uint8, Field.FAULT: np.uint8,
    Field.CHAIN_HASH: np.uint8, Field.SOURCE: np.int32, Field.KIND: np.int32, Field.VALUE: np.float64,
}  # fmt: skip


def gather(pieces: list[Piece], fields: Sequence[Field], limit: int) -> tuple[int, dict[Field, Values]]:
    """The first rows of pieces, at most so many: their number and columns.

    Pieces come ascending by partition and sequence; where they have an order, rows are put into it.
    """
    total = min(sum(piece.size for piece in pieces), limit)
    order = None
    if any(piece.order.size for piece in pieces):
        order = np.argsort(np.concatenate([piece.order for piece in pieces]), kind="stable")[:total]
    else:
        pieces = _first(pieces, total)
    return total, {name: _column(pieces, name, order) for name in fields}


def _first(pieces: list[Piece], rows: int) -> list[Piece]:
    """The pieces that the first so many rows are in, the last one cut."""
    kept = []
    for piece in pieces:
        if rows <= 0:
            break
        chosen = piece.rows
        if isinstance(chosen, slice):
            chosen = slice(chosen.start, min(chosen.stop, chosen.start + rows))
        else:
            chosen = chosen[:rows]
        kept.append(piece._replace(rows=chosen))
        rows -= kept[-1].size
    return kept


def _column(pieces: list[Piece], name: Field, order: NDArray[np.int64] | None) -> Values:
    """One field of all pieces."""
    values: NDArray[Any] | Texts
    if name in _TEXTS:
        values = _texts([(piece.part.read(Column[name.name]), _places(piece)) for piece in pieces])
        if order is not None:
            values = _texts([(values, order)])
    else:
        shape = (0, HASH_BYTES) if name is Field.CHAIN_HASH else (0,)
        values = np.concatenate(
            [np.zeros(shape, _DTYPES.get(name, np.int64)), *(_read(piece, name) for piece in pieces)]
        )
        if order is not None:
            values = values[order]
    masks = [_valid(piece, name) for piece in pieces]
    if all(mask is None for mask in masks):
        return Values(values)
    valid = np.concatenate(
        [np.ones(piece.size, np.bool_) if mask is None else mask for piece, mask in zip(pieces, masks, strict=True)]
    )
    return Values(values, valid if order is None else valid[order])


def _read(piece: Piece, name: Field) -> NDArray[Any]:
    """A field that is no text."""
    part, rows = piece.part, piece.rows
    if name is Field.PARTITION:
        return np.full(piece.size, part.partition, np.int32)
    if name is Field.SEQUENCE:
        return _places(piece) + part.first_sequence
    if name is Field.DELTA_MS:
        delta_ms = np.empty(piece.size, np.int64)
        deltas(part.read(Column.LOCAL_US)[rows], part.read(Column.AUTHORITY_MS)[rows], delta_ms)
        return delta_ms
    values: NDArray[Any] = part.read(Column[name.name])[rows]
    if name in (Field.SOURCE, Field.KIND):
        codes = part.sources if name is Field.SOURCE else part.kinds
        known = codes if part.whole else np.append(codes, np.int32(-1))  # place -1 is the last
        named: NDArray[np.int32] = known[values]
        return named
    return values


def _valid(piece: Piece, name: Field) -> NDArray[np.bool_] | None:
    """Where rows have the field; None: all of them."""
    mask: NDArray[np.bool_] | None = None
    if name in _HAS:
        mask = piece.part.read(_HAS[name])[piece.rows] != 0
    elif name in _READABLE and not piece.part.whole:
        mask = piece.part.read(Column.FAULT)[piece.rows] == Fault.NONE
    return None if mask is None or mask.all() else mask


def _places(piece: Piece) -> NDArray[np.int64]:
    rows = piece.rows
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def _texts(chosen: list[tuple[Texts, NDArray[np.int64]]]) -> Texts:
    """Texts at these places, one behind the other."""
    ends = np.zeros(sum(places.size for _, places in chosen) + 1, np.int64)
    starts = np.cumsum([0, *(places.size for _, places in chosen)])
    for (texts, places), start in zip(chosen, starts.tolist(), strict=False):
        text_ends(texts.offsets, places, ends[start : start + places.size + 1])
    if ends[-1] > TEXT_BYTES_MAX:
        raise BadInputError(
            f"{ends[-1]} bytes of texts are more than an answer holds ({TEXT_BYTES_MAX}). Ask for fewer rows"
        )
    content = np.empty(int(ends[-1]), np.uint8)
    for (texts, places), start in zip(chosen, starts.tolist(), strict=False):
        copy_texts(texts.offsets, texts.content, places, ends[start : start + places.size + 1], content)
    return Texts(ends.astype(np.int32), content)
