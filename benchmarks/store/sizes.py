"""What a row takes, column by column, in the hot tier and in archives."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import pyarrow.parquet as pq

from benchmarks.store.archive_root import ArchiveRoot
from benchmarks.store.filling import Kept
from benchmarks.store.subjects import folder_bytes
from lifecycle.chunks import ROW_COLUMNS, Column
from lifecycle.hot_store import HotStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Name = TypeVar("Name")

#: What a row of a time series is: the rest is what makes it an entry of a ledger.
_HOT: Final = {
    "sequence": (Column.SEQUENCE,),
    "timestamps": (Column.AUTHORITY_MS, Column.LOCAL_US),
    "source": (Column.SOURCE,),
    "value": (Column.VALUE, Column.HAS_VALUE),
    "ids": (Column.EVENT_ID,),
    "payload": (Column.PAYLOAD,),
}
_ARCHIVED: Final = {
    "sequence": ("sequence",),
    "timestamps": ("authority_timestamp", "local_timestamp"),
    "source": ("source",),
    "value": ("value",),
    "ids": ("event_id",),
    "payload": ("payload",),
}


class Sizes(NamedTuple):
    """Bytes a row. whole: of all files, which have other columns too, statistics and checksums."""

    sequence: float
    timestamps: float
    source: float
    value: float
    ids: float
    payload: float
    whole: float

    @property
    def row(self) -> float:
        """Sequence, both timestamps, source and value."""
        return self.sequence + self.timestamps + self.source + self.value


def hot_sizes(folder: Path) -> Sizes:
    """Of rows that are in chunks."""
    kept = Kept(folder)
    found: Counter[Column] = Counter()
    rows = 0
    with contextlib.closing(HotStore.open_read_only(kept.hot)) as store:
        for partition in store.partitions():
            for line in store.lines(partition):
                rows += line.rows
                for column in ROW_COLUMNS:
                    found[column] += len(store.column(partition, line.first_sequence, column))
    return _sizes(found, _HOT, folder_bytes(kept.hot), rows)


def archive_sizes(root: Path) -> Sizes:
    """Of all files below a root, with their indices."""
    archive = ArchiveRoot(root)
    found: Counter[str] = Counter()
    rows = whole = 0
    for segment in archive.segments():
        whole += segment.size_bytes
        rows += segment.facts.rows
        with archive.files.open_checked(segment.path) as file:
            metadata = pq.ParquetFile(file).metadata
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                column = metadata.row_group(group).column(place)
                found[column.path_in_schema] += column.total_compressed_size
    return _sizes(found, _ARCHIVED, whole, rows)


def _sizes(found: Mapping[Name, int], names: Mapping[str, tuple[Name, ...]], whole: int, rows: int) -> Sizes:
    parts = {name: sum(found[column] for column in columns) / rows for name, columns in names.items()}
    return Sizes(**parts, whole=whole / rows)
