"""Taking the dump of a derive state apart, and tables of names as they stand in one.

names    length of each u16; the names, end to end
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from schemas.faults import MAX_SOURCE_BYTES
from streams import sources
from streams.fold import FoldError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DumpReader:
    """Takes parts off the front of a dump. Raises FoldError where it ends too early."""

    def __init__(self, partition: int, data: bytes) -> None:
        self._partition, self._data, self._at = partition, data, 0

    def take(self, length: int) -> bytes:
        """The next bytes."""
        end = self._at + length
        if end > len(self._data):
            self.refuse(f"it has {len(self._data)} bytes, fewer than it says")
        part, self._at = self._data[self._at : end], end
        return part

    def integers(self, dtype: str, count: int) -> NDArray[np.int64]:
        """So many integers of that type."""
        width = np.dtype(dtype).itemsize
        return np.frombuffer(self.take(count * width), dtype).astype(np.int64)

    def doubles(self, count: int) -> NDArray[np.float64]:
        """So many doubles."""
        return np.frombuffer(self.take(count * np.dtype("<f8").itemsize), "<f8").astype(np.float64)

    def text(self, length: int) -> str:
        """So many bytes of UTF-8."""
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            self.refuse(f"a text of it is not UTF-8: {error}")

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            self.refuse(f"it has {len(self._data)} bytes where its parts say {self._at}")

    def refuse(self, reason: str) -> NoReturn:
        """Raise FoldError."""
        raise FoldError(
            f"not a dump of derive for partition {self._partition}: {reason}. Drop it and fold from an earlier one"
        )


def written_names(table: sources.Sources, slots: NDArray[np.int64]) -> tuple[bytes, bytes]:
    """The lengths and the bytes of the names of those slots."""
    lengths = table.hot[slots, sources.NAME] & ((1 << sources.LENGTH_BITS) - 1)
    starts = table.hot[slots, sources.NAME] >> sources.LENGTH_BITS
    ends = np.cumsum(lengths)
    places = np.arange(int(lengths.sum())) + np.repeat(starts - ends + lengths, lengths)
    return lengths.astype("<u2").tobytes(), table.arena[places].tobytes()


def names_at(reader: DumpReader, count: int) -> sources.Sources:
    """A table of the names that stand next in the dump, in their order."""
    lengths = reader.integers("<u2", count)
    if np.any(lengths > MAX_SOURCE_BYTES):
        reader.refuse("a name of it is too long")
    names = reader.take(int(lengths.sum()))
    ends = np.cumsum(lengths).tolist()
    if len({names[start:end] for start, end in pairwise([0, *ends])}) < count:
        reader.refuse("a name of it is there twice")
    hot = np.zeros((count, sources.HOT_COLUMNS), np.int64)
    return sources.rebuilt(hot, None, lengths, np.frombuffer(names, np.uint8), count)
