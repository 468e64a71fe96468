"""Results of windows as records: columns in, the keys and JSON values of the aggregates topic out.

Problem: a batch can close a hundred thousand windows at once, and each result has a dozen numbers.

    key     DEFINITION/WINDOW_START_US/KEY     KEY: the bytes of the window's key, none where that is null
    value   the fields of schemas/aggregate.v1.avsc as one JSON object, in their order; functions and percentiles that
            the definition does not ask for are absent, near_edge but in frame corrected

GUARANTEE the value is byte for byte what `json.dumps` writes of the same fields, without spaces and with the key's
characters as they are: so numbers read back as the same doubles, and equal results are equal bytes.

How: what is the same in each result of a definition is laid out once, piece by piece between the numbers. One kernel
pass copies pieces and writes numbers (see `json_text`, `float_text`) into memory whose size was bounded before.
"""

from __future__ import annotations

import enum
import json
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.memory import address_of, copy, kernel, store_u8
from streams.float_text import FLOAT_BYTES_MAX, INT_BYTES_MAX, put_float, put_int
from streams.json_text import PIECE_BYTES, TEXT_FACTOR, padded, put_null, put_piece, put_text
from streams.quantiles import RELATIVE_ERROR
from streams.windows import Frame, Function, percentile_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.windows import WindowDefinition


class Method(enum.IntEnum):
    """How the percentiles of a result were found."""

    EXACT = 0
    DDSKETCH = 1
    #: The values fill more bins than a sketch takes, or no sketch was left: there are none.
    NONE = 2


#: Columns of Results.ints. KEY_LENGTH is -1 for the null key; FINAL is 0 or 1; METHOD a Method.
(KEY_ADDRESS, KEY_LENGTH, START_US, END_US, REVISION, FINAL, AT_INDEX, COUNT, VALUES, METHOD, NEAR_EDGE) = range(11)
INT_COLUMNS: Final = 11
#: Columns of Results.floats; the percentiles follow in the order of the definition. NaN or infinite: null.
(SUM, MIN, MAX, MEAN, VARIANCE, FIRST, LAST) = range(7)
FLOAT_COLUMNS: Final = 7

_COLUMN_OF: Final = {
    Function.SUM: SUM,
    Function.MIN: MIN,
    Function.MAX: MAX,
    Function.MEAN: MEAN,
    Function.VARIANCE: VARIANCE,
    Function.FIRST: FIRST,
    Function.LAST: LAST,
}
_ERROR_OF: Final = {Method.EXACT: 0, Method.DDSKETCH: RELATIVE_ERROR, Method.NONE: None}

_BEFORE_INTS: Final = (b',"window_start_us":', b',"window_end_us":', b',"revision":')
_BEFORE_INDEX: Final = (b',"final":false,"at_index":', b',"final":true,"at_index":')
_BEFORE_COUNTS: Final = (b',"count":', b',"values":')
_BEFORE_NEAR: Final = b',"near_edge":'
#: Places of the pieces.
_P_INDEX: Final = len(_BEFORE_INTS)
_P_COUNTS: Final = _P_INDEX + len(_BEFORE_INDEX)
_P_NEAR: Final = _P_COUNTS + len(_BEFORE_COUNTS)
_P_FLOATS: Final = _P_NEAR + 1
#: START_US, END_US, REVISION, AT_INDEX, COUNT, VALUES, NEAR_EDGE.
_INTS: Final = 7

#: A byte of a key is written into the record's key, too.
_KEY_FACTOR: Final = TEXT_FACTOR + 1
_SLASH: Final = ord("/")


class Results(NamedTuple):
    """Results of one definition in one partition: ints int64[n, INT_COLUMNS], floats float64[n, FLOAT_COLUMNS + p].

    p: percentiles of the definition. KEY_ADDRESS points to memory that lives until the results are encoded.
    """

    ints: NDArray[np.int64]
    floats: NDArray[np.float64]


class Encoded(NamedTuple):
    """Keys and values of records, each as an offset into memory and a length: int64[n]."""

    memory: NDArray[np.uint8]
    key_start: NDArray[np.int64]
    key_length: NDArray[np.int64]
    value_start: NDArray[np.int64]
    value_length: NDArray[np.int64]


class _Pieces(NamedTuple):
    """What all results of a definition have in common: addresses and lengths, as the kernel takes them.

    name and head: before the key, in the record's key and in its value. table: pieces of PIECE_BYTES; lengths
    int64[n]: what is used of each. near: whether near_edge is said. columns int64[m]: those of floats that are asked
    for, in their order. ends: address of the three ends, one for each Method; end_lengths int64[3].
    """

    name: int
    name_length: int
    head: int
    head_length: int
    table: int
    lengths: NDArray[np.int64]
    near: bool
    columns: NDArray[np.int64]
    ends: int
    end_lengths: NDArray[np.int64]


class Layout:
    """How the results of one version of a definition are written in one partition; made once, used for each batch."""

    def __init__(self, definition: WindowDefinition, version: int, partition: int) -> None:
        head = _compact(
            {
                "definition": definition.name,
                "version": version,
                "partition": partition,
                "frame": definition.frame,
                "key": None,
            }
        ).removesuffix(b"null}")
        name = f"{definition.name}/".encode()
        columns = [_COLUMN_OF[function] for function in definition.functions if function in _COLUMN_OF]
        before = [b',"%s":' % function.encode() for function in definition.functions if function in _COLUMN_OF]
        opening = b',"percentiles":{'
        for place, percentile in enumerate(definition.percentiles):
            columns.append(FLOAT_COLUMNS + place)
            before.append(b'%s"%s":' % (opening, percentile_text(percentile).encode()))
            opening = b","
        ends = [_end(method) if definition.percentiles else b"}" for method in Method]
        table = [*_BEFORE_INTS, *_BEFORE_INDEX, *_BEFORE_COUNTS, _BEFORE_NEAR, *before]
        pieces = padded(table)
        self._memory = np.frombuffer(pieces + b"".join(ends) + name + head, np.uint8)
        lengths, end_lengths = (np.array([len(piece) for piece in pieces], np.int64) for pieces in (table, ends))
        at = address_of(self._memory)
        at_name = at + len(pieces) + int(end_lengths.sum())
        self.pieces = _Pieces(
            name=at_name,
            name_length=len(name),
            head=at_name + len(name),
            head_length=len(head),
            table=at,
            lengths=lengths,
            near=definition.frame is Frame.CORRECTED,
            columns=np.array(columns, np.int64),
            ends=at + len(pieces),
            end_lengths=end_lengths,
        )
        self.float_columns = FLOAT_COLUMNS + len(definition.percentiles)
        #: Most bytes that a result takes beside its key: of these "null" or its quotes, and the slash before it.
        self.bytes_max = (
            len(name) + INT_BYTES_MAX + 1 + len(head) + 4 + int(lengths.sum()) + _INTS * INT_BYTES_MAX
            + len(columns) * FLOAT_BYTES_MAX + int(end_lengths.max())
        )  # fmt: skip


def encode_results(layout: Layout, results: Results, count: int) -> Encoded:
    """The records of the first count results. Raises ValueError for columns of another shape than the layout's."""
    ints, floats = results
    if (
        ints.shape[1] != INT_COLUMNS
        or floats.shape[1] != layout.float_columns
        or not 0 <= count <= min(len(ints), len(floats))
    ):
        raise ValueError(
            f"{count} results cannot be read from columns of {ints.shape} and {floats.shape}; there must be "
            f"{INT_COLUMNS} integers and {layout.float_columns} floats for each"
        )
    memory = np.empty(_room(layout, results, count), np.uint8)
    places = np.empty((4, count), np.int64)
    _encode(layout.pieces, ints, floats, count, address_of(memory), places)
    return Encoded(memory, places[0], places[1], places[2], places[3])


def _room(layout: Layout, results: Results, count: int) -> int:
    """Bytes that the kernel stays within: the longest texts, and a piece that is copied whole."""
    keys = int(np.maximum(results.ints[:count, KEY_LENGTH], 0).sum())
    return count * layout.bytes_max + keys * _KEY_FACTOR + PIECE_BYTES


def _compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _end(method: Method) -> bytes:
    """Of a value with percentiles, from the brace that closes them."""
    return b"}," + _compact({"method": method.name.lower(), "relative_error": _ERROR_OF[method]})[1:]


@kernel
def _encode(
    pieces: _Pieces,
    ints: NDArray[np.int64],
    floats: NDArray[np.float64],
    count: int,
    memory: int,
    places: NDArray[np.int64],
) -> None:
    """Write count results from memory on; places int64[4, count]: the columns of Encoded."""
    at = memory
    for row in range(count):
        key, key_length = int(ints[row, KEY_ADDRESS]), int(ints[row, KEY_LENGTH])
        start = at
        copy(at, pieces.name, pieces.name_length)
        at = put_int(at + pieces.name_length, int(ints[row, START_US]))
        store_u8(at, _SLASH)
        at += 1
        if key_length > 0:
            copy(at, key, key_length)
            at += key_length
        places[0, row], places[1, row] = start - memory, at - start
        start = at
        copy(at, pieces.head, pieces.head_length)
        at += pieces.head_length
        at = put_null(at) if key_length < 0 else put_text(at, key, key_length)
        for i in range(_P_INDEX):
            at = put_int(put_piece(at, pieces.table, pieces.lengths, i), int(ints[row, START_US + i]))
        final = 1 if ints[row, FINAL] else 0
        at = put_int(put_piece(at, pieces.table, pieces.lengths, _P_INDEX + final), int(ints[row, AT_INDEX]))
        at = put_int(put_piece(at, pieces.table, pieces.lengths, _P_COUNTS), int(ints[row, COUNT]))
        at = put_int(put_piece(at, pieces.table, pieces.lengths, _P_COUNTS + 1), int(ints[row, VALUES]))
        if pieces.near:
            at = put_int(put_piece(at, pieces.table, pieces.lengths, _P_NEAR), int(ints[row, NEAR_EDGE]))
        before, text, length = 0.0, at, 0
        for i in range(pieces.columns.size):
            at = put_piece(at, pieces.table, pieces.lengths, _P_FLOATS + i)
            value = floats[row, pieces.columns[i]]
            if value == before and value != 0:  # of one event sum, least, greatest and percentiles are the same
                copy(at, text, length)
                at += length
            elif math.isfinite(value):
                text = at
                at = put_float(at, value)
                before, length = value, at - text
            else:
                at = put_null(at)
        method = int(ints[row, METHOD])
        end = pieces.ends
        for i in range(method):
            end += int(pieces.end_lengths[i])
        end_length = int(pieces.end_lengths[method])
        copy(at, end, end_length)
        at += end_length
        places[2, row], places[3, row] = start - memory, at - start
