"""Columns of chunks, decoded once for the questions that follow; which are kept, `score_cache` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lifecycle.packing import Texts
from lifecycle.score_cache import ScoreCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.catalog import Chunks
    from lifecycle.chunks import Column
    from lifecycle.planner import Explain

#: Columns that were decoded, kept for the next question: some two million rows of time and value.
COLUMN_BYTES_MAX: Final = 64 * 1024 * 1024
#: Of what is kept, for each column of which only the score is: four for each full one of 64 KiB, at 250 bytes or so.
_BYTES_PER_GHOST: Final = 16 * 1024


class ColumnCache:
    """Of one store. bytes_max: of the columns that are kept."""

    def __init__(self, chunks: Chunks, bytes_max: int) -> None:
        self._chunks = chunks
        self._held: ScoreCache[tuple[int, int, Column], NDArray[Any] | Texts] = ScoreCache(
            bytes_max, bytes_max // _BYTES_PER_GHOST
        )

    def read(self, partition: int, first_sequence: int, column: Column, rows: int, explain: Explain) -> Any:
        """One column of the chunk that begins there and has so many rows; explain is told whether it was read.

        Raises ChunkDamagedError where it is damaged, or not there.
        """
        key = partition, first_sequence, column
        values = self._held.get(key)
        if values is not None:
            explain.cached += 1
            return values
        values, nbytes = self._chunks.column(partition, first_sequence, column, rows)
        explain.bytes_read += nbytes
        explain.columns[column.name.lower()] = explain.columns.get(column.name.lower(), 0) + 1
        self._held.put(key, values, _size(values))
        return values


def _size(values: NDArray[Any] | Texts) -> int:
    return sum(column.nbytes for column in values) if isinstance(values, Texts) else values.nbytes
