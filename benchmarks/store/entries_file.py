"""Entries of a partition in a file, in the place of the ledger: what jobs that need entries read, batch by batch.

A batch is a line of numbers (rows, width of a row's texts), the columns of Entries one behind the other, and the keys
and values that they point to. Addresses stand as distances from the first of these.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.columns import Entries, allocate_entries, slice_rows
from schemas.memory import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

_SIZES: Final = struct.Struct("<2q")
#: Nothing is in headers, so their addresses are none.
_POINTERS: Final = ("key_address", "value_address")


class _Batch(NamedTuple):
    """Where one is: its first and last index, and its place in the file."""

    first_index: int
    last_index: int
    place: int


class EntriesFile:
    """One partition's. Written once, then read from any entry on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: list[_Batch] = []

    def append(self, file: BinaryIO, entries: Entries, texts: NDArray[np.uint8]) -> None:
        """A batch whose keys and values all lie in texts, uint8[rows, width]; file: of this path, at its end."""
        base = address_of(texts)
        file.write(_SIZES.pack(*texts.shape))
        near = entries._replace(**{name: getattr(entries, name) - base for name in _POINTERS})
        file.writelines(np.ascontiguousarray(column).data for column in (*near, texts))

    def read(self, first_index: int, last_index: int) -> Iterator[Entries]:
        """Entries first to last, each batch valid until the next."""
        with self._path.open("rb") as file:
            for batch in self._places(file):
                if batch.last_index < first_index:
                    continue
                if batch.first_index > last_index:
                    break
                file.seek(batch.place)
                entries, texts = _read(file)
                start = max(first_index - batch.first_index, 0)
                stop = min(last_index, batch.last_index) + 1 - batch.first_index
                yield slice_rows(entries, start, stop)
                del texts

    def _places(self, file: BinaryIO) -> list[_Batch]:
        """Of all batches, looked up once."""
        if not self._batches:
            entry_bytes = sum(column.nbytes for column in allocate_entries(1))
            place, index = 0, 1
            while (sizes := _at(file, place)) is not None:
                rows, width = sizes
                self._batches.append(_Batch(index, index + rows - 1, place))
                index += rows
                place += _SIZES.size + rows * (entry_bytes + width)
        return self._batches


def _at(file: BinaryIO, place: int) -> tuple[int, int] | None:
    file.seek(place)
    sizes = file.read(_SIZES.size)
    if not sizes:
        return None
    rows, width = _SIZES.unpack(sizes)
    return rows, width


def _read(file: BufferedReader) -> tuple[Entries, NDArray[np.uint8]]:
    """A batch, and what it points into."""
    rows, width = _SIZES.unpack(file.read(_SIZES.size))
    entries = allocate_entries(rows)
    for column in entries:
        file.readinto(column.data)
    texts = np.empty((rows, width), np.uint8)
    file.readinto(texts.data)
    for name in _POINTERS:
        getattr(entries, name)[:] += address_of(texts)
    return entries, texts
