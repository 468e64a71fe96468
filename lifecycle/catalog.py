"""The headers of all chunks as columns, so that one pass decides over hundreds of them.

Problem: a question over a day reads thousands of headers, and a Python object for each of their lines would cost more
than reading the rows. So headers are decoded once and laid one behind the other, BLOCK_CHUNKS to a block, names as
codes that hold for all partitions; kernels run over a block at a time.

GUARANTEE blocks that are full are held up to `bytes_max` together, the least recently used given up first and read
again when they are asked for; so the answer does not depend on the bound, only its time. HAZARD the last block of each
partition, which still grows, is held beyond it (some MB at most: BLOCK_CHUNKS headers); so are the names, as many as
the chunks have of different ones. A catalog is of one state of a store: a store that is rebuilt gets a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from lifecycle.chunks import HASH_BYTES, Readings
from lifecycle.packing import Texts
from lifecycle.parts import Part
from lifecycle.query_kernel import Lines, Wanted, bits_of
from lifecycle.sum_kernel import total_of
from schemas.instants import INT64_MAX, INT64_MIN
from streams.corrected_kernel import TO_AUTHORITY
from streams.windows import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from lifecycle.chunks import Column, Header, Read, Rows, Stats
    from lifecycle.planner import Question

#: Chunks of a block: enough that the call of a kernel is nothing to the work in it, few enough to lay out again with
#: each chunk that comes.
BLOCK_CHUNKS: Final = 64
#: Of headers, decoded: about 80 bytes a line, so some three million lines.
HEADER_BYTES_MAX: Final = 256 * 1024 * 1024

_NO_CODES: Final = np.zeros(0, np.int32)


def no_readings() -> Readings:
    """None."""
    numbers, texts = np.zeros(0, np.int64), Texts(np.zeros(1, np.int32), np.zeros(0, np.uint8))
    return Readings(*(numbers,) * 4, numbers.astype(np.uint8), texts, np.zeros((0, HASH_BYTES), np.uint8))


class Unsealed(NamedTuple):
    """Rows of a partition that follow its last chunk, with the names that their codes mean; there may be none.

    readings: of the drift log, among and behind them. before_index, before_sequence: last_index and last_sequence of
    the last chunk.
    """

    rows: Rows
    sources: tuple[bytes, ...]
    kinds: tuple[bytes, ...]
    readings: Callable[[], Readings] = no_readings
    before_index: int = 0
    before_sequence: int = 0


class Chunks(Protocol):
    """Where chunks are kept."""

    def partitions(self) -> Iterable[int]:
        """Those that are held here, ascending."""
        ...

    def unsealed(self, partition: int) -> Unsealed | None:
        """Rows after the last chunk, as they are now; asked for before the headers, so none falls in between."""
        ...

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of chunks that begin at this sequence or later, ascending, at most so many."""
        ...

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """A column of the chunk that begins there and has so many rows; of READINGS: so many of them.

        Raises ChunkDamagedError where it is damaged, or not there.
        """
        ...

    def archived(self, partition: int, first_sequences: NDArray[np.int64]) -> int:
        """How many of the chunks that begin there are read from archives."""
        ...


class Names:
    """Sources or kinds, and the codes they have here."""

    def __init__(self) -> None:
        self._codes: dict[bytes, int] = {}
        self.names: list[bytes] = []

    def code(self, name: bytes) -> int:
        """Of a name; -1 where no row has it."""
        return self._codes.get(name, -1)

    def codes(self, names: Iterable[bytes]) -> NDArray[np.int32]:
        """Of each; new ones get the next."""
        found = []
        for name in names:
            code = self._codes.setdefault(name, len(self.names))
            if code == len(self.names):
                self.names.append(name)
            found.append(code)
        return np.array(found, np.int32)

    def known(self, names: Iterable[bytes]) -> NDArray[np.int32]:
        """Codes of those that have one, ascending."""
        return np.array(sorted({self._codes[name] for name in names if name in self._codes}), np.int32)

    def mask(self, names: Iterable[bytes]) -> NDArray[np.uint8]:
        """1 at the codes of these names."""
        mask = np.zeros(len(self.names), np.uint8)
        mask[self.known(names)] = 1
        return mask


class ChunkNames(NamedTuple):
    """The names of a block's chunks: codes of chunk c at start[c] to start[c + 1] - 1, in the order of its header."""

    start: NDArray[np.int64]
    codes: NDArray[np.int32]

    def of(self, chunk: int) -> NDArray[np.int32]:
        """Codes of a catalog by the codes of the chunk."""
        return self.codes[self.start[chunk] : self.start[chunk + 1]]


#: The numbers of a header that are kept for each chunk.
_NUMBERS: Final = (
    "first_sequence", "last_sequence", "rows", "counted", "authority_ms_min", "authority_ms_max", "order_ms",
    "local_us_min", "local_us_max", "corrected_us_min", "corrected_us_max", "first_index", "last_index", "warned",
    "readings",
)  # fmt: skip


#: What the least and the greatest time of a chunk begin with, by frame.
TIMES: Final = {Frame.LOCAL: "local_us", Frame.AUTHORITY: "authority_ms", Frame.CORRECTED: "corrected_us"}


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive chunks of a partition; numbers: a column for each of the header's, by its name.

    lines: in frame corrected there are none.
    """

    partition: int
    numbers: dict[str, NDArray[np.int64]]
    lines: dict[Frame, Lines]
    sources: ChunkNames
    kinds: ChunkNames

    @property
    def chunks(self) -> int:
        """How many there are."""
        return self.numbers["rows"].size

    @property
    def nbytes(self) -> int:
        """Memory of the columns."""
        local, authority = self.lines[Frame.LOCAL], self.lines[Frame.AUTHORITY]
        columns: tuple[NDArray[Any], ...] = (*local, authority.minute, *self.sources, *self.kinds)
        return sum(column.nbytes for column in columns)

    def part(
        self, chunk: int, frame: Frame, read: Callable[[int, Column, int], Any], unknown: int = TO_AUTHORITY
    ) -> Part:
        """The rows of a chunk, by its place in the block. read: of a chunk's first sequence, column and rows."""
        numbers, lines = self.numbers, self.lines[Frame.LOCAL]
        first, rows = int(numbers["first_sequence"][chunk]), int(numbers["rows"][chunk])
        name = TIMES[frame]
        return Part(
            self.partition,
            first,
            rows,
            rows == numbers["counted"][chunk],
            int(numbers["order_ms"][chunk]),
            int(numbers[f"{name}_min"][chunk]),
            int(numbers[f"{name}_max"][chunk]),
            self.sources.of(chunk),
            self.kinds.of(chunk),
            lambda column: read(first, column, rows),
            rows == lines.values[lines.start[self.chunks] + chunk],
            unknown,
        )


class _Piece(NamedTuple):
    """A header whose lines have codes of the catalog, ascending by source."""

    header: Header
    sources: NDArray[np.int32]
    kinds: NDArray[np.int32]
    columns: tuple[NDArray[Any], ...]  # as Stats, the bits of sums
    total: tuple[NDArray[Any], ...]  # of all lines, from count on; exact only if every line is


@dataclass(slots=True)
class _Place:
    """A block that is full, or will be. low, high: least and greatest time of its rows, by frame.

    warned, readings: how many of either; first_index, last_index: of its entries.
    """

    first_sequence: int
    first_index: int
    last_index: int = 0
    warned: int = 0
    readings: int = 0
    low: dict[Frame, int] = field(default_factory=lambda: dict.fromkeys(Frame, INT64_MAX))
    high: dict[Frame, int] = field(default_factory=lambda: dict.fromkeys(Frame, INT64_MIN))
    chunks: int = 0
    block: Block | None = None


@dataclass(slots=True)
class _Directory:
    """What is known of a partition: its places in order, the pieces of the last one, the sequence after its chunks."""

    places: list[_Place] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)
    next_sequence: int = 1
    order_ms: int = INT64_MIN


class Catalog:
    """The headers of a store."""

    def __init__(self, chunks: Chunks, bytes_max: int = HEADER_BYTES_MAX) -> None:
        self._chunks = chunks
        self._bytes_max = bytes_max
        self.sources, self.kinds = Names(), Names()
        self._directories: dict[int, _Directory] = {}
        #: Full blocks that are held, the least recently used first, and their bytes.
        self._held: dict[int, tuple[_Place, int]] = {}
        self.held_bytes = 0
        self.headers_read = 0

    def refresh(self, partition: int) -> tuple[int, int]:
        """Read the headers of new chunks. Returns the sequence after the last, and the order across partitions there.

        The second is the running maximum of authority_ms, see `streams.order`.
        """
        directory = self._directories.setdefault(partition, _Directory())
        while True:
            headers = self._chunks.headers(partition, directory.next_sequence, BLOCK_CHUNKS)
            self.headers_read += len(headers)
            for header in headers:
                self._append(directory, header)
            if len(headers) < BLOCK_CHUNKS:
                return directory.next_sequence, directory.order_ms

    def blocks(self, partition: int, frame: Frame, low: int, high: int) -> Iterator[Block]:
        """Blocks of a partition that may have rows with times from low to high, in order."""
        directory = self._directories[partition]
        for place in directory.places:
            if place.low[frame] <= high and place.high[frame] >= low:
                yield self._block(partition, directory, place)

    def log_blocks(
        self, partition: int, first: int, last: int, first_ms: int, last_ms: int, *, warned: bool, newest: bool
    ) -> Iterator[Block]:
        """Blocks that may have entries of the drift log, or warnings, with these indexes and authority times.

        All are inclusive; in order, newest: the last first. Readings have any time.
        """
        directory = self._directories[partition]
        for place in directory.places[::-1] if newest else directory.places:
            timed = place.low[Frame.AUTHORITY] <= last_ms and place.high[Frame.AUTHORITY] >= first_ms
            some = timed and place.warned > 0 if warned else timed or place.readings > 0
            if some and place.first_index <= last and place.last_index >= first:
                yield self._block(partition, directory, place)

    def last_index(self, partition: int) -> int:
        """Of the last chunk, 0 where there is none."""
        places = self._directories[partition].places
        return places[-1].last_index if places else 0

    def chunks_in(self, partition: int) -> int:
        """How many chunks a partition has."""
        return sum(place.chunks for place in self._directories[partition].places)

    def wanted(self, question: Question) -> Wanted:
        """The names of a question as codes; those of names that come later are not among them."""
        return Wanted(
            question.sources is not None,
            _NO_CODES if question.sources is None else self.sources.known(question.sources),
            question.kinds is not None,
            self.kinds.mask(question.kinds or ()),
        )

    def _append(self, directory: _Directory, header: Header) -> None:
        if len(directory.pieces) == BLOCK_CHUNKS or not directory.places:
            self._close(directory)
            directory.places.append(_Place(header.first_sequence, header.first_index))
        place = directory.places[-1]
        place.block = None
        place.chunks += 1
        place.last_index = header.last_index
        place.warned += header.warned
        place.readings += header.readings
        for frame, name in TIMES.items():
            _cover(place, frame, getattr(header, f"{name}_min"), getattr(header, f"{name}_max"))
        directory.pieces.append(self._piece(header))
        directory.next_sequence = header.last_sequence + 1
        directory.order_ms = max(header.order_ms, header.authority_ms_max)

    def _close(self, directory: _Directory) -> None:
        """The last block is full: from here on it is held as long as there is room."""
        if directory.places:
            block = directory.places[-1].block or _block(directory.pieces)
            self._hold(directory.places[-1], block)
        directory.pieces = []

    def _block(self, partition: int, directory: _Directory, place: _Place) -> Block:
        if place is directory.places[-1]:
            if place.block is None:
                place.block = _block(directory.pieces)
            return place.block
        if place.block is None:
            headers = self._chunks.headers(partition, place.first_sequence, place.chunks)
            self.headers_read += len(headers)
            block = _block([self._piece(header) for header in headers])
            self._hold(place, block)
            return block
        self._held[id(place)] = self._held.pop(id(place))
        return place.block

    def _hold(self, place: _Place, block: Block) -> None:
        place.block = block
        self._held[id(place)] = place, block.nbytes
        self.held_bytes += block.nbytes
        while self.held_bytes > self._bytes_max:
            oldest, size = self._held.pop(next(iter(self._held)))
            oldest.block = None
            self.held_bytes -= size

    def _piece(self, header: Header) -> _Piece:
        sources, kinds = self.sources.codes(header.sources), self.kinds.codes(header.kinds)
        stats = header.stats
        columns: tuple[NDArray[Any], ...] = (
            sources[stats.source],
            kinds[stats.kind],
            *stats[2:8],
            bits_of(stats.sum),
            stats.exact,
        )
        if np.any(columns[0][1:] < columns[0][:-1]):
            order = np.argsort(columns[0], kind="stable")
            columns = tuple(column[order] for column in columns)
        return _Piece(header, sources, kinds, columns, _total(stats))


def _total(stats: Stats) -> tuple[NDArray[Any], ...]:
    """One line for all."""
    sums = np.zeros((1, stats.sum.shape[1]))
    exact = bool(stats.exact.all()) and total_of(stats.sum, sums)
    return (
        np.array([stats.count.sum()], np.int64),
        np.array([stats.values.sum()], np.int64),
        np.array([np.fmin.reduce(stats.minimum, initial=np.nan)]),
        np.array([np.fmax.reduce(stats.maximum, initial=np.nan)]),
        bits_of(sums),
        np.array([exact], np.uint8),
    )


def _cover(place: _Place, frame: Frame, low: int, high: int) -> None:
    if low <= high:
        place.low[frame] = min(place.low[frame], low)
        place.high[frame] = max(place.high[frame], high)


def _starts(sizes: list[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _block(pieces: list[_Piece]) -> Block:
    """Pieces laid one behind the other."""
    numbers = {name: np.array([getattr(piece.header, name) for piece in pieces], np.int64) for name in _NUMBERS}
    start = _starts([piece.columns[0].size for piece in pieces])
    columns = [np.concatenate(parts) for parts in zip(*(piece.columns for piece in pieces), strict=True)]
    source, kind, local_minute, authority_minute, *rest = columns
    totals = [np.concatenate(parts) for parts in zip(*(piece.total for piece in pieces), strict=True)]
    rest = [np.concatenate(parts) for parts in zip(rest, totals, strict=True)]
    inexact = np.array([not piece.columns[-1].all() for piece in pieces], np.uint8)
    lines = {}
    for frame, place, minutes in ((Frame.LOCAL, 2, local_minute), (Frame.AUTHORITY, 3, authority_minute)):
        name = TIMES[frame]
        low = [piece.columns[place].min(initial=INT64_MAX) for piece in pieces]
        high = [piece.columns[place].max(initial=INT64_MIN) for piece in pieces]
        minute = np.concatenate([minutes, np.array(low, np.int64)])
        lines[frame] = Lines(
            numbers["first_sequence"], numbers["last_sequence"], numbers[f"{name}_min"], numbers[f"{name}_max"],
            np.array(low, np.int64), np.array(high, np.int64), inexact, start, source, kind, minute, *rest,
        )  # fmt: skip
    return Block(
        pieces[0].header.partition,
        numbers,
        lines,
        *(
            ChunkNames(_starts([codes.size for codes in part]), np.concatenate(part))
            for part in ([piece.sources for piece in pieces], [piece.kinds for piece in pieces])
        ),
    )
